"""What a checkpoint says it holds, and whether that is what is there: sizes first, then CRC-32 of every byte."""

from __future__ import annotations

import json
import os
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from hpc_resume.contract import FORMAT_VERSION, MANIFEST_FILE, VERSION
from hpc_resume.durable import sync_directory
from hpc_resume.errors import CheckpointError, RunStateError

if TYPE_CHECKING:
    from collections.abc import Mapping

_BLOCK: Final = 1 << 20
_MANIFEST_LIMIT: Final = 64 << 20  # bytes; a manifest beyond that is not ours
_NO_FOLLOW: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of a checkpoint: `path` is relative and POSIX, `crc32` eight hex digits."""

    path: str
    size: int
    crc32: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The last file written into a checkpoint; `created` is epoch seconds."""

    step: int
    attempt: int
    created: float
    components: Mapping[str, str]
    files: tuple[StoredFile, ...]

    def encode(self) -> bytes:
        """One line of JSON."""
        record = {
            "version": FORMAT_VERSION,
            "step": self.step,
            "files": [{"path": f.path, "size": f.size, "crc32": f.crc32} for f in self.files],
            "components": dict(self.components),
            "created": self.created,
            "attempt": self.attempt,
            "hpc_resume": VERSION,
        }
        return (json.dumps(record) + "\n").encode()


class BrokenError(Exception):
    """A checkpoint is not what its manifest says; the message is the reason. Never leaves the store."""


def describe(directory: Path) -> tuple[StoredFile, ...]:
    """Sync and sum every file below `directory`, and make its names durable.

    Raises CheckpointError for anything but plain files and directories: a link could point out of the run
    directory, and would be gone or changed when the checkpoint is read.
    """
    found: list[StoredFile] = []
    for parent, names, files in os.walk(directory, topdown=False):
        for name in files:
            path = Path(parent, name)
            if not stat.S_ISREG(path.lstat().st_mode):
                raise CheckpointError(f"{path}: a checkpoint holds plain files only; save a copy instead of a link")
            size, crc = _sum(path, sync=True)
            found.append(StoredFile(path.relative_to(directory).as_posix(), size, crc))
        if any(Path(parent, name).is_symlink() for name in names):
            raise CheckpointError(f"{parent}: a checkpoint holds no links to directories; save a copy instead")
        Path(parent).chmod(stat.S_IRWXU)
        sync_directory(Path(parent))
    return tuple(sorted(found, key=lambda file: file.path))


def read(directory: Path) -> Manifest:
    """The manifest of a published checkpoint.

    Raises BrokenError when it is missing or garbled, RunStateError when a newer hpc_resume wrote it.
    """
    path = directory / MANIFEST_FILE
    try:
        record = dict(json.loads(_read_small(path)))
        version = int(record["version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenError(f"{MANIFEST_FILE}: {_reason(error)}") from error
    if version > FORMAT_VERSION:
        raise RunStateError(
            f"{path}: format version {version}, this is hpc_resume {VERSION} which reads up to {FORMAT_VERSION};"
            " install the version that wrote it, or start a new run"
        )
    return _parse(record)


def verify(directory: Path, manifest: Manifest) -> None:
    """Raise BrokenError unless every file is there with its size and its sum."""
    for file in manifest.files:
        try:
            size = _size(directory, file.path)
        except OSError as error:
            raise BrokenError(f"{file.path}: {_reason(error)}") from error
        if size != file.size:
            raise BrokenError(f"{file.path}: {size} bytes where the manifest says {file.size}")
    for file in manifest.files:
        try:
            _, crc = _sum(directory / file.path, sync=False)
        except OSError as error:
            raise BrokenError(f"{file.path}: {_reason(error)}") from error
        if crc != file.crc32:
            raise BrokenError(f"{file.path}: checksum {crc} where the manifest says {file.crc32}")


def _parse(record: Mapping[str, object]) -> Manifest:
    try:
        files = tuple(
            StoredFile(str(f["path"]), int(f["size"]), str(f["crc32"]))
            for f in record["files"]  # type: ignore[attr-defined]
        )
        components = {str(k): str(v) for k, v in record["components"].items()}  # type: ignore[attr-defined]
        step, attempt = int(str(record["step"])), int(str(record.get("attempt", 0)))
        created = float(str(record.get("created", 0.0)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BrokenError(f"{MANIFEST_FILE}: {_reason(error)}") from error
    for file in files:
        parts = PurePosixPath(file.path).parts
        if not parts or file.path.startswith("/") or ".." in parts:
            raise BrokenError(f"{MANIFEST_FILE}: {file.path!r} is outside the checkpoint")
    return Manifest(step, attempt, created, components, files)


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
    descriptor = os.open(path, _NO_FOLLOW)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("not a plain file")
        data = stream.read(_MANIFEST_LIMIT + 1)
    if len(data) > _MANIFEST_LIMIT:
        raise ValueError("too large")
    return data


def _sum(path: Path, *, sync: bool) -> tuple[int, str]:
    descriptor = os.open(path, _NO_FOLLOW)
    try:
        if sync:
            os.fchmod(descriptor, stat.S_IRUSR | stat.S_IWUSR)
            os.fsync(descriptor)
        size, crc, buffer = 0, 0, bytearray(_BLOCK)
        view = memoryview(buffer)
        while count := os.readv(descriptor, [buffer]):
            crc = zlib.crc32(view[:count], crc)
            size += count
    finally:
        os.close(descriptor)
    return size, f"{crc:08x}"


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
