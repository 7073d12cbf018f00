"""The registry of formats: a new one is one module here, one line in FORMATS, and the shared contract test.

A format's module offers what `Format` says. Outside packages register theirs under the entry point group
`hpc_resume.checkpoints`. A module is imported when it is used first, so that nobody pays for the others.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from importlib.metadata import EntryPoint
    from pathlib import Path

FORMATS: Final = {
    "json": "hpc_resume.checkpoints.json_state",
    "numpy": "hpc_resume.checkpoints.numpy_state",
    "torch": "hpc_resume.checkpoints.torch_state",
    "safetensors": "hpc_resume.checkpoints.safetensors_state",
    "dcp": "hpc_resume.checkpoints.dcp_state",
}
ENTRY_POINTS: Final = "hpc_resume.checkpoints"


class Format(Protocol):
    """What a module of a format offers."""

    NAME: str
    SUFFIX: str

    def available(self) -> bool:
        """Whether it is to be tried by content, without being asked for by name; imports nothing."""

    def prepare(self, state: object) -> object:
        """What `write` takes; raises UnfitError when this format cannot give `state` back."""

    def write(self, path: Path, prepared: object) -> None:
        """Create `path`, a file or a directory; raises OSError."""

    def read(self, path: Path, present: Callable[[], object]) -> object:
        """The state; `present()` is the object's own before the load.

        Raises OSError, or anything when the file is not what `write` made.
        """


def find(name: str) -> Any | None:
    """The format of that name, None when there is none. Raises ImportError when its module cannot be loaded."""
    home = FORMATS.get(name)
    if home is not None:
        return importlib.import_module(home)
    return next((point.load() for point in _outside() if point.name == name), None)


def by_content() -> Iterator[Any]:
    """Those to try when nobody asked for one, in order; the outside ones last, and looked up only then."""
    for name in FORMATS:
        if (found := importlib.import_module(FORMATS[name])).available():
            yield found
    for point in _outside():
        if point.name not in FORMATS and (found := point.load()).available():
            yield found


def names() -> tuple[str, ...]:
    """Every format there is."""
    return (*FORMATS, *sorted({point.name for point in _outside()} - set(FORMATS)))


def _outside() -> Sequence[EntryPoint]:
    from importlib.metadata import entry_points  # noqa: PLC0415 - 15 ms of imports that `import hpc_resume` does without

    return tuple(entry_points(group=ENTRY_POINTS))
