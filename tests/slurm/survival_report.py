"""The survival matrix as Markdown: one table per launcher, every cell in it."""

from __future__ import annotations

from collections.abc import Sequence

from survival_cells import INTERRUPTIONS, LAUNCHERS, PHASES, Cell
from survival_play import Played

LEGEND = """\
`survived, N lost, S s`: it came back by itself with the final state of an uninterrupted run; N steps were executed a second
time; S seconds from the warning (without one: from the interruption) to the end of the training. `refused: why`: it does
not come back by itself; continued with `hpc-resume submit --resume` it reached the same final state, with N steps lost.
`LOST: what`: neither; a defect. Each cell is one run of 60 steps on a real Slurm cluster, submitted with
`hpc-resume submit`, saved every 20 steps."""


def markdown(played: Sequence[Played], machine: str, minutes: float) -> str:
    """The whole report; a cell without a result is printed as such."""
    by_cell = {one.cell: one.verdict for one in played}
    good = sum(one.verdict.good for one in played)
    parts = [
        f"# What survives what\n\n{machine}; {good} of {len(played)} cells as they must be, in {minutes:.0f} minutes."
    ]
    parts += [LEGEND, _names("interruption", INTERRUPTIONS), _names("when", PHASES)]
    for launcher, words in LAUNCHERS.items():
        rows = [f"## {launcher}: {words}", f"| | {' | '.join(PHASES)} |", f"|---|{'---|' * len(PHASES)}"]
        for interruption in INTERRUPTIONS:
            cells = (by_cell.get(Cell(launcher, interruption, phase)) for phase in PHASES)
            rows.append(f"| {interruption} | {' | '.join(one.text if one else 'not played' for one in cells)} |")
        parts.append("\n".join([rows[0], "", *rows[1:]]))
    return "\n\n".join(parts) + "\n"


def _names(title: str, names: dict[str, str]) -> str:
    return "\n".join([f"| {title} | |", "|---|---|", *(f"| {name} | {words} |" for name, words in names.items())])
