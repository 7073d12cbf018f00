"""The processes that an agent has started, whoever their parents are by now: found, and ended to the last one."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpc_resume.run.delivery import send_signal
from hpc_resume.run.process import identify, read_stat

if TYPE_CHECKING:
    from collections.abc import Callable

    from hpc_resume.run.process import Identity

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_PR_SET_CHILD_SUBREAPER: Final = 36


def die_with_parent(signum: int) -> None:
    """Get `signum` when the thread that has started this process is gone; at once when it is gone already."""
    parent = os.getppid()
    _prctl(_PR_SET_PDEATHSIG, signum)
    if os.getppid() != parent:
        os.kill(os.getpid(), signum)


def adopt_orphans() -> bool:
    """From now on a descendant whose parent dies becomes a child of this process; False where that cannot be had."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> bool:
    with suppress(OSError, AttributeError):
        return bool(ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) == 0)
    return False


def children(pid: int) -> list[int]:
    """The children of `pid`, of all its threads."""
    found: list[int] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found.extend(int(word) for word in (thread / "children").read_text().split())
    return found


def descendants(pid: int) -> list[Identity]:
    """All that live below `pid`, parents before children; a process that has ended is none."""
    found: list[Identity] = []
    for child in children(pid):
        identity = identify(child)
        if identity is not None:
            found.append(identity)
        found.extend(descendants(child))
    return found


def environment_of(pid: int) -> dict[str, str]:
    """What `pid` was started with; empty when it is gone."""
    with suppress(OSError):
        text = Path(f"/proc/{pid}/environ").read_bytes().decode("utf-8", "surrogateescape")
        return dict(line.split("=", 1) for line in text.split("\0") if "=" in line)
    return {}


def catches(pid: int, signum: int) -> bool:
    """Whether `pid` has a handler for `signum` (SigCgt of proc(5))."""
    with suppress(OSError, ValueError, IndexError):
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
        mask = int(text.split("SigCgt:", 1)[1].split()[0], 16)
        return bool(mask >> (signum - 1) & 1)
    return False


def reap() -> None:
    """Bury the children that others have left to us, and no one that somebody waits for."""
    for pid in children(os.getpid()):
        stat = read_stat(pid)
        if stat is not None and stat.state == "Z" and pid not in _waited_for:
            with suppress(OSError):
                os.waitpid(pid, os.WNOHANG)


_waited_for: set[int] = set()


def wait_for(pid: int) -> None:
    """`pid` is a subprocess.Popen's: its exit code is not for `reap`."""
    _waited_for.add(pid)


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds before each step of `end_all`: ending by themselves, after a TERM, after a KILL."""

    itself: float = 10.0
    term: float = 20.0
    kill: float = 5.0


def end_all(patience: Patience, tell: Callable[[str], None]) -> list[Identity]:
    """Nobody that this process has started outlives this call; whoever does all the same is returned.

    wandb-core takes a moment to send what is left; another one is told, and ended.
    """
    if not _await_none(patience.itself):
        tell(f"ends what the agent has left behind: {names(descendants(os.getpid()))}")
        for signum, seconds in ((signal.SIGTERM, patience.term), (signal.SIGKILL, patience.kill)):
            for one in descendants(os.getpid()):
                send_signal(one, signum)
            if _await_none(seconds):
                break
    return descendants(os.getpid())


def _await_none(seconds: float) -> bool:
    until = time.monotonic() + seconds
    while True:
        reap()
        if not descendants(os.getpid()):
            return True
        if time.monotonic() > until:
            return False
        time.sleep(0.05)


def names(identities: list[Identity]) -> str:
    """For people: "python (12), wandb-core (13)"."""
    found = [(one.pid, read_stat(one.pid)) for one in identities]
    return ", ".join(f"{stat.name if stat else '?'} ({pid})" for pid, stat in found)
