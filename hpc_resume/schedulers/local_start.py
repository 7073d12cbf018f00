"""From a checked job.yaml to a local job, and what is said at its start and at its end."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from hpc_resume.errors import ConfigError
from hpc_resume.launch.job_file import DEFAULT_NAME, STDIN_NAME, JobFile
from hpc_resume.launch.launchers import choose
from hpc_resume.launch.plan import decide
from hpc_resume.launch.render import render
from hpc_resume.launch.spec import Job
from hpc_resume.launch.units import ArrayIndexes, array_indexes
from hpc_resume.schedulers.continuation import Choice, job_key, task_indexes
from hpc_resume.schedulers.local_task import LocalJob, TaskResult

MOST_TASKS: Final = 10_000  # each has a directory, and is looked at ten times a second


def local_job(file: JobFile, *, stdout: int | None, stderr: int | None = None) -> LocalJob:
    """The job as it runs here. An array runs as many tasks at once as its %N says, else one for each CPU we may use.

    Raises ConfigError for an array of more than MOST_TASKS, and for ranks that srun would have to start.
    """
    job = file.job
    _refuse_srun(job)
    array = job.slurm.get("array")
    asked = array_indexes(array) if array else ArrayIndexes(1, 1)
    if asked.tasks > MOST_TASKS:
        raise ConfigError(
            f"slurm.array: {array} is {asked.tasks:,} tasks, and one machine takes {MOST_TASKS:,} at most; make it"
            " smaller, or give it to a cluster with `hpc-resume submit`"
        )
    tasks = tuple(task_indexes(array))
    width = asked.width or len(os.sched_getaffinity(0))
    plan = decide(job, array=f"{array.partition('%')[0]}%{width}" if array else None)
    return LocalJob(
        name=job.name,
        script=render(plan),
        digest=plan.digest,
        directory=file.directory,
        run_parent=file.directory / job.run_dir,
        signal=signal.Signals[f"SIG{job.preemption.signal}"],
        tasks=tasks,
        width=width,
        stdout=stdout,
        stderr=stderr,
    )


def _refuse_srun(job: Job) -> None:
    """Outside a job of Slurm's srun starts nothing, and says so in words about slurm.conf."""
    launcher = choose("direct" if job.sweep else job.launcher, job.command, job.slurm)
    if launcher.words[:1] == ("srun",) and "SLURM_JOB_ID" not in os.environ:
        raise ConfigError(
            f"this job's ranks are started by srun ({launcher.why}), which needs a job of Slurm's; on this machine use"
            " `launcher: torchrun` with one node, or `launcher: direct` for one process; `hpc-resume submit` gives it"
            " to a cluster"
        )


def words_at_start(job: LocalJob, choice: Choice) -> Iterator[str]:
    """Which run this is, and why it is not another."""
    yield from (f"{job.name}-{words}" for words in choice.passed_over)
    key = job_key(job.name, choice.number)
    if not choice.continues:
        yield f"beginning {key}"
    elif len(job.tasks) > 1:
        yield f"continuing {key}: {len(choice.continues)} of its tasks have begun and are not finished"
    else:
        run = choice.continues[0]
        step = "" if run.step is None else f" at step {run.step}"
        yield f"continuing {key}{step}, attempt {run.attempts + 1}"
    if any(run.digest not in ("", job.digest) for run in choice.continues):
        yield f"note: the job has changed since {key} began; `--new` begins a new run"


def words_at_end(results: Sequence[TaskResult], file: Path) -> Iterator[str]:
    """What is left to be done, and the command that continues it. Nothing for what is finished."""
    again = _command(file)
    for result in results:
        if result.decision == "finish":
            continue
        step = "before its first checkpoint" if result.step is None else f"at step {result.step}"
        remedy = "correct it, then continue" if result.cause in ("crash", "config") else "continue it"
        yield f"{result.run} stopped {step}; {remedy} with: {again}"


def _command(file: Path) -> str:
    """The command line that runs `file` again; standard input cannot be read twice."""
    if str(file) == STDIN_NAME:
        return "hpc-resume run FILE, with the job that came on standard input in FILE"
    return "hpc-resume run" if str(file) == DEFAULT_NAME else f"hpc-resume run {shlex.quote(str(file))}"


def exit_code(results: Sequence[TaskResult], expected: int) -> int:
    """The first that is not 0; 130 when the owner ended it before every task had begun."""
    interrupted = 128 + signal.SIGINT if len(results) < expected else 0
    return next((result.code for result in results if result.code), interrupted)


def as_record(key: str, results: Sequence[TaskResult], code: int) -> dict[str, object]:
    """The results for programs: of one run, or of an array with its tasks."""
    tasks: list[dict[str, object]] = [
        {"run": r.run, "attempts": r.attempts, "code": r.code, "decision": r.decision, "step": r.step} for r in results
    ]
    return tasks[0] if len(tasks) == 1 and tasks[0]["run"] == key else {"run": key, "code": code, "tasks": tasks}
