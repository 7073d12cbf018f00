"""Where a checkpoint is and when it is valid (the store), and what is inside (one file per backend).

A component is one registered thing. It says at save which backend wrote it; the manifest keeps that, and the load
goes through the same one. A new format for `state_dict` objects is one file and one line: see formats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Component(Protocol):
    """One registered thing, as the store sees it."""

    def check(self, name: str) -> None:
        """Raise UsageError when a save could not work: at registration, never at the warning."""

    def save(self, directory: Path, name: str) -> str:
        """Write into `directory`, under names that begin with `name`; return the backend's name."""

    def load(self, directory: Path, name: str, backend: str) -> None:
        """Restore what `save` wrote. Raises RunStateError when it does not fit."""


@runtime_checkable
class Freezable(Component, Protocol):
    """A component whose state can be written later than it is taken."""

    def freeze(self, name: str, copy: Callable[[object], object]) -> Callable[[Path, str], str] | None:
        """The state of this moment as a function that saves it; None: not this time, call `save`."""
