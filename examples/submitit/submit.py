"""A @resumable function sent with submitit: as jobs of hpc_resume, or by submitit's own `local` and `debug`.

    python submit.py --cluster hpc_resume --partition low     # on Slurm: requeued, and gone on with
    python submit.py --cluster local                          # as processes here
    python submit.py --cluster debug                          # in this very process

Submits three trainings as one array, waits for them, and prints what they returned.
"""

from __future__ import annotations

import argparse
import random
import time

import submitit

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
def train(run: hpc_resume.Run, lr: float, steps: int, pause: float) -> tuple[float, int]:
    slope = Slope()
    run.register(slope=slope)
    for step in run.steps(steps):
        slope.x -= lr * (2 * slope.x + slope.noise.gauss(0, 0.1))
        print(f"attempt {run.attempt}, step {step}", flush=True)
        time.sleep(pause)
    return slope.x, run.attempt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cluster", default="hpc_resume", choices=("hpc_resume", "local", "debug"))
    parser.add_argument("--partition")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--pause", type=float, default=0.02, help="seconds per step: time to interrupt")
    options = parser.parse_args()
    executor = submitit.AutoExecutor("log", cluster=options.cluster)
    executor.update_parameters(timeout_min=10, mem_gb=0.1, slurm_partition=options.partition)
    rates = (0.1, 0.2, 0.3)
    jobs = executor.map_array(train, rates, [options.steps] * 3, [options.pause] * 3)
    for lr, job in zip(rates, jobs, strict=True):
        x, attempts = job.result()
        print(f"lr {lr}: {x!r} in {attempts} attempts", flush=True)


if __name__ == "__main__":
    main()
