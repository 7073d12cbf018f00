"""What run.log() was given in all attempts of a run, in order and each once. Pure but for the reading.

An attempt goes on from a checkpoint, so it logs again what the one before had logged after that checkpoint. The n-th
row of a step is the same row in every attempt: the first one counts, as a tracker has sent it already.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpc_resume.durable import read_plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_NOT_FINITE = {"nan", "inf", "-inf"}


@dataclass(frozen=True, slots=True)
class Row:
    """One call of run.log(); `t` is epoch seconds."""

    step: int
    t: float
    metrics: Mapping[str, Any]


def read_rows(path: Path) -> list[Row]:
    """The rows of one metrics.jsonl; [] without one, and for a link. A torn last line is left out."""
    try:
        lines = read_plain(path).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    rows = []
    for line in lines:
        try:
            record = json.loads(line)
            step, t = record.pop("step"), record.pop("t")
        except (ValueError, KeyError, AttributeError, TypeError):
            continue
        if isinstance(step, int):
            rows.append(Row(step, float(t), {name: _number(value) for name, value in record.items()}))
    return rows


def merge(attempts: Iterable[Iterable[Row]]) -> list[Row]:
    """The rows of all attempts, oldest first, without what a later one logged again."""
    seen: Counter[int] = Counter()
    merged: list[Row] = []
    for rows in attempts:
        here: Counter[int] = Counter()
        for row in rows:
            here[row.step] += 1
            if here[row.step] > seen[row.step]:
                seen[row.step] += 1
                merged.append(row)
    return merged


def repeats(rows: Iterable[Row], start_step: int) -> Counter[int]:
    """How many rows of each step from `start_step` on are logged already: that many will come again."""
    return Counter(row.step for row in rows if row.step >= start_step)


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) and value in _NOT_FINITE else value
