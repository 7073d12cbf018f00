"""A sweep with Hydra: each task is a @resumable function, and an interrupted one goes on where it stopped.

    python train.py                                                               # one, here
    python train.py -m hydra/launcher=hpc_resume lr=0.1,0.2                       # two, as jobs of hpc_resume
    python train.py -m hydra/launcher=hpc_resume hydra.launcher.partition=low lr=0.1,0.2

Needs hydra-core and hydra-submitit-launcher. Each task's last line is its result.
"""

from __future__ import annotations

import random
import time

import hydra
from omegaconf import DictConfig

import hpc_resume


class Slope:
    """Noisy gradient descent on x squared."""

    def __init__(self) -> None:
        self.x = 1.0
        self.noise = random.Random(7)

    def state_dict(self) -> dict[str, object]:
        return {"x": self.x, "noise": self.noise.getstate()}

    def load_state_dict(self, state: dict) -> None:
        self.x = state["x"]
        self.noise.setstate(state["noise"])


@hpc_resume.resumable
def train(run: hpc_resume.Run, config: DictConfig) -> float:
    slope = Slope()
    run.register(slope=slope)
    for step in run.steps(config.steps):
        slope.x -= config.lr * (2 * slope.x + slope.noise.gauss(0, 0.1))
        print(f"step {step}", flush=True)
        time.sleep(config.pause)
    return slope.x


@hydra.main(version_base=None, config_path=".", config_name="config")
def main(config: DictConfig) -> float:
    x = train(config)
    print(f"final state {x!r}", flush=True)
    return x


if __name__ == "__main__":
    main()
