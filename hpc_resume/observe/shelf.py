"""The listing of checkpoints, and how often they are made, as text and as JSON."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from hpc_resume.observe.checkpoints import VERIFIED, Row, size_words
from hpc_resume.observe.status import age
from hpc_resume.run.ledger import auto_cadence
from hpc_resume.run.rundir import RunDir


def in_words(run: RunDir, rows: Sequence[Row], removed: Sequence[Row]) -> str:
    """Newest first, one line each, the reason of a broken one behind it."""
    lines = [f"removed step {row.step} ({row.state}, {size_words(row.size)})" for row in removed]
    lines += _aligned([("step", "age", "size", "state", "backends"), *map(_cells, rows)]) if rows else []
    if not rows:
        lines.append(f"{run.key} has no checkpoint yet")
    if auto := auto_cadence(run):
        lines.append(f"saved {auto.words()}")
    return "\n".join(lines) + "\n"


def why_nothing(rows: Sequence[Row], keep: int) -> str:
    """Why a prune has removed nothing."""
    if not any(row.state == VERIFIED for row in rows):
        return "no checkpoint verifies, and a broken one may be all that is left" if rows else "there is no checkpoint"
    return f"there are no more than {keep}, and none is broken"


def as_record(run: RunDir, rows: Sequence[Row], removed: Sequence[Row]) -> Mapping[str, object]:
    """For --json."""
    auto = auto_cadence(run)
    return {
        "run": run.key,
        "path": str(run.path),
        "checkpoints": [asdict(row) for row in rows],
        "removed": [asdict(row) for row in removed],
        "auto": auto.record() if auto else None,
    }


def _cells(row: Row) -> tuple[str, ...]:
    how_old = "-" if row.created is None else f"{age(time.time() - row.created)} ago"
    state = f"{row.state}: {row.reason}" if row.reason else row.state + (", latest" if row.latest else "")
    return str(row.step), how_old, size_words(row.size), state, ", ".join(row.backends)


def _aligned(table: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    numbers = (0, 2)
    return [
        "  ".join(
            cell.rjust(width) if index in numbers else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    ]
