"""Which checkpoints stay: the newest few, and every so many steps one for good. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Retention:
    """`keep` newest ones, and each whose step is a multiple of `every` (0: none), however it came to be saved."""

    keep: int
    every: int = 0

    def superfluous(self, steps: Iterable[int]) -> list[int]:
        """Of `steps`, newest first, those that may go; never one of the newest `keep`."""
        return [step for step in list(steps)[self.keep :] if not (self.every and step and step % self.every == 0)]
