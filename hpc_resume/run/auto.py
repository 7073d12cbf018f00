"""How often to save when nobody said: from what a save costs and how often work was lost. Pure.

Young (1974) and Daly (2006): with a cost C of a save and a mean time M between losses, saving every sqrt(2 C M) loses
least; Daly's further terms matter where C is not small beside M. Only interruptions without a warning count, since a
warned one saves before it leaves.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from math import sqrt
from typing import Final

from hpc_resume.run.cadence import NEVER

FIRST_SECONDS: Final = 60.0  # until a save has been measured
ASSUMED_SECONDS: Final = 86_400.0  # one loss a day, until the ledger knows better: one more loss, one more day
SHORTEST: Final = 5.0
LONGEST: Final = 4 * 3600.0
_REMEMBERED: Final = 20  # saves; the state may have grown since the earlier ones


@dataclass(frozen=True, slots=True)
class AutoCadence:
    """`saves` are the last measured ones, seconds each; `losses` of work in `running` seconds of training."""

    saves: tuple[float, ...] = ()
    losses: int = 0
    running: float = 0.0

    @property
    def save_seconds(self) -> float | None:
        """What a save costs the training: the median of those measured, None before the first."""
        return statistics.median(self.saves) if self.saves else None

    @property
    def loss_seconds(self) -> float:
        """Mean time between losses, with the assumed one counted in."""
        return (self.running + ASSUMED_SECONDS) / (self.losses + 1)

    @property
    def seconds(self) -> float:
        """Between two saves."""
        cost = self.save_seconds
        if cost is None:
            return FIRST_SECONDS
        return min(max(best_interval(cost, self.loss_seconds), SHORTEST), LONGEST)

    def next_step(self, completed: int) -> int:  # noqa: ARG002 - Cadence's
        """Never by steps."""
        return NEVER

    def next_time(self, now: float) -> float:
        """When time makes a save due, on the clock of `now`."""
        return now + self.seconds

    def measured(self, seconds: float) -> AutoCadence:
        """With one more save, which cost the training so much."""
        return replace(self, saves=(*self.saves, seconds)[-_REMEMBERED:])

    def record(self) -> dict[str, object]:
        """The interval and what it comes from, for an event or --json."""
        cost = self.save_seconds
        return {
            "every": round(self.seconds, 3),
            "save_seconds": None if cost is None else round(cost, 6),
            "saves": len(self.saves),
            "losses": self.losses,
            "running_seconds": round(self.running, 3),
            "assumed_seconds": ASSUMED_SECONDS,
        }

    def words(self) -> str:
        """The same for a person."""
        lost = "1 interruption" if self.losses == 1 else f"{self.losses} interruptions"
        ledger = f"{lost} without warning in {_time(self.running)} of training, and one a day assumed"
        cost = self.save_seconds
        if cost is None:
            return f"auto: every {_time(self.seconds)} until a save is measured ({ledger})"
        return f"auto: every {_time(self.seconds)} (a save takes {_time(cost)}, median of {len(self.saves)}; {ledger})"


def best_interval(cost: float, between: float) -> float:
    """Daly's estimate of the seconds of work between two saves, for a save of `cost` s and a loss every `between` s."""
    if cost >= 2 * between:
        return between
    ratio = cost / (2 * between)
    return sqrt(2 * cost * between) * (1 + sqrt(ratio) / 3 + ratio / 9) - cost


def _time(seconds: float) -> str:
    for unit, size in (("d", 86_400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1000:.3g} ms" if 0 < seconds < 1 else f"{seconds:.3g} s"
