"""Is the owner of a lease alive: by what it shows, by the observer's own monotonic clock alone. Pure.

The rejected alternative compares times that two machines wrote: clocks an hour apart are real, and a run with two
owners costs more than half a minute of waiting.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

PERIOD: Final = 15.0  # seconds between two heartbeats, where the owner's own record does not say
# A beat is late on a loaded file server; and the next process has the run within two periods all the same.
DEAD_AFTER: Final = 1.75  # periods without a change
LOOKS: Final = 8  # an observer looks so often in a period


@dataclass(frozen=True, slots=True)
class Watch:
    """What one observer has seen of one owner: its last sign, and for how long that has not changed.

    Only time in which the observer could have seen a change counts: one that was itself stopped, or whose reads hung
    together with the owner's writes (a file server that was away), has learnt nothing meanwhile.
    """

    generation: int
    sign: bytes | None = None
    silent: float = 0.0  # seconds
    at: float | None = None  # time.monotonic() of the last look
    changed: bool = False  # the sign has changed before our eyes: it lives

    def look(self, generation: int, sign: bytes | None, now: float, period: float) -> Watch:
        """After one more look at `now`; another generation or sign begins anew."""
        if generation != self.generation or self.at is None:
            return Watch(generation, sign, 0.0, now)
        if sign != self.sign:
            return Watch(generation, sign, 0.0, now, changed=True)
        return replace(self, silent=self.silent + min(now - self.at, 2 * period / LOOKS), at=now)

    def is_dead(self, period: float) -> bool:
        """Whether the silence is long enough to take the run over."""
        return self.silent >= DEAD_AFTER * period
