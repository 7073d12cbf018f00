"""A training in plain Python: a random walk down a hill, which ends in the same place however often it is stopped.

    python train.py                         # goes on where the last start stopped
    STEP_SECONDS=0 TOTAL_STEPS=100 python train.py

The last line on stdout is the SHA-256 of the final state.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from typing import Any

import hpc_resume

TOTAL_STEPS = int(os.environ.get("TOTAL_STEPS", "200"))
STEP_SECONDS = float(os.environ.get("STEP_SECONDS", "0.05"))


class Walk:
    """The whole state: where we are, and the random numbers that are still to come."""

    def __init__(self) -> None:
        self.random = random.Random(7)
        self.position = [10.0, -10.0]

    def step(self) -> float:
        self.position = [0.99 * x + self.random.gauss(0.0, 0.01) for x in self.position]
        return sum(x * x for x in self.position)

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, "random": self.random.getstate()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]
        self.random.setstate(state["random"])

    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.state_dict()).encode()).hexdigest()


@hpc_resume.resumable
def train(run: hpc_resume.Run) -> str:
    walk = Walk()
    run.register(walk=walk)
    for step in run.steps(TOTAL_STEPS):
        loss = walk.step()
        time.sleep(STEP_SECONDS)
        run.log({"loss": loss})
        print(f"step {step} loss {loss:.6f}", flush=True)
    return walk.digest()


if __name__ == "__main__":
    print(f"final state {train()}")
