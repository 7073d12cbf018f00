"""What a scheduler can do for the command line, and where to find one by its name.

A scheduler is a module (or any object) with the three functions of `Scheduler`. A new one is one file here and one line
in SCHEDULERS; a package of its own registers it under the entry point group `hpc_resume.schedulers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final, Protocol, cast

from hpc_resume.errors import SchedulerError

ENTRY_POINTS: Final = "hpc_resume.schedulers"
SCHEDULERS: Final = {
    "slurm": "hpc_resume.schedulers.slurm",
    "local": "hpc_resume.schedulers.local",
}

# Slurm's words for a job that will not run any more (squeue(1), JOB STATE CODES).
OVER: Final = frozenset(
    (
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED"),
        *("NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "RECONFIG_FAIL", "REVOKED", "TIMEOUT"),
    )
)


@dataclass(frozen=True, slots=True)
class JobState:
    """What a scheduler says of one job or array task, in Slurm's words; empty where it does not say."""

    job_id: str  # 12, or 12_3 for an array task
    name: str
    state: str  # RUNNING
    reason: str = ""  # Resources; "" when there is none
    restarts: int = 0
    start_time: float | None = None  # epoch seconds; of a pending job: expected
    end_time: float | None = None  # epoch seconds; of a running job: the latest
    preempt_time: float | None = None  # epoch seconds at which Slurm decided to preempt it
    nodes: str = ""
    user: str = ""
    directory: str = ""  # where it runs
    output: str = ""  # as given to sbatch, %-patterns and all
    batch_flag: int = 0  # 1 until a launch fails, one more for each that did; 0: no batch job, or unknown
    dependency: str = ""  # afterany:12(unfulfilled)

    @property
    def array_task(self) -> int | None:
        """3 for 12_3."""
        _, _, task = self.job_id.partition("_")
        return int(task) if task.isdigit() else None

    @property
    def active(self) -> bool:
        """Whether it is in the queue: pending, running, or on its way out."""
        return self.state not in OVER


class Scheduler(Protocol):
    """All three raise SchedulerError with the scheduler's own words when it refuses, fails or does not answer."""

    def submit(self, script: str, *, directory: Path) -> str:
        """Put a rendered script into the queue, to run in `directory`; the job's id."""
        ...

    def cancel(self, job_ids: Sequence[str]) -> None:
        """End jobs for good. One that is over already, or unknown, is no error."""
        ...

    def jobs(self, job_ids: Sequence[str]) -> tuple[JobState, ...]:
        """What is known of these jobs, one entry per array task; unknown ones are left out."""
        ...


def get(name: str) -> Scheduler:
    """The scheduler of that name; SchedulerError, with the names there are, for an unknown one."""
    if name in SCHEDULERS:
        return cast("Scheduler", import_module(SCHEDULERS[name]))
    found = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    if name in found:
        return cast("Scheduler", found[name].load())
    raise SchedulerError(f"no scheduler {name!r}; there are {', '.join(sorted({*SCHEDULERS, *found}))}")
