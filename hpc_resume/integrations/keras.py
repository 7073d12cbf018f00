"""Keras 3: one callback. The step boundary is the end of a batch; `fit` goes on in the middle of the epoch.

    @hpc_resume.resumable
    def train(run):
        model.compile(...)
        model.fit(x, y, epochs=10, callbacks=[HpcResume(run)])

Keras can begin at an epoch but not at a batch. So the epoch begins with the random numbers that it began with, which
gives the same shuffle; the batches that were trained on are fetched and left out; and then everything is set to where
it was. State is kept as plain arrays: nothing of a checkpoint is executed.
Not promised: data whose order comes from elsewhere than Python's, NumPy's and torch's random numbers or Keras' seeds,
and other callbacks: their state is not saved, and Keras calls them for the batches that are left out, too. It refuses
to work with TensorFlow or JAX below Keras.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

import hpc_resume
from hpc_resume.errors import RunStateError, UsageError


class HpcResume(keras.callbacks.Callback):
    """Saves, stops and goes on as `run` says."""

    def __init__(self, run: hpc_resume.Run) -> None:
        super().__init__()
        self._run = run
        self._random = hpc_resume.rng()
        self._epoch = self._batch = 0
        self._step = run.start_step
        self._epoch_random: Any = None
        self._restored: dict[str, Any] | None = None
        self._to_leave_out = 0

    # --- what is saved --------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where the training is, and every variable."""
        return {
            "epoch": self._epoch,
            "batch": self._batch,  # of the epoch, done
            "random": self._random.state_dict(),
            "epoch_random": self._epoch_random,
            "variables": [np.array(keras.ops.convert_to_numpy(one)) for one in self._variables()],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The variables at once; the rest when the epoch has come to that batch."""
        self._restored = state
        self._assign(state["variables"])

    def _variables(self) -> list[Any]:
        optimizer = self.model.optimizer
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        return [*self.model.variables, *optimizer.variables, *self.model.metrics_variables]

    # --- where it is ----------------------------------------------------------------------------------------------

    def on_train_begin(self, logs: Any = None) -> None:  # noqa: ARG002 - Keras' signature, here and below
        """Raise UsageError for a backend whose batches are not known here."""
        if keras.backend.backend() != "torch":
            raise UsageError(
                f"{__name__} knows Keras on torch; this is on {keras.backend.backend()}: KERAS_BACKEND=torch"
            )
        self._run.register(keras=self)  # here, since `fit` has built the model by now
        if self._restored is not None:
            self._to_leave_out = self._restored["batch"]
            self.model._initial_epoch = self._restored["epoch"]  # noqa: SLF001 - as Keras' own BackupAndRestore

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """The shuffle of this epoch has not been drawn yet."""
        if self._restored is not None and self._to_leave_out == 0:
            self._go_on()
        elif self._restored is not None:
            self._random.load_state_dict(self._restored["epoch_random"])
            self._leave_out()
        self._epoch, self._batch = epoch, 0
        self._epoch_random = self._random.state_dict()
        if self._restored is None:
            self._run.checkpoint_point(self._step)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        """A boundary, unless the batch was one that is left out."""
        self._batch += 1
        if self._restored is not None:
            if self._batch == self._to_leave_out:
                self._go_on()
            return
        self._step += 1
        self._run.checkpoint_point(self._step)

    # --- the parts ------------------------------------------------------------------------------------------------

    def _leave_out(self) -> None:
        """`fit` asks the model for its function at every batch."""
        train, model = self.model.train_function, self.model

        def function(*given: Any) -> Any:
            if self._restored is not None:
                return {}
            model.train_function = train
            return train(*given)

        model.train_function = function

    def _go_on(self) -> None:
        """Everything is as it was at the boundary."""
        if self._restored is not None:
            self._assign(self._restored["variables"])
            self._random.load_state_dict(self._restored["random"])
            self._restored = None

    def _assign(self, values: list[Any]) -> None:
        variables = self._variables()
        shapes = [tuple(one.shape) for one in variables]
        saved = [tuple(np.shape(one)) for one in values]
        if shapes != saved:
            raise RunStateError(
                f"{self._run.directory} was saved with another model: {len(saved)} variables, and this one has"
                f" {len(shapes)} or other shapes; go back to that model, or start a new run"
            )
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
