"""W&B: a run that the training begins by itself is marked before the last save and ended with the process's own code.

That needs no key in job.yaml, and wandb is not imported for it. With `wandb:` the run is ours: see wandb_managed.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any, Final

from hpc_resume.contract import SIGNAL_BASE
from hpc_resume.trackers.wandb_leftovers import Leftovers
from hpc_resume.trackers.wandb_names import RunFile, read_wishes
from hpc_resume.trackers.wandb_session import INTERRUPTED, Session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hpc_resume.trackers import Facts

_RUNS: Final = 20  # of one training that are remembered; it mostly has one


def open(facts: Facts) -> WandbTracker:  # noqa: A001 - the name that every tracker's module offers
    """Always wanted: nobody knows whether the training will import wandb. Raises ConfigError for wrong wishes."""
    wishes = read_wishes(os.environ)
    if wishes is None:
        tracker = WandbTracker(facts)
        tracker.session.watch(tracker.init)
        return tracker
    from hpc_resume.trackers.wandb_managed import ManagedTracker  # noqa: PLC0415 - it builds on this one

    managed = ManagedTracker(facts, wishes)
    managed.prepare()
    return managed


class WandbTracker:
    """A run that the training itself begins: only its mark and its end are our business."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.session = Session(self._found)
        self.lock = threading.RLock()
        self.file = RunFile(facts.run_file)
        self.leftovers = Leftovers(self.file, facts.say)

    def init(self, *args: Any, **kwargs: Any) -> Any:
        """In place of wandb.init: a run that an earlier attempt has begun keeps what a person wrote about it since."""
        if (kwargs.get("id") or os.environ.get("WANDB_RUN_ID")) in self.file.section().get("theirs", ()):
            kwargs.pop("notes", None)
            os.environ.pop("WANDB_NOTES", None)
        return self.session.init(*args, **kwargs)

    def _found(self, run: Any) -> None:
        """The training has begun it: what an earlier attempt could not send of it goes first."""
        if run.disabled:
            return
        with self.lock:
            late = self.leftovers.rows(run) if run.settings.resume and not run.offline else []
            for number, row in late:
                run.log(row, step=number, commit=True)
            self._tell_sent(len(late))
            theirs = [*(known for known in self.file.section().get("theirs", ()) if known != run.id), run.id]
            self.note(logs=self.leftovers.with_this(run, others=run.offline), theirs=theirs[-_RUNS:])

    def note(self, **facts: object) -> None:
        """In run.json. A full disk there is no reason to fail in the training's own wandb.init() or log()."""
        try:
            self.file.note(**facts)
        except OSError as error:
            self.facts.say(f"{self.facts.run_file}: {error.strerror or error}; the next attempt does not know of it")

    def _tell_sent(self, count: int) -> None:
        if count:
            self.facts.say(f"sent W&B {count} row{'s' * (count > 1)} that an earlier attempt could not send")

    def begin(self) -> None:
        """What the training has begun by now is ours to end."""
        self.session.look()

    def log(self, metrics: Mapping[str, object], step: int) -> None:
        """The training logs to its own run itself."""

    def mark_preempting(self) -> None:
        """Mark the run; one that a finish() has ended too early is begun again for it."""
        with self.lock:
            self.session.look(tell=False)
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
                self.settle()
                self.session.release()
                return
            self._surely(lambda: self.session.finish(code))
            self.settle()
            self.session.release()

    def settle(self) -> None:
        """What was sent to its end need not be looked through by the next attempt."""
        if self.session.delivered is not None and self.leftovers.known(self.session.delivered):
            self.note(logs=[])

    def revive(self) -> None:
        """The same run in a new service process, as it was."""
        marked = self.session.marked
        run = self.session.revive()
        if marked:
            self.session.mark()
        self._found(run)

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
