"""Which checkpoints stay: the newest few, and of every so many steps the first for good. Pure.

Chosen: the first at or after each multiple. Rejected: those at a multiple; saves by time hit none, and all would go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Retention:
    """`keep` newest ones, and the first at or after each multiple of `every` (0: none), however it came to be saved."""

    keep: int
    every: int = 0

    def superfluous(self, steps: Iterable[int]) -> list[int]:
        """Of `steps`, newest first, those that may go; never one of the newest `keep`."""
        found = list(steps)
        # Newest first: of every so many steps the last assignment is the lowest.
        first = {step // self.every: step for step in found if step >= self.every} if self.every else {}
        stay = set(first.values())
        return [step for step in found[self.keep :] if step not in stay]
