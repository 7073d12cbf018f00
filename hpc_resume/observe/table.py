"""Rows as text: with colours and the reason on a line of its own for a terminal, one line a run for a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from hpc_resume.observe.status import Row, cells

_HEADS: Final = ("run", "state", "attempts", "step", "saved", "job", "host")
_NUMBERS: Final = ("attempts", "step")
_COLOURS: Final = {
    "running": "bold green",
    "pending": "cyan",
    "requeued": "cyan",
    "finished": "green",
    "stopped": "yellow",
    "crashed": "bold red",
    "cancelled": "yellow",
    "lost": "bold red",
    "unknown": "magenta",
}
_GAP: Final = "  "
_NARROW: Final = 70  # columns, under which hardly any table fits; in a wider one what matters is on the left


def plain(rows: Sequence[Row], now: float) -> str:
    """Aligned columns, `why` last."""
    lines = _aligned([_HEADS, *(cells(row, now) for row in rows)])
    reasons = ["why", *(row.why for row in rows)]
    return "".join(f"{line}{_GAP}{why}".rstrip() + "\n" for line, why in zip(lines, reasons, strict=True))


def show(rows: Sequence[Row], now: float) -> None:
    """Print for the terminal that stdout is."""
    from rich.console import Console  # noqa: PLC0415 - 60 ms that a pipe does not pay for
    from rich.padding import Padding  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(file=sys.stdout, highlight=False)
    head, *lines = _aligned([_HEADS, *(cells(row, now) for row in rows)])
    if console.width < _NARROW:
        for line in folded(rows, now):
            console.print(Text(line), soft_wrap=True)
        return
    console.print(Text(head, "bold", no_wrap=True, overflow="ellipsis"))
    for row, line in zip(rows, lines, strict=True):
        text = Text(line, no_wrap=True, overflow="ellipsis")
        start = head.index("state")
        text.stylize(_COLOURS.get(row.state, ""), start, start + len(row.state))
        console.print(text)
        if row.why:
            console.print(Padding(Text(row.why, "dim"), (0, 0, 0, 2)))


def folded(rows: Sequence[Row], now: float) -> list[str]:
    """One `key: value` line for each thing that is known, an empty line between two runs."""
    lines: list[str] = []
    for row in rows:
        pairs = [*zip(_HEADS, cells(row, now), strict=True), ("why", row.why)]
        lines += [*([""] if lines else []), *(f"{head}: {cell}" for head, cell in pairs if cell not in ("", "-"))]
    return lines


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table whose first row is the heads; numbers stand on the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    return [_GAP.join(_placed(*place) for place in zip(line, widths, _HEADS, strict=True)) for line in table]


def _placed(cell: str, width: int, head: str) -> str:
    return cell.rjust(width) if head in _NUMBERS else cell.ljust(width)
