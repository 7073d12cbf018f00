"""The paths of a run directory, and what is in them: the only place in Python that builds one. Reads, never writes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from hpc_resume import contract
from hpc_resume.checkpoints.layout import parse_step, step_name
from hpc_resume.durable import read_plain, read_tail
from hpc_resume.errors import HpcResumeError
from hpc_resume.run import records

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hpc_resume.run.records import (
        AttemptRecord,
        Event,
        ExitRecord,
        FinishedRecord,
        OutcomeRecord,
        PidRecord,
        RunRecord,
    )

_T = TypeVar("_T")
_ATTEMPT: Final = re.compile(rf"\d{{{contract.ATTEMPT_DIGITS},}}", re.ASCII)
_TAIL_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True, order=True)
class AttemptDir:
    """attempts/0003: one start of a run."""

    path: Path

    @property
    def number(self) -> int:
        """1, 2, ...; 0 when the directory is named otherwise."""
        return int(self.path.name) if _ATTEMPT.fullmatch(self.path.name) else 0

    @property
    def attempt_file(self) -> Path:
        """Who started it, and where."""
        return self.path / contract.ATTEMPT_FILE

    @property
    def outcome_file(self) -> Path:
        """What the training says of its end."""
        return self.path / contract.OUTCOME_FILE

    @property
    def exit_file(self) -> Path:
        """What the launcher saw and decided."""
        return self.path / contract.EXIT_FILE

    @property
    def control_file(self) -> Path:
        """What the owner asks of it."""
        return self.path / contract.CONTROL_FILE

    def rendezvous_file(self, incarnation: int) -> Path:
        """Where the ranks meet; those that an agent starts anew meet anew."""
        name = contract.RENDEZVOUS_FILE
        return self.path / (f"{incarnation}.{name}" if incarnation else name)

    @property
    def departures_dir(self) -> Path:
        """Who left before he had met the others."""
        return self.path / contract.DEPARTURES_DIR

    @property
    def metrics_file(self) -> Path:
        """What run.log() wrote."""
        return self.path / contract.METRICS_FILE

    @property
    def warning_file(self) -> Path:
        """When the end comes, as the launcher knows it."""
        return self.path / contract.WARNING_FILE

    @property
    def batches_file(self) -> Path:
        """The ids of the batches seen, in a drill."""
        return self.path / contract.BATCHES_FILE

    @property
    def pids_dir(self) -> Path:
        """One record per process that announced itself."""
        return self.path / contract.PIDS_DIR

    @property
    def events_dir(self) -> Path:
        """One file per process that has something to tell."""
        return self.path / contract.EVENTS_DIR

    def pid_file(self, host: str, rank: int | str) -> Path:
        """`rank` is a number, or `child` for the launcher's own record."""
        return self.pids_dir / f"{host}.{rank}.json"

    def stacks_file(self, host: str, pid: int) -> Path:
        """Where every thread of a process was when no boundary came."""
        return self.path / f"{contract.STACKS_PREFIX}{host}.{pid}.txt"

    def events_file(self, host: str, pid: int) -> Path:
        """Events of one process."""
        return self.events_dir / f"{host}.{pid}.jsonl"

    def is_to_end(self) -> bool:
        """Whether its owner has asked that the run ends for good: `hpc-resume cancel`, `poke stop`."""
        try:
            fields = records.read_fields(self.control_file)
        except HpcResumeError:
            return False
        return fields is not None and fields.text("request") in ("cancel", "stop")

    def attempt(self) -> AttemptRecord | None:
        """What attempt.json says."""
        return _read(self.attempt_file, records.parse_attempt)

    def outcome(self) -> OutcomeRecord | None:
        """The training's record of the end, None before it."""
        return _read(self.outcome_file, records.parse_outcome)

    def exit(self) -> ExitRecord | None:
        """The launcher's record of the end, None before it."""
        return _read(self.exit_file, records.parse_exit)

    def pids(self) -> tuple[PidRecord, ...]:
        """Every process that announced itself, and the launcher's own record (rank -1)."""
        found = (_read(path, records.parse_pid) for path in _files(self.pids_dir, ".json"))
        return tuple(record for record in found if record is not None)

    def events(self) -> tuple[Event, ...]:
        """Those of all writers, by time; half-written last lines are left out."""
        found: list[Event] = []
        for path in _files(self.events_dir, ".jsonl"):
            lines = read_plain(path).decode("utf-8", "replace").splitlines()
            found.extend(event for line in lines if (event := records.parse_event(line)) is not None)
        return tuple(sorted(found, key=lambda event: event.t))

    def last_metrics(self) -> Event | None:
        """The newest line of run.log(): its `data` has `step`."""
        try:
            lines = read_tail(self.metrics_file, _TAIL_BYTES).decode("utf-8", "replace").splitlines()
        except OSError:
            return None
        return next((event for line in reversed(lines) if (event := records.parse_event(line)) is not None), None)


@dataclass(frozen=True, slots=True, order=True)
class RunDir:
    """One run: `<run_dir>/<key>`."""

    path: Path

    @property
    def key(self) -> str:
        """The run's name below its parent."""
        return self.path.name

    @property
    def run_file(self) -> Path:
        """Who and what; its existence makes a directory a run."""
        return self.path / contract.RUN_FILE

    @property
    def finished_file(self) -> Path:
        """Its existence means that there is nothing left to train."""
        return self.path / contract.FINISHED_FILE

    @property
    def lock_file(self) -> Path:
        """Held by the process that continues the run; see lease."""
        return self.path / contract.LOCK_FILE

    @property
    def latest_file(self) -> Path:
        """The name of the newest checkpoint."""
        return self.path / contract.LATEST_FILE

    @property
    def lease_dir(self) -> Path:
        """The log of generations: who may publish."""
        return self.path / contract.LEASE_DIR

    @property
    def checkpoints_dir(self) -> Path:
        """Where the checkpoints are."""
        return self.path / contract.CHECKPOINTS_DIR

    @property
    def attempts_dir(self) -> Path:
        """Where the attempts are."""
        return self.path / contract.ATTEMPTS_DIR

    def checkpoint_dir(self, step: int) -> Path:
        """The checkpoint of the state after `step` steps."""
        return self.checkpoints_dir / step_name(step)

    def attempt(self, number: int) -> AttemptDir:
        """Where attempt `number` is kept, whether it is there or not."""
        return AttemptDir(self.attempts_dir / f"{number:0{contract.ATTEMPT_DIGITS}d}")

    def attempts(self) -> tuple[AttemptDir, ...]:
        """Oldest first; a link is none."""
        found = (AttemptDir(self.attempts_dir / name) for name in _names(self.attempts_dir))
        ours = (attempt for attempt in found if attempt.number and not attempt.path.is_symlink())
        return tuple(sorted(ours, key=lambda attempt: attempt.number))

    def newest_attempt(self) -> AttemptDir | None:
        """The last one that was started, None before the first."""
        attempts = self.attempts()
        return attempts[-1] if attempts else None

    def run(self) -> RunRecord | None:
        """What run.json says."""
        return _read(self.run_file, records.parse_run)

    def finished(self) -> FinishedRecord | None:
        """What finished.json says, None while there is something to train."""
        return _read(self.finished_file, records.parse_finished)

    def latest_step(self) -> int | None:
        """The step that `latest` names; None before the first checkpoint."""
        try:
            return parse_step(read_plain(self.latest_file).decode("utf-8", "replace").strip())
        except OSError:
            return None


def find_runs(parent: Path) -> tuple[RunDir, ...]:
    """Every run below `parent`: `<parent>/<key>`, and `<parent>/<script>/<NNNN>` of a plain `python train.py`."""
    return find_readable_runs(parent)[0]


def find_readable_runs(parent: Path) -> tuple[tuple[RunDir, ...], int]:
    """The runs below `parent`, and how many directories are closed to us: other users share a run_dir.

    Names with a dot in front are not runs. Raises PermissionError when `parent` itself is closed.
    """
    found: list[RunDir] = []
    closed = 0
    for name in _visible(parent):
        try:
            found.extend(_runs_at(parent / name))
        except PermissionError:
            closed += 1
    return tuple(sorted(found)), closed


def _runs_at(path: Path) -> list[RunDir]:
    own = RunDir(path)
    if own.run_file.is_file():
        return [own]
    return [run for inner in _visible(path) if (run := RunDir(path / inner)).run_file.is_file()]


def _visible(directory: Path) -> list[str]:
    return [name for name in _names(directory) if not name.startswith(".")]


def _read(path: Path, parse: Callable[[records.Fields], _T]) -> _T | None:
    fields = records.read_fields(path)
    return parse(fields) if fields is not None else None


def _names(directory: Path) -> list[str]:
    try:
        return sorted(path.name for path in directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _files(directory: Path, suffix: str) -> list[Path]:
    return [directory / name for name in _names(directory) if name.endswith(suffix) and not name.startswith(".")]
