"""A small network in Lightning that ends in the same weights, bit for bit, however often it is stopped.

    python train.py --steps 200          # goes on where the last start stopped
    hpc-resume run job.yaml              # the same as a job, here; `submit` on a cluster

The last line on stdout is the SHA-256 of the final weights.
"""

from __future__ import annotations

import argparse
import hashlib
import time

import lightning
import torch
from torch import nn
from torchdata.stateful_dataloader import StatefulDataLoader

import hpc_resume
from hpc_resume.integrations.lightning import HpcResume


class Net(lightning.LightningModule):
    def __init__(self, pause: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 1))
        self.pause = pause

    def training_step(self, batch, index):
        inputs, targets = batch
        time.sleep(self.pause)
        return nn.functional.mse_loss(self.layers(inputs), targets)

    def on_train_batch_start(self, batch, index):
        print(f"step {self.trainer.global_step}", flush=True)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def batches() -> StatefulDataLoader:
    inputs = torch.randn(256, 16, generator=torch.Generator().manual_seed(0))
    data = torch.utils.data.TensorDataset(inputs, inputs.square().sum(dim=1, keepdim=True).sqrt())
    return StatefulDataLoader(data, batch_size=32, shuffle=True)


@hpc_resume.resumable
def train(run: hpc_resume.Run, steps: int, pause: float) -> str:
    lightning.seed_everything(7)
    resume = HpcResume(run)
    trainer = lightning.Trainer(
        max_steps=steps,
        callbacks=[resume],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    net = Net(pause)
    trainer.fit(net, batches(), ckpt_path=resume.ckpt_path, weights_only=True)
    weights = b"".join(bytes(value.detach().reshape(-1).view(torch.uint8).tolist()) for value in net.parameters())
    return hashlib.sha256(weights).hexdigest()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument(
        "--pause", type=float, default=0.02, help="seconds per step, so that there is time to interrupt"
    )
    options = parser.parse_args()
    print(f"final state {train(options.steps, options.pause)}")
