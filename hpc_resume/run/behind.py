"""One save at a time, at once or behind the training's back; any thread may see it and wait for it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class InFlight:
    """A save that is not on disk yet: after `step` steps, begun at `since` (time.monotonic())."""

    step: int
    since: float


class Lane:
    """Where at most one save is under way. Begun by the main thread alone."""

    def __init__(self) -> None:
        self._idle = threading.Event()
        self._idle.set()
        self._failure: BaseException | None = None
        self.in_flight: InFlight | None = None

    def begin(self, step: int) -> InFlight:
        """The lane is taken until `end`."""
        self._idle.clear()
        self.in_flight = InFlight(step, time.monotonic())
        return self.in_flight

    def end(self) -> None:
        """The lane is free."""
        self.in_flight = None
        self._idle.set()

    def wait(self, seconds: float | None) -> bool:
        """Wait, in any thread, until no save is in flight; False when one still is after `seconds`."""
        return self._idle.wait(seconds)

    def behind(self, job: Callable[[], None]) -> None:
        """Do `job` in a thread, then end. What it raises is kept for `check`."""

        def run() -> None:
            try:
                job()
            except BaseException as error:  # noqa: BLE001 - it is the main thread's, which is told by `check`
                self._failure = error
            finally:
                self.end()

        # A daemon: a hanging file system must not keep the interpreter from ending after the deadline.
        threading.Thread(target=run, name="hpc_resume-save", daemon=True).start()

    def check(self) -> None:
        """Raise what the last job behind raised, once."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
