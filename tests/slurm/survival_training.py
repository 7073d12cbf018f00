"""The training of the survival matrix: survival_training.py PHASE. In its first attempt it stays in PHASE.

There it writes `reached`, with its PID, and goes on when `release` appears; both are in the working directory.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import json
import os
import sys
import time
from pathlib import Path

STEPS, STEP_SECONDS, HELD_STEP, HELD_SAVE, CALL_SECONDS = 60, 0.02, 30, 40, 8
PHASE = sys.argv[1] if os.environ.get("HPC_RESUME_ATTEMPT") == "1" else ""


def reach() -> None:
    """Say that the phase is reached, once."""
    if not Path("reached").exists():
        Path(f"reached.{os.getpid()}").write_text(str(os.getpid()))
        Path(f"reached.{os.getpid()}").rename("reached")


def hold(seconds: float = 0.0) -> None:
    """Stay until released, and some seconds more."""
    reach()
    while not Path("release").exists():
        time.sleep(0.02)
    time.sleep(seconds)


def call(library: ctypes.CDLL) -> None:
    """C calls that no signal shortens, one after the other until released; there is at least one."""
    reach()
    while True:
        thread = ctypes.c_ulong()
        sleep = ctypes.cast(library.usleep, ctypes.c_void_p)
        # usleep itself would return at the first signal; a join goes on, and so does the thread that no signal meets.
        library.pthread_create(ctypes.byref(thread), None, sleep, ctypes.c_void_p(CALL_SECONDS * 1_000_000))
        library.pthread_join(thread, None)
        if Path("release").exists():
            return


if PHASE == "import":
    hold(1.0)

import hpc_resume  # noqa: E402 - only now: the imports before it were slow


class Chain:
    """A state that depends on every step and on their order."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256(b"").hexdigest()
        self.steps = 0

    def advance(self, step: int) -> None:
        self.digest = hashlib.sha256(f"{self.digest}{step}".encode()).hexdigest()
        self.steps += 1

    def save(self, where: Path) -> None:
        (where / "chain").write_text(f"{self.digest} {self.steps}")
        if PHASE == "save" and self.steps == HELD_SAVE:
            hold(1.0)

    def load(self, where: Path) -> None:
        self.digest, steps = (where / "chain").read_text().split()
        self.steps = int(steps)


def stay(phase: str) -> None:
    """What the held step does."""
    if phase == "step":
        hold()
    elif phase == "call":
        call(ctypes.CDLL(None))
    elif phase == "call, GIL":
        call(ctypes.PyDLL(None))


@hpc_resume.resumable
def train(run: hpc_resume.Run) -> None:
    chain = Chain()
    run.register_io(save=chain.save, load=chain.load)
    log = os.open(run.directory / "executed.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for step in run.steps(STEPS):
        os.write(log, f"{run.attempt} {step}\n".encode())
        if step == HELD_STEP:
            stay(PHASE)
        time.sleep(STEP_SECONDS)
        chain.advance(step)
    (run.directory / "final.json").write_text(json.dumps([chain.digest, chain.steps]))


if __name__ == "__main__":
    if PHASE == "atexit":
        atexit.register(hold, 2.0)
    train()
