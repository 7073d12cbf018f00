"""submitit.helpers.Checkpointable under our runtime: the moment of the warning is its one step boundary.

submitit calls `checkpoint()` inside the signal handler, and its users write their classes for that: there is no other
place where a callable without steps could be asked. We keep to it, and add what is missing there: the new submission
replaces the old one whole, a second warning does not tear it, and the process leaves with 128+signum. A training that
saves between its steps is a @resumable function.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

from submitit.core.utils import DelayedSubmission, UncompletedJobError

from hpc_resume import Run

_METHODS: Final = ("__submitit_checkpoint__", "checkpoint")


def is_checkpointable(function: object) -> bool:
    """As submitit decides it."""
    return any(hasattr(function, method) for method in _METHODS)


def bounded(submission: DelayedSubmission, pickled: Path, *, is_writer: bool) -> Callable[..., Any]:
    """The submitted function, saved by its own `checkpoint` into `pickled` when a warning comes."""
    asked = DelayedSubmission(submission.function, *submission.args, **submission.kwargs)
    asked.set_timeout(submission._timeout_min, submission._timeout_countdown)  # noqa: SLF001 - submitit's own fields

    def call(*args: Any, **kwargs: Any) -> Any:
        with Run() as run:
            # What comes back is submitit's pickle; ours says that there is one, so that a requeue counts as progress.
            run.register_io(name="submission", save=_nothing, load=_nothing)
            run.checkpoint_point(run.start_step)
            _Boundary(run, asked, pickled if is_writer else None).install()
            return submitted(*args, **kwargs)

    submitted = submission.function
    return call


class _Boundary:
    """The handler that stands behind the run's own: asks the callable for its state, and leaves."""

    def __init__(self, run: Run, asked: DelayedSubmission, pickled: Path | None) -> None:
        self._run = run
        self._asked = asked
        self._pickled = pickled
        self._previous: dict[int, Any] = {}
        self._at_it = False

    def install(self) -> None:
        """On every signal that the run takes for a warning."""
        warning = signal.Signals[f"SIG{os.environ.get('HPC_RESUME_SIGNAL') or 'USR1'}"]
        for signum in (warning, signal.SIGTERM):
            self._previous[signum] = signal.signal(signum, self)

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        previous = self._previous[signum]
        if callable(previous):
            previous(signum, frame)
        if self._at_it or not self._run.should_stop():
            return
        self._at_it = True
        if self._pickled is not None:
            self._save(self._pickled)
        self._run.checkpoint_point(self._run.start_step + 1)

    def _save(self, pickled: Path) -> None:
        after = self._asked._checkpoint_function()  # noqa: SLF001 - what submitit's own handler calls
        if after is None:  # submitit's way of saying: not again
            raise UncompletedJobError("not requeued: checkpoint() returned None")
        after.set_timeout(self._asked._timeout_min, self._asked._timeout_countdown)  # noqa: SLF001
        temporary = pickled.with_name(f".{pickled.name}.{os.getpid()}.tmp")
        after.dump(temporary)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(pickled)


def _nothing(directory: Path) -> None:
    """No file of ours."""
