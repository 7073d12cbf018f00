"""The contenders of side_by_side.py: one small model, trained and saved in the way of each. MODE is the first word.

Each step is noted in executed.log when it begins, and its time passes between the draw of its batch and its update, as
in a real one. The order of the batches and the model draw no random numbers: what is saved decides the end alone.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path

import torch
from torch import nn

import hpc_resume

STEPS, STEP_SECONDS = 300, 0.05
BATCHES = 10  # in an epoch of Lightning's


def note(directory, step):
    with os.fdopen(os.open(Path(directory, "executed.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT), "w") as log:
        log.write(f"{step}\n")
    time.sleep(STEP_SECONDS)


def finish(directory, model):
    weights = b"".join(bytes(value.detach().reshape(-1).view(torch.uint8).tolist()) for value in model.parameters())
    Path(directory, "final").write_text(hashlib.sha256(weights).hexdigest())


def network():
    torch.manual_seed(7)
    torch.set_num_threads(1)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))


def samples():
    inputs = torch.randn(BATCHES * 8, 8, generator=torch.Generator().manual_seed(0))
    return inputs, inputs.square().sum(dim=1, keepdim=True).sqrt()


class Batches:
    """Where it is in the data is part of the state."""

    def __init__(self):
        self.inputs, self.targets = samples()
        self.drawn = 0

    def next(self):
        begin = self.drawn % BATCHES * 8
        self.drawn += 1
        return self.inputs[begin : begin + 8], self.targets[begin : begin + 8]

    def state_dict(self):
        return {"drawn": self.drawn}

    def load_state_dict(self, state):
        self.drawn = state["drawn"]


def train_one(directory, model, optimizer, batches, step):
    inputs, targets = batches.next()
    note(directory, step)
    loss = nn.functional.mse_loss(model(inputs), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


# --- submitit ---------------------------------------------------------------------------------------------------------


class InTheObject:
    """As submitit's documentation has it: the state is in the callable, and `checkpoint` sends it again."""

    def __init__(self, directory):
        self.directory = directory
        self.model, self.step, self.batches = network(), 0, Batches()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-2)

    def __call__(self):
        while self.step < STEPS:
            train_one(self.directory, self.model, self.optimizer, self.batches, self.step)
            self.step += 1
        finish(self.directory, self.model)

    def checkpoint(self):
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@hpc_resume.resumable
def train(run, directory):
    model, batches = network(), Batches()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    run.register(model=model, optimizer=optimizer, batches=batches)
    for step in run.steps(STEPS):
        train_one(directory, model, optimizer, batches, step)
    finish(directory, model)


def submit(directory, cluster, what, partition):
    import submitit

    executor = submitit.AutoExecutor(Path(directory, "log"), cluster=cluster)
    executor.update_parameters(timeout_min=30, mem_gb=0.5, slurm_partition=partition, slurm_exclusive=True)
    print(executor.submit(*what).job_id)


# --- Lightning --------------------------------------------------------------------------------------------------------


def fit(directory, *, run=None, auto_requeue=False):
    import lightning
    from lightning.pytorch.plugins.environments import SLURMEnvironment
    from torchdata.stateful_dataloader import StatefulDataLoader

    class Net(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layers = network()

        def training_step(self, batch, index):
            note(directory, self.trainer.global_step)
            return nn.functional.mse_loss(self.layers(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=1e-2)

    callbacks, ckpt_path = [], None
    if run is not None:
        from hpc_resume.integrations.lightning import HpcResume

        callbacks = [HpcResume(run)]
        ckpt_path = callbacks[0].ckpt_path
    trainer = lightning.Trainer(
        max_steps=STEPS,
        default_root_dir=directory,
        callbacks=callbacks,
        plugins=[SLURMEnvironment(auto_requeue=True)] if auto_requeue else [],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    net = Net()
    loader = StatefulDataLoader(torch.utils.data.TensorDataset(*samples()), batch_size=8)
    trainer.fit(net, loader, ckpt_path=ckpt_path)
    if trainer.global_step >= STEPS:
        finish(directory, net)


def main(mode, directory, partition=""):
    if mode == "submitit":
        submit(directory, "slurm", [InTheObject(directory)], partition)
    elif mode == "submitit-ours":
        submit(directory, "hpc_resume", [train, directory], partition)
    elif mode == "lightning":
        fit(directory, auto_requeue=True)
    elif mode == "lightning-alone":
        fit(directory)
    elif mode == "lightning-ours":
        with hpc_resume.Run() as run:
            fit(directory, run=run)
    else:
        InTheObject(directory)()


if __name__ == "__main__":
    main(*sys.argv[1:])
