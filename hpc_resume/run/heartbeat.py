"""The heartbeat of a lease: a small process of its own, so that a training which is stopped or stuck still shows life.

`python -I -S heartbeat.py FILE GENERATION PERIOD OWNER TICKS` replaces FILE every PERIOD seconds for as long as the
process OWNER (its parent, started at TICKS) lives, and says in it when that has died or has given the lease back
(a line on standard input). It imports nothing of this package: it costs 10 ms to start and 8 MB.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path


class Heart:
    """Writes the signs of life of one owner."""

    def __init__(self, file: Path, generation: int, period: float) -> None:
        self._file = file
        self._record: dict[str, object] = {"version": 1, "generation": generation, "period": period}
        self._draft = file.with_name(f".{file.name}.tmp.{os.getpid()}")
        self._count = 0

    def beat(self, released: str = "") -> None:
        """Change the content; `released` says why there is no owner any more. A full disk is tried again."""
        self._count += 1
        record = self._record | {"beat": self._count} | ({"released": released} if released else {})
        with suppress(OSError):
            descriptor = os.open(self._draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            try:
                os.write(descriptor, (json.dumps(record) + "\n").encode())
            finally:
                os.close(descriptor)
            self._draft.replace(self._file)


def start_ticks(pid: int) -> int:
    """Field 22 of proc(5); 0 when the process is gone."""
    with suppress(OSError, ValueError, IndexError):
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = text[text.rindex(")") + 2 :].split()
        return 0 if fields[0] in "ZXx" else int(fields[19])
    return 0


def watch(heart: Heart, period: float, owner: int, ticks: int) -> str:
    """Beat until there is no owner; why."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    handle = -1
    with suppress(OSError, AttributeError):  # before Linux 5.3 the owner is asked after at every turn
        handle = os.pidfd_open(owner)
        poll.register(handle, select.POLLIN)
    due = time.monotonic()
    while True:
        if ticks and start_ticks(owner) != ticks:
            return "died"
        if time.monotonic() >= due:
            heart.beat()
            due = time.monotonic() + period
        wait = max(0.0, due - time.monotonic())
        for descriptor, _ in poll.poll(int(1000 * (wait if handle >= 0 else min(wait, 0.5))) + 1):
            if descriptor == handle:
                return "died"
            if os.read(0, 64):
                return "given back"
            poll.unregister(0)  # closed without a word: a fork of the owner may hold it open, so it says nothing


def main(words: list[str]) -> None:
    """Beat for the owner that `words` name."""
    for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
        with suppress(OSError, ValueError):
            signal.signal(signum, signal.SIG_IGN)  # what warns or stops the training must not end its sign of life
    with suppress(OSError):
        Path("/proc/self/comm").write_text("hpc-heartbeat", encoding="ascii")
    file, generation, period, owner, ticks = words
    heart = Heart(Path(file), int(generation), float(period))
    heart.beat(watch(heart, float(period), int(owner), int(ticks)))


if __name__ == "__main__":
    main(sys.argv[1:])
