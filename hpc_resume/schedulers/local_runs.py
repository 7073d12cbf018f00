"""The local runs of one name on disk: which there are, who is at work on them, and the claim of the one who will be.

A claim is `<run_dir>/.local-<uid>/<name>-local-<n>.json`: the process that starts the attempts of local job n, written
by it and removed at its end, as is the script beside it. It covers the moments between two attempts, and all tasks of
an array. One that was left behind by a killed process names a process that is gone, and holds nobody up.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpc_resume.contract import FORMAT_VERSION
from hpc_resume.durable import DIR_MODE, FILE_MODE, write_atomic, write_json
from hpc_resume.errors import ConfigError
from hpc_resume.run.process import Identity, identify, is_alive
from hpc_resume.run.records import read_fields
from hpc_resume.run.rundir import RunDir, find_runs
from hpc_resume.schedulers.continuation import RunFacts, job_key, parse_key

_CLAIMS_DIR: Final = f".local-{os.geteuid()}"  # of one user: a script that somebody else could write would run as us
_LOCK_FILE: Final = "lock"


@dataclass(frozen=True, slots=True)
class LocalRuns:
    """The runs called `name` below `parent`."""

    parent: Path
    name: str

    @contextlib.contextmanager
    def choosing(self) -> Iterator[None]:
        """Nobody else chooses a run here meanwhile: two `run`s that start together get two runs.

        Raises ConfigError when `parent` cannot be used. Without locks in the file system nobody is kept out; the
        lease on the run directory then still lets only one training in.
        """
        with self._usable("write to"):
            self._claims.mkdir(DIR_MODE, parents=True, exist_ok=True)
            if self._claims.lstat().st_uid != os.geteuid() or self._claims.is_symlink():
                raise ConfigError(f"{self._claims} is a link or belongs to somebody else: refused; remove it")
            descriptor = os.open(self._claims / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def claim(self, number: int) -> None:
        """Say that this process starts the attempts of local job `number` from now on."""
        me = identify(os.getpid())
        assert me is not None  # noqa: S101 - we are running
        record = {"pid": me.pid, "start_ticks": me.start_ticks, "boot_id": me.boot_id, "host": me.host}
        write_json(self._claim_file(number), {"version": FORMAT_VERSION, **record, "started": time.time()})

    def place_script(self, number: int, script: str) -> Path:
        """Where bash finds the script: it reads on while the script runs, so the file stays until `release`."""
        path = self._claim_file(number).with_suffix(".sbatch")
        write_atomic(path, script.encode("utf-8", "surrogateescape"))
        return path

    def release(self, number: int) -> None:
        """Take the claim back, and the script away."""
        for suffix in (".sbatch", ".json"):
            self._claim_file(number).with_suffix(suffix).unlink(missing_ok=True)

    def claimant(self, number: int) -> Identity | None:
        """Who claims local job `number`, alive or not."""
        fields = read_fields(self._claim_file(number))
        return fields.identity() if fields is not None else None

    def facts(self) -> tuple[RunFacts, ...]:
        """Every run of ours of this name, and those that are claimed and have no directory yet."""
        found = []
        others = self.others()
        for run in find_runs(self.parent):
            numbers = parse_key(self.name, run.key)
            if numbers is not None and numbers[0] not in others:
                found.append(self._facts_of(run, *numbers))
        begun = {run.number for run in found}
        for path in self._claims.glob("*.json"):
            numbers = parse_key(self.name, path.stem)
            if numbers is not None and numbers[0] not in begun and (holder := self._claimed_by(numbers[0])):
                found.append(RunFacts(numbers[0], None, False, holder, 0, None, ""))
        return tuple(found)

    def others(self) -> frozenset[int]:
        """The numbers that other users have taken: a run_dir may be shared, and theirs are closed to us."""
        taken = set()
        for path in self.parent.iterdir():
            numbers = parse_key(self.name, path.name)
            with contextlib.suppress(FileNotFoundError):
                if numbers is not None and path.lstat().st_uid != os.geteuid():
                    taken.add(numbers[0])
        return frozenset(taken)

    def orphans(self) -> tuple[RunDir, ...]:
        """Runs whose batch shell still ends an attempt of a scheduler that is gone.

        Raises ConfigError when `parent` cannot be read.
        """
        with self._usable("read"):
            return tuple(run for run in find_runs(self.parent) if self._is_orphan(run))

    @contextlib.contextmanager
    def _usable(self, wanted: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigError(
                f"cannot {wanted} {self.parent}: {error.strerror or error}; set run_dir in job.yaml to a directory "
                "that you can write"
            ) from error

    @property
    def _claims(self) -> Path:
        return self.parent / _CLAIMS_DIR

    def _claim_file(self, number: int) -> Path:
        return _claim_file(self.parent, job_key(self.name, number))

    def _facts_of(self, run: RunDir, number: int, task: int | None) -> RunFacts:
        record = run.run()
        return RunFacts(
            number,
            task,
            run.finished() is not None,
            self._claimed_by(number) or _in_words(launcher_at_work(run), "its batch shell"),
            len(run.attempts()),
            run.latest_step(),
            record.spec_digest if record else "",
        )

    def _claimed_by(self, number: int) -> str:
        return _in_words(self.claimant(number), "hpc-resume run")

    def _is_orphan(self, run: RunDir) -> bool:
        numbers = parse_key(self.name, run.key)
        newest = run.newest_attempt()
        record = newest.attempt() if newest else None
        if numbers is None or record is None or record.scheduler != "local":
            return False
        claimant = self.claimant(numbers[0])
        if claimant is not None and is_alive(claimant):
            return False
        return launcher_at_work(run) is not None and is_alive(record.process) is True


def scheduler_of(run: RunDir) -> Identity | None:
    """The living local scheduler of a run, or of all tasks of an array; None when there is none on this host."""
    match = re.fullmatch(r"(.+-local-[1-9][0-9]*)(?:_[0-9]+)?", run.key)
    fields = read_fields(_claim_file(run.path.parent, match[1])) if match else None
    claimant = fields.identity() if fields is not None else None
    return claimant if claimant is not None and is_alive(claimant) else None


def launcher_at_work(run: RunDir) -> Identity | None:
    """Who runs the newest attempt: alive, or on a host that cannot be asked from here and without a last word."""
    newest = run.newest_attempt()
    record = newest.attempt() if newest else None
    if newest is None or record is None or newest.exit() is not None:
        return None
    return record.process if is_alive(record.process) is not False else None


def _claim_file(parent: Path, key: str) -> Path:
    return parent / _CLAIMS_DIR / f"{key}.json"


def _in_words(process: Identity | None, role: str) -> str:
    alive = is_alive(process) if process is not None else False
    if process is None or alive is False:
        return ""
    unseen = ", which cannot be asked from here" if alive is None else ""
    return f"{role}, pid {process.pid} on {process.host}{unseen}"
