"""What `hpc-resume status` asks: targets to facts to rows, over every scheduler."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc_resume.errors import HpcResumeError, RunNotFoundError
from hpc_resume.observe.facts import SLURM_PATIENCE, collect, last_words, with_slurm
from hpc_resume.observe.status import Row, row, row_of_job
from hpc_resume.observe.targets import Selection, closed_words, select
from hpc_resume.schedulers import JobState, slurm
from hpc_resume.schedulers.cancellation import run_parent
from hpc_resume.schedulers.slurm_runs import base_id, run_key, run_key_in
from hpc_resume.schedulers.unknown_runs import NOT_QUEUED, no_such_run


@dataclass(frozen=True, slots=True)
class Survey:
    """The rows, and what could not be found out."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def survey(targets: Sequence[str]) -> Survey:
    """Look. Raises RunNotFoundError when there is nothing to show, and what a wrong job.yaml raises."""
    selection = select(targets)
    facts, others, trouble = with_slurm(collect(selection.runs), selection.job_ids)
    rows = [row(item) for item in facts]
    notes = [trouble] if trouble else []
    notes += [closed_words(selection.closed)] if selection.closed else []
    known = {item.run for item in rows}
    queued = [*others]
    if selection.names and shutil.which("squeue") is not None and not trouble:
        try:
            queued += _waiting(selection.names, known)
        except HpcResumeError as error:
            notes.append(f"what else waits in Slurm's queue is unknown: {last_words(error)}")
    rows += [item for job in queued if job.active and (item := row_of_job(job)).run not in known]
    if not rows:
        raise _nothing(selection, targets, notes)
    return Survey(tuple(rows), tuple(notes))


def _waiting(names: Sequence[str], known: set[str]) -> Iterator[JobState]:
    """Queued jobs of those names that no run on disk is from: neither their own, nor one that they will continue."""
    for name in names:
        for job in slurm.mine(name, patience=SLURM_PATIENCE):
            if run_key(name, job, "") in known:
                continue
            if run_key(name, job, run_key_in(slurm.script_of(base_id(job)))) not in known:
                yield job


def _nothing(selection: Selection, targets: Sequence[str], notes: Sequence[str]) -> RunNotFoundError:
    if selection.job_ids:
        return no_such_run(", ".join(targets), Path.cwd() / run_parent(""), notes[0] if notes else NOT_QUEUED)
    why = f" ({notes[0]})" if notes else ""
    where = ", ".join(targets) or "this directory's job.yaml"
    return RunNotFoundError(f"no runs of {where} yet{why}; begin one with `hpc-resume run` or `hpc-resume submit`")
