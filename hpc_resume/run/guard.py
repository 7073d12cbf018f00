"""What the watchdog knows and does about an open run: say that it is slow, and leave when no boundary comes."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from hpc_resume import contract
from hpc_resume.run.ending import Ending, Stopped, judge
from hpc_resume.run.events import say
from hpc_resume.run.process import host_name
from hpc_resume.run.takeover import bounded, dump_stacks, exit_now
from hpc_resume.run.watchdog import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hpc_resume.run.environment import Environment
    from hpc_resume.run.events import EventLog
    from hpc_resume.run.opening import Opening
    from hpc_resume.run.outcome import OutcomeWriter
    from hpc_resume.run.saving import Saver
    from hpc_resume.run.signals import Received
    from hpc_resume.trackers import Trackers


class Guard:
    """The watchdog's view of one attempt. `passed` and `begun` are written by the main thread, read by the watchdog."""

    patience = PATIENCE

    def __init__(
        self,
        environment: Environment,
        opening: Opening,
        saver: Saver,
        trackers: Trackers,
        outcome: OutcomeWriter,
        events: EventLog,
    ) -> None:
        self.environment = environment
        self.launcher_ns = opening.launcher_ns
        self.note = events.write
        self.passed = time.monotonic()
        self.begun = False
        self.tell_ranks: Callable[[int], None] | None = None
        self._attempt_dir = opening.attempt_dir
        self._saver = saver
        self._trackers = trackers
        self._outcome = outcome

    @property
    def warning_file(self) -> Path | None:
        """The launcher's, where there is a launcher."""
        return self._attempt_dir.warning_file if self.environment.launched else self.environment.warning_file

    def heard(self, received: Received) -> None:
        """A warning to one rank is one to all."""
        if self.tell_ranks is not None:
            self.tell_ranks(received.signum)

    def break_up(self, signum: int, code: int, words: str) -> None:
        """The ranks cannot go on together, and the main thread is not at a boundary: leave without one."""
        if signum:
            ending = judge(Stopped(signum, 0), {})
            bounded(self._trackers.mark_preempting, 1.0)
        else:
            ending = Ending(contract.OUTCOME_CRASHED, code, error=words)
        bounded(lambda: say(f"{words}: this rank leaves too; it goes on from step {self._saver.published}"), 0.2)
        bounded(lambda: self._outcome.write(ending, self._saver.published, ranks=words), 2.0)
        exit_now(ending.code)

    def speak_for_all(self) -> None:
        """Rank 0 is gone without a word."""
        self._outcome.stand_in()

    def slow(self, seconds: float) -> None:
        """A warning now would find no boundary in time."""
        lead = self.environment.lead or 0
        self.note("slow_boundary", seconds=round(seconds, 1), lead=lead)
        say(
            f"no step boundary for {seconds:.0f} s, and a warning comes only {lead:g} s before the end: it would be"
            " missed. Call run.checkpoint_point() more often, or raise preemption.lead in job.yaml above"
            f" {seconds:.0f}s"
        )

    def take_over(self, received: Received, hard_at: float) -> None:
        """Mark, dump, wait for a save in flight, write the outcome, leave: each bounded by what is left."""
        ending = _ending(received)
        if self.begun:
            self._tell_stuck(received, hard_at)
        else:
            say(f"SIG{received.name} before the first step: nothing new to save, leaving at once")
        if not self._attempt_dir.is_to_end():
            bounded(self._trackers.mark_preempting, _share(hard_at, 0.4))
        if self._saver.in_flight is not None:
            self._saver.wait(_share(hard_at, 0.8))
        bounded(lambda: self._outcome.write(ending, self._saver.published, stuck=self.begun), _share(hard_at, 0.5))
        bounded(lambda: self._trackers.finish(ending.code, _share(hard_at, 0.5)), _share(hard_at, 0.5))
        exit_now(ending.code)

    def leave_hard(self, received: Received) -> None:
        """The last half second: say in what state the run is, and go."""
        ending = _ending(received)
        if not self._attempt_dir.outcome_file.exists():
            bounded(lambda: self._outcome.write(ending, self._saver.published, late=True), 0.3)
        exit_now(ending.code)

    def _tell_stuck(self, received: Received, hard_at: float) -> None:
        path = self._attempt_dir.stacks_file(host_name(), os.getpid())
        silent = time.monotonic() - received.at
        dumped: list[bool] = []
        bounded(lambda: dumped.append(dump_stacks(path)), _share(hard_at, 0.2))
        where = f"; where every thread was is in {path}" if dumped == [True] else ""
        self.note("stuck", seconds=round(silent, 3), left=round(hard_at - time.time(), 3), stacks=path.name)
        bounded(
            lambda: say(
                f"no step boundary in {silent:.1f} s since SIG{received.name}: leaving without one, before the job is"
                f" killed; it goes on from step {self._saver.published}{where}"
            ),
            0.2,
        )


def _ending(received: Received) -> Ending:
    return judge(Stopped(received.signum, 0), {})


def _share(hard_at: float, part: float) -> float:
    return max(0.0, hard_at - time.time()) * part
