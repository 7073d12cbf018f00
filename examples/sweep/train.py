"""One run of a sweep, resumable: momentum down a hill. W&B's agent starts it, with the parameters as its arguments.

It neither imports wandb nor knows that it is in a sweep: run.log() goes to the run that the agent was given.
"""

from __future__ import annotations

import argparse
import os
import time

import hpc_resume

STEPS = int(os.environ.get("TOTAL_STEPS", "200"))
STEP_SECONDS = float(os.environ.get("STEP_SECONDS", "0.05"))


class Descent:
    """The whole state: where we are, and how fast."""

    def __init__(self, lr: float, momentum: float) -> None:
        self.lr, self.momentum = lr, momentum
        self.position, self.velocity = 10.0, 0.0

    def step(self) -> float:
        self.velocity = self.momentum * self.velocity - self.lr * 2 * self.position
        self.position += self.velocity
        return self.position**2

    def state_dict(self) -> dict[str, float]:
        return {"position": self.position, "velocity": self.velocity}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.position, self.velocity = state["position"], state["velocity"]


@hpc_resume.resumable
def train(run: hpc_resume.Run, lr: float, momentum: float) -> None:
    descent = Descent(lr, momentum)
    run.register(descent=descent)
    for _step in run.steps(STEPS):
        loss = descent.step()
        time.sleep(STEP_SECONDS)
        run.log({"loss": loss})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--momentum", type=float, default=0.0)
    # A requeued run's command line carries an extra argument of W&B's at times (wandb #4237).
    words, _ = parser.parse_known_args()
    train(words.lr, words.momentum)
