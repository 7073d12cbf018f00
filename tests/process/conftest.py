"""Real trainings in real processes: started, waited for by what they print, signalled, ended by PID."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .project import Project

DEADLINE = 45.0  # seconds; a loaded CI machine is slow, a hang is longer


@dataclass
class Child:
    """A training under test. Its lines come through a thread, so that waiting for one has a deadline."""

    process: subprocess.Popen[str]
    lines: queue.Queue[str | None] = field(default_factory=queue.Queue)
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return "\n".join(self.seen)

    def wait_line(self, part: str) -> str:
        """The next line with `part` in it."""
        until = time.monotonic() + DEADLINE
        while True:
            try:
                line = self.lines.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no line with {part!r} in {DEADLINE} s, only:\n{self.output}") from None
            if line is None:
                raise AssertionError(f"ended with {self.process.wait()} without a line with {part!r}:\n{self.output}")
            self.seen.append(line)
            if part in line:
                return line

    def signal(self, signum: int) -> None:
        self.process.send_signal(signum)

    def code(self, seconds: float = DEADLINE) -> int:
        """The exit code, as subprocess gives it: negative when a signal killed it."""
        code = self.process.wait(seconds)
        while (line := self.lines.get(timeout=seconds)) is not None:
            self.seen.append(line)
        self.lines.put(None)
        return code

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE)
        self.reader.join(DEADLINE)
        assert self.process.stdout is not None
        self.process.stdout.close()


def clean_environment(**more: str) -> dict[str, str]:
    """Without what the machine that runs the tests may have set."""
    mine = {k: v for k, v in os.environ.items() if not k.startswith(("HPC_RESUME_", "SLURM_", "RANK", "WANDB_"))}
    return mine | {"PYTHONUNBUFFERED": "1"} | more


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """start(source, *arguments, VARIABLE=value): runs `source` as train.py in tmp_path, stderr joined to stdout."""
    children: list[Child] = []

    def begin(source: str, *arguments: str, name: str = "train.py", preexec: Callable[[], None] | None = None, **env):
        script = tmp_path / name
        text = textwrap.dedent(source)
        if not script.exists() or script.read_text() != text:  # another child may just be reading it
            script.write_text(text)
        process = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            cwd=tmp_path,
            env=clean_environment(**env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=preexec,  # noqa: PLW1509 - the mask and limits of a wrapper, before any thread of ours
        )
        children.append(Child(process))
        return children[-1]

    yield begin
    for child in children:
        child.end()


WALK = '''
import hashlib, json, random, sys, time
import hpc_resume

class Walk:
    """Its end depends on every step and on the order of all of them."""
    def __init__(self):
        self.random = random.Random(7)
        self.order = ""
    def advance(self, step):
        self.order = hashlib.sha256(f"{self.order}{step}{self.random.random()!r}".encode()).hexdigest()
    def state_dict(self):
        return {"random": self.random.getstate(), "order": self.order}
    def load_state_dict(self, state):
        self.random.setstate(state["random"])
        self.order = state["order"]
'''


@pytest.fixture
def walk() -> Callable[[str], str]:
    """walk(source): the source of a training that may use the class Walk."""
    return lambda source: WALK + textwrap.dedent(source)


@pytest.fixture
def eventually() -> Callable[[Callable[[], object], str], None]:
    """eventually(condition, what): polls with a deadline."""

    def wait(condition: Callable[[], object], what: str) -> None:
        until = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < until, f"not within {DEADLINE} s: {what}"
            time.sleep(0.005)

    return wait


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A user's project under the local scheduler, all of whose processes are ended."""
    project = Project(tmp_path)
    yield project
    project.end()
