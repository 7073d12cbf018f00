"""What is published is whole, and the last good checkpoint is never given up for one that is not published yet.

Publish: write into `step-N.tmp.<generation>`, sum and sync the files, write the manifest, sync, rename, sync the
parent, replace `latest`; only then are older ones pruned. Where directories cannot be renamed, the manifest is the
commit (placing). Load: the highest generation goes first, then the highest step; what does not verify is passed over.
A writer whose generation is no longer the highest raises RunHeldError before the rename, before `latest`, before every
removal; what slips through between is void by its generation (generations).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Final

from hpc_resume.checkpoints import Component, layout, manifest
from hpc_resume.checkpoints.catalogue import Catalogue, Loaded, Published, Skipped, half_done
from hpc_resume.checkpoints.drafts import Draft
from hpc_resume.checkpoints.generations import Generations
from hpc_resume.checkpoints.latest import Latest
from hpc_resume.checkpoints.manifest import BrokenError, Manifest
from hpc_resume.checkpoints.placing import ByManifest, ByRename, Placing, probe
from hpc_resume.checkpoints.refusals import explain
from hpc_resume.checkpoints.retention import Retention
from hpc_resume.contract import LEASE_DIR
from hpc_resume.durable import DIR_MODE, write_new
from hpc_resume.errors import CheckpointError, RunHeldError, RunStateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

_MUST_VERIFY: Final = 2  # the newest may turn out unreadable on the next node


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a publish did; `warnings` are about `latest` and old checkpoints, the new one is safe."""

    published: Published
    warnings: tuple[str, ...]


class Store:
    """The checkpoints of one run, as one process sees them.

    Args:
        root: the directory of the checkpoints; its parent must be there.
        latest: the file that names the newest; None: there is none (a fast tier).
        attempt: goes into the manifests.
        keep: how many stay.
        keep_every: and of every so many steps the first; 0: no others.
        generation: what this process has claimed; 0: it claimed nothing, and must be the only one.
        generations: the log of claims, `lease/` beside `latest` unless told.
        world_size: processes of the training, for the manifests; 0: unknown.
        durable: False leaves the files to the page cache: for what need not outlive the node.
    """

    def __init__(
        self,
        root: Path,
        latest: Path | None,
        *,
        attempt: int,
        keep: int,
        keep_every: int = 0,
        generation: int = 0,
        generations: Generations | None = None,
        world_size: int = 0,
        durable: bool = True,
    ) -> None:
        self._root = root
        self._attempt = attempt
        self._retention = Retention(keep, keep_every)
        self._generation = generation
        self._log = generations or Generations((latest or root).parent / LEASE_DIR)
        self._world_size = world_size
        self._durable = durable
        self._placing: Placing | None = None
        self._wrecks: list[Path] = []  # of drafts that could not be removed
        self._catalogue = Catalogue(root, self._log)
        self._latest = Latest(latest, self._catalogue)

    @property
    def generation(self) -> int:
        """What this process, or rank 0 for it, has claimed."""
        return self._generation

    def load(self, *, checksums: bool = True) -> Loaded:
        """The newest checkpoint that counts and verifies; see Catalogue.load. Nothing is changed.

        Raises RunStateError as that does, CheckpointError when the disk does not tell what there is.
        """
        try:
            return self._catalogue.load(checksums=checksums)
        except OSError as error:
            raise CheckpointError(
                f"{self._root}: {error.strerror or error}; nothing was changed: start again when it can be read"
            ) from error

    def find(self, step: int) -> Published:
        """The published checkpoint of `step`, by its manifest alone: rank 0 has verified it. Raises CheckpointError."""
        return self._catalogue.find(step)

    def set_aside(self, skipped: Skipped) -> Path | None:
        """Rename what Loaded.skipped names and put the reason into it, as broken.txt; its new place, None if it stays.

        Only for who continues the run. What could not be read may be whole the next time and stays where it is.
        """
        step = layout.parse_step(skipped.directory.name)
        if not skipped.lasting or step is None:
            return None
        try:
            self._check_generation()
            place = self._aside(step, skipped.directory)
        except OSError:
            return None
        if place.is_symlink():  # the reason would go to where it leads
            return place
        with contextlib.suppress(OSError):  # the run says it too
            write_new(place / layout.REASON_FILE, f"{skipped.reason}\n".encode())
        return place

    # --- publish --------------------------------------------------------------------------------------------------

    def publish(self, step: int, components: Mapping[str, Component]) -> Receipt:
        """Save every component as `step` and make that the newest checkpoint.

        Raises CheckpointError when the disk refuses; then what was published before is untouched, and nothing of
        this save is left. RunHeldError when another process has taken the run over. What a component's own code
        raises is passed on, with the same promise.
        """
        draft = self.begin(step)
        with self.filling(draft):
            for name, component in components.items():
                draft.add(name, component.save)
        return self.commit(draft)

    def adopt(self, source: Published) -> Receipt:
        """Publish a copy of `source`, a checkpoint of another store. Raises as `publish` does."""
        draft = self.begin(source.step)
        with self.filling(draft):
            draft.copy(source)
        return self.commit(draft)

    @contextlib.contextmanager
    def filling(self, draft: Draft) -> Iterator[None]:
        """What fails inside leaves nothing of `draft`; an OSError becomes a CheckpointError."""
        try:
            yield
        except BaseException as error:
            self.abandon(draft)
            if isinstance(error, OSError):
                raise self._refused(error) from error
            raise

    def begin(self, step: int) -> Draft:
        """A place to write `step` into, to be given to `commit` or `abandon`. Raises CheckpointError, RunHeldError."""
        try:
            self._root.mkdir(DIR_MODE, exist_ok=True)
            self._catalogue.refuse_link()
            self._check_generation()
            while self._wrecks:
                shutil.rmtree(self._wrecks.pop(), ignore_errors=True)
            placing = self._placed()
            if isinstance(placing, ByManifest):
                self._make_way(step)
            return Draft(step, placing.begin(step))
        except OSError as error:
            raise self._refused(error) from error

    def join(self, step: int, place: str) -> Draft:
        """The draft that rank 0 has begun as `place`, for the part of another rank. Raises CheckpointError."""
        own = layout.step_name(step), layout.temporary_name(step, self._generation)
        directory = self._root / place
        if place not in own or directory.is_symlink() or not directory.is_dir():
            raise CheckpointError(f"{directory} is no place to save step {step} in")
        return Draft(step, directory)

    def commit(self, draft: Draft) -> Receipt:
        """Publish what was written into `draft`. Raises as `publish` does; nothing of the draft is left then."""
        assert self._placing is not None  # noqa: S101 - `begin` chose it
        final = self._root / layout.step_name(draft.step)
        with self.filling(draft):
            files = manifest.describe(draft.directory, draft.sums, sync=self._durable, foreign=draft.foreign)
            made = Manifest(
                draft.step,
                self._attempt,
                round(time.time(), 3),
                draft.components,
                files,
                self._generation,
                self._world_size,
            )
            self._check_generation()
            if draft.directory != final:
                self._make_way(draft.step)
            self._placing.commit(draft.directory, final, made.encode())
        self._catalogue.verified.add(final.name)
        self._catalogue.void.discard(final.name)
        return Receipt(Published(draft.step, final, made), tuple(self._follow_up(draft.step)))

    def abandon(self, draft: Draft) -> None:
        """Leave nothing of `draft`, as far as the disk allows; the next `begin` tries again."""
        shutil.rmtree(draft.directory, ignore_errors=True)
        if os.path.lexists(draft.directory):  # the disk that refused to take it refuses to let it go, too
            self._wrecks.append(draft.directory)

    def point_latest(self, step: int) -> tuple[str, ...]:
        """Make `latest` say `step`; what went wrong, if anything did."""
        return tuple(self._latest.point(step, self._check_generation))

    def clear_leftovers(self, is_dead: Callable[[int, Path], bool] = lambda _generation, _path: True) -> None:
        """Remove what dead writers left half-written or half-removed; `is_dead` judges a generation.

        To be called before the first publish. Without `is_dead` all of them: for who knows that nobody else writes.
        """
        names: list[str] = []
        with contextlib.suppress(OSError):  # the load after it says so
            names = self._catalogue.names()
        for name in names:
            path = self._root / name
            writer = layout.leftover_generation(name)
            if writer is None and layout.parse_step(name) is not None:
                writer = half_done(path)
            if writer is not None and is_dead(writer, path):
                shutil.rmtree(path, ignore_errors=True)

    # --- the parts ------------------------------------------------------------------------------------------------

    def _placed(self) -> Placing:
        """How directories get their names here, found out when it is needed first. Raises OSError."""
        if self._placing is None:
            kind = ByRename if probe(self._root).atomic else ByManifest
            self._placing = kind(self._root, self._generation)
        return self._placing

    def _make_way(self, step: int) -> None:
        """Free the final name: who is there did not verify, or is void, or this step would not be saved again."""
        final = self._root / layout.step_name(step)
        while os.path.lexists(final):
            if half_done(final) is not None:
                shutil.rmtree(final)
                continue
            aside = self._aside(step, final)
            if _generation_of(aside) > self._generation:  # published between our look at the log and now
                self._placed().move(aside, final)
                raise self._held(_generation_of(final))

    def _aside(self, step: int, directory: Path) -> Path:
        places = (self._root / layout.broken_name(step, number) for number in count(1))
        return next(place for place in places if self._placed().move(directory, place))

    def _follow_up(self, step: int) -> list[str]:
        """`latest`, and the older ones: a disk that fails now is a warning, since `step` itself is published."""
        try:
            self._check_generation()
            return [*self._latest.point(step, self._check_generation), *self._prune(step)]
        except OSError as error:
            return [f"{explain(error, self._root)}; step {step} is published, older ones stay until the next save"]

    def _prune(self, newest: int) -> list[str]:
        """Remove what need not stay. The two newest that count have been written by us, or read in full."""
        assert self._placing is not None  # noqa: S101 - a publish came before
        problems: list[str] = []
        sound: list[int] = []
        for step, directory in self._catalogue.published():
            if step > newest or directory.name in self._catalogue.void:
                continue
            if len(sound) >= min(_MUST_VERIFY, self._retention.keep) or self._catalogue.is_verified(step, directory):
                sound.append(step)
        for step in self._retention.superfluous(sound):
            directory = self._root / layout.step_name(step)
            self._check_generation()
            try:
                self._placing.remove(step, directory)
                self._catalogue.verified.discard(directory.name)
            except OSError as error:
                problems.append(f"{directory}: cannot be removed: {error.strerror or error}; remove it by hand")
        return problems

    def _check_generation(self) -> None:
        """Raises RunHeldError when this process is no longer the one that continues the run."""
        if (highest := self._log.highest()) > self._generation:
            raise self._held(highest)

    def _held(self, generation: int) -> RunHeldError:
        owner = self._log.owner(generation)
        who = f"pid {owner.get('pid')} on {owner.get('host')}" if owner else "another process"
        return RunHeldError(
            f"{who} has taken this run over (generation {generation}, this process has {self._generation});"
            " what it has published is not touched, and nothing of this process counts any more"
        )

    def _refused(self, error: OSError) -> CheckpointError:
        return CheckpointError(explain(error, self._root))


def _generation_of(directory: Path) -> int:
    try:
        return manifest.read(directory).generation
    except (BrokenError, RunStateError):
        return 0
