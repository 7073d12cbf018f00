"""A script around the runtime as it stands, with the assignments that a test wants, driven by real bash."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpc_resume.launch.templates import read_runtime

RUNTIME = read_runtime()  # as every rendered script carries it

DEFAULTS: dict[str, str | int | list[str]] = {
    "HR_VERSION": "0.0.0",
    "HR_SPEC_DIGEST": "0123456789ab",
    "HR_NAME": "job",
    "HR_RUN_DIR": "runs",
    "HR_RUN_KEY": "",
    "HR_LAUNCHER": [],
    "HR_RANKS": 0,
    "HR_COMMAND": ["true"],
    "HR_SWEEP": "",
    "HR_SETUP": "",
    "HR_ENV": [],
    "HR_SIGNAL": "USR1",
    "HR_LEAD": 120,
    "HR_REQUEUE_ON": ["preempted", "timeout", "node_fail"],
    "HR_REQUEUE_METHOD": "auto",
    "HR_MAX_TIMEOUT": -1,
    "HR_MAX_PREEMPTED": -1,
    "HR_MAX_CRASH": 0,
    "HR_MAX_NO_PROGRESS": 2,
    "HR_MAX_TOTAL": 1000,
    "HR_SAVE_STEPS": 0,
    "HR_SAVE_SECONDS": 900,
    "HR_KEEP": 2,
    "HR_KEEP_EVERY": 0,
    "HR_SAVE_ASYNC": "",
    "HR_FAST_DIR": "",
    "HR_RESHARD": 0,
    "HR_CHECKSUMS": 1,
    "HR_WANDB": "",
    "HR_MIRROR": "",
    "HR_STAGGER_MS": 0,
    "HR_STAGGER_JITTER_MS": 0,
    "HR_STAGGER_WIDTH": 0,
}


def assign(name: str, value: str | int | list[str]) -> str:
    """One bash assignment."""
    if isinstance(value, list):
        return f"{name}=({' '.join(shlex.quote(word) for word in value)})"
    return f"{name}={shlex.quote(str(value))}"


def poll(what: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first true answer of `what`, asked again until the deadline."""
    deadline = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < deadline, f"{what} did not come true in {seconds} s"
        time.sleep(0.01)
    return answer


class Job:
    """A runtime script in a directory of its own, started as often as a test likes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.script = directory / "job.sbatch"
        self.processes: list[subprocess.Popen[str]] = []

    def write(self, tail: str | None = None, **variables: str | int | list[str]) -> Path:
        """Write the script: assignments, the runtime, and by default the rendered scripts' own last line."""
        values = DEFAULTS | variables
        assert set(variables) <= set(DEFAULTS), "not a variable of the contract"
        main = 'if [[ "${BASH_SOURCE[0]:-$0}" == "$0" ]]; then hr::main "$@"; fi' if tail is None else tail
        block = "\n".join(assign(name, value) for name, value in values.items())
        self.script.write_text(f"#!/bin/bash\n{block}\n{RUNTIME}\n{main}\n")
        return self.script

    def start(self, *, env: dict[str, str] | None = None, argv: list[str] | None = None) -> subprocess.Popen[str]:
        """Start the script (or another argv) beside the test, with none of the test's own Slurm around it."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "HPC_RESUME_", "HR_"))}
        process = subprocess.Popen(
            argv or ["bash", str(self.script)],
            cwd=self.directory,
            env=clean | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def run(self, *, env: dict[str, str] | None = None, argv: list[str] | None = None) -> subprocess.CompletedProcess:
        """Start it and wait for its end."""
        process = self.start(env=env, argv=argv)
        out, err = process.communicate(timeout=90)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def file(self, pattern: str) -> Path:
        """The one file under runs/ that matches."""
        return poll(lambda: next(iter(self.directory.glob(f"runs/{pattern}")), None))

    def json(self, pattern: str) -> dict[str, Any]:
        """The JSON of that file."""
        return json.loads(self.file(pattern).read_text())

    def events(self, attempt: int = 1) -> list[dict[str, Any]]:
        """The launcher's events of one attempt."""
        lines: list[dict[str, Any]] = []
        for path in self.directory.glob(f"runs/*/attempts/{attempt:04d}/events/*.jsonl"):
            lines += [json.loads(line) for line in path.read_text().splitlines()]
        return sorted(lines, key=lambda line: line["t"])


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    """A job that leaves no process behind: sessions of their own are ended by the PIDs that we started."""
    job = Job(tmp_path)
    yield job
    for process in job.processes:
        if process.poll() is None:
            process.kill()
        process.wait()
        with contextlib.suppress(ProcessLookupError):  # the session leader is gone, its group may not be
            os.killpg(process.pid, signal.SIGKILL)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


# A training in twenty lines: announces itself as the helper does, notes what it gets, ends as it is told.
TRAINING = """
import json, os, pathlib, signal, sys, time
attempt = pathlib.Path(os.environ["HPC_RESUME_ATTEMPT_DIR"])
got = []
signal.signal(signal.SIGUSR1, lambda number, frame: got.append(number))
signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
stat = pathlib.Path("/proc/self/stat").read_text()
host = pathlib.Path("/proc/sys/kernel/hostname").read_text().strip()
record = {
    "version": 1, "pid": os.getpid(), "start_ticks": int(stat[stat.rindex(")") + 2:].split()[19]),
    "boot_id": pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip(), "host": host, "rank": 0,
    "job_id": os.environ["HPC_RESUME_JOB_ID"], "restart_count": 0, "signal": "USR1",
}
if "late" in sys.argv: time.sleep(1.5)
target = attempt / "pids" / f"{host}.0.json"
target.with_suffix(".tmp").write_text(json.dumps(record))
target.with_suffix(".tmp").rename(target)
deadline = time.monotonic() + 30
want = int(os.environ.get("SIGNALS", "1"))
while len(got) < want and time.monotonic() < deadline: time.sleep(0.005)
pathlib.Path("got").write_text(" ".join(map(str, got)))
time.sleep(float(os.environ.get("LINGER", "0")))
sys.exit(int(os.environ.get("CODE", 128 + got[0])))
"""


@pytest.fixture
def training(tmp_path: Path) -> list[str]:
    """Words of a command that behaves as a training with our helper."""
    (tmp_path / "training.py").write_text(TRAINING)
    return ["env", sys.executable, "training.py"]  # not begun by us: its record is its own
