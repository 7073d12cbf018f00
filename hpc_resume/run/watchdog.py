"""A thread that hears a warning at once, also while the main thread is stuck, and sees that the process leaves in time.

Python's C handler writes each signal's number to the wake-up descriptor at the moment it arrives; our Python handler
runs only when the main thread comes back to the interpreter. What this cannot help against is C code that keeps the
GIL for itself: then the launcher sees that nobody acknowledged, and Slurm ends the process.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
import threading
import time
from typing import TYPE_CHECKING, Final, Protocol

from hpc_resume.run.deadline import assumed, read_told, times
from hpc_resume.run.process import pid_namespace
from hpc_resume.run.signals import Received

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hpc_resume.run.deadline import Times, Told
    from hpc_resume.run.environment import Environment
    from hpc_resume.run.signals import Recorder

PATIENCE: Final = 1.0  # seconds that a training which has not begun gets to come to a boundary by itself
RE_READ: Final = 1.0  # seconds between two looks at the launcher's word while a warning is being dealt with
_WAKE: Final = b"\0"  # no signal has the number 0


class Charge(Protocol):
    """What is watched over: the start-up, and later the attempt."""

    environment: Environment
    passed: float  # time.monotonic() of the last boundary
    begun: bool  # whether there has been a step
    patience: float  # seconds to come to a boundary when it has not

    @property
    def warning_file(self) -> Path | None:
        """Where the launcher says when the end comes; None without a launcher."""

    @property
    def launcher_ns(self) -> int:
        """The PID namespace of the launcher, 0 when unknown."""

    def note(self, event: str, **data: object) -> None:
        """Record an event."""

    def heard(self, received: Received) -> None:
        """A warning of this number has come for the first time. In any thread."""

    def slow(self, seconds: float) -> None:
        """No boundary for `seconds`, longer than the lead; told once."""

    def take_over(self, received: Received, hard_at: float) -> None:
        """In a thread of its own: leave, before `hard_at` (epoch seconds)."""

    def leave_hard(self, received: Received) -> None:
        """The time is over, whatever the main thread is at: the process must end now."""


class Watchdog:
    """One thread of one process. Started and closed in the main thread."""

    def __init__(self, recorder: Recorder, charge: Charge) -> None:
        self._recorder = recorder
        self._charge = charge
        self.unclaimed: Callable[[Received], None] | None = None  # told of one that came to a handler put over ours
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._claim = threading.Lock()
        self._heard: list[Received] = []
        self._said_slow = False
        self._closing = False
        self._chained: tuple[int, tuple[int, int]] | None = None
        self._read_end, self._write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="hpc_resume-watchdog", daemon=True)

    def start(self, charge: Charge) -> None:
        """Listen, or go on listening for another charge. Without a thread to be had it is said and done without."""
        self._charge = charge
        if self._thread.is_alive():
            self.wake()
            return
        try:
            self._thread.start()
        except RuntimeError as error:
            charge.note("watchdog_error", error=str(error))
        self.listen()
        _guard(self)
        if self._recorder.first is not None:  # before there was anybody to hear it
            self.hear(self._recorder.first)
            self.wake()

    def listen(self) -> bool:
        """Have the wake-up descriptor; whoever has it now (asyncio) gets what we read. True when it was not ours."""
        before = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        if before == self._write_end:
            return False
        self._chained = _identified(before)
        return True

    def wake(self) -> None:
        """Look again now."""
        with contextlib.suppress(OSError):
            os.write(self._write_end, _WAKE)

    def close(self) -> None:
        """No more watching; the wake-up descriptor goes back to whoever had it."""
        if os.getpid() != self._pid or self._closing:
            return
        self._closing = True
        self.wake()
        if self._thread.is_alive():
            self._thread.join(2.0)
        there = signal.set_wakeup_fd(-1)
        if there != self._write_end:
            signal.set_wakeup_fd(there)
        elif self._chained is not None and _identified(self._chained[0]) == self._chained:
            signal.set_wakeup_fd(self._chained[0])
        _guard(None)
        if not self._thread.is_alive():
            os.close(self._read_end)
            os.close(self._write_end)

    def hear(self, received: Received) -> None:
        """Record a signal once per number, whoever saw it first: this thread, or the main one at a boundary."""
        with self._lock:
            if any(known.signum == received.signum for known in self._heard):
                return
            self._heard.append(received)
            self._charge.note("received", signal=received.name)
        self._charge.heard(received)

    def claim(self) -> bool:
        """Who leaves, this thread or the main one: True for the first that asks."""
        return self._claim.acquire(blocking=False)

    def left(self) -> float | None:
        """Seconds until this process must be gone; None when nothing says so, or nothing was received."""
        first = self._recorder.first or (self._heard[0] if self._heard else None)
        end = self._times(first) if first is not None else None
        return max(0.0, end.hard_at - time.time()) if end is not None else None

    # --- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._read_end, select.POLLIN)
        while not self._closing:
            timeout = self._timeout()
            try:
                ready = poll.poll(None if timeout is None else max(0, int(timeout * 1000) + 1))
                if ready:
                    self._read()
                if not self._closing:
                    self._look()
            except Exception as error:  # noqa: BLE001 - a watchdog that dies of its own is none
                self._charge.note("watchdog_error", error=f"{type(error).__name__}: {error}")
                time.sleep(0.1)

    def _timeout(self) -> float | None:
        charge = self._charge
        if self._heard:
            end = self._times(self._heard[0])
            if end is None and charge.begun:
                return RE_READ
            now = time.time()
            due = [self._heard[0].t + charge.patience] if not charge.begun else []
            due += [end.leave_at, end.hard_at] if end is not None else []
            return min([RE_READ, *(moment - now for moment in due if moment > now)])
        if self._is_elsewhere():
            return RE_READ
        lead = charge.environment.lead
        return lead / 4 if lead and not self._said_slow else None

    def _read(self) -> None:
        data = os.read(self._read_end, 4096)
        signals = data.replace(_WAKE, b"")
        if signals and self._chained is not None:
            if _identified(self._chained[0]) == self._chained:
                with contextlib.suppress(OSError):
                    os.write(self._chained[0], signals)
            else:
                self._chained = None  # closed since, and perhaps somebody's file by now
        for signum in dict.fromkeys(signals):
            if self._recorder.is_in_place(signum):
                self.hear(Received(signum, time.monotonic()))
            elif self.unclaimed is not None and signum in self._recorder.signums:
                self.unclaimed(Received(signum, time.monotonic()))

    def _look(self) -> None:
        if not self._heard:
            self._look_around()
            return
        first = self._heard[0]
        charge, now, end = self._charge, time.time(), self._times(self._heard[0])
        if end is not None and now >= end.hard_at:
            charge.leave_hard(first)
        late = end is not None and now >= end.leave_at
        if (late or (not charge.begun and now >= first.t + charge.patience)) and self.claim():
            hard_at = end.hard_at if end is not None else now + 5.0
            threading.Thread(
                target=charge.take_over, args=(first, hard_at), name="hpc_resume-leave", daemon=True
            ).start()

    def _look_around(self) -> None:
        """Nothing was received: this process may be slow, or out of the launcher's reach."""
        charge, lead = self._charge, self._charge.environment.lead
        silent = time.monotonic() - charge.passed
        if charge.begun and lead and silent > lead and not self._said_slow:
            self._said_slow = True
            charge.slow(silent)
        if self._is_elsewhere() and (told := self._read_told()) is not None:
            name = f"SIG{told.signal}"
            if name in signal.Signals.__members__:
                os.kill(os.getpid(), signal.Signals[name])  # from inside: nobody outside could

    def _is_elsewhere(self) -> bool:
        launcher = self._charge.launcher_ns
        return launcher != 0 and launcher != pid_namespace()

    def _times(self, first: Received) -> Times | None:
        """By the launcher's word where there is one; a second, different signal can only make it shorter."""
        told = self._read_told()
        if told is not None:
            return times(first.t, told.deadline)
        known = [assumed(one.signum, one.t, self._charge.environment) for one in self._heard or [first]]
        deadlines = [deadline for deadline in known if deadline is not None]
        return times(first.t, min(deadlines)) if deadlines else None

    def _read_told(self) -> Told | None:
        path = self._charge.warning_file
        return read_told(path) if path is not None else None


def _identified(descriptor: int) -> tuple[int, tuple[int, int]] | None:
    """A descriptor and what is behind it, if that is something that signals are written to."""
    if descriptor < 0:
        return None
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    if not (stat.S_ISSOCK(status.st_mode) or stat.S_ISFIFO(status.st_mode)):
        return None
    return descriptor, (status.st_dev, status.st_ino)


_on_guard: Watchdog | None = None
_registered = False


def _guard(watchdog: Watchdog | None) -> None:
    """A forked child has no such thread, and must not write its own signals to our pipe."""
    global _on_guard, _registered  # noqa: PLW0603 - the wake-up descriptor is the process's, so is this
    _on_guard = watchdog
    if not _registered:
        _registered = True
        os.register_at_fork(after_in_child=_after_fork)


def _after_fork() -> None:
    global _on_guard  # noqa: PLW0603 - as above
    if _on_guard is not None:
        _on_guard = None
        with contextlib.suppress(ValueError):
            signal.set_wakeup_fd(-1)
