"""Finds and ends exactly the processes of one cluster: by PID, never by a name alone.

A process belongs to a cluster when its environment holds that cluster's SLURM_CONF and it is one of Slurm's daemons,
munged, or part of a job. A developer's shell with the same variable is none of these and is left alone.

Signals go through a pidfd that was opened before the check, so a PID that is used again in between cannot be hit. A
pidfd is also readable as soon as its process is dead, even if PID 1 never collects the zombie: `kill -0` is not.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

DAEMONS = frozenset({"slurmctld", "slurmscriptd", "slurmd", "slurmstepd", "munged"})


@dataclass(frozen=True, slots=True)
class Process:
    """One living process of a cluster; `role` is the daemon's name, or "job"."""

    pid: int
    role: str
    node: str  # of a slurmd: its -N; else ""


def _read(pid: int, name: str) -> list[str]:
    """The NUL-separated fields of /proc/<pid>/<name>; nothing in them for a zombie, a stranger or nobody."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return [""]


def identify(pid: int, conf: Path) -> Process | None:
    """What `pid` is in the cluster of `conf`, or None."""
    environment = _read(pid, "environ")
    if f"SLURM_CONF={conf}" not in environment:
        return None
    # Not the executable's name: Debian's is slurmctld-wlm.
    program = _read(pid, "comm")[0].strip()
    if program in DAEMONS:
        words = _read(pid, "cmdline")
        node = words[words.index("-N") + 1] if program == "slurmd" and "-N" in words else ""
        return Process(pid, program, node)
    return Process(pid, "job", "") if any(entry.startswith("SLURM_JOB_ID=") for entry in environment) else None


def find(conf: Path) -> list[Process]:
    """Every living process of the cluster of `conf`."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [process for pid in pids if (process := identify(pid, conf))]


def end(processes: list[Process], conf: Path, sig: signal.Signals = signal.SIGKILL, seconds: float = 5.0) -> None:
    """Send `sig` to each process that still is what it was, and wait until all are dead.

    Raises TimeoutError when one outlives `seconds`.
    """
    waiting: dict[int, Process] = {}
    try:
        for process in processes:
            with suppress(ProcessLookupError):
                waiting[os.pidfd_open(process.pid)] = process
        for descriptor, process in waiting.items():
            if identify(process.pid, conf) == process:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, sig)
        _await_death(waiting, seconds)
    finally:
        for descriptor in waiting:
            os.close(descriptor)


def _await_death(waiting: dict[int, Process], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    left = set(waiting)
    while left:
        dead, _, _ = select.select(left, [], [], max(0.0, deadline - time.monotonic()))
        if not dead:
            names = ", ".join(f"{waiting[descriptor].role} {waiting[descriptor].pid}" for descriptor in left)
            raise TimeoutError(f"still alive after {seconds:g} s: {names}")
        left -= set(dead)
