"""A user's project under the local scheduler: job.yaml, the real command line, and no process left behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pexpect

MINIMAL = Path(__file__).parents[2] / "examples" / "minimal"


def poll(what: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first true answer of `what`, asked again until the deadline."""
    deadline = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < deadline, f"{what} did not come true in {seconds} s"
        time.sleep(0.01)
    return answer


def alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat[stat.rindex(")") + 2] not in "ZX"


class Project:
    """A user's directory with examples/minimal in it, or another command; 60 steps of 20 ms."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.started: list[subprocess.Popen[str]] = []
        shutil.copy(MINIMAL / "train.py", directory)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "HPC_RESUME"))}
        self.env |= {"STEP_SECONDS": "0.02", "TOTAL_STEPS": "60", "TERM": "xterm"}
        self.write()

    def write(self, **keys: Any) -> None:
        """job.yaml; JSON is YAML."""
        job = {"name": "m", "command": [sys.executable, "train.py"], "preemption": {"lead": "60s"}} | keys
        (self.directory / "job.yaml").write_text(json.dumps(job))

    def start(self, *words: str) -> subprocess.Popen[str]:
        """`hpc-resume WORDS` beside the test."""
        return self.begin(sys.executable, "-m", "hpc_resume", *words, output=subprocess.PIPE)

    def begin(self, *argv: str, output: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        """Any program beside the test, ended with it."""
        process = subprocess.Popen(
            argv,
            cwd=self.directory,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            text=True,
        )
        self.started.append(process)
        return process

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`hpc-resume WORDS` to its end."""
        process = self.start(*words)
        out, err = process.communicate(timeout=90)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def terminal(self, *words: str) -> pexpect.spawn:
        """`hpc-resume WORDS` in a terminal of its own, 80 by 24."""
        return pexpect.spawn(
            sys.executable, ["-m", "hpc_resume", *words], cwd=self.directory, env=self.env, timeout=90, encoding="utf-8"
        )

    def answer(self, *words: str, code: int = 0) -> dict[str, Any]:
        """What `hpc-resume WORDS --json` answers."""
        done = self.call(*words, "--json")
        assert done.returncode == code, done.stderr + done.stdout
        return json.loads(done.stdout)

    def attempt(self, number: int, key: str = "m-local-1") -> Path:
        return self.directory / "runs" / key / "attempts" / f"{number:04d}"

    def record(self, number: int, name: str, key: str = "m-local-1") -> dict[str, Any]:
        """One of an attempt's records, once it is there."""
        path = poll(lambda: next(iter(self.attempt(number, key).glob(name)), None))
        return json.loads(path.read_text())

    def launcher(self, number: int, key: str = "m-local-1") -> int:
        return self.record(number, "attempt.json", key)["pid"]

    def await_steps(self, number: int, key: str = "m-local-1") -> None:
        """Until the training is past its first steps in this attempt."""
        metrics = self.attempt(number, key) / "metrics.jsonl"
        poll(lambda: metrics.exists() and metrics.stat().st_size > 0)

    def training(self, number: int, key: str = "m-local-1") -> int:
        """The pid of the training, once it is past its first steps in this attempt."""
        self.await_steps(number, key)
        return self.record(number, "pids/*.0.json", key)["pid"]

    def events(self, number: int, key: str = "m-local-1") -> list[dict[str, Any]]:
        """All events of an attempt, in their order."""
        logs = self.attempt(number, key).glob("events/*.jsonl")
        told = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
        return sorted(told, key=lambda event: event["t"])

    def reference(self) -> str:
        """The last line of the uninterrupted training."""
        env = self.env | {"STEP_SECONDS": "0", "HPC_RESUME_RUN_DIR": str(self.directory / "reference")}
        done = subprocess.run(
            [sys.executable, "train.py"], cwd=self.directory, env=env, capture_output=True, text=True, check=True
        )
        return done.stdout.splitlines()[-1]

    def end(self) -> None:
        """Leaves no process behind: neither the scheduler nor what an attempt's records name."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        for path in self.directory.glob("runs/*/attempts/*/**/*.json"):
            with contextlib.suppress(ValueError, OSError, KeyError):
                record = json.loads(path.read_text())
                stat = Path(f"/proc/{record['pid']}/stat").read_text()
                if int(stat[stat.rindex(")") + 2 :].split()[19]) == record["start_ticks"]:
                    os.kill(record["pid"], signal.SIGKILL)
