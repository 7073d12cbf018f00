"""submitit.helpers.Checkpointable under our runtime: the moment of the warning is its one step boundary.

submitit calls `checkpoint()` inside the signal handler, and its users write their classes for that: there is no other
place where a callable without steps could be asked. We keep to it, and add what is missing there: the new submission
replaces the old one whole, a second warning does not tear it, and the process leaves with 128+signum. A callable that
opens a run of ours inside, as Hydra's launcher does with a @resumable task, is left to that run's boundary.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any, Final

from submitit.core.utils import DelayedSubmission, UncompletedJobError

from hpc_resume import Stopped, contract
from hpc_resume.run import attempt

_METHODS: Final = ("__submitit_checkpoint__", "checkpoint")


def is_checkpointable(function: object) -> bool:
    """As submitit decides it."""
    return any(hasattr(function, method) for method in _METHODS)


def warned_by() -> tuple[int, int]:
    """The signals that a run takes for a warning in this process."""
    return signal.Signals[f"SIG{os.environ.get(contract.ENV_SIGNAL) or 'USR1'}"], signal.SIGTERM


class Boundary:
    """The handler that asks `submission` for its state, writes that to `pickled` (None: another rank does), and leaves.

    On top of what heard warnings before: with a callable there is something to save before any run opens.
    """

    def __init__(self, submission: DelayedSubmission, pickled: Path | None) -> None:
        self._asked = DelayedSubmission(submission.function, *submission.args, **submission.kwargs)
        self._asked.set_timeout(submission._timeout_min, submission._timeout_countdown)  # noqa: SLF001 - its own fields
        self._pickled = pickled
        self._previous: dict[int, Any] = {}
        self._at_it = False

    def install(self) -> None:
        """In the main thread."""
        for signum in warned_by():
            self._previous[signum] = signal.signal(signum, self)

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Raise Stopped wherever the callable is, as submitit's handler does; no second time."""
        previous = self._previous[signum]
        if callable(previous):
            previous(signum, frame)
        if self._at_it or attempt.is_open() or _is_over():
            return
        self._at_it = True
        if self._pickled is not None:
            self._save(self._pickled)
        raise Stopped(signum, 0)

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


def _is_over() -> bool:
    """A run inside has ended, and so will the callable: what it returns is worth more than another start."""
    directory = os.environ.get(contract.ENV_ATTEMPT_DIR)
    return directory is not None and Path(directory, contract.OUTCOME_FILE).exists()
