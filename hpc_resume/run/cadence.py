"""When a periodic save is due: every so many steps, every so many seconds, whichever comes first. Pure."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Final

from hpc_resume.errors import UsageError

AUTO: Final = "auto"  # as `every`: auto.AutoCadence decides
DEFAULT_SECONDS: Final = 900.0  # job.yaml's default too: 15min
NEVER: Final = sys.maxsize
_UNITS: Final = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|h|d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Cadence:
    """`steps` and `seconds` between saves; 0: not by that."""

    steps: int
    seconds: float

    def next_step(self, completed: int) -> int:
        """The next multiple of `steps`: the same steps are saved however often the run was interrupted."""
        return (completed // self.steps + 1) * self.steps if self.steps else NEVER

    def next_time(self, now: float) -> float:
        """When time alone makes a save due, on the clock of `now`, seconds."""
        return now + self.seconds if self.seconds else float("inf")

    def measured(self, seconds: float) -> Cadence:  # noqa: ARG002 - AutoCadence's
        """What a save costs changes nothing."""
        return self


def combine(asked: int | str | None, steps: int | None, seconds: float | None) -> Cadence:
    """The job's figures (None: it has none) over the code's `every`; without either, DEFAULT_SECONDS.

    Both apply when one counts steps and the other seconds: job.yaml's default of 15 minutes does not switch off an
    `every=100` in the code.
    """
    own = parse_every(asked) if asked is not None else Cadence(0, 0.0)
    cadence = Cadence(steps or own.steps, seconds or own.seconds)
    return cadence if cadence.steps or cadence.seconds else Cadence(0, DEFAULT_SECONDS)


def parse_every(every: int | str) -> Cadence:
    """`100` is steps, `"15min"` is time (s, min, h, d). Raises UsageError for anything else."""
    if isinstance(every, int) and not isinstance(every, bool) and every > 0:
        return Cadence(every, 0.0)
    match = _DURATION.fullmatch(every.strip()) if isinstance(every, str) else None
    if match is None or float(match[1]) == 0:
        raise UsageError(
            f'every={every!r}: give a number of steps (100), a duration ("90s", "15min", "2h", "1d") or "auto"'
        )
    return Cadence(0, float(match[1]) * _UNITS[match[2]])
