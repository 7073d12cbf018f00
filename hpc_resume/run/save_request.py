"""SIGURG: the owner asks for a save now, and the training goes on. `hpc-resume poke save` sends it by the launcher.

Chosen: a signal of its own. Rejected: the warning's, with the request beside it; two pending signals of one number
melt into one, so a warning that meets a request would be taken for it. The system's default for SIGURG is to do
nothing: before a run is open, and in programs without us, a request is lost and nothing else happens.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from hpc_resume.errors import HpcResumeError
from hpc_resume.run.records import read_fields

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType

SIGNUM = signal.SIGURG
REQUEST = "save"


class SaveRequest:
    """`pending` from the signal until the boundary that serves it; what is asked is in control.json, and only there."""

    def __init__(self, control_file: Path) -> None:
        self._file = control_file
        self._previous: Any = None
        self._served = 0.0
        self._hurry: Callable[[], None] | None = None
        self.pending = False

    def install(self, hurry: Callable[[], None]) -> None:
        """Hear it from now on, and one that was left before; `hurry` brings the next boundary about. Main thread."""
        self._hurry = hurry
        self._previous = signal.signal(SIGNUM, self._record)
        if self._file.exists():
            self._ask()

    def release(self) -> None:
        """As before `install`."""
        if self._hurry is not None and signal.getsignal(SIGNUM) == self._record:
            signal.signal(SIGNUM, signal.SIG_DFL if self._previous is None else self._previous)
        self._hurry, self.pending = None, False

    def take(self) -> float | None:
        """When the request was made that is to be served now, epoch seconds; None when there is no new one."""
        self.pending = False
        try:
            fields = read_fields(self._file)
        except HpcResumeError:
            return None
        if fields is None or fields.text("request") != REQUEST or fields.number("t") <= self._served:
            return None
        self._served = fields.number("t")
        return self._served

    def _ask(self) -> None:
        self.pending = True
        if self._hurry is not None:
            self._hurry()

    def _record(self, signum: int, frame: FrameType | None) -> None:
        self._ask()
        if callable(self._previous):
            self._previous(signum, frame)
