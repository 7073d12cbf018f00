"""A small network in PyTorch that ends in the same weights, bit for bit, however often it is stopped.

    python train.py --steps 300                  # goes on where the last start stopped
    hpc-resume run job.yaml                      # the same as a job, here; `submit` on a cluster
    hpc-resume verify-resume job.yaml            # proves it: interrupted and uninterrupted, compared bit for bit

The last line on stdout is the SHA-256 of the final weights.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from typing import Any

import torch
from torch import nn

import hpc_resume


class Batches:
    """Shuffled batches of a made-up data set. Where it is in which shuffle is part of the state."""

    def __init__(self, seed: int) -> None:
        self.shuffle = torch.Generator().manual_seed(seed)
        self.inputs = torch.randn(512, 16, generator=torch.Generator().manual_seed(0))
        self.targets = self.inputs.square().sum(dim=1, keepdim=True).sqrt()
        self.order = torch.empty(0, dtype=torch.int64)

    def next(self) -> torch.Tensor:
        """The ids of the next batch."""
        if len(self.order) == 0:
            self.order = torch.randperm(len(self.inputs), generator=self.shuffle)
        ids, self.order = self.order[:32], self.order[32:]
        return ids

    def state_dict(self) -> dict[str, Any]:
        return {"shuffle": self.shuffle.get_state(), "order": self.order.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.shuffle.set_state(state["shuffle"])
        self.order = state["order"]


@hpc_resume.resumable
def train(run: hpc_resume.Run, steps: int, lr: float, pause: float) -> str:
    torch.manual_seed(7)
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    batches = Batches(seed=7)
    run.register(model=model, optimizer=optimizer, schedule=schedule, batches=batches)
    run.register(rng=hpc_resume.rng())  # dropout draws from torch's own random numbers at every step
    for step in run.steps(steps):
        ids = batches.next()
        loss = nn.functional.mse_loss(model(batches.inputs[ids]), batches.targets[ids])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        run.log({"loss": loss, "lr": schedule.get_last_lr()[0]}, batch=ids)
        print(f"step {step} loss {loss.item():.6f}", flush=True)
        time.sleep(pause)
    weights = b"".join(bytes(value.detach().reshape(-1).view(torch.uint8).tolist()) for value in model.parameters())
    return hashlib.sha256(weights).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--lr", type=float, default=1e-2)
    parser.add_argument(
        "--pause", type=float, default=0.02, help="seconds between steps, so that there is time to interrupt"
    )
    options = parser.parse_args()
    print(f"final state {train(options.steps, options.lr, options.pause)}")


if __name__ == "__main__":
    main()
