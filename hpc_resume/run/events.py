"""Two ways of telling: a line in this process's events file for programs, a line on stderr for people."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from typing import TYPE_CHECKING

from hpc_resume.durable import FILE_MODE

if TYPE_CHECKING:
    from pathlib import Path


def say(text: str) -> None:
    """One line on stderr; a closed stderr is no reason to stop training."""
    with contextlib.suppress(OSError, ValueError):
        print(f"hpc_resume: {text}", file=sys.stderr, flush=True)


class EventLog:
    """Appends to `events/<host>.<pid>.jsonl`: one writer each, one write a line (appends over NFS are not atomic)."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, FILE_MODE)

    def write(self, event: str, **data: object) -> None:
        """Record `event`; on a full disk it is lost, the training is not."""
        line = json.dumps({"t": round(time.time(), 6), "event": event, **data}) + "\n"
        with contextlib.suppress(OSError):
            os.write(self._descriptor, line.encode())

    def close(self) -> None:
        """Nothing is written after it."""
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
        self._descriptor = -1
