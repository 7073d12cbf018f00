"""Signals as ordinary input: each one becomes a number that the loop reads when it is ready for it.

A handler that does work would run between any two lines of the loop. Here it does nothing: the interpreter itself
writes the number into a socket (signal.set_wakeup_fd), and `wait` reads it.
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
from collections.abc import Callable, Iterable
from types import FrameType, TracebackType
from typing import Self

Handler = Callable[[int, FrameType | None], object] | int | None


class Inbox:
    """Takes over `numbers` while it is entered; afterwards they are as before. Main thread only.

    A SIGHUP that is ignored stays so: `nohup` has been asked to outlive the terminal.
    """

    def __init__(self, numbers: Iterable[signal.Signals]) -> None:
        self._numbers = frozenset(numbers)
        self._before: dict[int, Handler] = {}
        self._read, self._write = socket.socketpair()

    def __enter__(self) -> Self:
        self._read.setblocking(False)
        self._write.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        for number in self._numbers:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, _note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._wakeup)
        self._read.close()
        self._write.close()

    def wait(self, seconds: float) -> tuple[int, ...]:
        """The signals that have come, oldest first; waits up to `seconds` for the first."""
        ready, _, _ = select.select([self._read], [], [], max(0.0, seconds))
        if not ready:
            return ()
        with contextlib.suppress(BlockingIOError):
            return tuple(number for number in self._read.recv(4096) if number in self._numbers)
        return ()


def _note(_number: int, _frame: FrameType | None) -> None:
    """The number is in the socket already."""
