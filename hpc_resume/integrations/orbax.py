"""JAX with Orbax: a pytree that Orbax writes when the run saves, and that is there again after a restart.

    @hpc_resume.resumable
    def train(run):
        state = PyTree(run, {"params": params, "optimizer": moments, "key": key})
        for step in run.steps(10_000):
            state.tree = update(state.tree, batch_of(step))

The run's own stop drives the save. Orbax and JAX have an agreement of their own among hosts, which listens for SIGTERM
and asks at every step (`reached_preemption`): it is not needed beside this one.
Raises what Orbax raises when the tree in the checkpoint has another structure.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import jax
import orbax.checkpoint as ocp

from hpc_resume import Run

_NAME: Final = "tree"


class PyTree:
    """`tree` is what is saved: arrays in any nesting that JAX knows. Assign the new one at every step."""

    def __init__(self, run: Run, tree: Any, *, name: str = "jax") -> None:
        """Restore it at once if there is a checkpoint; `tree` then gives structure, shapes and placement.

        A second tree needs another `name`.
        """
        self.tree = tree
        run.register_io(name=name, save=self._save, load=self._load)

    def _save(self, directory: Path) -> None:
        # Closed again each time: what it has begun is on disk then, and no thread of its own outlives the stop.
        with ocp.StandardCheckpointer() as writer:
            writer.save(directory / _NAME, self.tree)
            writer.wait_until_finished()

    def _load(self, directory: Path) -> None:
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, self.tree)
        with ocp.StandardCheckpointer() as reader:
            self.tree = reader.restore(directory / _NAME, abstract)
