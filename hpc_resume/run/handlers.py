"""Who has taken our signal handlers away since the last look: they are ours again, and that is said."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

from hpc_resume.run.events import say

if TYPE_CHECKING:
    from hpc_resume.run.events import EventLog
    from hpc_resume.run.signals import Recorder

_RECLAIMS: Final = 8  # somebody who takes a signal back each time is not fought for ever


class HandlerWatch:
    """Looked at by the main thread, rarely, since it costs microseconds."""

    def __init__(self, recorder: Recorder, events: EventLog) -> None:
        self._recorder = recorder
        self._events = events
        self._reclaimed = 0

    def reclaim(self) -> None:
        """Take back what is ours; who had it is called after us."""
        if self._reclaimed >= _RECLAIMS:
            return
        for signum, who in self._recorder.reclaim():
            self._reclaimed += 1
            name = signal.Signals(signum).name
            self._events.write("handler_replaced", signal=name.removeprefix("SIG"), by=who)
            say(f"the handler of {name} was replaced by {who}: the warning is ours again, and {who} is called after it")
