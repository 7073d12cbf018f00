"""A training whose every executed step is on record: train.py STEPS SECONDS_PER_STEP [SAVE_SECONDS]."""

import hashlib
import json
import os
import random
import sys
import time
from pathlib import Path

import hpc_resume


class Walk:
    """A state that depends on every step and on the random numbers drawn."""

    def __init__(self) -> None:
        self.random = random.Random(7)
        self.values = [0.0] * 50
        self.order = hashlib.sha256(b"").hexdigest()

    def advance(self, step: int) -> float:
        drawn = self.random.random()
        self.values[step % 50] += drawn
        self.order = hashlib.sha256(f"{self.order}{step}{drawn!r}".encode()).hexdigest()
        return drawn

    def state_dict(self) -> dict:
        return {"random": self.random.getstate(), "values": self.values, "order": self.order}

    def load_state_dict(self, state: dict) -> None:
        self.random.setstate(state["random"])
        self.values, self.order = state["values"], state["order"]


@hpc_resume.resumable
def train(run: hpc_resume.Run, steps: int, seconds: float) -> None:
    """Write one line per executed step, and the final state."""
    walk = Walk()
    run.register(walk=walk)
    log = os.open(run.directory / "executed.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for step in run.steps(steps):
        os.write(log, f"{run.attempt} {step}\n".encode())
        time.sleep(seconds)
        run.log({"value": walk.advance(step)})
    (run.directory / "final.json").write_text(json.dumps(walk.state_dict()))


if __name__ == "__main__":
    train(int(sys.argv[1]), float(sys.argv[2]))
    Path("done").touch()
