"""What a person names on the command line, and the runs and jobs that are meant by it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc_resume.errors import RunNotFoundError
from hpc_resume.launch.job_file import DEFAULT_NAME, read_job
from hpc_resume.run.rundir import RunDir, find_readable_runs, find_runs
from hpc_resume.schedulers.cancellation import DEFAULT_RUN_DIR, run_parent
from hpc_resume.schedulers.slurm_runs import matches
from hpc_resume.schedulers.unknown_runs import no_such_run

_SHOWN = 5  # runs in a message about one that is not there


@dataclass(frozen=True, slots=True)
class Selection:
    """Runs on disk; names of jobs whose queue is to be asked too; ids of jobs that may not have begun."""

    runs: tuple[RunDir, ...]
    names: tuple[str, ...] = ()
    job_ids: tuple[str, ...] = ()
    closed: int = 0  # directories in these places that cannot be read


def select(targets: Sequence[str]) -> Selection:
    """Everything that is meant, each run once. Without a target: the job.yaml here, else the directory `runs`.

    Raises RunNotFoundError for one that means nothing; SpecError and ConfigError of a job.yaml.
    """
    if not targets:
        targets = [DEFAULT_NAME if Path(DEFAULT_NAME).is_file() else DEFAULT_RUN_DIR]
        if not Path(targets[0]).exists():
            raise RunNotFoundError("no job.yaml and no runs here: go to a job's directory, or name a run")
    found = [_select(target) for target in targets]
    runs = dict.fromkeys(run for selection in found for run in selection.runs)
    return Selection(
        tuple(runs),
        tuple(dict.fromkeys(name for selection in found for name in selection.names)),
        tuple(dict.fromkeys(job_id for selection in found for job_id in selection.job_ids)),
        sum(selection.closed for selection in found),
    )


def select_one(target: str) -> RunDir:
    """The one run that is meant; of a job.yaml or a directory, its newest. RunNotFoundError also for an array."""
    runs = select([target] if target else ()).runs
    if not runs:
        what = target or "this directory's job.yaml"
        look = f"hpc-resume status {target}".rstrip()
        raise RunNotFoundError(f"{what} has not begun: there is no run of it here yet; look with `{look}`")
    return newest_of(runs, target)


def newest_of(runs: Sequence[RunDir], target: str) -> RunDir:
    """Of a place the run that was touched last; several runs of one name mean an array: RunNotFoundError."""
    if len(runs) > 1 and target and not Path(target).exists():
        keys = ", ".join(run.key for run in runs[:_SHOWN])
        raise RunNotFoundError(f"{target} means {len(runs)} runs ({keys}...): name one of them, as {runs[0].key}")
    return max(runs, key=_last_touched)


def _last_touched(run: RunDir) -> tuple[float, str]:
    """When its newest attempt began."""
    newest = run.newest_attempt()
    try:
        return (newest.path if newest else run.path).stat().st_mtime, run.key
    except OSError:
        return 0.0, run.key


def _select(target: str) -> Selection:
    path = Path(os.path.abspath(target))  # noqa: PTH100 - links stay
    if path.is_file():
        return _select_job_file(Path(target))
    if RunDir(path).run_file.is_file():
        return Selection((RunDir(path),))
    if path.is_dir():
        runs, closed = find_readable_runs(path)
        if not runs:
            why = f" ({closed_words(closed)})" if closed else ""
            raise RunNotFoundError(f"no runs in {target}{why}; begin one with `hpc-resume run` or `hpc-resume submit`")
        return Selection(runs, closed=closed)
    if target.endswith((".yaml", ".yml")):
        return _select_job_file(Path(target))
    return _select_named(target)


def _select_job_file(path: Path) -> Selection:
    """The runs of that job, and the numbered ones of a plain `python train.py` beside them."""
    job_file = read_job(path)
    parent = job_file.directory / job_file.job.run_dir
    name = job_file.job.name
    found, closed = find_readable_runs(parent)
    runs = tuple(run for run in found if run.key.isdigit() or run.key.startswith(f"{name}-"))
    ours = tuple(run for run in runs if run.key.isdigit() or _name_of(run) == name)
    return Selection(ours, (name,), closed=closed)


def _select_named(target: str) -> Selection:
    """A run's key, or a job's id: of Slurm, or of a local run."""
    parent = Path(os.path.abspath(run_parent("")))  # noqa: PTH100 - links stay
    runs = find_runs(parent)
    if re.fullmatch(r"([0-9]+|local-[0-9]+)(_[0-9]+)?", target):
        by_job = tuple(run for run in runs if _is_of_job(run, target))
        if by_job or target[0].isdigit():
            return Selection(by_job, (), (target,) if target[0].isdigit() else ())
    by_key = tuple(run for run in (*runs, RunDir(parent / target)) if _is_named(run, target, parent))
    if by_key:
        return Selection(tuple(dict.fromkeys(by_key)))
    job_id = re.fullmatch(r".+-([0-9]+(?:_[0-9]+)?)", target)
    if job_id and "-local-" not in target:
        return Selection((), (), (job_id[1],))
    raise no_such_run(target, parent)


def closed_words(count: int) -> str:
    """What is not shown, and whose it is."""
    return "1 run of another user is not shown" if count == 1 else f"{count} runs of other users are not shown"


def _is_named(run: RunDir, target: str, parent: Path) -> bool:
    if run.path == parent / target:
        return run.run_file.is_file()
    return matches(target, run.key)


def _is_of_job(run: RunDir, job_id: str) -> bool:
    for attempt in reversed(run.attempts()):
        record = attempt.attempt()
        if record is not None and matches(job_id, record.job_id):
            return True
    return False


def _name_of(run: RunDir) -> str:
    record = run.run()
    return record.name if record is not None else ""
