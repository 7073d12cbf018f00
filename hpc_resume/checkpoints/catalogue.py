"""What is published in one directory, as a reader sees it: every checkpoint by its manifest, the newest that verifies.

The highest generation goes first, then the highest step: a superseded writer may be ahead in steps. Nothing is changed
here, so anybody may look while the run is at work.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpc_resume.checkpoints import layout, manifest
from hpc_resume.checkpoints.manifest import BrokenError, Manifest
from hpc_resume.checkpoints.placing import uncommitted_by
from hpc_resume.contract import MANIFEST_FILE
from hpc_resume.errors import CheckpointError, RunStateError

if TYPE_CHECKING:
    from pathlib import Path

    from hpc_resume.checkpoints.generations import Fences, Generations


@dataclass(frozen=True, slots=True)
class Published:
    """A checkpoint that was seen whole."""

    step: int
    directory: Path
    manifest: Manifest

    @property
    def rank(self) -> tuple[int, int]:
        """What makes one newer than another: the generation first, since a superseded writer may be ahead in steps."""
        return self.manifest.generation, self.step


@dataclass(frozen=True, slots=True)
class Skipped:
    """A checkpoint that was not used, and why; `lasting` is False where the next look may find it whole."""

    directory: Path
    reason: str
    lasting: bool = True

    @property
    def step(self) -> int:
        """The step of its name."""
        return layout.parse_step(self.directory.name) or 0


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a start found: the newest whole checkpoint (None: there is none), and the newer ones passed over."""

    newest: Published | None
    skipped: tuple[Skipped, ...]


class Catalogue:
    """The checkpoints below `root`; `generations` tells which of them count.

    `void` are the names that are not to be used (broken, or of a superseded writer), `verified` those whose every byte
    this process has read or written.
    """

    def __init__(self, root: Path, generations: Generations) -> None:
        self._root = root
        self._log = generations
        self.void: set[str] = set()
        self.verified: set[str] = set()

    def load(self, *, checksums: bool = True) -> Loaded:
        """The newest checkpoint that verifies: sizes, and with `checksums` every byte. Nothing is changed.

        Raises RunStateError when checkpoints/ is a link, or a newer hpc_resume wrote one of them.
        """
        found, skipped = self.survey()
        for candidate in sorted(found, key=lambda published: published.rank, reverse=True):
            try:
                manifest.verify(candidate.directory, candidate.manifest, checksums=checksums)
            except BrokenError as error:
                if is_gone(candidate.directory):  # its owner has pruned it while it was read
                    continue
                self.void.add(candidate.directory.name)
                skipped.append((candidate.step, Skipped(candidate.directory, str(error), error.lasting)))
                continue
            if checksums:
                self.verified.add(candidate.directory.name)
            # An older one that is broken is no news: nothing newer was lost by it.
            newer = [pair for pair in skipped if pair[0] > candidate.step]
            return Loaded(candidate, _in_order(newer))
        return Loaded(None, _in_order(skipped))

    def find(self, step: int) -> Published:
        """That of `step`, by its manifest alone. Raises CheckpointError, RunStateError."""
        directory = self._root / layout.step_name(step)
        try:
            return self._examine(step, directory, self._log.fences())
        except BrokenError as error:
            raise CheckpointError(f"{directory}, which rank 0 goes on from, cannot be used here: {error}") from error

    def listing(self) -> tuple[Published | Skipped, ...]:
        """Every checkpoint that is published, newest first, by its manifest alone: no byte of its files is read."""
        found, skipped = self.survey()
        both: list[tuple[int, Published | Skipped]] = [(published.step, published) for published in found]
        return tuple(item for _, item in sorted([*both, *skipped], key=lambda pair: pair[0], reverse=True))

    def is_verified(self, step: int, directory: Path) -> bool:
        """Whether every byte of it has been read or written by this process; read now where it has not."""
        if directory.name in self.verified:
            return True
        try:
            manifest.verify(directory, self._examine(step, directory, self._log.fences()).manifest)
        except (BrokenError, RunStateError):
            self.void.add(directory.name)
            return False
        self.verified.add(directory.name)
        return True

    def survey(self) -> tuple[list[Published], list[tuple[int, Skipped]]]:
        """Every published checkpoint whose manifest is whole and counts; and the others, with their steps."""
        fences = self._log.fences()
        found: list[Published] = []
        skipped: list[tuple[int, Skipped]] = []
        for step, directory in self.published():
            try:
                found.append(self._examine(step, directory, fences))
            except BrokenError as error:
                if not is_gone(directory):
                    self.void.add(directory.name)
                    skipped.append((step, Skipped(directory, str(error), error.lasting)))
        return found, skipped

    def _examine(self, step: int, directory: Path, fences: Fences) -> Published:
        try:
            if not stat.S_ISDIR(directory.lstat().st_mode):
                raise BrokenError("not a directory of its own")
        except OSError as error:
            raise BrokenError(error.strerror or str(error), lasting=False) from error
        found = manifest.read(directory)
        if found.step != step:
            raise BrokenError(f"{MANIFEST_FILE}: it is of step {found.step}")
        if (later := fences.superseded(found.generation, step)) is not None:
            raise BrokenError(f"published by generation {found.generation} after generation {later} had taken over")
        return Published(step, directory, found)

    def published(self) -> list[tuple[int, Path]]:
        """Every name of a published checkpoint, the highest step first."""
        steps = [(step, name) for name in self.names() if (step := layout.parse_step(name)) is not None]
        return [(step, self._root / name) for step, name in sorted(steps, reverse=True)]

    def names(self) -> list[str]:
        """Everything there is. Raises RunStateError when the directory is a link."""
        self.refuse_link()
        try:
            return os.listdir(self._root)  # noqa: PTH208 - names are all that is needed, at every publish
        except FileNotFoundError:
            return []

    def refuse_link(self) -> None:
        """Raises RunStateError when the directory is a link: it would lead out of the run directory."""
        if self._root.is_symlink():
            raise RunStateError(f"{self._root} is a link; move the checkpoints into the run directory itself")


def half_done(directory: Path) -> int | None:
    """The generation that is writing or removing `directory` in place; None where it is, or once was, a checkpoint."""
    writer = uncommitted_by(directory)
    return None if writer is None or _is_committed(directory) else writer


def is_gone(directory: Path) -> bool:
    """Whether nothing is there that anybody would take for a checkpoint: no reason to call it broken."""
    return not os.path.lexists(directory) or half_done(directory) is not None


def _is_committed(directory: Path) -> bool:
    """Whether its manifest is whole; also where that cannot be found out now, or a newer hpc_resume wrote it."""
    try:
        manifest.read(directory)
    except BrokenError as error:
        return not error.lasting
    except RunStateError:
        return True
    return True


def _in_order(skipped: list[tuple[int, Skipped]]) -> tuple[Skipped, ...]:
    return tuple(item for _, item in sorted(skipped, key=lambda pair: pair[0], reverse=True))
