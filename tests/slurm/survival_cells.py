"""The survival matrix as data: its three dimensions, what is expected of every cell and why, and the verdict on facts.

Nothing here runs anything. A cell without an expectation cannot exist: the last rule of RULES fits them all.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from enum import Enum
from typing import Final

LAUNCHERS: Final = {
    "direct": "started by the batch shell",
    "srun": "`launcher: srun`",
    "sh": "`sh -c '...'`, with the shell staying in between",
    "uv": "`uv run python train.py`",
    "conda": "a wrapper that traps USR1 and TERM and does nothing, as under `conda run`",
    "torchrun": "torchrun with one process",
}
INTERRUPTIONS: Final = {
    "time limit": "`--signal` before the time limit",
    "preempted": "preemption, GraceTime=0",
    "preempted, grace": "preemption, GraceTime=15",
    "scancel": "`scancel JOB`",
    "scancel -s": "`scancel -s USR1 JOB`: to the steps only",
    "scancel -b -s": "`scancel -b -s USR1 JOB`: to the batch shell only",
    "node down": "`scontrol update NodeName=N State=DOWN`, and DRAIN, so that it does not come back while the job restarts",
    "kill training": "kill -9 of the training",
    "kill shell": "kill -9 of the batch shell",
    "kill slurmd": "kill -9 of slurmd; the training stays as it is until Slurm has requeued the job",
    "kill slurmctld": "a warning, kill -9 of slurmctld at the first decision, slurmctld back after ten seconds; KillWait=30",
}
PHASES: Final = {
    "import": "imports that take long, before the run is opened",
    "step": "inside a step",
    "save": "in the middle of a periodic save",
    "call": "in a C call of eight seconds without the GIL, as a collective",
    "call, GIL": "in a C call of eight seconds that holds the GIL",
    "atexit": "in an atexit function of two seconds, after the run has finished",
}
STEPS: Final = 60
EVERY: Final = 20  # steps between two periodic saves
CALL_SECONDS: Final = 8
GRACE: Final = 15


class Kind(Enum):
    """What is to become of a run."""

    SURVIVES = "survived"  # by itself
    EITHER = "survived or refused"  # it depends on who is quicker, and the table says which it was
    REFUSED = "refused"  # it does not come back by itself; `submit --resume` goes on where it stopped


class Bound(Enum):
    """The most that may be lost: steps that are executed again."""

    NOTHING = "no step"
    STEP = "one step"
    CHECKPOINT = "the steps since the last published checkpoint"


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination."""

    launcher: str
    interruption: str
    phase: str

    @property
    def name(self) -> str:
        return f"{self.launcher} / {self.interruption} / {self.phase}"


@dataclass(frozen=True, slots=True)
class Expected:
    """What must come of a cell. The reason is needed where that is less than surviving with at most one step lost."""

    kind: Kind
    bound: Bound
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """What is expected of all cells with this interruption, in these phases, under these launchers."""

    interruptions: frozenset[str]
    phases: frozenset[str]
    launchers: frozenset[str]
    expected: Expected

    def fits(self, cell: Cell) -> bool:
        return cell.interruption in self.interruptions and cell.phase in self.phases and cell.launcher in self.launchers


def _rule(interruptions: str, phases: str, kind: Kind, bound: Bound, reason: str = "", launchers: str = "*", /) -> Rule:
    """Names are separated by `|`, `*` is all of them."""
    chosen = [
        frozenset(known) if names == "*" else frozenset(names.split("|"))
        for names, known in ((interruptions, INTERRUPTIONS), (phases, PHASES), (launchers, LAUNCHERS))
    ]
    return Rule(chosen[0], chosen[1], chosen[2], Expected(kind, bound, reason))


# The first that fits holds.
RULES: Final = (
    _rule("scancel", "atexit", Kind.SURVIVES, Bound.NOTHING, "it had finished before it was cancelled"),
    _rule(
        "scancel", "call|call, GIL", Kind.REFUSED, Bound.CHECKPOINT, "ended on purpose; the C call outlasts KillWait"
    ),
    _rule("scancel", "*", Kind.REFUSED, Bound.STEP, "ended on purpose"),
    _rule("kill shell", "*", Kind.EITHER, Bound.CHECKPOINT, "Slurm ended the sentinel before it could stand in"),
    _rule("kill training", "*", Kind.SURVIVES, Bound.CHECKPOINT, "no warning"),
    _rule("preempted|node down", "call|call, GIL", Kind.SURVIVES, Bound.CHECKPOINT, "the C call outlasts KillWait"),
    _rule(
        "kill slurmd",
        "step|save|call|call, GIL",
        Kind.SURVIVES,
        Bound.CHECKPOINT,
        "no warning: srun ends with its node, and takes the training for lost",
        "srun",
    ),
    _rule("*", "*", Kind.SURVIVES, Bound.STEP),
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What was seen of one cell."""

    state: str  # of the job in the end, as Slurm calls it
    attempts: int
    causes: tuple[str, ...]  # as exit.json has them; "" where there is none
    final_equal: bool  # the final state is that of the uninterrupted run, and every step was executed
    lost: int  # steps executed more than once
    unpublished: int  # steps executed since the last published checkpoint when the interruption came
    left: tuple[str, ...]  # processes of the job that outlived it
    seconds: float | None  # from the warning, or the interruption, to the end of the training; None: not seen
    by_hand: bool  # continued with `submit --resume`
    trouble: str = ""  # what kept the cell from being played to its end


@dataclass(frozen=True, slots=True)
class Verdict:
    """One cell of the printed table."""

    good: bool
    text: str


def cells() -> tuple[Cell, ...]:
    """All of them."""
    return tuple(Cell(*names) for names in itertools.product(LAUNCHERS, INTERRUPTIONS, PHASES))


def expected(cell: Cell) -> Expected:
    return next(rule.expected for rule in RULES if rule.fits(cell))


def judge(wanted: Expected, facts: Facts) -> Verdict:
    """Compares; the text is what was seen, never what was wanted."""
    complaint = facts.trouble or _complaint(wanted, facts)
    if complaint:
        return Verdict(False, f"LOST: {complaint}")
    gone = "" if facts.seconds is None else f", {facts.seconds:.1f} s"
    if wanted.kind is Kind.REFUSED or (wanted.kind is Kind.EITHER and facts.by_hand):
        return Verdict(True, f"refused: {wanted.reason} ({facts.lost} lost by hand{gone})")
    return Verdict(True, f"survived, {facts.lost} lost{gone}")


def _complaint(wanted: Expected, facts: Facts) -> str:
    causes = ", ".join(cause or "?" for cause in facts.causes)
    if not facts.final_equal:
        return f"not the final state of the uninterrupted run ({facts.state}; {causes})"
    if facts.by_hand and wanted.kind is Kind.SURVIVES:
        return f"did not come back ({causes})"
    if not facts.by_hand and wanted.kind is Kind.REFUSED:
        return f"was to be refused, and came back ({causes})"
    most = {Bound.NOTHING: 0, Bound.STEP: 1, Bound.CHECKPOINT: facts.unpublished}[wanted.bound]
    if facts.lost > most:
        return f"{facts.lost} steps again, at most {most} ({causes})"
    if facts.left:
        return f"left behind: {', '.join(facts.left)}"
    return ""
