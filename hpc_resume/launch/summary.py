"""What a job.yaml means, in a few lines for people and as JSON: the answer of `hpc-resume check`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from hpc_resume.contract import FORMAT_VERSION
from hpc_resume.errors import Problem
from hpc_resume.launch import units
from hpc_resume.launch.job_file import JobFile
from hpc_resume.launch.plan import Plan
from hpc_resume.launch.spec import AUTO, Job


def success(job_file: JobFile, plan: Plan) -> dict[str, object]:
    """A valid file, ready for JSON."""
    return {
        "version": FORMAT_VERSION,
        "file": job_file.source.file,
        "valid": True,
        "name": job_file.job.name,
        "digest": plan.digest,
        "problems": [],
        "notes": [asdict(note) for note in job_file.notes],
    }


def failure(file: Path, problems: Sequence[Problem]) -> dict[str, object]:
    """A wrong file, ready for JSON."""
    return {
        "version": FORMAT_VERSION,
        "file": str(file),
        "valid": False,
        "problems": [asdict(problem) for problem in problems],
    }


def in_words(job_file: JobFile, plan: Plan) -> str:
    """A valid file for people: one line per thing that a person decides."""
    rows = list(_rows(job_file.job))
    width = max(len(label) for label, _ in rows)
    lines = [f"{job_file.source.file} is valid (spec {plan.digest})"]
    lines += [f"  {label:<{width}}  {text}" for label, text in rows]
    return "\n".join(lines) + "\n"


def _rows(job: Job) -> Iterator[tuple[str, str]]:
    yield "name", job.name
    command = job.command if isinstance(job.command, str) else shlex.join(job.command)
    first, *rest = command.splitlines()
    yield "command", f"{first} …" if rest else first
    limit = str(job.slurm["time"]) if "time" in job.slurm else "none given: the partition's own"
    seconds = units.slurm_seconds(limit) if "time" in job.slurm else None
    yield "time limit", limit if seconds is None else units.clock_words(seconds)
    if array := job.slurm.get("array"):
        indexes = units.array_indexes(str(array))
        yield "array", f"{indexes.tasks} tasks" + (f", {indexes.width} at once" if indexes.width else "")
    yield "warning", f"{job.preemption.signal}, {_time(job.preemption.lead)} before the end"
    yield "requeued", _requeue_words(job)
    every = job.checkpoint.every
    yield "saved", f"{_pace(every)} and at a warning; {job.checkpoint.keep} checkpoints are kept"
    yield "runs in", f"{job.run_dir}/{job.name}-<job id>"


def _pace(every: int | str) -> str:
    if every == AUTO:
        return "as often as the cost of a save and the interruptions so far suggest,"
    return f"every {every} steps" if isinstance(every, int) else f"every {_time(every)}"


def _time(value: int | str) -> str:
    return units.duration_words(units.milliseconds_of(value))


def _requeue_words(job: Job) -> str:
    budgets = job.requeue.max
    causes = [f"{cause} ({_budget(getattr(budgets, cause))})" for cause in job.requeue.on if cause != "node_fail"]
    causes += ["node_fail"] if "node_fail" in job.requeue.on else []
    causes += [f"crash ({_budget(budgets.crash)})"] if budgets.crash != 0 else []
    if not causes:
        return "never"
    return f"after {', '.join(causes)}; at most {_budget(budgets.total)} in all"


def _budget(value: int | str) -> str:
    return str(value) if isinstance(value, str) else f"{value} times"
