"""Lightning: one callback. The step boundary is the end of a batch whose optimizer has stepped; Lightning itself saves.

    @hpc_resume.resumable
    def train(run):
        resume = HpcResume(run)
        trainer = L.Trainer(callbacks=[resume], max_steps=10_000)
        trainer.fit(model, loader, ckpt_path=resume.ckpt_path, weights_only=True)

The loader must be able to say where it is in which shuffle: torchdata's StatefulDataLoader, with DataLoader's own
arguments. A plain one is refused: Lightning would begin its epoch again with other batches, and only warn of it.
Not promised: what the LightningModule itself does in `on_train_batch_end` of the last batch before a stop, which
Lightning calls after the callbacks' (its own ModelCheckpoint has the same limit); and a boundary inside a validation.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lightning.pytorch.callbacks import Callback

import hpc_resume
from hpc_resume.errors import UsageError

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

_FILE: Final = "trainer.ckpt"


class HpcResume(Callback):
    """Saves, stops and goes on as `run` says.

    Lightning's own handlers for Slurm are taken back when the training starts: they would save between two bytecodes,
    requeue without end, and tell the loggers that the run is finished.
    """

    def __init__(self, run: hpc_resume.Run) -> None:
        super().__init__()
        self._run = run
        self._trainer: Trainer | None = None
        self._found: Path | None = None
        self._step = run.start_step
        run.register_io(name="lightning", save=self._save, load=self._find)

    @property
    def ckpt_path(self) -> str | None:
        """For `trainer.fit(ckpt_path=...)`; None in the first attempt."""
        return str(self._found / _FILE) if self._found is not None else None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002 - Lightning's
        """Before the model is restored."""
        self._trainer = trainer

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """The first hook after Lightning has installed its handlers, where there is a validation."""
        _take_signals_back(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Everything is restored, and the loader's iterator has drawn its seed: random numbers come last.

        Raises UsageError for a loader that cannot go on, or when `fit` was not told what to restore.
        """
        _take_signals_back(trainer)
        if self.ckpt_path is not None and str(trainer.ckpt_path) != self.ckpt_path:
            raise UsageError(
                "this run is continued, and fit() restored nothing of it: pass ckpt_path=resume.ckpt_path, where resume"
                " is this callback"
            )
        for loader in trainer.fit_loop._combined_loader.flattened:  # noqa: SLF001 - as Lightning's own check
            if not (hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")):
                raise UsageError(
                    f"a {type(loader).__name__} cannot say where it is in its epoch, so a resumed training would see"
                    " other batches; use torchdata.stateful_dataloader.StatefulDataLoader with the same arguments"
                )
        self._run.register(rng=hpc_resume.rng())
        self._run.checkpoint_point(self._step)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """A boundary, unless gradients are still being accumulated: they are in no checkpoint."""
        step = trainer.global_step
        if step != self._step:
            self._step = step
            self._run.checkpoint_point(step)

    def _save(self, directory: Path) -> None:
        if self._trainer is not None:
            self._trainer.save_checkpoint(directory / _FILE)

    def _find(self, directory: Path) -> None:
        self._found = directory


def _take_signals_back(trainer: Any) -> None:
    """To the handlers that were there before `fit`: the run's."""
    trainer._signal_connector.teardown()  # noqa: SLF001 - what Lightning does itself at the end of fit
