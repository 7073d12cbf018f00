"""What follows from the end of an attempt: the batch shell's own table, read from the text that every script carries.

There is no second copy: tests/contracts runs both sides over every combination of facts.
"""

from __future__ import annotations

import re
from dataclasses import astuple, dataclass
from functools import cache
from typing import Final

from hpc_resume.contract import CAUSES
from hpc_resume.launch.templates import read_template

COLUMNS: Final = ("cause", "requeued", "named", "budget", "progress", "total")
ANY: Final = ("-", "*")

_TABLE: Final = re.compile(r"^HR_DECISIONS=\(\n(.*?)^\)", re.MULTILINE | re.DOTALL)
_ROW: Final = re.compile(r"^\s*'(.*)'\s*$")


@dataclass(frozen=True, slots=True)
class Circumstances:
    """The facts that decide. `requeued`: Slurm has put the job back itself; the others: what is left of requeue.*."""

    cause: str
    requeued: bool = False
    named: bool = True
    budget: bool = True
    progress: bool = True
    total: bool = True

    def columns(self) -> tuple[str, ...]:
        """As the table spells them."""
        cause, *rest = astuple(self)
        return (cause, *("yes" if value else "no" for value in rest))


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table. `when` has COLUMNS' order; the reason's <...> are for the batch shell to fill in."""

    when: tuple[str, ...]
    decision: str
    reason: str

    def holds(self, circumstances: Circumstances) -> bool:
        """Whether every column matches."""
        facts = circumstances.columns()
        return all(wanted in ANY or wanted == fact for wanted, fact in zip(self.when, facts, strict=True))


@cache
def rules() -> tuple[Rule, ...]:
    """The table, first match wins."""
    table = _TABLE.search(read_template("decide.sh"))
    assert table is not None  # noqa: S101 - the package carries it
    found = []
    for line in table[1].splitlines():
        row = _ROW.match(line)
        if row is not None:
            words = row[1].split()
            found.append(Rule(tuple(words[: len(COLUMNS)]), words[len(COLUMNS)], " ".join(words[len(COLUMNS) + 1 :])))
    return tuple(found)


def decide(circumstances: Circumstances) -> Rule:
    """The first rule that holds; the last one holds always."""
    return next(rule for rule in rules() if rule.holds(circumstances))


def printed() -> str:
    """The table for a person, with what each column says."""
    heads = (*COLUMNS, "decision", "reason")
    lines = [heads, *((*rule.when, rule.decision, rule.reason) for rule in rules())]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*rows, "", *_LEGEND]) + "\n"


_LEGEND: Final = (
    "The first line that matches decides; - and * match anything. `hpc-resume explain RUN` shows a run's own facts.",
    "  cause     why the training ended: " + ", ".join(CAUSES),
    "  requeued  Slurm has put the job back into the queue by itself",
    "  named     requeue.on names the cause (a crash has requeue.max.crash instead)",
    "  budget    requeue.max.<cause> is not used up; an operator's signal counts as preempted",
    "  progress  not more than requeue.max.no_progress attempts in a row without a newer checkpoint",
    "  total     requeue.max.total is not used up",
    "  decision  finish, requeue, slurm (left to Slurm), hold (in the queue, until it is released), stop",
)
