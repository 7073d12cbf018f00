"""The run that an agent has in hand: on record before its process starts, and given back when nobody came to train it.

W&B gives a run out once. What is killed between that and wandb.init is PREEMPTED at W&B, or pending, and in no queue:
an agent that was about to leave, or the next attempt of its job, begins it, marks it and ends it with a warning's code,
so that it waits for an agent again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpc_resume import contract
from hpc_resume.durable import write_json
from hpc_resume.run import records
from hpc_resume.run.environment import run_key
from hpc_resume.run.rundir import RunDir

if TYPE_CHECKING:
    from collections.abc import Mapping


# What the event of an attempt's end says when W&B may not know of it.
_UNSURE: Final = frozenset({"stuck", "late", "untold"})


@dataclass(frozen=True, slots=True)
class Hand:
    """`attempts` is how many attempts the run had had when it was taken."""

    run: str
    attempts: int


def write(path: Path, run: str, variables: Mapping[str, str]) -> None:
    """Say that `run` is in hand. Raises OSError."""
    parent = variables.get(contract.ENV_RUNS)
    newest = RunDir(Path(parent) / run_key(run)).newest_attempt() if parent else None
    write_json(path, {"version": contract.FORMAT_VERSION, "run": run, "attempts": newest.number if newest else 0})


def read(path: Path) -> Hand | None:
    """What is in hand; None when nothing is."""
    fields = records.read_fields(path)
    return Hand(fields.text("run"), fields.whole("attempts")) if fields is not None and fields.text("run") else None


def is_settled(hand: Hand, run: RunDir) -> bool:
    """Whether the training that was started for it has told W&B itself how it ended.

    One that was left by its watchdog, or whose tracker did not answer in time, may not have begun the W&B run at all
    (seen: warned within its first seconds on a busy node): handing that back twice costs nothing, leaving it a run.
    """
    if run.finished() is not None:
        return True
    newest = run.newest_attempt()
    if newest is None or newest.number <= hand.attempts or newest.outcome() is None:
        return False
    return not any(_UNSURE & event.data.keys() and event.data.get("untold", True) for event in newest.events())
