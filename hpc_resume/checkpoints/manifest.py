"""What a checkpoint says it holds, and whether that is what is there: sizes first, then CRC-32 of every byte."""

from __future__ import annotations

import errno
import json
import os
import platform
import stat
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from hpc_resume.checkpoints import layout
from hpc_resume.checkpoints.sums import Sum, sum_files
from hpc_resume.contract import FORMAT_VERSION, MANIFEST_FILE, VERSION
from hpc_resume.durable import read_plain, sync_directory
from hpc_resume.errors import CheckpointError, RunStateError

if TYPE_CHECKING:
    from collections.abc import Mapping

_MANIFEST_LIMIT: Final = 64 << 20  # bytes; a manifest beyond that is not ours
_LIBRARIES: Final = ("torch", "numpy", "safetensors", "torchdata", "jax")
_SEAL: Final = b', "sum": "'


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of a checkpoint: `path` is relative and POSIX, `crc32` eight hex digits."""

    path: str
    size: int
    crc32: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The last file written into a checkpoint; `created` is epoch seconds, `world_size` 0 where nobody knows."""

    step: int
    attempt: int
    created: float
    components: Mapping[str, str]
    files: tuple[StoredFile, ...]
    generation: int = 0
    world_size: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)  # of what wrote it; empty until it has been read

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def encode(self) -> bytes:
        """One line of JSON, with a sum of itself at its end. Raises CheckpointError for one that nobody would read."""
        record = {
            "version": FORMAT_VERSION,
            "step": self.step,
            "files": [{"path": f.path, "size": f.size, "crc32": f.crc32} for f in self.files],
            "components": dict(self.components),
            "created": self.created,
            "attempt": self.attempt,
            "generation": self.generation,
            "world_size": self.world_size,
            "hpc_resume": VERSION,
            "versions": _versions(),
        }
        encoded = sealed(record)
        if len(encoded) > _MANIFEST_LIMIT:
            raise CheckpointError(f"step {self.step} is {len(self.files):,} files, too many; save fewer, larger ones")
        return encoded


class BrokenError(Exception):
    """A checkpoint is not what its manifest says; the message is the reason. Never leaves the store.

    `lasting` is False where it could not be read, which may be different the next time.
    """

    def __init__(self, reason: str, *, lasting: bool = True) -> None:
        super().__init__(reason)
        self.lasting = lasting


def sealed(record: Mapping[str, object]) -> bytes:
    """`record` as one line of JSON that ends with the CRC-32 of all before: a flipped bit in it is found, too."""
    return sealed_body(json.dumps(record).removesuffix("}").encode())


def sealed_body(body: bytes) -> bytes:
    """`body` is the JSON without its last brace."""
    return body + _SEAL + f'{zlib.crc32(body):08x}"}}\n'.encode()


def describe(
    directory: Path, known: Mapping[Path, Sum], *, sync: bool = True, foreign: Mapping[str, StoredFile] | None = None
) -> tuple[StoredFile, ...]:
    """Sum every file below `directory` that is not `known` yet; `sync` makes contents and names durable.

    `foreign` files have been summed and synced by who wrote them: they are taken as they are.

    Raises OSError; CheckpointError for anything but plain files and directories: a link could point out of the run
    directory, and would be gone or changed when the checkpoint is read.
    """
    paths: list[Path] = []
    parents: list[Path] = []
    for parent, names, files in os.walk(directory, topdown=False, onerror=stop_at):
        paths += [Path(parent, name) for name in files]
        parents.append(Path(parent))
        if any(Path(parent, name).is_symlink() for name in names):
            raise CheckpointError(f"{parent}: a checkpoint holds no links to directories; save a copy instead")
    paths = [path for path in paths if path.parent != directory or layout.parse_uncommitted(path.name) is None]
    foreign = foreign or {}
    paths = [path for path in paths if path.relative_to(directory).as_posix() not in foreign]
    for path in paths:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise CheckpointError(f"{path}: a checkpoint holds plain files only; save a copy instead of a link")
    sums = sum_files(paths, known=known, sync=sync)
    for made in parents:
        made.chmod(stat.S_IRWXU)
        if sync:
            sync_directory(made)
    found = [
        StoredFile(p.relative_to(directory).as_posix(), s.size, f"{s.crc32:08x}")
        for p, s in zip(paths, sums, strict=True)
    ]
    return tuple(sorted([*found, *foreign.values()], key=lambda file: file.path))


def read(directory: Path) -> Manifest:
    """The manifest of a published checkpoint.

    Raises BrokenError when it is missing or garbled, RunStateError when a newer hpc_resume wrote it.
    """
    path = directory / MANIFEST_FILE
    try:
        data = _read_small(path)
        record = dict(json.loads(data))
        version = int(record["version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenError(f"{MANIFEST_FILE}: {_reason(error)}", lasting=_lasting(error)) from error
    body, mark, _ = data.rpartition(_SEAL)
    if not mark or sealed_body(body) != data:
        raise BrokenError(f"{MANIFEST_FILE}: its own checksum does not fit")
    if version > FORMAT_VERSION:
        raise RunStateError(
            f"{path}: format version {version}, this is hpc_resume {VERSION} which reads up to {FORMAT_VERSION};"
            " install the version that wrote it, or start a new run"
        )
    return _parse(record)


def verify(directory: Path, manifest: Manifest, *, checksums: bool = True) -> None:
    """Raise BrokenError unless every file is there with its size and, with `checksums`, every byte of it."""
    for file in manifest.files:
        try:
            size = _size(directory, file.path)
        except OSError as error:
            raise BrokenError(f"{file.path}: {_reason(error)}", lasting=_lasting(error)) from error
        if size != file.size:
            raise BrokenError(f"{file.path}: {size} bytes where the manifest says {file.size}")
    if not checksums:
        return
    try:
        sums = sum_files([directory / file.path for file in manifest.files])
    except OSError as error:
        place = os.path.relpath(error.filename, directory) if error.filename else "a file"
        raise BrokenError(f"{place}: {_reason(error)}", lasting=_lasting(error)) from error
    for file, found in zip(manifest.files, sums, strict=True):
        if f"{found.crc32:08x}" != file.crc32:
            raise BrokenError(f"{file.path}: checksum {found.crc32:08x} where the manifest says {file.crc32}")


def _parse(record: Mapping[str, object]) -> Manifest:
    try:
        files = tuple(
            StoredFile(str(f["path"]), int(f["size"]), str(f["crc32"]))
            for f in record["files"]  # type: ignore[attr-defined]
        )
        components = {str(k): str(v) for k, v in record["components"].items()}  # type: ignore[attr-defined]
        step, attempt = int(str(record["step"])), int(str(record.get("attempt", 0)))
        created = float(str(record.get("created", 0.0)))
        generation, world_size = (int(str(record.get(key, 0))) for key in ("generation", "world_size"))
        versions = {str(k): str(v) for k, v in dict(record.get("versions", {})).items()}  # type: ignore[call-overload]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BrokenError(f"{MANIFEST_FILE}: {_reason(error)}") from error
    for file in files:
        parts = PurePosixPath(file.path).parts
        if not parts or file.path.startswith("/") or ".." in parts:
            raise BrokenError(f"{MANIFEST_FILE}: {file.path!r} is outside the checkpoint")
    return Manifest(step, attempt, created, components, files, generation, world_size, versions)


def stop_at(error: OSError) -> None:
    """os.walk would pass over a directory that it cannot read: its files would be published without a sum."""
    raise error


def _size(directory: Path, relative: str) -> int:
    """Size in bytes; a link anywhere on the way is refused, it could lead out of the run directory."""
    path, found = directory, directory.lstat()
    for part in PurePosixPath(relative).parts:
        path = path / part
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            raise BrokenError(f"{relative}: a link where a plain file was saved")
    return found.st_size


def _read_small(path: Path) -> bytes:
    data = read_plain(path, _MANIFEST_LIMIT + 1)
    if len(data) > _MANIFEST_LIMIT:
        raise ValueError("too large")
    return data


def _versions() -> dict[str, str]:
    """What wrote it, for people who compare: Python, and of the libraries those that the training has imported."""
    found = {name: getattr(sys.modules.get(name), "__version__", None) for name in _LIBRARIES}
    return {"python": platform.python_version()} | {name: str(version) for name, version in found.items() if version}


def _lasting(error: Exception) -> bool:
    """A file that is gone or not ours stays so; a disk or network that fails may come back."""
    return not isinstance(error, OSError) or error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR)


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return "not JSON, or half of it"
    if isinstance(error, KeyError):
        return f"without {error}"
    if isinstance(error, (TypeError, AttributeError)):
        return f"not what a manifest holds ({error})"
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
