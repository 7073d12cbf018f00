"""The final checkpoints of two runs, component by component. Reads, and imports what wrote them only when it must."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hpc_resume.checkpoints import callables, formats, manifest
from hpc_resume.errors import CheckpointError
from hpc_resume.verify.compare import StateDifference, state_differences

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hpc_resume.checkpoints.manifest import Manifest


def compare_checkpoints(reference: Path, resumed: Path, tolerance: float) -> Iterator[StateDifference]:
    """Every difference between two checkpoints. Raises CheckpointError for one that cannot be read."""
    try:
        left, right = manifest.read(reference), manifest.read(resumed)
    except manifest.BrokenError as error:
        raise CheckpointError(f"{reference} or {resumed} cannot be read: {error}") from error
    if left.step != right.step:
        yield StateDifference("", "step", f"{left.step} and {right.step} steps were done", abs(left.step - right.step))
    for name in sorted({*left.components, *right.components}):
        one, two = left.components.get(name), right.components.get(name)
        if one is None or two is None:
            which = "interrupted" if two is None else "uninterrupted"
            yield StateDifference(name, "", f"was not saved by the {which} run", 0.0)
        elif _files(left, name) != _files(right, name):
            yield from _inside(name, (reference, left), (resumed, right), tolerance)


def _inside(
    name: str, reference: tuple[Path, Manifest], resumed: tuple[Path, Manifest], tolerance: float
) -> Iterator[StateDifference]:
    """The bytes differ; the values may not (torch.save pads differently), and if they do they have names."""
    backends = [found.components[name] for _, found in (reference, resumed)]
    if callables.NAME in backends:
        one, two = _files(reference[1], name), _files(resumed[1], name)
        for path in sorted({*one, *two}):
            if one.get(path) != two.get(path):
                yield StateDifference(name, path, "the file is not the same", 0.0)
        return
    expected, found = _state(name, reference[0], backends[0]), _state(name, resumed[0], backends[1])
    yield from state_differences(name, expected, found, tolerance)


def _state(name: str, directory: Path, backend: str) -> Any:
    try:
        found = formats.find(backend)
        if found is None:
            raise CheckpointError(f"{directory}: {name} was saved by backend {backend!r}, which is not installed here")
        return found.read(directory / f"{name}{found.SUFFIX}", dict)
    except ImportError as error:
        raise CheckpointError(
            f"{directory}: {name} needs {backend} to be compared: {error}; install it here"
        ) from error


def _files(found: Manifest, name: str) -> dict[str, tuple[int, str]]:
    """Size and sum of the files of one component: `<name>/...`, or `<name>.` and what its format adds."""
    ours = [file for file in found.files if file.path.partition("/")[0].partition(".")[0] == name]
    return {file.path: (file.size, file.crc32) for file in ours}
