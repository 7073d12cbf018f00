"""The handler only records: which signal, when, how often. Everything else happens at a step boundary.

Rejected: saving in the handler (Lightning #21406: it runs between two bytecodes of an optimizer step), and calling
wandb there (measured: hangs after 5 to 175 signals).
"""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpc_resume.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType


@dataclass(frozen=True, slots=True)
class Received:
    """One signal; `at` is time.monotonic()."""

    signum: int
    at: float

    @property
    def name(self) -> str:
        """Without SIG: "USR1"."""
        return signal.Signals(self.signum).name.removeprefix("SIG")


class Recorder:
    """The warnings of this process. `first` is all that a step boundary looks at, and decides the exit code."""

    __slots__ = ("_pid", "_previous", "count", "first", "second")

    def __init__(self) -> None:
        self.first: Received | None = None
        self.second: Received | None = None  # the first one of another number
        self.count = 0
        self._pid = os.getpid()
        self._previous: dict[int, Any] = {}

    def install(self, signums: Iterable[int]) -> None:
        """Take over `signums`; what was there before is called after us.

        Raises UsageError outside the main thread: Python installs handlers nowhere else.
        """
        if threading.current_thread() is not threading.main_thread():
            raise UsageError(
                "a run must start in the main thread, since only there can Python receive the warning. Under"
                " wandb.agent(function=...) the function runs in a thread: start `wandb agent SWEEP` with a script"
                " instead, or open the run (`with hpc_resume.Run()`) in the main thread and train in it"
            )
        wanted = dict.fromkeys(signums)
        for signum in wanted:
            self._previous[signum] = signal.signal(signum, self._record)
        # A mask is inherited over exec: a wrapper that blocks the signal would keep the warning from us for ever.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, wanted)
        _own(self)

    def release(self, *, keep_default: bool) -> None:
        """Put the previous handlers back, where ours are still the ones in place.

        `keep_default`: leave ours where there was none before, so that a late duplicate cannot kill a process that
        is on its way out with its state saved.
        """
        for signum, previous in self._previous.items():
            if previous is None or (keep_default and previous is signal.SIG_DFL):
                continue  # None: set from C, Python cannot put it back
            if signal.getsignal(signum) == self._record:
                signal.signal(signum, previous)
        if not keep_default:
            _own(None)

    def disown(self) -> None:
        """In a forked child: the warning is the parent's; the child reacts as it would without us."""
        for signum, previous in self._previous.items():
            if signal.getsignal(signum) == self._record:
                signal.signal(signum, signal.SIG_DFL if previous is None else previous)
        self.first = self.second = None
        self.count = 0

    def _record(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            return  # a child in the moment between its fork and `disown`
        self.count += 1
        if self.first is None:
            self.first = Received(signum, time.monotonic())
        elif self.second is None and signum != self.first.signum:
            self.second = Received(signum, time.monotonic())
        previous = self._previous.get(signum)
        if callable(previous):
            chained: Callable[[int, FrameType | None], object] = previous
            chained(signum, frame)


_owner: Recorder | None = None  # os.register_at_fork cannot be undone: registered once, it asks who is in charge
_registered = False


def _own(recorder: Recorder | None) -> None:
    global _owner, _registered  # noqa: PLW0603 - dispositions are the process's, so is this
    _owner = recorder
    if not _registered:
        _registered = True
        os.register_at_fork(after_in_child=_after_fork)


def _after_fork() -> None:
    if _owner is not None:
        _owner.disown()
