"""What one run has left behind, step by step: its metrics, the ids of its batches, where it was interrupted. Reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpc_resume.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from hpc_resume.run.rundir import RunDir


@dataclass(frozen=True, slots=True)
class Trace:
    """`metrics` and `batches` by step; `stops` are the steps at which an attempt ended and the next one went on.

    `kinds` is what each registered component is (model, optimizer, scheduler, scaler, rng, data, other).
    """

    metrics: Mapping[int, Mapping[str, object]]
    batches: Mapping[int, object]
    stops: tuple[int, ...]
    kinds: Mapping[str, str]
    steps: int
    checkpoint: Path


def read_trace(run: RunDir) -> Trace:
    """The trace of a finished run. Raises CheckpointError when it has saved nothing that could be compared."""
    metrics: dict[int, Mapping[str, object]] = {}
    batches: dict[int, object] = {}
    kinds: dict[str, str] = {}
    stops = []
    for attempt in run.attempts():
        # What an attempt logged and lost is logged again by the next one: the later counts.
        metrics.update((_step(line), _values(line)) for line in _lines(attempt.metrics_file))
        batches.update((_step(line), line.get("batch")) for line in _lines(attempt.batches_file))
        for event in attempt.events():
            found = event.data.get("components")
            if event.event == "registered" and isinstance(found, dict):
                kinds = {str(name): str(kind) for name, kind in found.items()}
        ended = attempt.exit()
        if ended is not None and ended.decision == "requeue":
            stops.append(ended.step_after)
    step = run.latest_step()
    if step is None:
        raise CheckpointError(
            "the training has saved nothing: it needs run.register(...) and run.steps() or run.checkpoint_point()"
        )
    return Trace(metrics, batches, tuple(stops), kinds, step, run.checkpoint_dir(step))


def _lines(path: Path) -> Iterator[dict[str, object]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # half a line: its writer was killed
            continue
        if isinstance(record, dict):
            yield record


def _step(line: Mapping[str, object]) -> int:
    step = line.get("step")
    return step if isinstance(step, int) else -1


def _values(line: Mapping[str, object]) -> Mapping[str, object]:
    return {name: value for name, value in line.items() if name not in ("step", "t")}
