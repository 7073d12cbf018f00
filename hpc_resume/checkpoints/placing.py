"""How a written directory becomes a checkpoint, and stops being one: by rename, or by its manifest as a commit file.

Rename: all of it appears under its name at once. Where directories cannot be renamed in one step, or nothing can be
synced before (`probe`), it is written under its final name with a mark that says so, and the manifest, written last,
is the commit; a reader passes over a marked directory without a whole manifest, as over one that is not there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpc_resume.checkpoints import layout
from hpc_resume.contract import MANIFEST_FILE
from hpc_resume.durable import DIR_MODE, FILE_MODE, sync_directory

_NAME_TAKEN: Final = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)
_NO_SYNC: Final = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.ENOSYS, errno.EPERM)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a file system was seen to do; `reason` says why `atomic` is False, for people."""

    atomic: bool  # directories are renamed in one step, and files and directories can be synced
    reason: str = ""


def probe(directory: Path) -> Capabilities:
    """Whether renames of directories and fsync below `directory` can be trusted; a few ms. Raises OSError.

    A rename that copies and deletes (object stores, overlay file systems) gives the directory another inode, lets it
    replace a full one, or refuses (EXDEV).
    """
    base = directory / layout.probe_name(f"{os.getpid()}-{os.urandom(4).hex()}")
    base.mkdir(DIR_MODE)
    try:
        return Capabilities(atomic=not (reason := _distrust(base)), reason=reason)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _distrust(base: Path) -> str:
    full, moved, other = base / "full", base / "moved", base / "other"
    for path in (full, other):
        path.mkdir(DIR_MODE)
        descriptor = os.open(path / "file", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        try:
            os.write(descriptor, b"x")
            if not _syncs(descriptor):
                return "files cannot be synced"
        finally:
            os.close(descriptor)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if not _syncs(descriptor):
                return "directories cannot be synced"
        finally:
            os.close(descriptor)
    before = full.stat().st_ino
    try:
        full.rename(moved)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            return f"directories cannot be renamed ({error.strerror})"
        raise
    if moved.stat().st_ino != before or full.exists() or not (moved / "file").exists():
        return "a rename of a directory copies it"
    with contextlib.suppress(OSError):
        moved.rename(other)
        return "a rename replaces a directory that is not empty"
    return ""


def _syncs(descriptor: int) -> bool:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in _NO_SYNC:
            return False
        raise
    return True


class ByRename:
    """Written as step-N.tmp.<generation>, renamed when it is whole."""

    def __init__(self, root: Path, generation: int) -> None:
        self._root = root
        self._generation = generation

    def begin(self, step: int) -> Path:
        """An empty directory to write into."""
        temporary = self._root / layout.temporary_name(step, self._generation)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(DIR_MODE)
        return temporary

    def commit(self, directory: Path, final: Path, manifest: bytes) -> None:
        """`directory`, complete but for its manifest, becomes `final`. OSError ENOTEMPTY, EEXIST: the name is taken."""
        _write(directory / MANIFEST_FILE, manifest)
        sync_directory(directory)
        directory.rename(final)
        sync_directory(self._root)

    def remove(self, step: int, directory: Path) -> None:
        """Through a rename: a kill in the middle leaves nothing that looks like a checkpoint."""
        trash = self._root / layout.trash_name(step, self._generation)
        shutil.rmtree(trash, ignore_errors=True)
        directory.rename(trash)
        shutil.rmtree(trash)

    def move(self, directory: Path, place: Path) -> bool:
        """Give `directory` another name; False where that is taken."""
        if os.path.lexists(place):  # a rename replaces an empty directory, and a file
            return False
        try:
            directory.rename(place)
        except OSError as error:
            if error.errno not in _NAME_TAKEN:
                raise
            return False
        return True


class ByManifest:
    """Written under its final name, marked; the manifest makes it a checkpoint."""

    def __init__(self, root: Path, generation: int) -> None:
        self._root = root
        self._generation = generation

    def begin(self, step: int) -> Path:
        """An empty directory to write into. FileExistsError: the name is taken."""
        final = self._root / layout.step_name(step)
        final.mkdir(DIR_MODE)
        self._mark(final)
        return final

    def commit(self, directory: Path, final: Path, manifest: bytes) -> None:
        """The manifest is the commit; the mark goes after it, and is harmless where that fails."""
        assert directory == final  # noqa: S101 - what `begin` gave
        _write(directory / MANIFEST_FILE, manifest)
        for path in (directory, self._root):
            with contextlib.suppress(OSError):
                sync_directory(path)
        with contextlib.suppress(OSError):
            (directory / layout.uncommitted_name(self._generation)).unlink()

    def remove(self, _step: int, directory: Path) -> None:
        """Uncommitted first and the mark last, so that a kill in the middle leaves what nobody takes for anything."""
        self._mark(directory)
        (directory / MANIFEST_FILE).unlink(missing_ok=True)
        mark = directory / layout.uncommitted_name(self._generation)
        for path in directory.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path != mark:
                path.unlink()
        mark.unlink()
        directory.rmdir()

    def move(self, directory: Path, place: Path) -> bool:
        """File by file, since directories keep their names here, the manifest last; False where `place` is taken."""
        if os.path.lexists(place):
            return False
        if directory.is_symlink() or not directory.is_dir():
            directory.rename(place)
            return True
        try:
            place.mkdir(DIR_MODE)
        except FileExistsError:
            return False
        made = directory / MANIFEST_FILE
        for parent, names, files in os.walk(directory):
            below = place / Path(parent).relative_to(directory)
            for path in (Path(parent, name) for name in [*names, *files]):
                if path.is_dir() and not path.is_symlink():
                    (below / path.name).mkdir(DIR_MODE)
                elif path != made:
                    path.rename(below / path.name)
        if os.path.lexists(made):
            made.rename(place / MANIFEST_FILE)
        shutil.rmtree(directory)  # nothing but directories
        return True

    def _mark(self, directory: Path) -> None:
        _write(directory / layout.uncommitted_name(self._generation), b"")


Placing = ByRename | ByManifest


def uncommitted_by(directory: Path) -> int | None:
    """The generation that is writing, or removing, `directory` in place; None where no such mark can be seen.

    0 for an empty directory: its writer ended before it could mark it, or after it had removed the mark.
    """
    try:
        names = [path.name for path in directory.iterdir()]
    except OSError:
        return None
    found = (layout.parse_uncommitted(name) for name in names)
    return next((generation for generation in found if generation is not None), None if names else 0)


def _write(path: Path, data: bytes) -> None:
    """Like durable.write_new where a sync is possible; where it is not, that was found out before and said."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        _syncs(descriptor)
    finally:
        os.close(descriptor)
