"""A save that is being written: by components, or as a copy of a checkpoint that is somewhere else already."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from hpc_resume.checkpoints.sink import Sink, collected
from hpc_resume.durable import DIR_MODE
from hpc_resume.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hpc_resume.checkpoints.catalogue import Published
    from hpc_resume.checkpoints.manifest import StoredFile
    from hpc_resume.checkpoints.sums import Sum

_BLOCK: Final = 8 << 20  # bytes; the sum of one runs beside the write of it


@dataclass(slots=True)
class Draft:
    """What is written into `directory` as `step`; nobody reads it before the commit."""

    step: int
    directory: Path
    components: dict[str, str] = field(default_factory=dict)
    sums: dict[Path, Sum] = field(default_factory=dict)
    foreign: dict[str, StoredFile] = field(default_factory=dict)  # what other ranks have written, synced and summed

    def add(self, name: str, save: Callable[[Path, str], str], below: str = "") -> None:
        """Let `save` write the component `name`, in the directory `below` this one; what it raises is passed on."""
        directory = self.directory / below
        if below:
            directory.mkdir(DIR_MODE, exist_ok=True)
        with collected() as sums:
            backend = save(directory, name)
        self.components[f"{below}/{name}" if below else name] = backend
        self.sums |= sums

    def copy(self, source: Published) -> None:
        """Everything of `source`. Raises OSError; CheckpointError when it is not what its manifest says any more."""
        with collected() as sums:
            for file in source.manifest.files:
                target = self.directory / file.path
                target.parent.mkdir(DIR_MODE, parents=True, exist_ok=True)
                _copy(source.directory / file.path, target)
                if (sums[target].size, f"{sums[target].crc32:08x}") != (file.size, file.crc32):
                    raise CheckpointError(f"{source.directory / file.path} has changed since it was written")
        self.components |= source.manifest.components
        self.sums |= sums


def _copy(source: Path, target: Path) -> None:
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with Sink(target) as sink:
            buffer = bytearray(_BLOCK)
            view = memoryview(buffer)
            while count := os.readv(descriptor, [buffer]):
                sink.write(view[:count])
    finally:
        os.close(descriptor)
