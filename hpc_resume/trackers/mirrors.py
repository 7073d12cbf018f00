"""Published checkpoints in a second place, for nodes without a shared disk: one file per kind, a line in MIRRORS.

A module offers `open(facts) -> Mirror`. What comes back is believed only after its manifest has verified every byte, so
a mirror need not be careful about halves; and it never holds up a save.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from hpc_resume.trackers import Facts

MIRRORS: Final = {"wandb": "hpc_resume.trackers.wandb_mirror"}


class Mirror(Protocol):
    """Where a run's checkpoints are kept a second time."""

    def fetch(self, into: Path) -> None:
        """Put what is there below `into`, each checkpoint in a directory of its own. Nothing there is no error."""

    def publish(self, step: int, directory: Path) -> None:
        """Keep a copy of `directory`, the checkpoint of `step`; it may go on its way after the return."""


def open_mirror(name: str, facts: Facts) -> Mirror:
    """The mirror of that name. Raises KeyError for one that nobody has registered."""
    opened: Mirror = importlib.import_module(MIRRORS[name]).open(facts)
    return opened
