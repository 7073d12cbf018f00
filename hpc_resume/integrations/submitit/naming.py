"""The names that both sides of a submission know: the cluster's, and where its runs are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from submitit.core.utils import JobPaths

CLUSTER: Final = "hpc_resume"
RUNS: Final = "runs"


def runs_of(folder: Path) -> Path:
    """The parent of the run directories of everything submitted with `folder`, which may have %j and the like in it."""
    return Path(JobPaths.get_first_id_independent_folder(folder)) / RUNS


def job_id_of(run_dir: Path) -> str:
    """The job, or array task, that a run is named after: `12_3` of `train-12_3`. A successor's own id is another."""
    return run_dir.name.rpartition("-")[2]
