"""What is used of each budget of requeue.max, counted from the attempts as the batch shell counts them. Pure.

templates/decide.sh counts for the decision, and this for the person; tests/contracts holds the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hpc_resume.contract import REQUEUE_CAUSES
from hpc_resume.observe.decision import Circumstances
from hpc_resume.run.records import Fields, Limits

# Which budget an end is charged to; an operator's signal, and one of which nobody knows, is charged as a preemption.
CHARGED_TO: Final = {
    "timeout": "timeout",
    "preempted": "preempted",
    "operator": "preempted",
    "unknown": "preempted",
    "crash": "crash",
}


@dataclass(frozen=True, slots=True)
class Past:
    """One attempt that has ended; `step_after` is None for a plain program, which never publishes."""

    cause: str
    seconds: int
    step_before: int
    step_after: int | None


@dataclass(frozen=True, slots=True)
class Budget:
    """`used` of `most`, which is None where it is unlimited."""

    name: str
    used: int
    most: int | None

    @property
    def left(self) -> int | None:
        """None: unlimited."""
        return None if self.most is None else max(0, self.most - self.used)


def past(fields: Fields) -> Past | None:
    """What an exit.json says for the count; None without a cause. A step that is null was never published."""
    cause = fields.text("cause")
    seconds = int(fields.number("ended")) - int(fields.number("started"))
    after = _step(fields, "step_after")
    if after is None and fields.values.get("announced") is True:
        after = 0  # it could have published, and has not yet
    return Past(cause, seconds, _step(fields, "step_before") or 0, after) if cause else None


def stalled(history: Sequence[Past], lead: int) -> int:
    """Attempts in a row, up to the last, without a newer checkpoint.

    One that was interrupted within its first `lead` seconds had no chance and is not held against the job.
    """
    row = 0
    for attempt in history:
        if attempt.step_after is not None and attempt.step_after != attempt.step_before:
            row = 0
        elif attempt.cause == "crash" or (
            attempt.step_after is not None and attempt.cause != "no_work" and attempt.seconds >= lead
        ):
            row += 1
    return row


def budgets(history: Sequence[Past], attempts: int, limits: Limits) -> tuple[Budget, ...]:
    """Every budget after the attempts of `history`; `attempts` are all that were begun, ended or not."""
    charged = [CHARGED_TO.get(attempt.cause) for attempt in history]
    used = {name: charged.count(name) for name in ("timeout", "preempted", "crash")}
    used |= {"no_progress": stalled(history, limits.lead), "total": max(0, attempts - 1)}
    return tuple(Budget(name, count, _most(limits, name)) for name, count in used.items())


def circumstances(history: Sequence[Past], attempt: int, *, requeued: bool, limits: Limits) -> Circumstances:
    """The facts for the table at the end of attempt number `attempt`, the last of `history`."""
    *earlier, last = history
    charge = CHARGED_TO.get(last.cause)
    count = sum(CHARGED_TO.get(one.cause) == charge for one in earlier)
    return Circumstances(
        last.cause,
        requeued,
        last.cause not in REQUEUE_CAUSES or last.cause in limits.requeue_on,
        charge is None or _within(count, _most(limits, charge), strictly=True),
        _within(stalled(history, limits.lead), _most(limits, "no_progress"), strictly=False),
        _within(attempt, _most(limits, "total"), strictly=False),
    )


def _step(fields: Fields, key: str) -> int | None:
    return fields.whole(key) if isinstance(fields.values.get(key), int) else None


def _within(count: int, most: int | None, *, strictly: bool) -> bool:
    return most is None or (count < most if strictly else count <= most)


def _most(limits: Limits, name: str) -> int | None:
    most = limits.most.get(name, -1)
    return None if most < 0 else most
