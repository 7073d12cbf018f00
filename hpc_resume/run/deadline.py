"""When a warned process must be gone: from what the job says, never from a constant. Pure but for `read_told`.

All times are epoch seconds, since the launcher's are.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hpc_resume.run.records import read_fields

if TYPE_CHECKING:
    from pathlib import Path

    from hpc_resume.run.environment import Environment

# Slurm's default KillWait; only until the launcher has said what this cluster's is.
KILL_WAIT: Final = 30.0


@dataclass(frozen=True, slots=True)
class Times:
    """`leave_at`: no boundary has come, leave without one. `hard_at`: whatever is under way, be gone."""

    leave_at: float
    hard_at: float


def times(received: float, deadline: float) -> Times:
    """The launcher needs what is left after `hard_at` for the requeue: 5 %, at least 0.75 s, at most five.

    Leaving takes a mark, a stack dump and two small files: 10 % before the end, 1.5 to ten seconds.
    """
    span = max(0.0, deadline - received)
    leave = min(10.0, max(1.5, span * 0.10))
    last = min(5.0, max(0.75, span * 0.05))
    return Times(max(received, deadline - leave), max(received, deadline - last))


def fits(seconds: float | None, left: float | None) -> bool:
    """Whether a save that takes `seconds` can end in `left`; one that nobody has measured is tried."""
    return seconds is None or left is None or seconds <= left


def assumed(signum: int, received: float, environment: Environment) -> float | None:
    """The deadline as far as this process knows by itself; None without a launcher, when nobody will kill it."""
    if not environment.has_end or environment.lead is None:
        return None
    wait = min(environment.lead, KILL_WAIT) if signum == signal.SIGTERM else environment.lead
    deadline = received + wait
    end = environment.end_time
    return min(deadline, end) if end is not None and end > received else deadline


@dataclass(frozen=True, slots=True)
class Told:
    """warning.json: the launcher's word. `signal` is its name without SIG."""

    signal: str
    t: float
    deadline: float


def read_told(path: Path) -> Told | None:
    """What the launcher has said, None before it does, or when it cannot be read."""
    try:
        fields = read_fields(path)
    except Exception:  # noqa: BLE001 - half a file or a dead mount must not end the watch over the deadline
        return None
    if fields is None or fields.number("deadline") <= 0:
        return None
    return Told(fields.text("signal"), fields.number("t"), fields.number("deadline"))
