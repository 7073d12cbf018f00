"""One measured figure, and how a set of them is printed: always beside what it is compared with in the same run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """A median with its spread, and the same for the thing it is compared with."""

    name: str
    unit: str
    values: Sequence[float]
    baseline_name: str
    baseline: Sequence[float]
    limit: str = ""  # what must hold, in words; empty: nothing was promised
    in_readme: bool = True  # the others are in results.md alone

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def ratio(self) -> float:
        return self.median / statistics.median(self.baseline)

    def row(self) -> str:
        low, high = min(self.values), max(self.values)
        against = f"{self.ratio:.3g} x {self.baseline_name} ({statistics.median(self.baseline):.3g} {self.unit})"
        return f"| {self.name} | {self.median:.3g} {self.unit} | {low:.3g} to {high:.3g} | {against} | {self.limit} |"


HEADER = "| what | median | min to max | against, in the same run | must be |\n|---|---|---|---|---|"
