"""What an attempt of many ranks does at a boundary that is not idle, and at its end: what all have agreed to."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from hpc_resume import contract
from hpc_resume.errors import HpcResumeError, RankLostError
from hpc_resume.run.ending import Stopped, judge
from hpc_resume.run.events import say
from hpc_resume.run.ranks.agreement import Phase
from hpc_resume.run.signals import Received

if TYPE_CHECKING:
    from collections.abc import Callable

    from hpc_resume.run.events import EventLog
    from hpc_resume.run.ranks.ensemble import Agreed, Ensemble
    from hpc_resume.run.save_request import SaveRequest
    from hpc_resume.run.saving import Saver
    from hpc_resume.run.schedule import Schedule
    from hpc_resume.run.signals import Recorder


class Together:
    """The main thread's side. `stop(received, signum, completed)` leaves, and raises Stopped."""

    def __init__(
        self,
        ensemble: Ensemble,
        schedule: Schedule,
        saver: Saver,
        events: EventLog,
        asked: SaveRequest,
        recorder: Recorder,
        stop: Callable[[Received, int, int], None],
    ) -> None:
        self.ensemble = ensemble
        self._schedule = schedule
        self._saver = saver
        self._events = events
        self._asked = asked
        self._recorder = recorder
        self._stop = stop

    def begin(self, step: int) -> None:
        """Wait until all ranks are there. Raises Stopped, RankLostError."""
        self._obey(self.ensemble.begin(step), step)

    def boundary(self, completed: int, trigger: str | None, *, final: bool = False) -> str:
        """Do what is agreed, and plan the next; why a save failed, if one did. Raises Stopped, RankLostError.

        `trigger`: why this rank wants to save. `final`: no step comes after `completed`.
        """
        asked = self._asked.take() if self._asked.pending else None
        began = time.monotonic()
        agreed = self.ensemble.boundary(completed, trigger or ("poke" if asked is not None else None), final=final)
        if agreed.failure and not self.ensemble.rank:
            say(
                f"step {completed} could not be saved: {agreed.failure};"
                f" step {self._saver.published} is still the last good one"
            )
        elif agreed.saved and self._schedule.measured(time.monotonic() - began):
            self._events.write("cadence", **self._schedule.record())
        if asked is not None:
            self._events.write("save_served", step=completed, published=self._saver.published, asked=asked)
        if agreed.saved:
            self._schedule.after_save(completed, time.monotonic())
        else:
            self._schedule.calm()
        self._obey(agreed, completed)
        return agreed.failure

    def is_due(self) -> bool:
        """Whether something is to be agreed."""
        return self._recorder.first is not None or self._schedule.is_pinned

    def end(self, error: BaseException | None, completed: int) -> BaseException | None:
        """What this rank ends with: its own `error`, that of another, None; a stop has been done by the return."""
        if isinstance(error, RankLostError):
            return error
        ending = judge(error, os.environ)
        finished = ending.outcome == contract.OUTCOME_FINISHED
        agreed = self.ensemble.end(completed) if finished else self.ensemble.fail(ending.error, ending.code)
        try:
            self._obey(agreed, completed)
        except Stopped:
            return error
        except HpcResumeError as other:  # another rank's end, or the run has been taken over
            return error if error is not None and f"rank {self.ensemble.rank}: " in str(other) else other
        return error

    def _obey(self, agreed: Agreed, completed: int) -> None:
        order = agreed.leave
        if order is None:
            return
        if not order.signum:
            raise RankLostError(order.failure or "the ranks could not go on together", order.code or 1)
        if order.phase is Phase.LEAVE and not self.ensemble.rank:
            say(f"{order.failure}: all ranks leave at once")
        received = self._recorder.first or Received(order.signum, time.monotonic())
        self._stop(received, order.signum, completed)
