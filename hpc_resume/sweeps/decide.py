"""What an agent does next, from what it knows: take a run, wait, or leave with which code. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hpc_resume.contract import EXIT_FINISHED, EXIT_NO_WORK, SIGNAL_BASE

OVER: Final = frozenset({"FINISHED", "CANCELED", "CANCELLED", "STOPPED", "STOPPING", "FAILED", "CRASHED"})
MAX_FAILURES: Final = 10  # agents in a row that ended without a run: W&B is away, or refuses us
_BACK_OFF: Final = (0.0, 5.0, 10.0, 20.0, 40.0, 60.0)  # seconds after so many of them


@dataclass(frozen=True, slots=True)
class Situation:
    """Between two runs. `left` is seconds until the allocation ends, None where nobody knows."""

    signals: tuple[int, ...] = ()  # received so far
    signum: int = 0  # the warning's
    state: str = ""  # the sweep's, empty when it was not asked for
    left: float | None = None
    lead: float = 0.0
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Take:
    """Ask for a run, after so many seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class Leave:
    """End with this code."""

    code: int
    words: str


def decide(now: Situation) -> Take | Leave:
    """No run is taken in a dying allocation: it would have to be handed back at once."""
    if now.signals:
        return Leave(SIGNAL_BASE + now.signals[0], "warned: no further run is taken")
    if now.state in OVER:
        return Leave(EXIT_FINISHED, f"the sweep is {now.state}: nothing left to do")
    if now.left is not None and now.left <= now.lead:
        return Leave(SIGNAL_BASE + now.signum, f"the allocation ends in {now.left:.0f} s: no further run is taken")
    if now.failures >= MAX_FAILURES:
        return Leave(EXIT_NO_WORK, f"{now.failures} agents in a row have ended without a run; see their words above")
    return Take(_BACK_OFF[min(now.failures, len(_BACK_OFF) - 1)])
