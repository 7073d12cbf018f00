"""One process at a time continues a run: a POSIX record lock on run.lock, held for the life of the run.

The kernel gives it back when the process ends, however it ends, and a forked child does not have it. Promised on one
host and where the file system carries fcntl locks; not promised on mounts that keep locks local to a node.
Never open run.lock elsewhere in the same process: closing any descriptor of it would drop the lock (POSIX).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import TYPE_CHECKING, Final

from hpc_resume.durable import FILE_MODE

if TYPE_CHECKING:
    from pathlib import Path

_HELD: Final = (errno.EACCES, errno.EAGAIN)
_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class Lease:
    """`enforced` is False where the file system has no locks: then nobody is kept out."""

    def __init__(self, descriptor: int, *, enforced: bool) -> None:
        self._descriptor = descriptor
        self.enforced = enforced

    def release(self) -> None:
        """Give it back; the next one may continue the run."""
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
        self._descriptor = -1


def take(path: Path) -> Lease | None:
    """The run's lease, or None while another process holds it. Raises OSError when `path` cannot be opened."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return Lease(descriptor, enforced=False)
        os.close(descriptor)
        if error.errno in _HELD:
            return None
        raise
    return Lease(descriptor, enforced=True)
