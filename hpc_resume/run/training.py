"""A training that can be interrupted: `Run` is what the training sees of it, and where its step boundaries are."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

from hpc_resume.checkpoints.callables import CallablesComponent
from hpc_resume.checkpoints.randomness import as_source
from hpc_resume.checkpoints.state_dict import StateComponent
from hpc_resume.errors import HpcResumeError, UsageError
from hpc_resume.run import early
from hpc_resume.run.attempt import refuse
from hpc_resume.run.signals import Recorder
from hpc_resume.run.starting import start
from hpc_resume.run.storage import Wishes

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

    from hpc_resume.run.attempt import Attempt


class Run:
    """One attempt at a training: `with hpc_resume.Run() as run:`, or what `@resumable` hands to the function.

    Args:
        run_dir: where this run is kept; HPC_RESUME_RUN_DIR goes before it, `runs/<script>/<NNNN>` comes after it.
        every: save every so many steps (100), so often ("15min") or "auto"; what job.yaml says goes before it.
        keep: checkpoints kept, at least 2; job.yaml's goes before it.
        keep_every: and of every so many steps the first; job.yaml's goes before it.
        save_async: a save costs the training a copy in memory, and is written behind; job.yaml's goes before it.
        fast_dir: a directory of the node (tmpfs, NVMe) that takes a save first; job.yaml's goes before it.
        backend: the format of every state_dict (json, numpy, torch, safetensors, dcp); each by its content without it.

    Entering it ends the process with a message and the exit code of the error when the run cannot start, and with 0
    when it is finished already. A mistake in the use of it inside ends the process in the same way.
    """

    def __init__(
        self,
        run_dir: str | os.PathLike[str] | None = None,
        *,
        every: int | str | None = None,
        keep: int | None = None,
        backend: str | None = None,
        keep_every: int | None = None,
        save_async: bool | None = None,
        fast_dir: str | None = None,
    ) -> None:
        self._asked = Path(run_dir) if run_dir is not None else None
        self._every = every
        self._wishes = Wishes(keep, keep_every, save_async, fast_dir)
        self._backend = backend
        self._warnings = early.recorder() or Recorder()
        self._hint = self._warnings
        self._open: Attempt | None = None
        self._total: int | None = None  # of the steps() that runs, or ran last
        self._turn: int | None = None  # the index that steps() is at
        self._completed = 0

    def __enter__(self) -> Self:
        if self._open is not None:
            refuse(UsageError("this Run has been entered before; make a new one"))
        try:
            self._open = start(self._warnings, self._asked, self._every, self._wishes, self._progress)
        except HpcResumeError as error:
            refuse(error)
        self._completed = self._attempt.start_step
        if self._attempt.together is not None:
            self._hint = Recorder()  # ranks that left a loop by what each has heard would not leave it together
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._attempt.is_ours():  # else a forked child unwinds its copy of our stack
            self._attempt.end(error, self._completed)

    # --- facts ----------------------------------------------------------------------------------------------------

    @property
    def directory(self) -> Path:
        """Where this run is kept."""
        return self._attempt.opening.run_dir.path

    @property
    def attempt(self) -> int:
        """1 in the first start of this run."""
        return self._attempt.opening.attempt

    @property
    def start_step(self) -> int:
        """Steps that were done when this attempt started."""
        return self._attempt.start_step

    @property
    def resumed(self) -> bool:
        """Whether a checkpoint was loaded."""
        return self._attempt.resumed

    @property
    def cause(self) -> str | None:
        """Why the attempt before this one ended (contract.CAUSES); None in the first."""
        return self._attempt.opening.cause

    @property
    def deadline(self) -> float | None:
        """When the allocation ends, epoch seconds; None when nobody said."""
        return self._attempt.environment.end_time

    def should_stop(self) -> bool:
        """Whether a warning has come; the next step boundary will save and leave. Among many ranks: never true.

        Ranks hear of it at different moments: a loop that one of them leaves by this would keep the others waiting.
        """
        return self._hint.first is not None

    # --- what is saved --------------------------------------------------------------------------------------------

    def register(self, **components: Any) -> None:
        """Save these from now on, and restore each at once if there is a checkpoint.

        Anything with state_dict and load_state_dict whose state is plain Python, NumPy arrays or tensors (modules,
        optimizers, schedulers, GradScaler, StatefulDataLoader, hpc_resume.rng()), and random number generators.
        Raises UsageError for anything else or after the first step, RunStateError when the checkpoint does not fit.
        """
        for name, source in components.items():
            component = self._component(source)
            self._attempt.saver.register(name, component, shared=self._is_many and component.is_replicated)

    def register_replicated(self, **components: Any) -> None:
        """Among many ranks: what is the same on all of them. Rank 0 saves it, every rank restores it.

        What `register` takes is each rank's own, and saved by each; a DistributedDataParallel module needs no word.
        Raises as `register` does.
        """
        for name, source in components.items():
            self._attempt.saver.register(name, self._component(source), shared=self._is_many)

    def _component(self, source: Any) -> StateComponent:
        return StateComponent(as_source(source) or source, self._attempt.environment.backend or self._backend)

    @property
    def _is_many(self) -> bool:
        return self._attempt.together is not None

    def register_io(
        self, *, save: Callable[[Path], object], load: Callable[[Path], object], name: str = "files"
    ) -> None:
        """Save by `save(directory)`, an empty one; restore by `load(directory)`, at once if there is a checkpoint.

        Raises as `register` does; a second pair needs another `name`.
        """
        self._attempt.saver.register(name, CallablesComponent(save, load))

    # --- the step boundary ----------------------------------------------------------------------------------------

    def steps(self, total: int) -> Iterator[int]:
        """The indexes of the steps still to do, up to `total` (excluded); every turn ends in a step boundary.

        At a boundary a due save happens, and after a warning the run is saved and the process leaves (Stopped).
        The end of the loop is saved too; a turn that is left by `break` is not.
        """
        self._total = total
        fresh = not self._attempt.begun  # a checkpoint_point() before may have had a step of its own behind it
        attempt, warnings, clock = self._begun(), self._warnings, time.monotonic
        if fresh:
            attempt.saver.restore_last()
        guard, schedule = attempt.guard, attempt.schedule
        attempt.leave_if_warned(self._completed)
        try:
            for index in range(self._completed, total):
                self._turn = index
                yield index
                self._completed = completed = index + 1
                guard.passed = now = clock()
                if warnings.first is not None or completed >= schedule.due_step or now >= schedule.due_time:
                    attempt.boundary(completed)
        finally:
            self._turn = None
        attempt.finish_steps(self._completed)
        self._total = None

    def checkpoint_point(self, step: int) -> None:
        """A step boundary in a loop of one's own, or inside a long evaluation.

        Args:
            step: how many steps the registered state has behind it. Inside a turn of steps(): the turn's index before
                its training step, index + 1 after it. The same number again saves nothing new.

        Raises UsageError when `step` goes backwards or, inside steps(), belongs to another turn.
        """
        attempt = self._open
        if attempt is None or not attempt.begun:
            attempt = self._begun()
        if step < self._completed or (self._turn is not None and step - self._turn > 1):
            self._refuse_step(step)
        self._completed = step
        attempt.guard.passed = now = time.monotonic()
        schedule = attempt.schedule
        if self._warnings.first is not None or step >= schedule.due_step or now >= schedule.due_time:
            attempt.boundary(step)

    def log(self, metrics: Mapping[str, object], step: int | None = None, *, batch: Any = None) -> None:
        """Record metrics of this step (the index that steps() is at, unless told) in metrics.jsonl; rank 0 only.

        `batch`: the ids of the samples in this step's batch, which `hpc-resume verify-resume` compares; at all other
        times they are not recorded and cost nothing.
        """
        if step is None:
            step = self._turn if self._turn is not None else self._completed
        self._attempt.trackers.log(metrics, step)
        if batch is not None and self._attempt.batches is not None:
            self._attempt.batches.log({"batch": batch.tolist() if hasattr(batch, "tolist") else list(batch)}, step)

    def _progress(self) -> tuple[int, bool]:
        """Completed steps, and whether they are all; asked by another thread."""
        completed, total = self._completed, self._total
        return completed, total is not None and completed >= total

    @property
    def _attempt(self) -> Attempt:
        if self._open is None:
            raise UsageError("this Run is not open; use it inside `with hpc_resume.Run() as run:` or under @resumable")
        return self._open

    def _begun(self) -> Attempt:
        attempt = self._attempt
        if not attempt.begun:
            attempt.begin()
        return attempt

    def _refuse_step(self, step: int) -> NoReturn:
        if step < self._completed:
            raise UsageError(
                f"checkpoint_point({step}) after {self._completed} completed steps: start your loop at run.start_step"
                " and pass the number of steps that are done"
            )
        raise UsageError(
            f"checkpoint_point({step}) inside step {self._turn} of steps(): pass {self._turn} before the training step"
            f" of this turn, or {(self._turn or 0) + 1} after it"
        )
