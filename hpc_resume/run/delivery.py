"""A signal for exactly the process that was recorded: held by a pidfd, recognised, then signalled; else nobody.

Between looking at a pid and kill(2) the number can become somebody else's. A pidfd is opened first and cannot.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from hpc_resume.run.process import boot_id, find_outside, host_name, identify, pid_namespace, read_stat

if TYPE_CHECKING:
    from hpc_resume.run.process import Identity


def send_signal(target: Identity, signum: int) -> bool:
    """Signal `target` if it still is that process on this very boot of this host; whether it was signalled.

    Raises PermissionError when it belongs to somebody else.
    """
    if target.pid <= 0 or target.boot_id != boot_id():
        return False  # 0 and negative numbers are groups to kill(2)
    inside = target.pid_ns not in (0, pid_namespace())
    if not inside and target.host != host_name():
        return False
    pid = find_outside(target) if inside else target.pid
    if pid is None:
        return False
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    except (OSError, AttributeError):  # a kernel before 5.3: what is left is to look right before
        return _is_still(target, pid, inside=inside) and _kill(pid, signum)
    try:
        if not _is_still(target, pid, inside=inside):
            return False
        signal.pidfd_send_signal(descriptor, signum)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def _is_still(target: Identity, pid: int, *, inside: bool) -> bool:
    if not inside:
        return target.is_same(identify(pid))
    stat = read_stat(pid)
    return stat is not None and stat.start_ticks == target.start_ticks


def _kill(pid: int, signum: int) -> bool:
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return False
    return True
