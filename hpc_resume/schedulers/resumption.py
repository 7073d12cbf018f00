"""Which run `submit --resume RUN` continues, and whether it may be continued now."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from hpc_resume.errors import ConfigError, RunHeldError, RunNotFoundError
from hpc_resume.run.rundir import RunDir, find_runs
from hpc_resume.schedulers.local_runs import launcher_at_work, scheduler_of
from hpc_resume.schedulers.slurm_runs import jobs_of
from hpc_resume.schedulers.unknown_runs import no_such_run


@dataclass(frozen=True, slots=True)
class Continuation:
    """A run to go on with; for an array's run `run_key` is without the task, which is `array`."""

    run: RunDir
    run_key: str
    array: str | None


def find_run(wanted: str, parent: Path) -> RunDir:
    """The run of that key below `parent`, or of that path. Raises RunNotFoundError, with what there is."""
    run = RunDir(Path(os.path.abspath(wanted)) if os.sep in wanted else parent / wanted)  # noqa: PTH100 - links stay
    if run.run_file.is_file():
        return run
    runs = [other.key for other in find_runs(run.path.parent)]
    tasks = [key for key in runs if re.fullmatch(rf"{re.escape(run.key)}_[0-9]+", key)]
    if tasks:
        raise RunNotFoundError(f"{run.key} is an array: name one task of it, as {tasks[0]}")
    raise no_such_run(wanted, run.path.parent)


def choose(wanted: str, parent: Path, *, name: str, is_array: bool) -> Continuation:
    """The run `wanted` of the job `name`, whose runs are in `parent`; it is unfinished and nobody works on it.

    Raises RunNotFoundError, RunHeldError, or ConfigError when it is finished or not a run of this job.
    """
    run = find_run(wanted, parent)
    record = run.run()
    if record is None or record.name != name:
        raise ConfigError(f"{run.path} is a run of {record.name if record else 'nothing'}, and this job is {name}")
    if run.path.parent.resolve() != parent.resolve():
        raise ConfigError(f"{run.path} is not in {parent}, the run_dir of this job: submit it with the job.yaml it has")
    finished = run.finished()
    if finished is not None:
        raise ConfigError(f"{run.key} is finished: nothing is left to do. Without --resume a new run begins")
    base, _, task = run.key.removeprefix(f"{name}-").partition("_")
    if is_array and not task:
        raise ConfigError(
            f"{run.key} is not an array task's run, and this job has slurm.array: take that out to resume it"
        )
    _refuse_held(run, name)
    return Continuation(run, f"{name}-{base}", task or None)


def _refuse_held(run: RunDir, name: str) -> None:
    newest = run.newest_attempt()
    record = newest.attempt() if newest else None
    if record is not None and record.scheduler != "slurm":
        process = scheduler_of(run) or launcher_at_work(run)
        if process is not None:
            raise RunHeldError(
                f"{run.key} is at work: process {process.pid} on {process.host}. `hpc-resume cancel` it first"
            )
    for job in jobs_of(run.key, name):
        raise RunHeldError(
            f"{run.key} is still in the queue: job {job.job_id}, {job.state}. `hpc-resume cancel` it first"
        )
