"""One live line on the last row of a terminal, below the training's own untouched output.

Chosen: a scroll region (DECSTBM) that leaves the last row to us, as apt does. Rejected: reading the training's output
through a pipe to print it above the line; the training would see no terminal, would buffer, and would die of EPIPE
before its last save if we were killed.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from hpc_resume.schedulers.local_task import LocalTask

REFRESH: Final = 0.25  # seconds
_STDERR: Final = 2
_FEWEST_ROWS: Final = 5


@dataclass(frozen=True, slots=True)
class Glance:
    """What one line can say of a run that is at work."""

    key: str
    attempt: int
    step: int | None  # of the published checkpoint
    metric: tuple[str, float] | None
    interruptions: int
    running: bool
    now: int | None = None  # the step of the newest metrics, where there are any


class NoLine:
    """For pipes and dumb terminals: nothing is shown."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to put back."""

    def look(self, tasks: Sequence[LocalTask]) -> None:
        """Nothing to show."""


class LastRow(NoLine):
    """The line, while it is entered; the terminal is as before afterwards."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._next = 0.0
        self._size = os.get_terminal_size(_STDERR)

    def __enter__(self) -> Self:
        # A line feed first: the cursor may stand on the row that we take away.
        _write(f"\n\x1b7\x1b[1;{self._size.lines - 1}r\x1b8\x1b[1A")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _write(f"\x1b7\x1b[r\x1b[{self._size.lines};1H\x1b[2K\x1b8")

    def look(self, tasks: Sequence[LocalTask]) -> None:
        """Paint the line when it is time to."""
        now = time.monotonic()
        size = os.get_terminal_size(_STDERR)
        if now < self._next and size == self._size:
            return
        self._next = now + REFRESH
        if size != self._size:
            # Terminals differ in where a resize leaves the cursor, maybe on our row: the output goes on just above it.
            _write(f"\x1b[{size.lines};1H\x1b[2K\x1b[1;{size.lines - 1}r\x1b[{size.lines - 1};1H\n")
            self._size = size
        text = painted(parts(glances(tasks), now - self._began), size.columns)
        _write(f"\x1b7\x1b[{size.lines};1H\x1b[2K{text}\x1b8")


def live_line() -> NoLine:
    """The line that this stderr can show."""
    try:
        size = os.get_terminal_size(_STDERR)
    except OSError:
        return NoLine()
    able = os.environ.get("TERM", "dumb") != "dumb" and size.lines >= _FEWEST_ROWS
    return LastRow() if able else NoLine()


def glances(tasks: Sequence[LocalTask]) -> list[Glance]:
    """The facts that the line shows: of many tasks not their records, thousands of files four times a second."""
    if len(tasks) == 1:
        return [glance(tasks[0])]
    return [Glance(task.run_dir.key, 0, None, None, task.interruptions, task.running) for task in tasks]


def glance(task: LocalTask) -> Glance:
    """The facts of one task, from its records."""
    newest = task.run_dir.newest_attempt()
    last = newest.last_metrics() if newest else None
    return Glance(
        task.run_dir.key,
        newest.number if newest else 0,
        task.run_dir.latest_step(),
        chosen_metric(last.data) if last else None,
        task.interruptions,
        task.running,
        _step_of(last.data) if last else None,
    )


def _step_of(data: Mapping[str, object]) -> int | None:
    step = data.get("step")
    return step if isinstance(step, int) and not isinstance(step, bool) else None


def chosen_metric(data: Mapping[str, object]) -> tuple[str, float] | None:
    """The one number to show: a loss where there is one."""
    numbers = {
        name: float(value)
        for name, value in data.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name != "step"
    }
    best = sorted(numbers, key=lambda name: (name != "loss", "loss" not in name.lower()))
    return (best[0], numbers[best[0]]) if best else None


def parts(glances: Sequence[Glance], seconds: float) -> list[tuple[str, str]]:
    """The line as (style, text) pairs."""
    interruptions = sum(item.interruptions for item in glances)
    if len(glances) == 1:
        item = glances[0]
        found = [("bold", item.key), ("", f"attempt {item.attempt}")]
        if item.now is not None:
            found.append(("", f"step {item.now}"))
        if item.step is not None:
            found.append(("green", f"saved step {item.step}"))
        if item.metric is not None:
            found.append(("", f"{item.metric[0]} {item.metric[1]:.4g}"))
    else:
        running = sum(item.running for item in glances)
        found = [("bold", f"{len(glances)} tasks"), ("", f"{running} running")]
    if interruptions:
        found.append(("yellow", f"{interruptions} interruption{'s' * (interruptions > 1)}"))
    found.append(("dim", f"{int(seconds) // 60}:{int(seconds) % 60:02}"))
    return found


def painted(pieces: Sequence[tuple[str, str]], columns: int) -> str:
    """The line in the terminal's own codes, not wider than `columns`."""
    from rich.console import Console  # noqa: PLC0415 - 60 ms that a pipe does not pay for
    from rich.text import Text  # noqa: PLC0415

    text = Text(" · ").join(Text(words, style) for style, words in pieces)
    text.truncate(max(1, columns - 1), overflow="ellipsis")
    stream = io.StringIO()
    Console(file=stream, force_terminal=True, width=columns, highlight=False).print(text, end="", no_wrap=True)
    return stream.getvalue()


def _write(text: str) -> None:
    os.write(_STDERR, text.encode())
