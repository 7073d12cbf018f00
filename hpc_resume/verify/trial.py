"""The two runs, by the local scheduler in a directory of their own: one uninterrupted, one warned at chosen steps."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from hpc_resume.contract import ENV_DRILL
from hpc_resume.errors import CheckpointError, CommandLineError, HpcResumeError
from hpc_resume.launch.job_file import JobFile
from hpc_resume.launch.spec import Requeue
from hpc_resume.run.rundir import RunDir
from hpc_resume.schedulers import local
from hpc_resume.schedulers.continuation import task_indexes
from hpc_resume.schedulers.local_start import local_job
from hpc_resume.verify.trace import Trace, read_trace

_NEVER: Final = 1_000_000_000  # steps: periodic saves are off, so that both runs save at the same moments
_LAST_WORDS: Final = 12  # lines


@dataclass(frozen=True, slots=True)
class Trial:
    """Both runs, and the steps that were chosen for interruptions."""

    reference: Trace
    resumed: Trace
    asked: tuple[int, ...]


def run_trial(
    job_file: JobFile, directory: Path, interruptions: int, seed: int, show: Callable[[str], local.Watcher]
) -> Trial:
    """Run both. `show(what)` gives the watcher of each.

    Raises HpcResumeError when one of them does not finish, KeyboardInterrupt when a person has ended it.
    """
    reference = read_trace(_run(job_file, directory, "uninterrupted", (), show))
    steps = choose_steps(reference.steps, interruptions, seed)
    resumed = read_trace(_run(job_file, directory, "interrupted", steps, show))
    if not resumed.stops:
        raise CheckpointError(
            f"no interruption came through at steps {_listed(steps)}: are there step boundaries (run.steps(),"
            " run.checkpoint_point()), and does the launcher pass the warning on?"
        )
    return Trial(reference, resumed, steps)


def choose_steps(total: int, interruptions: int, seed: int) -> tuple[int, ...]:
    """Where to interrupt a training of `total` steps. Pure. Raises CommandLineError when there are too few."""
    if total - 1 < interruptions:
        raise CommandLineError(
            f"a training of {total} steps cannot be interrupted {interruptions} times: --interruptions {total - 1}"
            if total > 1
            else f"a training of {total} step cannot be interrupted: give it more steps"
        )
    return tuple(sorted(random.Random(seed).sample(range(1, total), interruptions)))  # noqa: S311 - no secret


def _run(
    job_file: JobFile, directory: Path, what: str, steps: Sequence[int], show: Callable[[str], local.Watcher]
) -> RunDir:
    log = directory / f"{what}.log"
    with log.open("wb") as stream:
        file = _drilled(job_file, directory / what, steps)
        job = local_job(file, stdout=stream.fileno(), stderr=stream.fileno())
        choice = local.choose_run(job, new=True)
        results = local.supervise(job, choice.number, show(what))
    if not results or results[0].cause == "cancelled":  # one Ctrl-C asks the training to stop, two end it
        raise KeyboardInterrupt
    if results[0].decision != "finish":
        raise HpcResumeError(
            f"the {what} run ended with code {results[0].code} ({results[0].cause or 'no word'}) and not with its last"
            f" step; its last words, from {log}:\n{_last_words(log)}"
        )
    return RunDir(job.run_parent / results[0].run)


def _drilled(job_file: JobFile, run_dir: Path, steps: Sequence[int]) -> JobFile:
    """The job as it is, but for where it runs, when it saves and how often it comes back; of an array, one task."""
    job = job_file.job
    array = job.slurm.get("array")
    slurm = dict(job.slurm) if not array else {**job.slurm, "array": str(next(task_indexes(str(array))))}
    checkpoint = job.checkpoint.model_copy(update={"every": _NEVER, "keep": max(2, len(steps) + 2)})
    changes = {
        "run_dir": str(run_dir),
        "slurm": slurm,
        "launcher": "direct",
        "stagger": None,
        "requeue": Requeue(),
        "checkpoint": checkpoint,
        "env": {**job.env, ENV_DRILL: _listed(steps) or "0"},
    }
    return replace(job_file, job=job.model_copy(update=changes))


def _last_words(log: Path) -> str:
    with log.open(encoding="utf-8", errors="replace") as stream:
        return "".join(f"  {line.rstrip()}\n" for line in deque(stream, _LAST_WORDS)).rstrip()


def _listed(steps: Sequence[int]) -> str:
    return ",".join(map(str, steps))
