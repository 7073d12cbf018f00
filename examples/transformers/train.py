"""A very small language model with the Hugging Face Trainer; it ends in the same weights however often it is stopped.

    python train.py --steps 100          # goes on where the last start stopped
    hpc-resume run job.yaml              # the same as a job, here; `submit` on a cluster

The last line on stdout is the SHA-256 of the final weights.
"""

from __future__ import annotations

import argparse
import hashlib
import time

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments, set_seed

import hpc_resume
from hpc_resume.integrations.transformers import HpcResume


class Said(TrainerCallback):
    def __init__(self, pause: float) -> None:
        self.pause = pause

    def on_step_begin(self, args, state, control, **parts):
        print(f"step {state.global_step}", flush=True)
        time.sleep(self.pause)


def texts() -> list[dict[str, torch.Tensor]]:
    draw = torch.Generator().manual_seed(0)
    rows = [torch.randint(0, 64, (16,), generator=draw) for _ in range(96)]
    return [{"input_ids": row, "labels": row} for row in rows]


@hpc_resume.resumable
def train(run: hpc_resume.Run, steps: int, pause: float) -> str:
    set_seed(7)
    torch.set_num_threads(1)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=64, n_positions=16, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    )
    arguments = TrainingArguments(
        "output",
        max_steps=steps,
        per_device_train_batch_size=8,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    resume = HpcResume(run)
    trainer = Trainer(model=model, args=arguments, train_dataset=texts(), callbacks=[Said(pause), resume])
    trainer.train(resume_from_checkpoint=resume.checkpoint)
    weights = b"".join(bytes(value.detach().reshape(-1).view(torch.uint8).tolist()) for value in model.parameters())
    return hashlib.sha256(weights).hexdigest()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument(
        "--pause", type=float, default=0.02, help="seconds per step, so that there is time to interrupt"
    )
    options = parser.parse_args()
    print(f"final state {train(options.steps, options.pause)}")
