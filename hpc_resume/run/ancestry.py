"""What is between the launcher and the training: `bash → uv → python`, as the kernel has it at the start."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from hpc_resume.run.process import read_stat

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_DEPTH: Final = 32
_INITS: Final = (0, 1)


def chain(launcher: int | None, look: Callable[[int], tuple[str, int] | None] | None = None) -> tuple[str, ...]:
    """Names from the launcher down to this process, or from where sight ends; without a launcher only its own.

    `look` tells the name and the parent of a pid, None when it cannot be seen.
    """
    look = look or _look
    names: list[str] = []
    pid = os.getpid()
    while len(names) < MAX_DEPTH and (seen := look(pid)) is not None:
        names.append(seen[0])
        if pid == launcher:
            if len(names) > 2 and names[-2] == names[-1]:
                del names[-2]  # the launcher's own second shell, which keeps the exit code
            break
        if seen[1] in _INITS:
            break
        if launcher is None:  # a person's own shell and terminal are not between anything
            break
        pid = seen[1]
    return tuple(reversed(names))


def _look(pid: int) -> tuple[str, int] | None:
    stat = read_stat("self" if pid == os.getpid() else pid)
    return (stat.name, stat.parent) if stat else None
