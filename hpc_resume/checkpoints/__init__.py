"""Where a checkpoint is and when it is valid (the store), and what is inside (one file per backend).

A component is one registered thing. It says at save which backend wrote it; the manifest keeps that, and the load
goes through the same one. A new format for `state_dict` objects is one file and one line: see formats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path


class Component(Protocol):
    """One registered thing, as the store sees it."""

    def check(self, name: str) -> None:
        """Raise UsageError when a save could not work: at registration, never at the warning."""

    def save(self, directory: Path, name: str) -> str:
        """Write into `directory`, under names that begin with `name`; return the backend's name."""

    def load(self, directory: Path, name: str, backend: str) -> None:
        """Restore what `save` wrote. Raises RunStateError when it does not fit."""
