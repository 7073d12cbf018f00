"""W&B: a run that the training begins by itself is marked before the last save and ended with the process's own code.

That needs no key in job.yaml, and wandb is not imported for it. With `wandb:` the run is ours: see wandb_managed.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

from hpc_resume.contract import SIGNAL_BASE
from hpc_resume.trackers.wandb_names import read_wishes
from hpc_resume.trackers.wandb_session import INTERRUPTED, Session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hpc_resume.trackers import Facts


def open(facts: Facts) -> WandbTracker:  # noqa: A001 - the name that every tracker's module offers
    """Always wanted: nobody knows whether the training will import wandb. Raises ConfigError for wrong wishes."""
    wishes = read_wishes(os.environ)
    if wishes is None:
        tracker = WandbTracker(facts)
        tracker.session.watch()
        return tracker
    from hpc_resume.trackers.wandb_managed import ManagedTracker  # noqa: PLC0415 - it builds on this one

    managed = ManagedTracker(facts, wishes)
    managed.prepare()
    return managed


class WandbTracker:
    """A run that the training itself begins: only its mark and its end are our business."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.session = Session()
        self.lock = threading.RLock()

    def begin(self) -> None:
        """What the training has begun by now is ours to end."""
        self.session.look()

    def log(self, metrics: Mapping[str, object], step: int) -> None:
        """The training logs to its own run itself."""

    def mark_preempting(self) -> None:
        """Mark the run; one that a finish() has ended too early is begun again for it."""
        with self.lock:
            self.session.look()
            if self.session.run is None and self.session.ended is not None and self.session.begun == 1:
                self.revive()
            self._surely(self.session.mark)

    def finish(self, exit_code: int) -> None:
        """End the run, but not before the training does when all went well: it may still log."""
        code = INTERRUPTED if exit_code == SIGNAL_BASE + signal.SIGINT else exit_code
        with self.lock:
            self.session.look()
            if self.session.must_be_corrected(code):
                self.revive()
            elif code == 0:
                return
            self._surely(lambda: self.session.finish(code))
            self.session.release()

    def revive(self) -> None:
        """The same run in a new service process, as it was."""
        marked = self.session.marked
        self.session.revive()
        if marked:
            self.session.mark()

    def _surely(self, call: Callable[[], object]) -> None:
        """`call`, and once more after the service process was found dead."""
        if self.session.is_lost():
            self.revive()
            call()
            return
        try:
            call()
        except Exception as error:
            if not self.session.is_lost(error):
                raise
            self.revive()
            call()
