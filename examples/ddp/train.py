"""DistributedDataParallel on CPUs (gloo): warned through any rank, it goes on bit for bit, in the middle of an epoch.

    hpc-resume run job.yaml                      # two ranks under torchrun, here; `submit` on a cluster
    torchrun --standalone --nproc-per-node=2 train.py   # with HPC_RESUME_RUN_DIR set, without hpc-resume around it

What DDP keeps equal is saved once, by rank 0; random numbers and the position in the data are each rank's own.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Iterator

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DistributedSampler, TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader

import hpc_resume


def endless(loader: StatefulDataLoader, sampler: DistributedSampler, step: int) -> Iterator[list[torch.Tensor]]:
    """Batch after batch; the loader goes on in the epoch in which it was saved, which may have had its last batch."""
    epoch = max(0, step - 1) // len(loader)
    while True:
        sampler.set_epoch(epoch)
        yield from loader
        epoch += 1


@hpc_resume.resumable
def train(run: hpc_resume.Run, steps: int, pause: float) -> None:
    rank = distributed.get_rank()
    torch.manual_seed(7)
    torch.set_num_threads(1)
    inputs = torch.randn(256, 16)
    data = TensorDataset(inputs, inputs.square().sum(dim=1, keepdim=True).sqrt())
    sampler = DistributedSampler(data, seed=7)
    # A generator of its own: each start of an iteration draws from it, and the dropout must not see that.
    loader = StatefulDataLoader(data, batch_size=8, sampler=sampler, generator=torch.Generator())
    model = DistributedDataParallel(nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 1)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    torch.manual_seed(rank)  # each rank drops out other neurons
    run.register_replicated(model=model, optimizer=optimizer, schedule=schedule)
    run.register(loader=loader, rng=hpc_resume.rng())
    batches = endless(loader, sampler, run.start_step)
    for _step in run.steps(steps):
        x, y = next(batches)
        loss = nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()  # the gradients are averaged over all ranks here
        optimizer.step()
        schedule.step()
        run.log({"loss": loss})
        time.sleep(pause)
    weights = b"".join(bytes(value.detach().reshape(-1).view(torch.uint8).tolist()) for value in model.parameters())
    (run.directory / f"final.{rank}").write_text(f"{hashlib.sha256(weights).hexdigest()} {torch.rand(1).item()}\n")


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
