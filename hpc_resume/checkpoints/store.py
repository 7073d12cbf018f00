"""What is published is whole, and the last good checkpoint is never given up for one that is not published yet.

Publish: write into `step-N.tmp.<writer>`, sum and sync the files, write the manifest, sync, rename, sync the parent,
replace `latest`; only then are older ones pruned. A directory is the unit of the rename, so a reader sees all of it or
nothing. Removal goes through a rename too: a kill in the middle leaves nothing that looks like a checkpoint.
Not promised here: that one writer at a time is at work (the run's lock does that).
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hpc_resume.checkpoints import Component, layout, manifest
from hpc_resume.checkpoints.manifest import BrokenError, Manifest
from hpc_resume.contract import MANIFEST_FILE
from hpc_resume.durable import DIR_MODE, sync_directory, write_atomic, write_new
from hpc_resume.errors import CheckpointError, RunStateError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_NAME_TAKEN: Final = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)
_DISK_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Published:
    """A checkpoint that was seen whole."""

    step: int
    directory: Path
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Skipped:
    """A checkpoint that was not used, and why."""

    directory: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a start found: the newest whole checkpoint (None: there is none), and the newer ones passed over."""

    newest: Published | None
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a publish did; `warnings` are about `latest` and old checkpoints, the new one is safe."""

    published: Published
    warnings: tuple[str, ...]


class Store:
    """The checkpoints of one run, as one process sees them."""

    def __init__(self, root: Path, latest: Path, *, attempt: int, keep: int) -> None:
        self._root = root
        self._latest = latest
        self._attempt = attempt
        self._keep = max(2, keep)  # the one before stays: the newest may turn out unreadable on the next node
        self._writer = f"{attempt}-{os.getpid()}"
        self._broken: set[str] = set()

    def load(self) -> Loaded:
        """The newest checkpoint that verifies. Nothing is changed, nothing is deleted.

        Raises RunStateError when checkpoints/ is a link, or a newer hpc_resume wrote the newest one.
        """
        skipped: list[Skipped] = []
        for step, directory in self._published():
            try:
                found = self._verify(step, directory)
            except BrokenError as error:
                self._broken.add(directory.name)
                skipped.append(Skipped(directory, str(error)))
                continue
            return Loaded(found, tuple(skipped))
        return Loaded(None, tuple(skipped))

    def clear_leftovers(self) -> None:
        """Remove what killed writers left. Only for who holds the run's lock: a live writer's looks the same."""
        for name in self._names():
            if layout.is_leftover(name):
                shutil.rmtree(self._root / name, ignore_errors=True)

    def publish(self, step: int, components: Mapping[str, Component]) -> Receipt:
        """Save every component as `step` and make that the newest checkpoint.

        Raises CheckpointError when the disk refuses; then what was published before is untouched, and nothing of
        this save is left. What a component's own code raises is passed on, with the same promise.
        """
        temporary = self._root / layout.temporary_name(step, self._writer)
        try:
            self._root.mkdir(DIR_MODE, exist_ok=True)
            self._refuse_link()
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(DIR_MODE)
            made = self._write(step, components, temporary)
            final = self._make_way(step)
            temporary.rename(final)
            sync_directory(self._root)
        except BaseException as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if isinstance(error, OSError):
                raise CheckpointError(_advice(error, self._root)) from error
            raise
        warnings = [*self._point_latest(step), *self._prune()]
        return Receipt(Published(step, final, made), tuple(warnings))

    def point_latest(self, step: int) -> tuple[str, ...]:
        """Make `latest` say `step`; what went wrong, if anything did."""
        return tuple(self._point_latest(step))

    def _write(self, step: int, components: Mapping[str, Component], directory: Path) -> Manifest:
        backends = {name: component.save(directory, name) for name, component in components.items()}
        files = manifest.describe(directory)
        made = Manifest(step, self._attempt, round(time.time(), 3), backends, files)
        write_new(directory / MANIFEST_FILE, made.encode())
        sync_directory(directory)
        return made

    def _make_way(self, step: int) -> Path:
        """The final name, free: who is there did not verify, or this step would not be saved again."""
        final = self._root / layout.step_name(step)
        number = 1
        while os.path.lexists(final):
            try:
                final.rename(self._root / layout.broken_name(step, number))
            except OSError as error:
                if error.errno not in _NAME_TAKEN:
                    raise
            number += 1
        self._broken.discard(final.name)
        return final

    def _point_latest(self, step: int) -> list[str]:
        try:
            write_atomic(self._latest, f"{layout.step_name(step)}\n".encode())
        except OSError as error:
            return [f"{self._latest}: {error.strerror or error}; the checkpoint itself is published"]
        return []

    def _prune(self) -> list[str]:
        good = [(step, path) for step, path in self._published() if path.name not in self._broken]
        problems = []
        for step, directory in good[self._keep :]:
            trash = self._root / layout.trash_name(step, self._writer)
            try:
                directory.rename(trash)
                shutil.rmtree(trash)
            except OSError as error:
                problems.append(f"{directory}: cannot be removed: {error.strerror or error}; remove it by hand")
        return problems

    def _verify(self, step: int, directory: Path) -> Published:
        if not stat.S_ISDIR(directory.lstat().st_mode):
            raise BrokenError("not a directory of its own")
        found = manifest.read(directory)
        if found.step != step:
            raise BrokenError(f"{MANIFEST_FILE}: it is of step {found.step}")
        manifest.verify(directory, found)
        return Published(step, directory, found)

    def _published(self) -> list[tuple[int, Path]]:
        """Every name of a published checkpoint, newest first."""
        steps = [(step, name) for name in self._names() if (step := layout.parse_step(name)) is not None]
        return [(step, self._root / name) for step, name in sorted(steps, reverse=True)]

    def _names(self) -> list[str]:
        self._refuse_link()
        try:
            return [path.name for path in self._root.iterdir()]
        except FileNotFoundError:
            return []

    def _refuse_link(self) -> None:
        if self._root.is_symlink():
            raise RunStateError(f"{self._root} is a link; move the checkpoints into the run directory itself")


def _advice(error: OSError, root: Path) -> str:
    reason = error.strerror or str(error)
    if error.errno in _DISK_FULL:
        return f"{reason} below {root}: free space or quota there, or lower checkpoint.keep"
    return f"{reason} below {root}"
