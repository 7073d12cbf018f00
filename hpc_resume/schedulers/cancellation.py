"""Ends what a person names, for good: a Slurm job by its id, or a run by its key or directory, wherever it runs."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hpc_resume.errors import HpcResumeError, RunNotFoundError, RunStateError, SchedulerError
from hpc_resume.launch.job_file import DEFAULT_NAME, read_job
from hpc_resume.run.rundir import RunDir, find_runs
from hpc_resume.schedulers import JobState, local, slurm
from hpc_resume.schedulers.control import ask_to_stop
from hpc_resume.schedulers.slurm_runs import base_id, jobs_of, matches
from hpc_resume.schedulers.unknown_runs import NOT_QUEUED, no_such_run

DEFAULT_RUN_DIR = "runs"


def run_parent(given: str) -> Path:
    """Where to look for runs: what was given, else the run_dir of the job.yaml here, else `runs`."""
    if given:
        return Path(given)
    with suppress(HpcResumeError):
        job_file = read_job(Path(DEFAULT_NAME))
        return job_file.directory / job_file.job.run_dir
    return Path(DEFAULT_RUN_DIR)


def cancel(target: str, parent: Path) -> str:
    """End a job id, a run's key (below `parent`) or a run's directory; what was done, in words.

    Raises RunNotFoundError for one that nobody knows, SchedulerError when it cannot be ended.
    """
    if re.fullmatch(r"[0-9]+(_[0-9]+)?", target):
        return _cancel_job(target)
    path = Path(os.path.abspath(target)) if os.sep in target else parent / target  # noqa: PTH100 - links stay
    runs = tuple(run for run in find_runs(path.parent) if matches(path.name, run.key))
    if not runs or any(_is_slurms(run) for run in runs):
        return _cancel_run(path.name, runs, path.parent)
    return local.cancel_runs(path, runs)


def _cancel_run(key: str, runs: Sequence[RunDir], parent: Path) -> str:
    # A job that has not begun has no run directory yet: its key still names it.
    record = runs[0].run() if runs else None
    name = record.name if record else re.sub(r"-[0-9]+(_[0-9]+)?$", "", key)
    try:
        jobs = jobs_of(key, name)
    except SchedulerError as error:
        if runs:
            raise
        raise no_such_run(key, Path.cwd() / parent, str(error).rpartition("; ")[2]) from None
    if not jobs and not runs:
        raise no_such_run(key, Path.cwd() / parent, NOT_QUEUED)
    if not jobs:
        how = "finished" if all(run.finished() for run in runs) else "not in the queue"
        return f"{key} is {how}: nothing to cancel"
    ids = sorted({base_id(job) for job in jobs}) if len(jobs) > 1 else [jobs[0].job_id]  # an array in one word
    for run in runs:
        _leave_word(run)
    slurm.cancel(ids)
    return f"{key}: cancelled job {', '.join(ids)}"


def _cancel_job(job_id: str) -> str:
    jobs = slurm.jobs([job_id])
    if not jobs:
        raise RunNotFoundError(f"Slurm knows no job {job_id}: look with `squeue --me`")
    stranger = next((job.user for job in jobs if job.user != _me()), None)
    if stranger is not None:
        raise SchedulerError(f"job {job_id} is {stranger}'s, not yours; `scancel {job_id}` if you may end it")
    active = [job for job in jobs if job.active]
    if not active:
        return f"job {job_id} has ended already: {_states(jobs)}"
    slurm.cancel([job_id])
    return f"cancelled job {job_id}, which was {_states(active)}"


def _states(jobs: Sequence[JobState]) -> str:
    return ", ".join(sorted({job.state for job in jobs}))


def _is_slurms(run: RunDir) -> bool:
    newest = run.newest_attempt()
    record = newest.attempt() if newest else None
    return record is not None and record.scheduler == "slurm"


def _leave_word(run: RunDir) -> None:
    """So that an attempt which is just ending does not requeue itself. Without it Slurm's own state says the same."""
    newest = run.newest_attempt()
    if newest is not None and newest.exit() is None:
        with suppress(RunStateError):
            ask_to_stop(newest, "hpc-resume cancel")


def _me() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
