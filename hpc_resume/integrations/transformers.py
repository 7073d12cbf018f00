"""Hugging Face Trainer: one callback. The step boundary is the end of an optimizer step, in the middle of an epoch too.

    @hpc_resume.resumable
    def train(run):
        resume = HpcResume(run)
        trainer = Trainer(model=model, args=arguments, train_dataset=data, callbacks=[resume])
        trainer.train(resume_from_checkpoint=resume.checkpoint)

What is saved has the layout of the Trainer's own checkpoints, so its own code restores it and finds the batch; it is
kept in the run directory, beside `output_dir` and what `save_strategy` keeps there.
Not promised: FSDP, DeepSpeed and fp16's loss scale, which no callback gets to see (they are refused; bf16 has none);
the counters of other callbacks, as EarlyStoppingCallback's; and a collator that draws random numbers: the Trainer
restores them after it has fetched the first batch.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hpc_resume import Run
from hpc_resume.errors import UsageError

# The names by which the Trainer finds them.
_OPTIMIZER: Final = "optimizer.pt"
_SCHEDULER: Final = "scheduler.pt"
_STATE: Final = "trainer_state.json"
_RANDOM: Final = "rng_state.pth"


class HpcResume(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Saves, stops and goes on as `run` says."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._found: Path | None = None
        self._state: TrainerState | None = None
        self._parts: dict[str, Any] = {}
        run.register_io(name="transformers", save=self._save, load=self._find)

    @property
    def checkpoint(self) -> str | None:
        """For `trainer.train(resume_from_checkpoint=...)`; None in the first attempt."""
        return str(self._found) if self._found is not None else None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any
    ) -> None:
        """Raise UsageError for what cannot be saved here, or when `train` was not told what to restore."""
        del control
        for name in ("fsdp", "deepspeed", "fp16"):
            if getattr(args, name, None):
                raise UsageError(f"TrainingArguments({name}=...): a callback cannot save its state; see {__name__}")
        if state.global_step != self._run.start_step:
            raise UsageError(
                f"this run goes on from step {self._run.start_step}, and train() begins at {state.global_step}: pass"
                " resume_from_checkpoint=resume.checkpoint, where resume is this callback"
            )
        self._boundary(state, parts)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any) -> None:
        """The optimizer has stepped."""
        del args, control
        self._boundary(state, parts)

    def _boundary(self, state: TrainerState, parts: dict[str, Any]) -> None:
        self._state, self._parts = state, parts
        self._run.checkpoint_point(state.global_step)

    def _save(self, directory: Path) -> None:
        if self._state is None:
            return
        self._parts["model"].save_pretrained(directory)
        torch.save(self._parts["optimizer"].state_dict(), directory / _OPTIMIZER)
        torch.save(self._parts["lr_scheduler"].state_dict(), directory / _SCHEDULER)
        torch.save(_random_state(), directory / _RANDOM)
        self._state.save_to_json(str(directory / _STATE))

    def _find(self, directory: Path) -> None:
        self._found = directory


def _random_state() -> dict[str, Any]:
    """In the form that the Trainer loads."""
    state = {"python": random.getstate(), "numpy": np.random.get_state(), "cpu": torch.random.get_rng_state()}  # noqa: NPY002
    return state | ({"cuda": torch.cuda.random.get_rng_state()} if torch.cuda.is_available() else {})
