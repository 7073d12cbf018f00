"""What happens to one rank at a boundary that is not idle, and when all leave: the agreement, done to this training."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from hpc_resume.errors import CheckpointError, RunHeldError
from hpc_resume.run.deadline import fits
from hpc_resume.run.ending import describe
from hpc_resume.run.events import say
from hpc_resume.run.ranks.agreement import Order, Phase, State, Verdict
from hpc_resume.run.ranks.joint import JointPublisher
from hpc_resume.run.ranks.together import Together
from hpc_resume.run.signals import Received

if TYPE_CHECKING:
    from collections.abc import Callable

    from hpc_resume.run.events import EventLog
    from hpc_resume.run.guard import Guard
    from hpc_resume.run.ranks.member import Member
    from hpc_resume.run.save_request import SaveRequest
    from hpc_resume.run.saving import Saver
    from hpc_resume.run.schedule import Schedule
    from hpc_resume.run.signals import Recorder
    from hpc_resume.run.storage import Storage
    from hpc_resume.run.watchdog import Watchdog

_TO_A_BOUNDARY: Final = 1.0  # seconds in which the main thread may leave by itself when all have to
_LAST_WORD: Final = 5.0  # seconds for the other ranks to hear rank 0's last order


@dataclass(frozen=True, slots=True)
class Agreed:
    """What came of a boundary. `leave`: the order by which this rank leaves now, without a word of the training's."""

    saved: bool = False
    failure: str = ""
    leave: Order | None = None


class Ensemble:
    """One rank among the others. Charge is called by the member's thread, the rest by the main thread."""

    def __init__(self, member: Member, rank: int, size: int, close: Callable[[float], None]) -> None:
        self.member = member
        self.rank = rank
        self.size = size
        self._close = close
        self._settled = 0  # the newest round whose end this rank has drawn its conclusions from

    def attach(
        self,
        saver: Saver,
        schedule: Schedule,
        guard: Guard,
        watchdog: Watchdog,
        progress: Callable[[], tuple[int, bool]],
    ) -> None:
        """From here on the others' warnings have an effect."""
        self._saver, self._schedule, self._guard, self._watchdog = saver, schedule, guard, watchdog
        self.progress = progress
        guard.tell_ranks = self.member.warn
        self.member.attach(self)

    def publisher(self, storage: Storage, note: Callable[..., None]) -> JointPublisher:
        """What this rank saves by."""
        return JointPublisher(storage, self.rank, self.size, say=say, note=note)

    def together(
        self,
        schedule: Schedule,
        saver: Saver,
        events: EventLog,
        asked: SaveRequest,
        recorder: Recorder,
        stop: Callable[[Received, int, int], None],
    ) -> Together:
        """What this rank's main thread does with the rest."""
        return Together(self, schedule, saver, events, asked, recorder, stop)

    # --- Charge: in the thread that hears rank 0 ------------------------------------------------------------------

    def freeze(self, *, frozen: bool) -> None:
        """Pin the schedule, so that no boundary is idle."""
        self._guard.begun = self._guard.begun or self.member.order.phase not in (Phase.GATHER, Phase.LEAVE)
        self._schedule.pin(pinned=frozen)

    def warned(self, signum: int) -> None:
        """The deadline counts from here, also where only another rank was signalled."""
        self._watchdog.hear(Received(signum, time.monotonic()))
        self._watchdog.wake()
        if self.member.order.phase is Phase.GO:
            self._guard.note("agreed", step=self.member.order.step)

    def break_up(self, order: Order) -> None:
        """Leave in a moment, unless the main thread does."""

        def leave() -> None:
            if self._guard.begun:
                time.sleep(_TO_A_BOUNDARY)
            if self._watchdog.claim():
                self._guard.break_up(order.signum, order.code, order.failure)

        threading.Thread(target=leave, name="hpc_resume-leave", daemon=True).start()

    def orphaned(self) -> None:
        """A wrapper's exit code says nothing of the warning that this rank leaves for."""
        self._guard.speak_for_all()

    # --- the main thread ------------------------------------------------------------------------------------------

    def begin(self, step: int) -> Agreed:
        """Wait until all ranks are there."""
        return _left_by(self.member.begin(step))

    def boundary(self, completed: int, trigger: str | None, *, final: bool = False) -> Agreed:
        """Do here whatever the ranks have agreed to; `trigger`: why this rank wants to save, if it does."""
        agreed = Agreed()
        wished = self.member.arrive(completed, final=final, wish=trigger is not None)
        while True:
            verdict = self.member.hold(completed, wished)
            agreed = self._settle(completed, agreed)
            order = self.member.order
            match verdict:
                case Verdict.GO_ON:
                    return agreed
                case Verdict.STOP | Verdict.BREAK_UP:
                    return replace(agreed, leave=order)
                case Verdict.OPEN:
                    self._open(completed, "warning" if order.signum else trigger or "ranks", is_last=bool(order.signum))
                case Verdict.WRITE:
                    self._do(State.WRITTEN, completed, partial(self._saver.joint_write, completed, order.place))
                case Verdict.COMMIT:
                    self._do(State.PUBLISHED, completed, self._saver.joint.commit)

    def end(self, completed: int) -> Agreed:
        """Wait until all ranks have come to the end of the training."""
        return _left_by(self.member.end(completed))

    def fail(self, words: str, code: int) -> Agreed:
        """An exception has left the training: what all ranks end with because of it."""
        return _left_by(self.member.fail(f"rank {self.rank}: {words}", code))

    def leave(self) -> None:
        """The last word of this rank; rank 0 waits until the others have heard its own."""
        self.member.leave()
        self._close(_LAST_WORD)

    # --- the parts ------------------------------------------------------------------------------------------------

    def _settle(self, completed: int, agreed: Agreed) -> Agreed:
        """A round that has ended since, perhaps with the next one begun already."""
        last = self.member.saved
        if last.round <= self._settled:
            return agreed
        self._settled = last.round
        if last.step != completed:
            return agreed
        self._saver.joint.settle(completed, last.failure)
        return Agreed(saved=True, failure=last.failure)

    def _open(self, completed: int, trigger: str, *, is_last: bool) -> None:
        left, expected = self._watchdog.left(), self._saver.measured
        if is_last and completed != self._saver.published and not fits(expected, left):
            words = f"a save takes {expected:.1f} s and {left:.1f} s are left; raise preemption.lead in job.yaml"
            self._guard.note("not_saved", step=completed, seconds=expected, left=left)
            self.member.did(State.OPENED, completed, failure=words)
            return
        self._do(State.OPENED, completed, lambda: self._saver.joint.open(completed, trigger))

    def _do(self, state: State, completed: int, part: Callable[[], str | None]) -> None:
        """Do the rank's part of the round; what goes wrong in it is everybody's failure, and ends nothing by itself."""
        place, failure, held = "", "", None
        try:
            place = part() or ""
        except RunHeldError as error:
            failure, held = str(error), error
        except CheckpointError as error:
            failure = str(error)
        except Exception as error:  # noqa: BLE001 - a bug in a state_dict of one rank must not tear the ranks apart
            failure = f"rank {self.rank}: {describe(error, os.environ)}"
        self.member.did(state, completed, place=place, failure=failure)
        if held is not None:
            raise held


def _left_by(order: Order) -> Agreed:
    return Agreed(leave=order if order.phase is Phase.LEAVE or (order.is_last and order.signum) else None)
