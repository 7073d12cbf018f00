"""What a warned program is asked, what counts as its answer, and when it is ended. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

_KEPT: Final = 1 << 16  # bytes of output that an answer is looked for in
_REST: Final = 0.5  # seconds for the rest of the answer's line, which a prompt has not


@dataclass(frozen=True, slots=True)
class Settings:
    """`on_warning` is typed into the program; `expect`: its answer, None: its end is; `timeout` in seconds."""

    on_warning: bytes
    expect: re.Pattern[bytes] | None
    timeout: float


@dataclass(slots=True)
class Asking:
    """One question, from the moment it was typed. Times are of one clock, seconds; an answer brings the end near."""

    settings: Settings
    since: float
    deadline: float
    answered: bool = False
    _seen: bytearray = field(default_factory=bytearray)

    def hear(self, output: bytes, now: float) -> None:
        """More of what the program prints."""
        if self.settings.expect is None:
            return
        self._seen += output
        if self.answered:
            whole = b"\n" in output
        elif found := self.settings.expect.search(self._seen):
            self.answered = True
            self.deadline = min(self.deadline, now + _REST)
            whole = b"\n" in self._seen[max(0, found.end() - 1) :]
        else:
            whole = False
        if whole:  # not ended in the middle of what it says
            self.deadline = min(self.deadline, now)
        del self._seen[:-_KEPT]

    def is_over(self, now: float) -> bool:
        """Whether the program has answered, to the end of the line, or cannot any more."""
        return now >= self.deadline


def ask(settings: Settings, now: float, left: float | None) -> Asking:
    """Begin to wait: for `timeout`, or three quarters of what is `left` of the job if that is less."""
    return Asking(settings, now, now + (settings.timeout if left is None else min(settings.timeout, left * 0.75)))
