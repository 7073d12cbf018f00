"""Which of the caller's jobs in Slurm's queue work on which run.

A run is named after its first job; after `submit --resume` another job works on it. The script that Slurm keeps says
which run that is: a record of our own would be wrong after any `sbatch` or `scancel` by hand.
"""

from __future__ import annotations

import re
from functools import cache

from hpc_resume.schedulers import JobState, slurm


def jobs_of(key: str, name: str) -> tuple[JobState, ...]:
    """The caller's queued jobs of `name` that work on run `key`, or will; without a task: on any task of it."""
    queue = slurm.mine(name)
    key_in_script = cache(lambda job_id: run_key_in(slurm.script_of(job_id)))

    def works_on_it(job: JobState) -> bool:
        return matches(key, run_key(name, job, key_in_script(base_id(job))))

    # The job that the run is named after, first: it spares the scripts of hundreds of others with this name.
    first = tuple(job for job in queue if matches(key, run_key(name, job, "")) and works_on_it(job))
    return first or tuple(job for job in queue if works_on_it(job))


def base_id(job: JobState) -> str:
    """12 for 12_3."""
    return job.job_id.partition("_")[0]


def run_key(name: str, job: JobState, key_in_script: str) -> str:
    """The key of the run that a job works on, as the runtime makes it."""
    task = "" if job.array_task is None else f"_{job.array_task}"
    return f"{key_in_script or f'{name}-{base_id(job)}'}{task}"


def run_key_in(script: str) -> str:
    """The run that a rendered script continues; empty for one that begins its own."""
    found = re.search(r"^[ \t]*HR_RUN_KEY='?([A-Za-z0-9._-]*)'?$", script, re.MULTILINE)
    return found[1] if found else ""


def matches(wanted: str, key: str) -> bool:
    """Whether `key` is the wanted run, or a task of it."""
    return key == wanted or re.fullmatch(rf"{re.escape(wanted)}_[0-9]+", key) is not None
