"""The facts of runs, from their directories, this host's processes and one question to Slurm. Decides nothing."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from hpc_resume.errors import HpcResumeError
from hpc_resume.observe.waiting import launch_limit
from hpc_resume.run.auto import AutoCadence
from hpc_resume.run.ledger import auto_cadence
from hpc_resume.run.process import is_alive
from hpc_resume.run.records import AttemptRecord, ExitRecord, OutcomeRecord
from hpc_resume.run.rundir import AttemptDir, RunDir
from hpc_resume.schedulers import JobState, slurm
from hpc_resume.schedulers.control import asked_of
from hpc_resume.schedulers.local_runs import scheduler_of

DAY: Final = 86_400.0  # seconds; the launcher forgets a failed node after it
BEGINNING: Final = 10.0  # seconds from an attempt's directory to its first record, at the most, on a busy node
SLURM_PATIENCE: Final = 15.0  # seconds; squeue gives up by itself after MessageTimeout, 10 s at most sites


@dataclass(frozen=True, slots=True)
class Facts:
    """One run as it is on disk and among the processes; times are epoch seconds.

    `alive` is None where the launcher cannot be seen from here; `trouble` says why there is no more than this.
    """

    key: str
    directory: str
    attempts: int = 0
    step: int | None = None
    saved: float | None = None
    finished: bool = False
    attempt: AttemptRecord | None = None
    beginning: bool = False  # its directory was made just now, and its record is still to come
    exit: ExitRecord | None = None
    outcome: OutcomeRecord | None = None
    cancel_asked: bool = False
    alive: bool | None = None
    scheduler_alive: bool = False  # of a local run: the process that starts its attempts
    job: JobState | None = None
    slurm_answered: bool = False
    launch_limit: int | None = None  # of failed launches, where one has failed and Slurm says
    chain: tuple[str, ...] = ()  # from the launcher down to rank 0: bash, uv, python
    excluded: str = ""  # nodes that the launcher has left out in the last day
    auto: AutoCadence | None = None  # how often it is saved where `every: auto` decides
    trouble: str = ""


def collect(runs: Sequence[RunDir]) -> tuple[Facts, ...]:
    """The facts of each run, without Slurm's. A directory that cannot be read is told of, never skipped."""
    return tuple(_facts_of(run) for run in runs)


def display_key(run: RunDir) -> str:
    """The key; `train/0001` for the numbered directory of a plain `python train.py`."""
    return f"{run.path.parent.name}/{run.key}" if run.key.isdigit() else run.key


def _facts_of(run: RunDir) -> Facts:
    facts = Facts(display_key(run), str(run.path))
    try:
        newest = run.newest_attempt()
        record = newest.attempt() if newest else None
        finished = run.finished() is not None
        return replace(
            facts,
            attempts=len(run.attempts()),
            step=run.latest_step(),
            saved=_changed(run),
            finished=finished,
            attempt=record,
            beginning=newest is not None and record is None and _is_new(newest),
            exit=newest.exit() if newest else None,
            outcome=newest.outcome() if newest else None,
            cancel_asked=newest is not None and asked_of(newest) in ("cancel", "stop"),
            alive=is_alive(record.process) if record else False,
            scheduler_alive=scheduler_of(run) is not None,
            chain=_chain(newest) if newest else (),
            excluded="" if finished else _excluded(run),
            auto=None if finished else auto_cadence(run),
        )
    except (HpcResumeError, OSError) as error:
        return replace(facts, trouble=str(error))


def _chain(attempt: AttemptDir) -> tuple[str, ...]:
    return next((record.chain for record in attempt.pids() if record.rank == 0), ())


def _excluded(run: RunDir) -> str:
    """Said by the attempt that went back into the queue: the newest, or the one before that."""
    for attempt in reversed(run.attempts()[-2:]):
        for event in reversed(attempt.events()):
            if event.event == "excluded" and time.time() - event.t < DAY:
                return str(event.data.get("nodes", ""))
    return ""


def _is_new(attempt: AttemptDir) -> bool:
    try:
        return time.time() - attempt.path.stat().st_mtime < BEGINNING
    except OSError:
        return False


def _changed(run: RunDir) -> float | None:
    try:
        return run.latest_file.stat().st_mtime
    except OSError:
        return None


def with_slurm(facts: Sequence[Facts], more_jobs: Sequence[str]) -> tuple[tuple[Facts, ...], tuple[JobState, ...], str]:
    """Add what Slurm says of unfinished runs; the states of `more_jobs`; and why it did not answer, empty if it did."""
    ids = {job_id for item in facts if (job_id := slurm_job(item))}
    if not ids and not more_jobs:
        return tuple(facts), (), ""
    if shutil.which("squeue") is None:
        return tuple(facts), (), "no squeue on PATH here: what Slurm knows of these jobs is unknown"
    try:
        states = {state.job_id: state for state in slurm.jobs(sorted({*ids, *more_jobs}), patience=SLURM_PATIENCE)}
    except HpcResumeError as error:
        return tuple(facts), (), f"what Slurm knows of these jobs is unknown: {last_words(error)}"
    limit = _launch_limit() if any(state.batch_flag > 1 for state in states.values()) else None
    told = tuple(
        replace(item, slurm_answered=True, job=states.get(job_id), launch_limit=limit)
        if (job_id := slurm_job(item))
        else item
        for item in facts
    )
    return told, tuple(state for state in states.values() if state.job_id not in ids), ""


def _launch_limit() -> int | None:
    try:
        return launch_limit(slurm.config(patience=SLURM_PATIENCE))
    except HpcResumeError:
        return None


def last_words(error: Exception) -> str:
    """The last sentence of what a Slurm command said: the ones before it are about how it got there."""
    return str(error).rpartition("; ")[2]


def slurm_job(item: Facts) -> str:
    """The job whose state decides that of a run; empty when Slurm has nothing to say of it."""
    if item.attempt is None or item.attempt.scheduler != "slurm" or item.finished:
        return ""
    if item.exit is not None and item.exit.successor:
        _, mark, task = item.attempt.job_id.partition("_")
        return f"{item.exit.successor}{mark}{task}"
    return item.attempt.job_id
