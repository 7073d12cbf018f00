"""Which run directory this process works in, as which attempt, and with which right to write.

Told by the launcher, by HPC_RESUME_RUN_DIR or by the code; else `runs/<script>/<NNNN>`: the newest unfinished one that
no living process holds is continued, and a new one begins where there is none.
"""

from __future__ import annotations

import os
import sys
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpc_resume import contract
from hpc_resume.durable import DIR_MODE, TEMPORARY_MARK, make_directory, write_json
from hpc_resume.errors import ConfigError, RunHeldError, RunStateError, UsageError
from hpc_resume.run import lease as leases
from hpc_resume.run.ending import AlreadyFinished
from hpc_resume.run.events import say
from hpc_resume.run.process import boot_id, host_name, identify, is_alive, pid_namespace
from hpc_resume.run.rundir import AttemptDir, RunDir

if TYPE_CHECKING:
    from hpc_resume.run.environment import Environment
    from hpc_resume.run.lease import Claimant, Lease

_RUNS: Final = "runs"
_NUMBER_DIGITS: Final = 4
_LEAVING_SECONDS: Final = 120.0  # as long as a warning comes before the end, where nobody says otherwise


@dataclass(frozen=True, slots=True)
class Opening:
    """What was decided. `lease` is None on every rank but 0; `cause` is why the attempt before ended, if any."""

    run_dir: RunDir
    attempt_dir: AttemptDir
    attempt: int
    lease: Lease | None
    cause: str | None
    launcher_ns: int = 0  # the PID namespace that the launcher signals from; 0: unknown, or no launcher


def open_run(environment: Environment, asked: Path | None) -> Opening:
    """Find or begin the run and take its lease.

    Raises AlreadyFinished; RunHeldError when a run that was asked for by name is held; RunStateError and ConfigError
    for directories that cannot be used; UsageError for a rank beyond 0 that nobody told where to go.
    """
    directory = environment.run_dir or (asked.absolute() if asked else None)
    if environment.sweep_run and environment.run_dir is None:
        # Keyed by W&B's id: whichever agent is given the run again finds it, on any node.
        directory = (environment.runs or (asked or Path(_RUNS)).absolute()) / environment.sweep_run
    if environment.rank != 0:
        return _join(environment, directory)
    own = environment.attempt if environment.launched else None
    claimant = leases.Claimant(environment.job_id, environment.restart_count, own or 0)
    if directory is not None:
        run_dir, lease = _take_named(RunDir(directory), own, claimant)
    else:
        run_dir, lease = _take_newest(_script_name(), claimant)
    try:
        return _begin_attempt(environment, run_dir, lease)
    except OSError as error:
        lease.release()
        raise _unusable(run_dir.path, error) from error
    except BaseException:
        lease.release()
        raise


def _join(environment: Environment, directory: Path | None) -> Opening:
    """A rank beyond 0 reads and announces itself; rank 0 keeps the books."""
    if directory is None:
        raise UsageError(
            f"rank {environment.rank} does not know the run directory: set {contract.ENV_RUN_DIR} for all ranks"
        )
    run_dir = RunDir(directory)
    attempt = environment.attempt or 1
    attempt_dir = AttemptDir(environment.attempt_dir) if environment.attempt_dir else run_dir.attempt(attempt)
    try:
        check_owner(directory)
        _make_attempt_directories(attempt_dir)
    except OSError as error:
        raise _unusable(directory, error) from error
    launcher_ns = _launcher_ns(attempt_dir) if environment.launched else 0
    return Opening(run_dir, attempt_dir, attempt, None, environment.cause, launcher_ns)


def _take_named(run_dir: RunDir, own: int | None, claimant: Claimant) -> tuple[RunDir, Lease]:
    try:
        run_dir.path.mkdir(DIR_MODE, parents=True, exist_ok=True)
        check_owner(run_dir.path)
        _leave_if_finished(run_dir)
        lease = _take_from_who_leaves(run_dir, own, claimant)
    except OSError as error:
        raise _unusable(run_dir.path, error) from error
    if lease is None:
        raise RunHeldError(
            f"{run_dir.path} is being continued by {_holder(run_dir, own)}; wait for it to end,"
            f" or set {contract.ENV_RUN_DIR} to another directory"
        )
    try:
        _leave_if_finished(run_dir)  # it may have ended between the look and the lock
    except AlreadyFinished:
        lease.release()
        raise
    return run_dir, lease


def _take_from_who_leaves(run_dir: RunDir, own: int | None, claimant: Claimant) -> Lease | None:
    """The lease; of an owner that has been warned, or has said how it ended, the end is waited for.

    W&B hands a run out again as soon as its last attempt has said its exit code, which is before that has ended: who
    left now would leave a run behind that nobody is given again.
    """
    until = time.monotonic() + _LEAVING_SECONDS
    while (lease := leases.take(run_dir, claimant, say)) is None:
        if time.monotonic() > until or not _is_leaving(run_dir, own):
            return None
        time.sleep(0.2)
    return lease


def _is_leaving(run_dir: RunDir, own: int | None) -> bool:
    newest = next((attempt for attempt in reversed(run_dir.attempts()) if attempt.number != own), None)
    if newest is None:
        return False
    return newest.outcome() is not None or any(event.event == "received" for event in newest.events())


def _take_newest(script: str, claimant: Claimant) -> tuple[RunDir, Lease]:
    """The newest unfinished run of `script` that is free, else a new one."""
    parent = Path(_RUNS, script).absolute()
    try:
        parent.mkdir(DIR_MODE, parents=True, exist_ok=True)
        numbers = sorted((int(name) for name in _names(parent) if name.isascii() and name.isdigit()), reverse=True)
        for number in numbers:
            run_dir = RunDir(parent / f"{number:0{_NUMBER_DIGITS}d}")
            if (lease := _take_unfinished(run_dir, claimant)) is not None:
                return run_dir, lease
        return _take_new(parent, numbers[0] + 1 if numbers else 1, claimant)
    except OSError as error:
        raise _unusable(parent, error) from error


def _take_unfinished(run_dir: RunDir, claimant: Claimant) -> Lease | None:
    if run_dir.finished() is not None or not run_dir.path.is_dir():
        return None
    check_owner(run_dir.path)
    lease = leases.take(run_dir, claimant, say)
    if lease is None:
        say(f"{short_path(run_dir.path)} is in use by {_holder(run_dir, None)}")
    elif run_dir.finished() is not None:
        lease.release()
        return None
    return lease


def _take_new(parent: Path, number: int, claimant: Claimant) -> tuple[RunDir, Lease]:
    """Two processes that start together get two runs: mkdir decides, and the lock settles who was seen half-made."""
    while True:
        run_dir = RunDir(parent / f"{number:0{_NUMBER_DIGITS}d}")
        number += 1
        try:
            run_dir.path.mkdir(DIR_MODE)
        except FileExistsError:
            continue
        lease = leases.take(run_dir, claimant, say)
        if lease is not None:
            return run_dir, lease


def _begin_attempt(environment: Environment, run_dir: RunDir, lease: Lease) -> Opening:
    _clear_leftovers(run_dir.path)
    before = run_dir.newest_attempt()
    if environment.attempt_dir is not None:
        attempt_dir = AttemptDir(environment.attempt_dir)
        number = environment.attempt or attempt_dir.number or 1
        _make_attempt_directories(attempt_dir)
        return Opening(run_dir, attempt_dir, number, lease, environment.cause, _launcher_ns(attempt_dir))
    number = before.number + 1 if before else 1
    attempt_dir = run_dir.attempt(number)
    _make_attempt_directories(attempt_dir)
    _keep_the_books(environment, run_dir, attempt_dir, number)
    return Opening(run_dir, attempt_dir, number, lease, environment.cause or _cause_of(before))


def _launcher_ns(attempt_dir: AttemptDir) -> int:
    record = attempt_dir.attempt()
    return record.process.pid_ns if record is not None else 0


def _make_attempt_directories(attempt_dir: AttemptDir) -> None:
    for directory in (attempt_dir.path.parent, attempt_dir.path, attempt_dir.pids_dir, attempt_dir.events_dir):
        make_directory(directory)


def _keep_the_books(environment: Environment, run_dir: RunDir, attempt_dir: AttemptDir, number: int) -> None:
    """run.json and attempt.json, which a launcher would have written."""
    now = round(time.time(), 3)
    digest = _arguments_digest()
    known = run_dir.run()
    if known is None:
        name = run_dir.path.parent.name if run_dir.path.name.isdigit() else run_dir.path.name
        identity = {"key": run_dir.key, "name": name, "spec_digest": digest, "created": now}
        write_json(run_dir.run_file, {"version": contract.FORMAT_VERSION, **identity})
    elif known.spec_digest != digest:
        say(f"{short_path(run_dir.path)} was begun with other arguments; it goes on with the present ones")
    me = identify(os.getpid())
    record = {
        "version": contract.FORMAT_VERSION,
        "attempt": number,
        "job_id": environment.job_id,
        "restart_count": environment.restart_count,
        "scheduler": "none",
        "host": host_name(),
        "pid": os.getpid(),
        "start_ticks": me.start_ticks if me else 0,
        "boot_id": boot_id(),
        "pid_ns": pid_namespace(),
        "started": now,
    }
    write_json(attempt_dir.attempt_file, record)


def _cause_of(before: AttemptDir | None) -> str | None:
    """Why the attempt before ended, without a launcher that knows: as far as the training itself could tell."""
    if before is None:
        return None
    outcome = before.outcome()
    if outcome is None:
        return "node_fail"  # it ended without a word
    if outcome.outcome == contract.OUTCOME_CRASHED:
        return "crash"
    return "cancelled" if outcome.signal == "INT" else "operator"


def _leave_if_finished(run_dir: RunDir) -> None:
    if run_dir.finished() is not None:
        say(
            f"{short_path(run_dir.path)} is finished, nothing to do;"
            f" for a new run set {contract.ENV_RUN_DIR} to a new directory"
        )
        raise AlreadyFinished


def check_owner(path: Path) -> None:
    """Raises RunStateError for a directory of somebody else, OSError for one that is not there."""
    owner = path.stat().st_uid
    if owner != os.geteuid():
        raise RunStateError(
            f"{path} belongs to user id {owner}, this is {os.geteuid()}: what is in it would be loaded as yours;"
            f" set {contract.ENV_RUN_DIR} to a directory of your own"
        )


def _clear_leftovers(path: Path) -> None:
    """Half-written files of killed processes; ours alone, by their mark."""
    for name in _names(path):
        if name.startswith(".") and TEMPORARY_MARK in name:
            (path / name).unlink(missing_ok=True)


def _names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def _holder(run_dir: RunDir, own: int | None) -> str:
    """The newest attempt but our `own` whose launcher lives; else one on a host that cannot be asked from here."""
    unseen = ""
    for attempt in reversed(run_dir.attempts()):
        record = attempt.attempt() if attempt.number != own else None
        if record is None or attempt.exit() is not None:
            continue
        alive = is_alive(record.process)
        job = f", job {record.job_id}" if record.job_id else ""
        words = f"pid {record.process.pid} on {record.process.host} (attempt {record.attempt}{job})"
        if alive:
            return words
        if alive is None:
            unseen = unseen or words
    return unseen or "another process"


def _unusable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"run directory {error.filename or path}: {error.strerror or error};"
        f" set {contract.ENV_RUN_DIR} to a directory that you can write"
    )


def _arguments_digest() -> str:
    return f"argv-{zlib.crc32(chr(0).join(sys.argv[1:]).encode('utf-8', 'surrogateescape')):08x}"


def _script_name() -> str:
    """`train` for train.py, the package's name for `python -m package`, `python` where there is no file."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if not file:
        return "python"
    path = Path(file).absolute()
    return path.parent.name if path.stem == "__main__" else path.stem


def short_path(path: Path) -> str:
    """The path as a person in the working directory would write it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
