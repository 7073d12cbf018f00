"""A save of all ranks: each writes its part into one place, and rank 0 publishes when all parts are durable.

The agreement says when each of the three may happen; here is what then happens on this rank.
"""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hpc_resume.checkpoints import parts
from hpc_resume.checkpoints.state_dict import StateComponent
from hpc_resume.errors import CheckpointError
from hpc_resume.run.behind import InFlight, Lane
from hpc_resume.run.ending import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hpc_resume.checkpoints import Component
    from hpc_resume.checkpoints.drafts import Draft
    from hpc_resume.run.storage import Storage

_MEASURED: Final = 3  # saves; see publishing


@dataclass(slots=True)
class _UnderWay:
    flight: InFlight
    draft: Draft
    trigger: str


class JointPublisher:
    """`published` is the newest step that any node can load, as rank 0 has told all."""

    def __init__(
        self, storage: Storage, rank: int, size: int, *, say: Callable[[str], None], note: Callable[..., None]
    ) -> None:
        self._store = storage.store
        self._rank = rank
        self._size = size
        self._say = say
        self._note = note
        self._lane = Lane()
        self._seconds: deque[float] = deque(maxlen=_MEASURED)
        self._under_way: _UnderWay | None = None
        self.published = storage.durable

    @property
    def in_flight(self) -> InFlight | None:
        """The save that is under way; any thread may ask."""
        return self._lane.in_flight

    @property
    def measured(self) -> float | None:
        """What a save takes, seconds: the longest of the last few; None before the first."""
        return max(self._seconds, default=None)

    def wait(self, seconds: float | None) -> bool:
        """Wait, in any thread, until no save is in flight; False when one still is after `seconds`."""
        return self._lane.wait(seconds)

    def open(self, step: int, trigger: str) -> str:
        """On rank 0: a place to write `step` into, by its name; empty when it is published already.

        Raises CheckpointError, RunHeldError.
        """
        if step == self.published:
            return ""
        draft = self._store.begin(step)
        self._begin(draft, trigger)
        return draft.directory.name

    def write(self, step: int, place: str, components: Mapping[str, Component], shared: frozenset[str]) -> None:
        """Write the rank's part, until it is durable. `shared` are the components that rank 0 writes for all.

        Raises CheckpointError, and what a component's own code raises.
        """
        if self._under_way is None:
            self._begin(self._store.join(step, place), "")
        assert self._under_way is not None  # noqa: S101 - just begun
        draft = self._under_way.draft
        try:
            self._fill(draft, components, shared)
            if self._rank:
                parts.finish(draft, self._rank)
        except OSError as error:
            raise CheckpointError(
                f"rank {self._rank}: {error.filename or draft.directory}: {error.strerror}"
            ) from error

    def commit(self) -> None:
        """On rank 0: publish, when every part is durable. Raises CheckpointError, RunHeldError."""
        assert self._under_way is not None  # noqa: S101 - the agreement's order
        draft = self._under_way.draft
        with self._store.filling(draft), self._noted():
            parts.gather(draft, self._size)
            receipt = self._store.commit(draft)
        for warning in receipt.warnings:
            self._say(warning)

    def settle(self, step: int, failure: str) -> None:
        """The round is over: `step` is published, or is not, and then nothing of it is left."""
        under_way, self._under_way = self._under_way, None
        if under_way is None:
            return
        if failure:
            if self._rank == 0:
                self._store.abandon(under_way.draft)
                self._note("save_failed", step=step, trigger=under_way.trigger, error=failure)
        else:
            self.published = step
            seconds = time.monotonic() - under_way.flight.since
            self._seconds.append(seconds)
            self._note("saved", step=step, seconds=round(seconds, 6), trigger=under_way.trigger)
        self._lane.end()

    def _begin(self, draft: Draft, trigger: str) -> None:
        self._under_way = _UnderWay(self._lane.begin(draft.step), draft, trigger)

    def _fill(self, draft: Draft, components: Mapping[str, Component], shared: frozenset[str]) -> None:
        for name, component in components.items():
            together, save = component.take(name) if isinstance(component, StateComponent) else (False, component.save)
            if together:
                draft.add(name, save)
            elif name not in shared:
                draft.add(name, save, parts.rank_directory(self._rank))
            elif self._rank == 0:
                draft.add(name, save)

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._note("publish_failed", error=describe(error, os.environ))
            raise
