"""Where a run saves to and resumes from: its checkpoints on the shared file system, and a fast tier of this node.

The order of a start: claim a generation, collect what dead writers left, find the newest checkpoint that counts and
verifies, and only then say that this generation goes on from there. Until that last word nothing is changed that
another reader would see, so a checkpoint that cannot be used (newer format, another world size) ends the start and
leaves everything as it was.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpc_resume import contract
from hpc_resume.checkpoints.catalogue import Loaded
from hpc_resume.checkpoints.generations import Generations
from hpc_resume.checkpoints.parts import is_own
from hpc_resume.checkpoints.store import Store
from hpc_resume.errors import CheckpointError, ConfigError, RunStateError, UsageError
from hpc_resume.run.events import say
from hpc_resume.run.fast import FastTier, open_fast
from hpc_resume.run.mirror import bring_back
from hpc_resume.run.process import is_alive
from hpc_resume.run.records import Fields
from hpc_resume.run.tracking import mirror_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hpc_resume.checkpoints.manifest import Manifest
    from hpc_resume.run.environment import Environment
    from hpc_resume.run.events import EventLog
    from hpc_resume.run.opening import Opening

_AGAIN = (1.0, 2.0, 4.0)  # seconds; a server that was restarted answers again by then
_RESHARDS = "dcp"  # the one backend that gives each rank its part whatever their number was


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the code asks for; job.yaml's word goes before it. None: nothing."""

    keep: int | None = None
    keep_every: int | None = None
    save_async: bool | None = None
    fast_dir: str | None = None

    def check(self) -> None:
        """Raise UsageError for what cannot be meant."""
        if self.keep is not None and self.keep < 2:
            raise UsageError(f"keep={self.keep}: at least 2, since the newest checkpoint may turn out to be unreadable")
        if self.keep_every is not None and self.keep_every < 1:
            raise UsageError(f"keep_every={self.keep_every}: at least 1 step, or None")


@dataclass(frozen=True, slots=True)
class Storage:
    """What was opened. `loaded` is what the run goes on from; `durable` the newest step that any node can load."""

    store: Store
    fast: FastTier | None
    loaded: Loaded
    durable: int
    behind: bool  # saves go to disk in the background


def open_storage(environment: Environment, opening: Opening, events: EventLog, wishes: Wishes) -> Storage:
    """Claim, look, decide, say. Raises RunStateError, CheckpointError, ConfigError, RunHeldError."""
    log = Generations(opening.run_dir.lease_dir)
    generation = _claim(opening)
    store = _store(environment, opening, wishes, log, generation)
    if opening.lease is not None:
        store.clear_leftovers(_judge_of(log))
    shared = _load(store, checksums=environment.checksums, wait=opening.lease is not None)
    mirror = mirror_of(environment, opening) if shared == Loaded(None, ()) and opening.lease is not None else None
    first = opening.attempt == 1 and environment.restart_count == 0
    if mirror is not None and bring_back(mirror, store, opening.run_dir.path, opening.attempt, first=first):
        shared = store.load(checksums=environment.checksums)
    fast_dir = environment.fast_dir or wishes.fast_dir
    fast = None
    if fast_dir and opening.lease is not None and not environment.is_many:
        fast = open_fast(fast_dir, opening, log, generation)
    loaded = _newer(shared, fast, checksums=environment.checksums)
    if opening.lease is not None:
        _check_readable(loaded)
        _check_world(loaded, environment)
        _go_on(store, log, generation, loaded, shared, opening)
    _tell(loaded, events)
    told = environment.save_async
    behind = bool(wishes.save_async) if told is None else told
    if environment.is_many and (behind or fast_dir):
        say(
            "checkpoint.async and fast_dir are for one rank: many ranks save at the boundary, to the shared file system"
        )
    return Storage(store, fast, loaded, shared.newest.step if shared.newest else 0, behind)


def join_storage(
    environment: Environment, opening: Opening, events: EventLog, generation: int, step: int | None
) -> Storage:
    """What rank 0 has opened, on another rank: `step` is what all go on from. Raises CheckpointError, RunStateError."""
    log = Generations(opening.run_dir.lease_dir)
    store = _store(environment, opening, Wishes(), log, generation)
    loaded = Loaded(store.find(step) if step is not None else None, ())
    _tell(loaded, events)
    return Storage(store, None, loaded, step or 0, behind=False)


def _store(environment: Environment, opening: Opening, wishes: Wishes, log: Generations, generation: int) -> Store:
    return Store(
        opening.run_dir.checkpoints_dir,
        opening.run_dir.latest_file,
        attempt=opening.attempt,
        keep=environment.keep or wishes.keep or 2,
        keep_every=environment.keep_every or wishes.keep_every or 0,
        generation=generation,
        generations=log,
        world_size=environment.world_size,
    )


def _claim(opening: Opening) -> int:
    """Ranks beyond 0 publish nothing and claim nothing."""
    if opening.lease is None:
        return 0
    try:
        return opening.lease.claim()
    except OSError as error:
        raise ConfigError(
            f"{opening.run_dir.lease_dir}: {error.strerror or error}; without it nobody could tell who may publish"
        ) from error


def _judge_of(log: Generations) -> Callable[[int, Path], bool]:
    """Whether a half-written directory's writer is dead: by its process where it can be seen.

    Else by the lease, which we hold: an older generation is over, and what it still writes does not count.
    """

    def is_dead(generation: int, _path: Path) -> bool:
        record = log.owner(generation)
        return is_alive(Fields(record).identity()) is not True if record else True

    return is_dead


def _load(store: Store, *, checksums: bool, wait: bool) -> Loaded:
    """What cannot be read now is looked at again: to go on from an older one gives up the work since, for good."""
    loaded = store.load(checksums=checksums)
    for pause in _AGAIN if wait else ():
        unread = next((skipped for skipped in loaded.skipped if not skipped.lasting), None)
        if unread is None:
            break
        say(f"{unread.directory} cannot be read now ({unread.reason}); it is tried again in {pause:g} s")
        time.sleep(pause)
        loaded = store.load(checksums=checksums)
    return loaded


def _newer(shared: Loaded, fast: FastTier | None, *, checksums: bool) -> Loaded:
    """The fast tier's where it is newer and whole; a broken one there is no loss to speak of."""
    found = fast.store.load(checksums=checksums).newest if fast is not None else None
    if found is None or (shared.newest is not None and found.rank <= shared.newest.rank):
        return shared
    return Loaded(found, tuple(skipped for skipped in shared.skipped if skipped.step > found.step))


def _check_readable(loaded: Loaded) -> None:
    unread = next((skipped for skipped in loaded.skipped if not skipped.lasting), None)
    if loaded.newest is None and unread is not None:
        raise CheckpointError(
            f"{unread.directory} cannot be read now ({unread.reason}), and there is no other; nothing was changed:"
            " start again when the file system is well"
        )


def _check_world(loaded: Loaded, environment: Environment) -> None:
    if loaded.newest is None:
        return
    made = loaded.newest.manifest
    if not made.world_size or not environment.world_size or made.world_size == environment.world_size:
        return
    words = f"{loaded.newest.directory} was saved by {made.world_size} ranks, and these are {environment.world_size}"
    if not environment.reshard:
        raise RunStateError(
            f"{words}; start as many as before, or set `checkpoint: {{reshard: true}}` in job.yaml (where there is none"
            f" {contract.ENV_RESHARD}=1). Nothing was changed"
        )
    if own := sorted(key for key, backend in made.components.items() if _is_one_ranks(key, backend, made)):
        raise RunStateError(
            f"{words}; {own[0]} was one rank's own, and another number of ranks has no place for it: only what all"
            f" share (register_replicated) and what backend {_RESHARDS} has saved can be loaded. Nothing was changed"
        )


def _is_one_ranks(component: str, backend: str, made: Manifest) -> bool:
    """Of one process's checkpoint everything but DCP's is; of many ranks', what is in a directory of theirs."""
    return is_own(component) if made.world_size > 1 else backend != _RESHARDS


def _go_on(store: Store, log: Generations, generation: int, loaded: Loaded, shared: Loaded, opening: Opening) -> None:
    try:
        log.go_on_from(generation, loaded.newest.step if loaded.newest else 0)
    except OSError as error:
        say(f"{opening.run_dir.lease_dir}: {error.strerror or error}; a superseded process could not be told apart")
    for skipped in loaded.skipped:
        store.set_aside(skipped)
    if shared.newest is not None and opening.run_dir.latest_step() != shared.newest.step:
        for warning in store.point_latest(shared.newest.step):
            say(warning)


def _tell(loaded: Loaded, events: EventLog) -> None:
    used = f"step {loaded.newest.step} is used instead" if loaded.newest else "there is no other, the run starts anew"
    for skipped in loaded.skipped:
        state = "is broken" if skipped.lasting else "cannot be read"
        say(f"{skipped.directory} {state} ({skipped.reason}); {used}. It is kept; remove it by hand")
        events.write("skipped", checkpoint=skipped.directory.name, reason=skipped.reason)
    if loaded.newest is not None:
        events.write("resumed", step=loaded.newest.step)
