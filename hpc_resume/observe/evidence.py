"""What `hpc-resume explain` looks at: one run's records, events, checkpoint, and its job. Decides nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from hpc_resume.errors import HpcResumeError
from hpc_resume.observe.budgets import Past, past
from hpc_resume.observe.explain import Evidence
from hpc_resume.observe.facts import SLURM_PATIENCE, Facts, collect, with_slurm
from hpc_resume.observe.status import row, row_of_job
from hpc_resume.observe.targets import newest_of, select
from hpc_resume.run.records import Limits, read_fields
from hpc_resume.run.rundir import AttemptDir, RunDir
from hpc_resume.schedulers import slurm
from hpc_resume.schedulers.cancellation import run_parent
from hpc_resume.schedulers.control import asked_of
from hpc_resume.schedulers.unknown_runs import NOT_QUEUED, no_such_run


def find(target: str) -> Evidence:
    """Everything that is known of the run that is meant, or of a job that waits and has none yet.

    Raises RunNotFoundError for what nobody knows, or several; what a wrong job.yaml raises.
    """
    selection = select([target] if target else ())
    if selection.runs:
        return look(newest_of(selection.runs, target))
    _, jobs, trouble = with_slurm((), selection.job_ids)
    waiting = [job for job in jobs if job.active]
    if not waiting:
        raise no_such_run(target or "of this job", Path.cwd() / run_parent(""), trouble or NOT_QUEUED)
    job = waiting[0]
    return Evidence(Facts(row_of_job(job).run, "", job=job, slurm_answered=True))


def look(run: RunDir) -> Evidence:
    """Everything that is known of `run`; what cannot be asked is said in `trouble`."""
    told, _, trouble = with_slurm(collect([run]), ())
    facts = told[0]
    found = Evidence(facts, trouble=trouble)
    if facts.trouble:
        return found
    attempts = run.attempts()
    found = replace(
        found,
        history=_history(attempts),
        limits=_limits(attempts),
        checkpoint=_checkpoint(run, facts.step),
        excluded=_excluded(facts),
    )
    ended = _ended(attempts, at_work=row(facts).state == "running")
    if ended is None:
        return found
    return replace(
        found,
        number=ended.number,
        attempt=ended.attempt(),
        exit=ended.exit(),
        outcome=ended.outcome(),
        events=ended.events(),
        request=asked_of(ended),
        files=tuple(_files(run, ended)),
    )


def _ended(attempts: Sequence[AttemptDir], *, at_work: bool) -> AttemptDir | None:
    """The newest, unless it is at work: then the one before it. One that has its exit.json may still be leaving."""
    if attempts and at_work and attempts[-1].exit() is None:
        attempts = attempts[:-1]
    return attempts[-1] if attempts else None


def _history(attempts: Sequence[AttemptDir]) -> tuple[Past, ...]:
    records = (read_fields(attempt.exit_file) for attempt in attempts)
    return tuple(one for record in records if record is not None and (one := past(record)) is not None)


def _limits(attempts: Sequence[AttemptDir]) -> Limits | None:
    """Of the newest attempt: job.yaml may have been edited since."""
    record = attempts[-1].attempt() if attempts else None
    return record.limits if record is not None else None


def _checkpoint(run: RunDir, step: int | None) -> str:
    return str(run.checkpoint_dir(step)) if step is not None else ""


def _excluded(facts: Facts) -> str:
    if facts.job is None or not facts.job.active or shutil.which("squeue") is None:
        return ""
    try:
        return slurm.excluded_nodes(facts.job.job_id, patience=SLURM_PATIENCE)
    except HpcResumeError:
        return ""


def _files(run: RunDir, attempt: AttemptDir) -> Iterator[str]:
    """Those that are there, relative to the run's directory, in the order of reading."""
    named = (attempt.exit_file, attempt.outcome_file, attempt.warning_file, attempt.control_file, attempt.attempt_file)
    stacks = sorted(attempt.path.glob("stacks.*.txt"))
    events = sorted(attempt.events_dir.glob("*.jsonl"))
    for path in (*named, *stacks, *events, run.latest_file, run.finished_file):
        if _has_words(path):
            yield str(path.relative_to(run.path))


def _has_words(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False
