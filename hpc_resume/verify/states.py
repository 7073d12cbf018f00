"""The final checkpoints of two runs, component by component. Reads, and imports what wrote them only when it must."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hpc_resume.checkpoints import callables, formats, manifest
from hpc_resume.errors import CheckpointError
from hpc_resume.verify.compare import StateDifference, state_differences

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
        elif _bytes_of(reference, name) != _bytes_of(resumed, name):
            yield from _inside(name, (reference, one), (resumed, two), tolerance)


def _inside(
    name: str, reference: tuple[Path, str], resumed: tuple[Path, str], tolerance: float
) -> Iterator[StateDifference]:
    """The bytes differ; the values may not (torch.save pads differently), and if they do they have names."""
    if callables.NAME in (reference[1], resumed[1]):
        one, two = _bytes_of(reference[0], name), _bytes_of(resumed[0], name)
        for path in sorted({*one, *two}):
            if one.get(path) != two.get(path):
                yield StateDifference(name, path, "the file is not the same", 0.0)
        return
    yield from state_differences(name, _state(name, *reference), _state(name, *resumed), tolerance)


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


def _bytes_of(directory: Path, name: str) -> dict[str, bytes]:
    """The files of one component, by their path below the checkpoint."""
    found = [path for path in directory.rglob("*") if path.is_file()]
    ours = {path.relative_to(directory).as_posix(): path for path in found}
    return {path: file.read_bytes() for path, file in ours.items() if path.partition("/")[0].partition(".")[0] == name}
