"""Real trainings with the real client, in processes of their own: started, waited for by what they print, signalled."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loopback import Loopback

SECONDS = 90.0  # generous: a client needs two on an idle machine

# Steps at a pace of its own; `touch go` in the working directory lets it run free.
TRAIN = """
import os, sys, time
from pathlib import Path
import hpc_resume

class State:
    total = 0
    def state_dict(self): return {"total": self.total}
    def load_state_dict(self, state): self.total = state["total"]

@hpc_resume.resumable(every=int(os.environ.get("EVERY", "1000")))
def train(run, steps):
    state = State()
    run.register(state=state)
    print("opened", run.attempt, run.start_step, flush=True)
    for step in run.steps(steps):
        state.total += step
        run.log({"loss": float(step), "total": state.total})
        print("step", step, flush=True)
        if step >= int(os.environ.get("CRASH_AT", "1000000")) and run.attempt == 1:
            raise RuntimeError("as asked")
        time.sleep(float(os.environ.get("PACE", "0.01")))

train(int(sys.argv[1]))
"""


class Training:
    """One attempt of one training; its output goes to a file, so that nothing blocks it."""

    def __init__(self, server: Loopback, home: Path, source: str, *words: str, **more: str) -> None:
        home.mkdir(exist_ok=True)
        script = home / "train.py"
        script.write_text(textwrap.dedent(source), encoding="utf-8")
        self.log = home / f"output.{time.monotonic_ns()}"
        variables = server.environment(home, PYTHONUNBUFFERED="1", **more)
        with self.log.open("wb") as output:
            command = [sys.executable, str(script), *words]
            self.process = subprocess.Popen(
                command, cwd=home, env=variables, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, part: str, seconds: float = SECONDS) -> None:
        """Until it has printed `part`."""
        deadline = time.monotonic() + seconds
        while part not in self.output:
            if time.monotonic() > deadline or (self.process.poll() is not None and part not in self.output):
                raise AssertionError(f"no {part!r} (exit {self.process.poll()}):\n{self.output}")
            time.sleep(0.02)

    def warn(self, signum: int = signal.SIGUSR1) -> None:
        self.process.send_signal(signum)

    def services(self) -> list[int]:
        """Its wandb-core processes: its own children, by /proc."""
        found = []
        for task in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(pid) for pid in task.read_text().split() if "wandb-core" in _comm(pid)]
        return sorted(set(found))

    def code(self, seconds: float = SECONDS) -> int:
        return self.process.wait(seconds)

    def end(self) -> None:
        """By PID, and its service with it."""
        services = self.services()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(SECONDS)
        for pid in services:
            if "wandb-core" in _comm(str(pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _comm(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


def managed(**wishes: object) -> str:
    """HPC_RESUME_WANDB as a rendered script sets it."""
    return json.dumps({"resume": "allow"} | wishes)
