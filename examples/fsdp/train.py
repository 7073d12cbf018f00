"""FSDP (fully_shard) on CPUs: each rank saves its shards, rank 0 publishes when all of them are durable.

    hpc-resume run job.yaml                      # two ranks under torchrun, here; `submit` on a cluster

Sharded state goes through torch.distributed.checkpoint by itself: nothing is gathered on one rank.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import hpc_resume


@hpc_resume.resumable
def train(run: hpc_resume.Run, steps: int, pause: float) -> None:
    rank, size = distributed.get_rank(), distributed.get_world_size()
    torch.manual_seed(7)
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 1))
    fully_shard(model, mesh=init_device_mesh("cpu", (size,)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    run.register(model=model, optimizer=optimizer)
    for step in run.steps(steps):
        # The batch of a step is the same whatever the number of ranks; each takes its share.
        batch = torch.randn(16, 16, generator=torch.Generator().manual_seed(step))[rank::size]
        loss = nn.functional.mse_loss(model(batch), batch.square().sum(dim=1, keepdim=True).sqrt())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.log({"loss": loss})
        time.sleep(pause)
    whole = [value.full_tensor() for value in model.parameters()]
    if rank == 0:
        torch.save(whole, run.directory / "final.pt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--pause", type=float, default=0.02, help="seconds between steps, to have time to interrupt")
    options = parser.parse_args()
    distributed.init_process_group("gloo")
    train(options.steps, options.pause)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
