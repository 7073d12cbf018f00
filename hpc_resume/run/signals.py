"""The handler only records: which signal, when, how often. Everything else happens at a step boundary.

Rejected: saving in the handler (Lightning #21406: it runs between two bytecodes of an optimizer step), and calling
wandb there (measured: hangs after 5 to 175 signals).
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hpc_resume.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType


@dataclass(frozen=True, slots=True)
class Received:
    """One signal; `at` is time.monotonic(), `t` the same moment in epoch seconds."""

    signum: int
    at: float
    t: float = field(default_factory=time.time)

    @property
    def name(self) -> str:
        """Without SIG: "USR1"."""
        return signal.Signals(self.signum).name.removeprefix("SIG")


class Recorder:
    """The warnings of this process. `first` is all that a step boundary looks at, and decides the exit code."""

    __slots__ = ("_in_chain", "_pid", "_previous", "count", "first", "second")

    def __init__(self) -> None:
        self.first: Received | None = None
        self.second: Received | None = None  # the first one of another number
        self.count = 0
        self._pid = os.getpid()
        self._previous: dict[int, Any] = {}
        self._in_chain: set[int] = set()

    @property
    def signums(self) -> tuple[int, ...]:
        """What was taken over."""
        return tuple(self._previous)

    def install(self, signums: Iterable[int]) -> None:
        """Take over `signums`; what was there before is called after us. Those that are ours already stay so.

        Raises UsageError outside the main thread: Python installs handlers nowhere else.
        """
        if threading.current_thread() is not threading.main_thread():
            raise UsageError(
                "a run must start in the main thread, since only there can Python receive the warning. Under"
                " wandb.agent(function=...) the function runs in a thread: name a script as `program` in the"
                " sweep and start `hpc-resume agent entity/project/id`, or open the run (`with hpc_resume.Run()`)"
                " in the main thread and train in it"
            )
        wanted = [signum for signum in dict.fromkeys(signums) if signum not in self._previous]
        for signum in wanted:
            self._previous[signum] = signal.signal(signum, self._record)
        # A mask is inherited over exec: a wrapper that blocks the signal would keep the warning from us for ever.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, wanted)
        _own(self)
        # Registered now, it runs after the atexit functions of everything that the training imports later.
        atexit.unregister(self._deafen)
        atexit.register(self._deafen)

    def is_in_place(self, signum: int) -> bool:
        """Whether our handler still is the one that Python would call; from any thread."""
        return signum in self._previous and signal.getsignal(signum) == self._record

    def reclaim(self) -> list[tuple[int, str]]:
        """Take back what others have taken over since, and call them after us: (signal, who it was) for each.

        In the main thread only. Without it a library that installs its own handler late would keep the warning.
        """
        found = []
        for signum in self._previous:
            there = signal.getsignal(signum)
            if there == self._record:
                continue
            found.append((signum, name_of(there)))
            self._previous[signum] = there
            signal.signal(signum, self._record)
        return found

    def release(self, *, leaving: bool) -> None:
        """Put the previous handlers back, where ours are still the ones in place.

        `leaving`: the process is on its way out after a warning. Ours then stay where there was none before: a late
        duplicate must not kill it.
        """
        for signum, previous in self._previous.items():
            if previous is None or (leaving and previous is signal.SIG_DFL):
                continue  # None: set from C, Python cannot put it back
            if signal.getsignal(signum) == self._record:
                signal.signal(signum, previous)
        if not leaving:
            _own(None)
            atexit.unregister(self._deafen)

    def disown(self) -> None:
        """In a forked child: the warning is the parent's; the child reacts as it would without us."""
        for signum, previous in self._previous.items():
            if signal.getsignal(signum) == self._record:
                signal.signal(signum, signal.SIG_DFL if previous is None else previous)
        self.first = self.second = None
        self.count = 0

    def _deafen(self) -> None:
        """Python gives handlers of its own back to the system before it tears down its modules, which takes a while.

        Measured: a duplicate in that time killed the process. What is ignored stays ignored; earlier it would be
        inherited by the programs that atexit functions start.
        """
        for signum, previous in self._previous.items():
            if previous is signal.SIG_DFL and os.getpid() == self._pid and signal.getsignal(signum) == self._record:
                signal.signal(signum, signal.SIG_IGN)

    def _record(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            return  # a child in the moment between its fork and `disown`
        if signum in self._in_chain:
            return  # one that was chained calls us in turn
        self.count += 1
        if self.first is None:
            self.first = Received(signum, time.monotonic())
        elif self.second is None and signum != self.first.signum:
            self.second = Received(signum, time.monotonic())
        previous = self._previous.get(signum)
        if callable(previous):
            chained: Callable[[int, FrameType | None], object] = previous
            self._in_chain.add(signum)
            try:
                chained(signum, frame)
            finally:
                self._in_chain.discard(signum)


def name_of(handler: object) -> str:
    """Who a handler is, as a person would look for it: module.qualname, or the system's word."""
    if handler is None:
        return "one that was not installed by Python"
    if handler is signal.SIG_DFL:
        return "the system's default"
    if handler is signal.SIG_IGN:
        return "`ignore`"
    module = getattr(handler, "__module__", None) or type(handler).__module__
    name = getattr(handler, "__qualname__", None) or type(handler).__qualname__
    return f"{module}.{name}"


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
