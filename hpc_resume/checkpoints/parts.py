"""One checkpoint that many ranks write: what is whose, and that all of it is there before it is published.

Below `step-N.tmp.<generation>` each rank has a directory of its own, `rank-00003/`; what all ranks share is beside them
(written by rank 0, or together by a collective format). A rank's part is described, with sizes and checksums, in
`part-00003.json`, written last and synced. Rank 0 takes the parts over into the manifest, by name and not by listing:
a network file system may show a directory as it was some seconds ago.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hpc_resume.checkpoints import manifest
from hpc_resume.checkpoints.manifest import StoredFile
from hpc_resume.checkpoints.sums import sum_files
from hpc_resume.contract import FORMAT_VERSION
from hpc_resume.durable import read_plain, sync_directory, write_new
from hpc_resume.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hpc_resume.checkpoints.drafts import Draft
    from hpc_resume.checkpoints.manifest import Manifest

_RANK: Final = re.compile(r"rank-\d{5,}", re.ASCII)
_COLLECTIVE: Final = "*.dcp/__{rank}_*"  # torch.distributed.checkpoint names each file after the rank that wrote it


def rank_directory(rank: int) -> str:
    """Where a rank keeps what is its own."""
    return f"rank-{rank:05d}"


def part_name(rank: int) -> str:
    """The file that describes a rank's part."""
    return f"part-{rank:05d}.json"


def is_own(component: str) -> bool:
    """Whether a manifest's component belongs to one rank."""
    return _RANK.fullmatch(component.partition("/")[0]) is not None


def components_of(made: Manifest, rank: int) -> dict[str, tuple[str, str]]:
    """For each component that `rank` finds in a checkpoint: where below its directory, and the format."""
    own = f"{rank_directory(rank)}/"
    found: dict[str, tuple[str, str]] = {}
    for key, backend in made.components.items():
        if key.startswith(own):
            found[key.removeprefix(own)] = rank_directory(rank), backend
        elif not is_own(key):
            found[key] = "", backend
    return found


def finish(draft: Draft, rank: int) -> None:
    """Make durable what `rank` has written into `draft`, and describe it. Raises OSError, CheckpointError."""
    directory = draft.directory
    own = directory / rank_directory(rank)
    paths = [Path(parent, name) for parent, _, names in _walk(own) for name in names]
    paths += sorted(directory.glob(_COLLECTIVE.format(rank=rank)))
    for path in paths:
        if path.is_symlink():
            raise CheckpointError(f"{path}: a checkpoint holds plain files only; save a copy instead of a link")
    sums = sum_files(paths, known=draft.sums, sync=True)
    for made in {path.parent for path in paths}:
        sync_directory(made)
    record = {
        "version": FORMAT_VERSION,
        "rank": rank,
        "step": draft.step,
        "components": {key: backend for key, backend in draft.components.items() if key.startswith(own.name)},
        "files": [
            {"path": path.relative_to(directory).as_posix(), "size": found.size, "crc32": f"{found.crc32:08x}"}
            for path, found in zip(paths, sums, strict=True)
        ],
    }
    write_new(directory / part_name(rank), manifest.sealed(record))
    sync_directory(directory)


def gather(draft: Draft, size: int) -> None:
    """Take the parts of ranks 1 to `size` - 1 over into `draft`, for its commit by rank 0.

    Raises CheckpointError, naming the rank, when one is missing or not what it says.
    """
    for rank in range(1, size):
        path = draft.directory / part_name(rank)
        record = _read(path, rank)
        if record.get("step") != draft.step:
            raise CheckpointError(f"{path}: the part of rank {rank} is of step {record.get('step')}")
        draft.components |= record["components"]
        for file in record["files"]:
            found = draft.directory / file["path"]
            if found.lstat().st_size != file["size"]:
                raise CheckpointError(f"{found}: not of the size that rank {rank} has written")
            draft.foreign[file["path"]] = StoredFile(file["path"], file["size"], file["crc32"])
        path.unlink()


def _walk(own: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Nothing for a rank that keeps nothing of its own."""
    return os.walk(own, onerror=manifest.stop_at) if own.is_dir() else iter(())


def _read(path: Path, rank: int) -> Mapping[str, Any]:
    try:
        data = read_plain(path)
        record = dict(json.loads(data))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: the part of rank {rank} is missing ({error}); nothing is published") from error
    if manifest.sealed({key: value for key, value in record.items() if key != "sum"}) != data:
        raise CheckpointError(f"{path}: the part of rank {rank} is damaged; nothing is published")
    return record
