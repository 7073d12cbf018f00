"""The last files of an attempt: what the training says of itself, and that it is finished where no launcher says so."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hpc_resume import contract
from hpc_resume.durable import write_json
from hpc_resume.run.events import EventLog, say

if TYPE_CHECKING:
    from pathlib import Path

    from hpc_resume.run.ending import Ending
    from hpc_resume.run.environment import Environment
    from hpc_resume.run.opening import Opening
    from hpc_resume.run.saving import Saver


class OutcomeWriter:
    """Writes them once, from the main thread or, when that is stuck, from the watchdog's. Files are rank 0's."""

    def __init__(self, environment: Environment, opening: Opening, saver: Saver, events: EventLog) -> None:
        self._environment = environment
        self._opening = opening
        self._saver = saver
        self._events = events
        self._stands_in = False

    def stand_in(self) -> None:
        """Rank 0 is gone without a word: that the rest was stopped, and has not crashed, is for this rank to say."""
        self._stands_in = True

    def write(self, ending: Ending, completed: int, **more: object) -> None:
        """After `completed` steps; a disk that is full by now changes neither the code nor the exit."""
        told = more | ({"error": ending.error} if ending.error else {})
        self._events.write(ending.outcome, step=completed, saved=self._saver.published, code=ending.code, **told)
        if self._environment.rank != 0 and not self._is_missing(ending):
            return
        for path, record in self._files(ending, completed).items():
            try:
                write_json(path, record)
            except OSError as problem:
                say(f"{path}: {problem.strerror or problem}; the exit code {ending.code} says the same")

    def _is_missing(self, ending: Ending) -> bool:
        stopped = ending.outcome == contract.OUTCOME_STOPPED
        return self._stands_in and stopped and not self._opening.attempt_dir.outcome_file.exists()

    def _files(self, ending: Ending, completed: int) -> dict[Path, dict[str, object]]:
        opening = self._opening
        files: dict[Path, dict[str, object]] = {opening.attempt_dir.outcome_file: ending.record(self._saver.published)}
        if ending.outcome == contract.OUTCOME_FINISHED and not self._environment.launched:
            files[opening.run_dir.finished_file] = {
                "version": contract.FORMAT_VERSION,
                "attempt": opening.attempt,
                "step": completed,
                "t": round(time.time(), 3),
            }
        return files
