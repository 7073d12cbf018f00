"""What the attempts of a run have cost so far: its saves, and the interruptions that came without a warning. Reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpc_resume.contract import OUTCOME_CRASHED
from hpc_resume.run.auto import AutoCadence
from hpc_resume.run.process import is_alive

if TYPE_CHECKING:
    from hpc_resume.run.rundir import AttemptDir, RunDir

_NO_LOSS = ("finished", "cancelled", "operator", "config", "no_work", "unknown")


def read_ledger(run: RunDir, *, before: int | None = None) -> AutoCadence:
    """Of every attempt, or of those before number `before`. Raises RunStateError for records of a newer version."""
    cadence = AutoCadence()
    losses, running = 0, 0.0
    for attempt in run.attempts():
        if before is not None and attempt.number >= before:
            break
        for event in attempt.events():
            seconds = event.data.get("blocked", event.data.get("seconds"))
            if event.event == "saved" and isinstance(seconds, (int, float)):
                cadence = cadence.measured(float(seconds))
        lost, lasted = _outcome_of(attempt)
        losses += lost
        running += lasted
    if before is None and _may_be_at_work(run.newest_attempt()):
        losses -= 1  # it has not ended
    return AutoCadence(cadence.saves, losses, running)


def auto_cadence(run: RunDir) -> AutoCadence | None:
    """What `every: auto` makes of the ledger now; None for a run that is saved otherwise."""
    newest = run.newest_attempt()
    if newest is None or not any(event.event == "cadence" for event in newest.events()):
        return None
    return read_ledger(run)


def _may_be_at_work(attempt: AttemptDir | None) -> bool:
    """Whether it has left no word of its end, and its process lives or cannot be seen from here."""
    if attempt is None or attempt.exit() is not None or attempt.outcome() is not None:
        return False
    record = attempt.attempt()
    return record is not None and is_alive(record.process) is not False


def _outcome_of(attempt: AttemptDir) -> tuple[bool, float]:
    """Whether work was lost, and how long it lasted, seconds."""
    exit_record = attempt.exit()
    if exit_record is not None:
        lost = not exit_record.warned and exit_record.cause not in _NO_LOSS
        return lost, max(0.0, exit_record.ended - exit_record.started)
    record, outcome, events = attempt.attempt(), attempt.outcome(), attempt.events()
    started = record.started if record else (events[0].t if events else 0.0)
    lasted = max(0.0, events[-1].t - started) if events else 0.0
    return outcome is None or outcome.outcome == OUTCOME_CRASHED, lasted
