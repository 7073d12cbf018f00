"""One started attempt from its first signal handler to its last file: what happens at a boundary that is not idle."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, ClassVar

from hpc_resume import contract
from hpc_resume.errors import CheckpointError, HpcResumeError, RunHeldError, UsageError
from hpc_resume.run import early
from hpc_resume.run.auto import AutoCadence
from hpc_resume.run.deadline import fits
from hpc_resume.run.drill import interrupt, next_drill
from hpc_resume.run.ending import Ending, Stopped, describe, judge, leave, place_of
from hpc_resume.run.environment import Environment
from hpc_resume.run.events import EventLog, say
from hpc_resume.run.guard import Guard
from hpc_resume.run.handlers import HandlerWatch
from hpc_resume.run.opening import Opening
from hpc_resume.run.outcome import OutcomeWriter
from hpc_resume.run.save_request import SaveRequest
from hpc_resume.run.saving import Saver
from hpc_resume.run.schedule import Schedule
from hpc_resume.run.storage import Storage
from hpc_resume.run.takeover import exit_now
from hpc_resume.run.tracking import last_words, mirroring, open_trackers
from hpc_resume.run.watchdog import Watchdog
from hpc_resume.trackers import CLOSE_SECONDS, FINISH_SECONDS

if TYPE_CHECKING:
    from hpc_resume.run.cadence import Cadence
    from hpc_resume.run.ranks.ensemble import Ensemble
    from hpc_resume.run.ranks.together import Together
    from hpc_resume.run.signals import Received, Recorder


class Attempt:
    """The parts of a run that is under way, and the order in which they are used. starting.start makes one."""

    active: ClassVar[Attempt | None] = None  # handlers, lease and exit code are the process's: one run at a time

    def __init__(
        self,
        environment: Environment,
        opening: Opening,
        recorder: Recorder,
        events: EventLog,
        cadence: Cadence | AutoCadence,
        storage: Storage,
        ensemble: Ensemble | None = None,
    ) -> None:
        self.environment = environment
        self.opening = opening
        newest = storage.loaded.newest
        self.resumed = newest is not None
        self.start_step = newest.step if newest else 0
        self.begun = False
        self.schedule = Schedule(cadence, next_drill(environment.drill, self.start_step), self.start_step)
        self._pid = os.getpid()
        self._recorder = recorder
        self._events = events
        self._stopped: Stopped | None = None
        self._handlers = HandlerWatch(recorder, events)
        joint = ensemble.publisher(storage, events.write) if ensemble is not None else None
        mirror = mirroring(environment, opening)
        self.saver = Saver(storage, say=say, note=events.write, rank=environment.rank, joint=joint, mirror=mirror)
        self.trackers, self.batches = open_trackers(environment, opening, self.start_step, resumed=self.resumed)
        self._outcome = OutcomeWriter(environment, opening, self.saver, events)
        self.asked = SaveRequest(opening.attempt_dir.control_file)
        self.guard = Guard(environment, opening, self.saver, self.trackers, self._outcome, events)
        self.watchdog = early.watchdog(recorder) or Watchdog(recorder, self.guard)
        self.together: Together | None = None
        if ensemble is not None:
            parts = self.schedule, self.saver, events, self.asked, recorder
            self.together = ensemble.together(*parts, self._stop)

    def is_ours(self) -> bool:
        """False in a forked child: the run is its parent's."""
        return os.getpid() == self._pid

    def begin(self) -> None:
        """Before the first step: everything that was saved must have been restored."""
        self._refuse_children()
        self.saver.seal()
        if self.together is not None:
            self.together.begin(self.start_step)
        self.trackers.begin()
        self.begun = self.guard.begun = True
        self.guard.passed = time.monotonic()
        self.watchdog.wake()

    def boundary(self, completed: int) -> None:
        """Something is due after `completed` steps: a warning, or a periodic save (a warning may come during that)."""
        self._refuse_children()
        now = time.monotonic()
        if self.schedule.wants_look(now):
            self._inspect(now)
        if self.schedule.wants_drill(completed) and self._recorder.first is None:
            warning, launched = self.environment.signum, self.environment.launched
            interrupt(self._recorder, warning, self.opening.attempt_dir, launched=launched)
        trigger = self.schedule.wants_save(completed, now) if self._recorder.first is None else None
        if self.together is not None:
            self._agree(completed, trigger)
            return
        if trigger is not None:
            self.save(completed, trigger)
        if self.asked.pending:
            self._serve(completed)
        self.leave_if_warned(completed)

    def _serve(self, completed: int) -> None:
        """Save because the owner asked for it, and go on; the answer is an event."""
        self.schedule.calm()
        asked = self.asked.take()
        if asked is None or self._recorder.first is not None:  # a warning saves anyway
            return
        self.save(completed, "poke")
        self._events.write("save_served", step=completed, published=self.saver.published, asked=asked)
        if self.asked.pending:  # once more, while the save was under way
            self.schedule.hurry()

    def save(self, completed: int, trigger: str) -> None:
        """Save, and plan the next one: also after a failure, so that a full disk is not tried at every step."""
        began = time.monotonic()
        try:
            if not self.saver.save(completed, trigger):
                return  # still due: the one before is being written
            if self.schedule.measured(time.monotonic() - began):
                self._events.write("cadence", **self.schedule.record())
        except CheckpointError as error:
            say(f"step {completed} could not be saved: {error}; step {self.saver.published} is still the last good one")
        self.schedule.after_save(completed, time.monotonic())

    def finish_steps(self, completed: int) -> None:
        """After the last step: save it and, after a warning, leave.

        Raises CheckpointError: with nothing left to train, an exit code of 0 would mark a run as finished whose last
        steps exist nowhere.
        """
        if self.together is not None:
            if completed != self.saver.published and (failure := self._agree(completed, "end", final=True)):
                raise CheckpointError(failure)
            self.leave_if_warned(completed)
            return
        if self._recorder.first is None:
            self.saver.save(completed, "end")
        self.leave_if_warned(completed)

    def _agree(self, completed: int, trigger: str | None, *, final: bool = False) -> str:
        assert self.together is not None  # noqa: S101 - only asked among many ranks
        if self._stopped is not None:  # the training swallowed it
            leave(self._stopped)
        return self.together.boundary(completed, trigger, final=final)

    def leave_if_warned(self, completed: int) -> None:
        """After a warning: mark, save what is new, finish the trackers, leave. Raises Stopped, again at every call."""
        received = self._recorder.first
        if self.together is not None:
            if self.together.is_due():
                self._agree(completed, None)
            return
        if received is None:
            return
        if self._stopped is not None:  # the training swallowed it
            leave(self._stopped)
        self._stop(received, received.signum, completed)

    def _stop(self, received: Received, signum: int, completed: int) -> None:
        self._check_lease()
        if not self.watchdog.claim():  # it is leaving in our place, and what we did now would be torn
            threading.Event().wait()
        self.watchdog.hear(received)
        waited = round(time.monotonic() - received.at, 6)
        self._stopped = Stopped(signum, completed)
        ending = judge(self._stopped, os.environ)
        # Marked first: a SIGKILL in the middle of the save then still leaves the run PREEMPTED at W&B. A run that its
        # owner has ended does not come back.
        if not self.opening.attempt_dir.is_to_end():
            self.trackers.mark_preempting()
        if self.together is None:  # else all ranks have saved together
            self._save_for_the_last_time(completed)
        self.trackers.finish(ending.code, last_words(self.environment))
        if self._recorder.second is not None:
            self.watchdog.hear(self._recorder.second)
        more = {"waited": waited, "count": self._recorder.count, "untold": self.trackers.failed}
        self._outcome.write(ending, completed, **more)
        if not self.environment.rank:
            name = signal.Signals(signum).name
            say(f"stopped by {name} after step {completed}; step {self.saver.published} is where it goes on")
        leave(self._stopped)

    def end(self, error: BaseException | None, completed: int) -> None:
        """The training returned or raised `error`; what must be raised in its place, is."""
        if self.together is not None and self._stopped is None:
            error = self.together.end(error, completed)
        elif self.environment.drill is not None and error is None and self._stopped is None:
            self.saver.save(completed, "end")  # a loop of one's own has no end that we see: its final state is compared
        if self._stopped is None:
            self.watchdog.close()  # else it sees to it that the rest of the process does not outlast the deadline
        try:
            if self._stopped is None:
                self._conclude(judge(error, os.environ), error, completed)
        finally:
            warned = self.environment.launched and self._recorder.first is not None
            self.asked.release()
            self._recorder.release(leaving=self._stopped is not None or warned)
            self.saver.close()
            if self.together is not None:
                self.together.ensemble.leave()
            self._events.close()
            if self.opening.lease is not None:
                self.opening.lease.release()
            Attempt.active = None
        if self._stopped is not None and error is not self._stopped:
            raise self._stopped from error
        if isinstance(error, HpcResumeError):
            refuse(error)

    def _conclude(self, ending: Ending, error: BaseException | None, completed: int) -> None:
        finished = ending.outcome == contract.OUTCOME_FINISHED
        self.saver.wait(self.watchdog.left())
        if not isinstance(error, RunHeldError):
            self.trackers.finish(ending.code, CLOSE_SECONDS if finished else FINISH_SECONDS)
        self._outcome.write(ending, completed)
        if not finished and not isinstance(error, HpcResumeError):
            what = "interrupted" if isinstance(error, KeyboardInterrupt) else "crashed"
            say(f"{what} after step {completed}; the next start goes on from step {self.saver.published}")

    def _save_for_the_last_time(self, completed: int) -> None:
        """Whatever goes wrong here, the process leaves with the signal's code: the last published step is resumable."""
        self.saver.wait(self.watchdog.left())  # never a second one beside it
        left, expected = self.watchdog.left(), self.saver.measured
        if completed != self.saver.published and not fits(expected, left):
            self._events.write("not_saved", step=completed, seconds=expected, left=left)
            say(
                f"step {completed} is not saved: a save takes {expected:.1f} s and {left:.1f} s are left;"
                f" it goes on from step {self.saver.published}. Raise preemption.lead in job.yaml"
            )
            return
        try:
            self.saver.save(completed, "warning")
        except Exception as error:  # noqa: BLE001 - a bug in a state_dict must not turn a stop into a crash
            what = error if isinstance(error, CheckpointError) else describe(error, os.environ)
            say(f"step {completed} could not be saved: {what}; step {self.saver.published} is what will be resumed")

    def _inspect(self, now: float) -> None:
        """Rarely, since it costs microseconds: what others have done to our handlers since the last look."""
        lead = self.environment.lead or 120.0
        self.schedule.after_look(now + min(30.0, max(1.0, lead / 4)))
        self.watchdog.listen()
        self._check_lease()
        self._handlers.reclaim()

    def _check_lease(self) -> None:
        """Raise RunHeldError when another process has taken the run over: from then on W&B is its to talk to."""
        if self.opening.lease is not None:
            self.opening.lease.check()

    def _refuse_children(self) -> None:
        if not self.is_ours():
            raise UsageError(
                f"this run belongs to process {self._pid}, and this is its forked child {os.getpid()};"
                " open the run in the process that trains"
            )


def is_open() -> bool:
    """Whether a run is open in this very process: then a warning is its boundary's to answer."""
    return Attempt.active is not None and Attempt.active.is_ours()


def refuse(error: HpcResumeError) -> None:
    """A user's mistake ends the process with words, the place, and the exit code that the batch shell decides by."""
    say(f"{place_of(error)}{error}")
    if isinstance(error, RunHeldError) and getattr(sys.modules.get("wandb"), "run", None) is not None:
        exit_now(error.exit_code)  # wandb's own exit hook would end the run for its new owner, too
    leave(SystemExit(error.exit_code))
