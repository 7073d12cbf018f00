"""When a step boundary is not idle: a save by steps or by time, a look at the handlers, a drill, a request."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hpc_resume.run.auto import AutoCadence
from hpc_resume.run.cadence import AUTO, Cadence, combine

if TYPE_CHECKING:
    from hpc_resume.run.environment import Environment


def asked_cadence(environment: Environment, every: int | str | None) -> Cadence | AutoCadence:
    """job.yaml's figures go before the code's `every`; `auto` there or here is for all of them."""
    told = environment.save_steps or environment.save_seconds
    cadence: Cadence | AutoCadence = AutoCadence()
    if not environment.save_auto and (every != AUTO or told):
        cadence = combine(None if every == AUTO else every, environment.save_steps, environment.save_seconds)
    if environment.rank == 0:
        return cadence
    return Cadence(cadence.steps if isinstance(cadence, Cadence) else 0, 0.0)  # time is rank 0's to watch


class Schedule:
    """`due_step` (completed steps) and `due_time` (time.monotonic()) are all that an idle boundary compares with."""

    def __init__(self, cadence: Cadence | AutoCadence, drill_step: int, start_step: int) -> None:
        now = time.monotonic()
        self._cadence = cadence
        self._drill_step = drill_step
        self._save_time = cadence.next_time(now)
        self._look_time = now
        self._pinned = False
        self.due_step = min(cadence.next_step(start_step), drill_step)
        self.due_time = min(self._save_time, self._look_time)

    def wants_look(self, now: float) -> bool:
        """Whether it is time to see what others have done to our handlers."""
        return now >= self._look_time

    def wants_drill(self, completed: int) -> bool:
        """Whether an interruption on purpose is due."""
        return completed >= self._drill_step

    def wants_save(self, completed: int, now: float) -> str | None:
        """What makes a save due, "steps" or "time"; None when nothing does."""
        if completed >= self.due_step:
            return "steps"
        return "time" if now >= self._save_time else None

    def hurry(self) -> None:
        """The next boundary is not idle. Also called from a signal handler."""
        self.due_time = 0.0

    def pin(self, *, pinned: bool) -> None:
        """No boundary is idle until it is unpinned. From any thread: what `calm` writes at the same time is undone."""
        self._pinned = pinned
        if pinned:
            self.due_time = 0.0

    @property
    def is_pinned(self) -> bool:
        """Whether something is to be agreed with other ranks."""
        return self._pinned

    def calm(self) -> None:
        """Undo `hurry`. By the main thread alone."""
        self.due_time = min(self._save_time, self._look_time)
        if self._pinned:  # looked at after the write: whoever pins writes in the other order
            self.due_time = 0.0

    def after_look(self, due: float) -> None:
        """The next look is due then."""
        self._look_time = due
        self.calm()

    def after_save(self, completed: int, now: float) -> None:
        """Plan the next one, also when this one failed."""
        self.due_step = min(self._cadence.next_step(completed), self._drill_step)
        self._save_time = self._cadence.next_time(now)
        self.calm()

    def measured(self, seconds: float) -> bool:
        """A save took so long; whether `auto` now saves noticeably more or less often."""
        before = self._cadence.seconds
        self._cadence = self._cadence.measured(seconds)
        return isinstance(self._cadence, AutoCadence) and not 0.8 < self._cadence.seconds / before < 1.25

    def record(self) -> dict[str, object]:
        """What `auto` goes by, for an event; nothing where it does not decide."""
        return self._cadence.record() if isinstance(self._cadence, AutoCadence) else {}
