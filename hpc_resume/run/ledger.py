"""What the attempts of a run have cost so far: its saves, and the interruptions that came without a warning. Reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpc_resume.contract import OUTCOME_CRASHED
from hpc_resume.run.auto import AutoCadence

if TYPE_CHECKING:
    from hpc_resume.run.rundir import AttemptDir, RunDir

_NO_LOSS = ("finished", "cancelled", "operator", "config", "no_work")


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
    return AutoCadence(cadence.saves, losses, running)


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
