"""The PID record, which says that the handlers are installed, and the first words of a run."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from hpc_resume.contract import FORMAT_VERSION
from hpc_resume.durable import write_json
from hpc_resume.errors import ConfigError, HpcResumeError
from hpc_resume.run.ancestry import chain
from hpc_resume.run.events import EventLog, say
from hpc_resume.run.opening import Opening, short_path
from hpc_resume.run.process import boot_id, host_name, identify, namespace_pids, pid_namespace

if TYPE_CHECKING:
    from pathlib import Path

    from hpc_resume.checkpoints.catalogue import Loaded
    from hpc_resume.run.environment import Environment
    from hpc_resume.run.rundir import AttemptDir


def announce(environment: Environment, attempt_dir: AttemptDir, *, opened: bool = True) -> EventLog:
    """Write the PID record, to be called when the handlers are in place; the events file of this process.

    `opened`: whether it has a run. One that has not, yet or ever, is not judged by the checkpoints it publishes.

    Raises ConfigError when the attempt's directory cannot be written: nobody could warn this process then.
    """
    path = record(environment, attempt_dir, opened=opened)
    pid, host = os.getpid(), host_name()
    try:
        events = EventLog(attempt_dir.events_file(host, pid))
    except OSError as error:
        raise _unreachable(path, error) from error
    events.write("ready", pid=pid, rank=environment.rank, signal=environment.signal_name)
    return events


def record(environment: Environment, attempt_dir: AttemptDir, *, opened: bool) -> Path:
    """Write the PID record alone, anew for a process that has announced itself and now has a run; its file.

    Raises ConfigError as `announce` does.
    """
    pid, host = os.getpid(), host_name()
    me = identify(pid)
    fields = {
        "version": FORMAT_VERSION,
        "pid": pid,
        "start_ticks": me.start_ticks if me else 0,
        "boot_id": boot_id(),
        "host": host,
        "pid_ns": pid_namespace(),
        "ns_pids": list(namespace_pids()),
        "rank": environment.rank,
        "job_id": environment.job_id,
        "restart_count": environment.restart_count,
        "signal": environment.signal_name,
        "opened": opened,
        "chain": list(chain(_launcher(attempt_dir) if environment.launched else None)),
    }
    path = attempt_dir.pid_file(host, environment.rank)
    try:
        write_json(path, fields)
    except OSError as error:
        raise _unreachable(path, error) from error
    return path


def _unreachable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{path}: {error.strerror or error}; no warning can reach a training without it")


def _launcher(attempt_dir: AttemptDir) -> int:
    """The launcher's pid, where it can be seen from here; 0: the walk ends where sight does."""
    with contextlib.suppress(HpcResumeError):
        record = attempt_dir.attempt()
        if record is not None and record.process.host == host_name():
            return record.process.pid if record.process.pid_ns in (0, pid_namespace()) else 0
    return 0


def hello(environment: Environment, opening: Opening, loaded: Loaded) -> None:
    """What is going on, in one line, from rank 0."""
    if environment.rank != 0:
        return
    where = short_path(opening.run_dir.path)
    if opening.attempt > 1 or loaded.newest is not None:
        step = loaded.newest.step if loaded.newest else 0
        say(f"continuing {where} at step {step} (attempt {opening.attempt})")
    else:
        say(f"new run {where}")
