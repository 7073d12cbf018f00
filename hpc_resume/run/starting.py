"""The start of an attempt: everything that it needs, in the one order in which no warning is lost."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING

from hpc_resume.errors import UsageError
from hpc_resume.run import early
from hpc_resume.run.announce import announce, hello, record
from hpc_resume.run.attempt import Attempt, is_open
from hpc_resume.run.auto import AutoCadence
from hpc_resume.run.drill import seed_the_unseeded
from hpc_resume.run.environment import Environment, read_environment
from hpc_resume.run.ledger import read_ledger
from hpc_resume.run.opening import open_run
from hpc_resume.run.schedule import asked_cadence
from hpc_resume.run.storage import Wishes, open_storage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hpc_resume.run.ranks.meeting import Meeting
    from hpc_resume.run.signals import Recorder


def start(
    recorder: Recorder,
    asked: Path | None,
    every: int | str | None,
    wishes: Wishes,
    progress: Callable[[], tuple[int, bool]],
) -> Attempt:
    """Handlers, directory and lease, PID record, checkpoint, trackers: in this order, undone on an error.

    The handlers come first: a warning during the rest is not lost. The PID record comes as soon as there is a
    place for it, since the launcher terminates a training that has not announced itself by half of the lead.
    """
    if is_open():
        raise UsageError("a run is open in this process already; end it before the next one starts")
    environment = read_environment(os.environ)
    cadence = asked_cadence(environment, every)
    wishes.check()
    with ExitStack() as undo:
        # SIGTERM is a warning too: at the start of a grace time it is all that Slurm sends to a step's tasks.
        recorder.install((environment.signum, signal.SIGTERM))
        undo.callback(recorder.release, leaving=False)
        meeting = _meeting(environment, asked, recorder) if environment.is_many else None
        if meeting is not None:
            undo.push(meeting.excuse)
            environment = meeting.prepare()
        opening = open_run(environment, asked)
        if opening.lease is not None:
            undo.callback(opening.lease.release)
        events = early.events(recorder)
        if events is None:
            events = announce(environment, opening.attempt_dir)
        else:
            record(environment, opening.attempt_dir, opened=True)
        undo.callback(events.close)
        ensemble = None
        if meeting is not None:
            storage, ensemble = meeting.open(opening, events, wishes)
        else:
            storage = open_storage(environment, opening, events, wishes)
        if isinstance(cadence, AutoCadence):
            cadence = read_ledger(opening.run_dir, before=opening.attempt)
            events.write("cadence", **cadence.record())
        attempt = Attempt(environment, opening, recorder, events, cadence, storage, ensemble)
        if environment.drill is not None:
            seed_the_unseeded()
        hello(environment, opening, storage.loaded)
        undo.pop_all()
    if ensemble is not None:
        ensemble.attach(attempt.saver, attempt.schedule, attempt.guard, attempt.watchdog, progress)
    attempt.watchdog.start(attempt.guard)
    attempt.asked.install(attempt.schedule.hurry)
    Attempt.active = attempt
    return attempt


def _meeting(environment: Environment, asked: Path | None, recorder: Recorder) -> Meeting:
    from hpc_resume.run.ranks.meeting import Meeting  # noqa: PLC0415 - one rank alone has no need of it

    return Meeting(environment, asked, recorder)
