"""From the first line of a process to its run: the handlers and the PID record are there before the user's imports.

There is nothing to save yet, so a warning means: leave at once, resumable. A run that is opened later in the same
process takes the recorder, the watchdog and the events file over.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpc_resume.durable import write_json
from hpc_resume.run.announce import announce
from hpc_resume.run.ending import Stopped, judge
from hpc_resume.run.environment import read_environment
from hpc_resume.run.events import EventLog, say
from hpc_resume.run.process import host_name
from hpc_resume.run.rundir import AttemptDir, RunDir
from hpc_resume.run.signals import Recorder, name_of
from hpc_resume.run.takeover import bounded, exit_now
from hpc_resume.run.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hpc_resume.run.environment import Environment
    from hpc_resume.run.signals import Received


@dataclass(frozen=True, slots=True)
class Early:
    """What a run that opens later takes over."""

    recorder: Recorder
    watchdog: Watchdog
    charge: StartUp
    events: EventLog | None
    pid: int


_early: Early | None = None


def begin(variables: Mapping[str, str]) -> None:
    """Install and announce. Under a launcher, on the main thread, once.

    Raises HpcResumeError where a run could not start either; the run will say it.
    """
    global _early  # noqa: PLW0603 - handlers are the process's, so is this
    environment = read_environment(variables)
    recorder = Recorder()
    charge = StartUp(environment, recorder)
    watchdog = Watchdog(recorder, charge)
    recorder.install((environment.signum, signal.SIGTERM))
    if environment.attempt_dir is not None:
        charge.events = announce(environment, AttemptDir(environment.attempt_dir), opened=False)
    watchdog.unclaimed = charge.leave_alone
    watchdog.start(charge)
    _early = Early(recorder, watchdog, charge, charge.events, os.getpid())


def end_without_a_run(code: int) -> None:
    """The command has ended; if it never opened a run, the ranks that wait for it are told."""
    if _early is not None and _early.pid == os.getpid():
        _early.charge.depart(0, code, f"it ended with code {code}")


def recorder() -> Recorder | None:
    """The start-up's, for the first run that opens in this very process."""
    return _early.recorder if _early is not None and _early.pid == os.getpid() else None


def watchdog(recorder: Recorder) -> Watchdog | None:
    """The one that goes with `recorder`; from here on it is the run's, and a second run gets its own."""
    global _early
    if _early is None or _early.recorder is not recorder:
        return None
    taken, left_alone, _early = _early.watchdog, _early.charge.left_alone, None
    taken.unclaimed = None
    if recorder.first is None:
        recorder.first = left_alone
    return taken


def events(recorder: Recorder) -> EventLog | None:
    """The events file that goes with `recorder`: its PID record is written already."""
    return _early.events if _early is not None and _early.recorder is recorder else None


class StartUp:
    """The watchdog's charge until a run opens."""

    begun = False
    patience = 0.0
    events: EventLog | None = None
    left_alone: Received | None = None  # the first warning that went to a handler of the program's own

    def __init__(self, environment: Environment, recorder: Recorder) -> None:
        self.environment = environment
        self.passed = time.monotonic()
        self._recorder = recorder

    @property
    def warning_file(self) -> Path | None:
        """The launcher's."""
        directory = self.environment.attempt_dir
        return AttemptDir(directory).warning_file if directory is not None else None

    @property
    def launcher_ns(self) -> int:
        """As attempt.json says."""
        directory = self.environment.attempt_dir
        record = AttemptDir(directory).attempt() if directory is not None else None
        return record.process.pid_ns if record is not None else 0

    def note(self, event: str, **data: object) -> None:
        """Into the events file, where there is one."""
        if self.events is not None:
            self.events.write(event, **data)

    def heard(self, received: Received) -> None:
        """Nobody has come together yet."""

    def leave_alone(self, received: Received) -> None:
        """The program has put a handler of its own over ours: its affair. A run that opens later leaves for it."""
        if self.left_alone is None:
            self.left_alone = received
            self.note("received", signal=received.name, by=name_of(signal.getsignal(received.signum)))

    def slow(self, seconds: float) -> None:
        """Nothing has begun, so nothing is slow."""

    def take_over(self, received: Received, hard_at: float) -> None:
        """Leave at once, unless another process has announced itself in our place: then ours was only its starter."""
        if self._is_succeeded():
            self._stand_down(received)
            return
        step = self._published()
        said = (
            f"SIG{received.name} before there was a run: nothing to save, leaving at once; it goes on from step {step}"
        )
        bounded(lambda: say(said), 0.5)
        self.depart(received.signum, 0, f"SIG{received.name} before there was a run")
        ending = judge(Stopped(received.signum, step), {})
        self.note(ending.outcome, step=step, saved=step, code=ending.code)
        if self.environment.attempt_dir is not None and self.environment.rank == 0:
            file = AttemptDir(self.environment.attempt_dir).outcome_file
            bounded(lambda: write_json(file, ending.record(step)), max(0.2, (hard_at - time.time()) / 2))
        exit_now(ending.code)

    def leave_hard(self, received: Received) -> None:
        """As `take_over`, with no time for words."""
        if not self._is_succeeded():
            exit_now(128 + received.signum)

    def depart(self, signum: int, code: int, words: str) -> None:
        """Leave word for the other ranks, which would wait for this one."""
        environment = self.environment
        if environment.attempt_dir is None or not environment.is_many:
            return
        from hpc_resume.run.ranks.rendezvous import Departure, note_departure  # noqa: PLC0415 - one rank has no need

        def note(directory: Path) -> None:
            note_departure(directory, Departure(environment.rank, signum, code, words))

        bounded(lambda: note(AttemptDir(environment.attempt_dir or Path()).departures_dir), 1.0)

    def _published(self) -> int:
        directory = self.environment.run_dir
        return (RunDir(directory).latest_step() or 0) if directory is not None else 0

    def _is_succeeded(self) -> bool:
        """Whether the PID record of our rank names another process by now: a subprocess that trains."""
        directory = self.environment.attempt_dir
        if directory is None:
            return False
        with contextlib.suppress(Exception):
            return any(
                record.rank == self.environment.rank and record.process.pid != os.getpid()
                for record in AttemptDir(directory).pids()
                if record.process.host == host_name()
            )
        return False

    def _stand_down(self, received: Received) -> None:
        """React as if we were not here: by the system's default, which ends the process. Any thread may send it."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [received.signum])
        say(f"SIG{received.name} reached the process that started the training, which is another: it ends by it")
        os._exit(128 + received.signum)
