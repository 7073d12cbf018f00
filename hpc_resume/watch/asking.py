"""What a warned program is asked, what counts as its answer, and when it is ended. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

_KEPT: Final = 1 << 16  # bytes of output that an answer is looked for in


@dataclass(frozen=True, slots=True)
class Settings:
    """`on_warning` is typed into the program; `expect`: its answer, None: its end is; `timeout` in seconds."""

    on_warning: bytes
    expect: re.Pattern[bytes] | None
    timeout: float


@dataclass(slots=True)
class Asking:
    """One question, from the moment it was typed. Times are of one clock, seconds."""

    settings: Settings
    since: float
    deadline: float
    _seen: bytearray = field(default_factory=bytearray)
    answered: bool = False

    def hear(self, output: bytes) -> None:
        """More of what the program prints."""
        if self.settings.expect is None or self.answered:
            return
        self._seen += output
        self.answered = self.settings.expect.search(self._seen) is not None
        del self._seen[:-_KEPT]

    def is_over(self, now: float) -> bool:
        """Whether the program has answered, or cannot any more."""
        return self.answered or now >= self.deadline


def ask(settings: Settings, now: float, left: float | None) -> Asking:
    """Begin to wait: for `timeout`, or three quarters of what is `left` of the job if that is less."""
    return Asking(settings, now, now + (settings.timeout if left is None else min(settings.timeout, left * 0.75)))
