"""The verdict over both runs, as data: what was compared, what differs, and what is suspected."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from hpc_resume.checkpoints import manifest
from hpc_resume.contract import FORMAT_VERSION, VERSION
from hpc_resume.errors import CheckpointError
from hpc_resume.verify.compare import Parting, StateDifference, finite, metrics_to_compare, partings
from hpc_resume.verify.states import compare_checkpoints
from hpc_resume.verify.suspects import Suspicion, suspect
from hpc_resume.verify.trial import Trial

Curve = tuple[tuple[int, float], ...]  # (step, value)


@dataclass(frozen=True, slots=True)
class Settings:
    """What was asked for."""

    job: str
    digest: str
    command: str
    interruptions: int
    seed: int
    tolerance: float
    metrics: tuple[str, ...]
    one_of_many: bool = False  # the job starts more ranks than the one process that was run


@dataclass(frozen=True, slots=True)
class Verdict:
    """`suspicion` only where something differs."""

    settings: Settings
    steps: int
    stops: tuple[int, ...]
    compared: tuple[str, ...]
    batches: int  # how many were recorded and compared
    components: tuple[tuple[str, str], ...]
    partings: tuple[Parting, ...]
    states: tuple[StateDifference, ...]
    suspicion: Suspicion | None
    curves: tuple[Curve, Curve]  # of the first metric, uninterrupted and interrupted
    versions: Mapping[str, str]  # what the result may depend on
    seconds: float

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not self.partings and not self.states


def judge(trial: Trial, settings: Settings, seconds: float) -> Verdict:
    """Compare both runs.

    Raises CheckpointError when a final state cannot be read or there is nothing to compare, CommandLineError
    for a metric that was not logged.
    """
    reference, resumed = trial.reference, trial.resumed
    names = metrics_to_compare((reference, resumed), settings.metrics)
    if not names and not resumed.kinds and not reference.batches:
        raise CheckpointError("there is nothing to compare: the training registers nothing and logs nothing")
    parted = tuple(partings(reference, resumed, names, settings.tolerance))
    states = tuple(compare_checkpoints(reference.checkpoint, resumed.checkpoint, settings.tolerance))
    first = reference.batches.get(0)
    suspicion = suspect(parted, states, resumed.stops, resumed.kinds, first) if parted or states else None
    curve = names[0] if names else ""
    return Verdict(
        settings,
        reference.steps,
        resumed.stops,
        names,
        len(reference.batches),
        tuple(sorted(resumed.kinds.items())),
        parted,
        states,
        suspicion,
        (_curve(reference.metrics, curve), _curve(resumed.metrics, curve)),
        _versions(reference.checkpoint),
        round(seconds, 1),
    )


def _curve(metrics: Mapping[int, Mapping[str, object]], name: str) -> Curve:
    values = ((step, metrics[step].get(name)) for step in sorted(metrics))
    return tuple((step, float(value)) for step, value in values if isinstance(value, (int, float)))


def _versions(checkpoint: Path) -> dict[str, str]:
    """Of the training's own Python and libraries, which need not be ours, and of this machine."""
    machine = {"machine": platform.machine(), "system": f"{platform.system()} {platform.release()}"}
    return {"hpc_resume": VERSION} | dict(manifest.read(checkpoint).versions) | machine | {"cpus": str(os.cpu_count())}


def as_record(verdict: Verdict) -> dict[str, object]:
    """For --json."""
    return {
        "version": FORMAT_VERSION,
        "equal": verdict.equal,
        "suspect": verdict.suspicion.suspect if verdict.suspicion else None,
        "reason": verdict.suspicion.words if verdict.suspicion else "",
        **asdict(verdict.settings),
        "steps": verdict.steps,
        "interrupted_after": list(verdict.stops),
        "compared": list(verdict.compared),
        "batches": verdict.batches,
        "components": dict(verdict.components),
        "metrics_that_differ": [asdict(p) | {"difference": finite(p.difference)} for p in verdict.partings],
        "state_that_differs": [asdict(s) | {"difference": finite(s.difference)} for s in verdict.states],
        "seconds": verdict.seconds,
        "versions": dict(verdict.versions),
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "python": sys.executable,
    }
