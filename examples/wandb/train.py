"""A training whose metrics go to W&B: one run there, over all attempts. Needs `pip install wandb` and `wandb login`.

    hpc-resume run job.yaml                 # `wandb:` in job.yaml is all that it takes
    python train.py                         # without W&B: run.log() writes metrics.jsonl alone

wandb.init() is called here for its config; without it hpc_resume begins the run itself.
"""

from __future__ import annotations

import os
import random
import time
from typing import Any

import hpc_resume

TOTAL_STEPS = int(os.environ.get("TOTAL_STEPS", "200"))
STEP_SECONDS = float(os.environ.get("STEP_SECONDS", "0.05"))
RATE = 0.01


class Walk:
    """The whole state: where we are, and the random numbers that are still to come."""

    def __init__(self) -> None:
        self.random = random.Random(7)
        self.position = 10.0

    def step(self) -> float:
        self.position = (1 - RATE) * self.position + self.random.gauss(0.0, 0.01)
        return self.position**2

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, "random": self.random.getstate()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]
        self.random.setstate(state["random"])


@hpc_resume.resumable
def train(run: hpc_resume.Run) -> float:
    if os.environ.get("WANDB_RUN_ID"):  # set for us where job.yaml has `wandb:`
        import wandb

        wandb.init(config={"rate": RATE})
    walk = Walk()
    run.register(walk=walk)
    for step in run.steps(TOTAL_STEPS):
        loss = walk.step()
        time.sleep(STEP_SECONDS)
        run.log({"loss": loss})
        print(f"step {step} loss {loss:.6f}", flush=True)
    return walk.position


if __name__ == "__main__":
    print(f"final position {train():.6f}")
