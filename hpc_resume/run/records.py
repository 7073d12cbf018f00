"""What the files of a run directory say, as plain data: unknown keys are accepted, a newer version is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpc_resume.contract import FORMAT_VERSION, VERSION
from hpc_resume.durable import read_plain
from hpc_resume.errors import RunStateError
from hpc_resume.run.process import Identity

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class RunRecord:
    """run.json; `created` is epoch seconds."""

    key: str
    name: str
    spec_digest: str
    created: float


@dataclass(frozen=True, slots=True)
class Limits:
    """What attempt.json says of the requeue; `most` has what each budget of requeue.max allows, -1: unlimited."""

    lead: int
    requeue_on: tuple[str, ...]
    most: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """attempt.json; `process` is the launcher, or rank 0 where there is none, and then nobody has set `limits`."""

    attempt: int
    job_id: str
    restart_count: int
    scheduler: str
    process: Identity
    started: float
    limits: Limits | None = None


@dataclass(frozen=True, slots=True)
class PidRecord:
    """pids/<host>.<rank>.json: this process has its handlers installed. `rank` is -1 for the launcher's own record."""

    process: Identity
    rank: int
    job_id: str
    restart_count: int
    signal: str
    chain: tuple[str, ...] = ()  # names from the launcher down to this process


@dataclass(frozen=True, slots=True)
class OutcomeRecord:
    """outcome.json: what the training says of itself; `error` only when it crashed."""

    outcome: str
    step: int
    signal: str | None
    code: int
    error: str


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """exit.json: what the launcher saw and decided."""

    code: int
    cause: str
    evidence: str
    decision: str
    reason: str
    step_before: int
    step_after: int
    warned: bool
    started: float
    ended: float
    facts: str = ""  # what the decision's table was asked, in its columns
    successor: int = 0  # the job that goes on, where this one could not be requeued


@dataclass(frozen=True, slots=True)
class FinishedRecord:
    """finished.json; `t` is when, epoch seconds, `step` is -1 where the writer did not know it."""

    step: int
    attempt: int
    t: float


@dataclass(frozen=True, slots=True)
class Event:
    """One line of an events file; `data` is the line without `t` and `event`."""

    t: float
    event: str
    data: Mapping[str, object]


class Fields:
    """A JSON object with defaults for what is missing or of another type: half a record is shown, not a traceback."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self.values = values

    def text(self, key: str, default: str = "") -> str:
        """The string under `key`."""
        value = self.values.get(key)
        return value if isinstance(value, str) else default

    def whole(self, key: str, default: int = 0) -> int:
        """The integer under `key`."""
        value = self.values.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else default

    def number(self, key: str) -> float:
        """The number under `key`, 0.0 without one."""
        value = self.values.get(key)
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0

    def truth(self, key: str) -> bool:
        """Whether `key` is true."""
        return self.values.get(key) is True

    def identity(self) -> Identity:
        """The process that the record names."""
        return Identity(
            self.whole("pid"),
            self.whole("start_ticks"),
            self.text("boot_id"),
            self.text("host"),
            self.whole("pid_ns"),
        )

    def words(self, key: str) -> tuple[str, ...]:
        """The strings of the list under `key`."""
        value = self.values.get(key)
        return tuple(word for word in value if isinstance(word, str)) if isinstance(value, list) else ()


def read_fields(path: Path) -> Fields | None:
    """The record in `path`; None when it is absent or still empty.

    Raises RunStateError when it is no JSON object, or of a newer version.
    """
    try:
        text = read_plain(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RunStateError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not text.strip():
        return None
    try:
        values = json.loads(text)
    except ValueError as error:
        raise RunStateError(f"{path}: not JSON ({error}); it was not written by hpc_resume, move it away") from error
    if not isinstance(values, dict):
        raise RunStateError(f"{path}: not a JSON object; it was not written by hpc_resume, move it away")
    fields = Fields(values)
    if fields.whole("version", FORMAT_VERSION) > FORMAT_VERSION:
        raise RunStateError(
            f"{path}: format version {fields.whole('version')}, this is hpc_resume {VERSION} which reads up to"
            f" {FORMAT_VERSION}; install the version that wrote it"
        )
    return fields


def parse_run(f: Fields) -> RunRecord:
    """run.json."""
    return RunRecord(f.text("key"), f.text("name"), f.text("spec_digest"), f.number("created"))


def parse_attempt(f: Fields) -> AttemptRecord:
    """attempt.json."""
    return AttemptRecord(
        f.whole("attempt"),
        f.text("job_id"),
        f.whole("restart_count"),
        f.text("scheduler", "none"),
        f.identity(),
        f.number("started"),
        parse_limits(f),
    )


def parse_limits(f: Fields) -> Limits | None:
    """The budgets in attempt.json, where a launcher wrote it."""
    most = f.values.get("max")
    if not isinstance(most, dict):
        return None
    known = {name: value for name, value in most.items() if isinstance(value, int)}
    return Limits(f.whole("lead"), tuple(f.text("requeue_on").split()), known)


def parse_pid(f: Fields) -> PidRecord:
    """pids/<host>.<rank>.json."""
    return PidRecord(
        f.identity(),
        f.whole("rank", -1),
        f.text("job_id"),
        f.whole("restart_count"),
        f.text("signal"),
        f.words("chain"),
    )


def parse_outcome(f: Fields) -> OutcomeRecord:
    """outcome.json."""
    return OutcomeRecord(f.text("outcome"), f.whole("step"), f.text("signal") or None, f.whole("code"), f.text("error"))


def parse_exit(f: Fields) -> ExitRecord:
    """exit.json."""
    return ExitRecord(
        f.whole("code"),
        f.text("cause"),
        f.text("evidence"),
        f.text("decision"),
        f.text("reason"),
        f.whole("step_before"),
        f.whole("step_after"),
        f.truth("warned"),
        f.number("started"),
        f.number("ended"),
        f.text("facts"),
        f.whole("successor"),
    )


def parse_finished(f: Fields) -> FinishedRecord:
    """finished.json."""
    return FinishedRecord(f.whole("step", -1), f.whole("attempt"), f.number("t"))


def parse_event(line: str) -> Event | None:
    """One line of an events file; None for half a line (its writer was killed, or is at it)."""
    try:
        values = json.loads(line)
    except ValueError:
        return None
    if not isinstance(values, dict):
        return None
    fields = Fields(values)
    rest = {key: value for key, value in values.items() if key not in ("t", "event")}
    return Event(fields.number("t"), fields.text("event"), rest)
