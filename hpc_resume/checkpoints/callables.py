"""A pair of callables with a directory of their own: for everything that has no state_dict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hpc_resume.durable import DIR_MODE
from hpc_resume.errors import RunStateError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME: Final = "callables"


class CallablesComponent:
    """`save(directory)` writes plain files into an empty directory, `load(directory)` gets one with the same."""

    def __init__(self, save: Callable[[Path], object], load: Callable[[Path], object]) -> None:
        self._save = save
        self._load = load

    def check(self, name: str) -> None:
        """Raise UsageError unless both can be called; they are not tried: they may be slow or have effects."""
        for role, function in (("save", self._save), ("load", self._load)):
            if not callable(function):
                raise UsageError(
                    f"register_io(name={name!r}): {role}= is a {type(function).__name__}; give a function that takes"
                    " a directory"
                )

    def save(self, directory: Path, name: str) -> str:
        """Call the user's save with `<name>/`."""
        own = directory / name
        own.mkdir(DIR_MODE)
        self._save(own)
        return NAME

    def load(self, directory: Path, name: str, backend: str) -> None:
        """Call the user's load with `<name>/`; what it raises is the user's."""
        if backend != NAME:
            raise RunStateError(
                f"{directory}: {name} was saved by backend {backend!r}, but is registered with register_io();"
                " register it the way it was saved, or start a new run"
            )
        self._load(directory / name)
