"""One run's saves on their way to disk: at once, or from a copy in memory behind the training; through a fast tier.

A step counts as published only when the shared file system has it: what is in flight, or in the fast tier alone, could
be lost with this node.
"""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from hpc_resume.checkpoints import Freezable
from hpc_resume.checkpoints.snapshot import Arena
from hpc_resume.errors import CheckpointError, RunHeldError
from hpc_resume.run.behind import InFlight, Lane
from hpc_resume.run.ending import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from hpc_resume.checkpoints import Component
    from hpc_resume.checkpoints.catalogue import Published
    from hpc_resume.checkpoints.drafts import Draft
    from hpc_resume.checkpoints.store import Receipt, Store
    from hpc_resume.run.storage import Storage

_MEASURED: Final = 3  # saves; one slow moment of the file system must not rule out the last save of a long run


class Publisher:
    """`published` is the newest step that any node can load; 0 is a fresh start, which is always there."""

    def __init__(
        self,
        storage: Storage,
        *,
        say: Callable[[str], None],
        note: Callable[..., None],
        mirror: Callable[[int, Path], None] | None = None,
    ) -> None:
        self._store = storage.store
        self._mirror = mirror
        self._fast = storage.fast
        self._takes_copies = storage.behind
        self._say = say
        self._note = note
        self._lane = Lane()
        self._arenas: dict[str, Arena] = {}
        self._seconds: deque[float] = deque(maxlen=_MEASURED)
        self._first: Published | None = None  # the newest in the fast tier
        self.published = storage.durable
        newest = storage.loaded.newest
        self._undelivered = newest if newest is not None and newest.step > storage.durable else None

    @property
    def in_flight(self) -> InFlight | None:
        """The save that is under way; any thread may ask."""
        return self._lane.in_flight

    @property
    def is_behind(self) -> bool:
        """Whether saves go on after the boundary."""
        return self._takes_copies or self._fast is not None

    @property
    def measured(self) -> float | None:
        """What a save takes, seconds: the longest of the last few; None before the first."""
        return max(self._seconds, default=None)

    @property
    def _is_durable(self) -> bool:
        """Whether the shared file system has all that the fast tier has."""
        return self._first is None or self.published >= self._first.step

    def wait(self, seconds: float | None) -> bool:
        """Wait, in any thread, until no save is in flight; False when one still is after `seconds`."""
        return self._lane.wait(seconds)

    def now(self, step: int, components: Mapping[str, Component], trigger: str) -> None:
        """Publish `step` before returning, after the save that is in flight.

        Raises CheckpointError when the disk refuses, RunHeldError, and what a component's own code raises.
        """
        self._lane.wait(None)
        self._raise_if_held()
        if step == self.published:
            return
        flight = self._lane.begin(step)
        try:
            with self._noted(step, trigger):
                first = self._taken(step) or self._into_fast(step, components)
                receipt = self._store.adopt(first) if first else self._store.publish(step, components)
            self._done(receipt, flight, trigger, None)
        finally:
            self._lane.end()

    def behind(self, step: int, components: Mapping[str, Component], trigger: str) -> bool:
        """Take `step` now and publish it in the background; False, and nothing done, while one is in flight.

        Raises as `now` does, for what goes wrong until the return; the rest is said, and raised by the next call when
        it is no refusal of the disk.
        """
        if self._lane.in_flight is not None:
            return False
        self._lane.check()
        if step == self.published:
            return True
        flight = self._lane.begin(step)
        try:
            with self._noted(step, trigger):
                deliver = self._take(step, components)
        except BaseException:
            self._lane.end()
            raise
        blocked = time.monotonic() - flight.since
        self._lane.behind(lambda: self._deliver(deliver, flight, trigger, blocked))
        return True

    def secure(self) -> None:
        """Begin to copy what this run goes on from to the shared file system, where only the fast tier has it."""
        source, self._undelivered = self._undelivered, None
        if source is None:
            return
        self._first = source
        flight = self._lane.begin(source.step)
        self._lane.behind(lambda: self._deliver(lambda: self._store.adopt(source), flight, "fast_dir", 0.0))

    def close(self) -> None:
        """At the end of the process: what the shared file system has need not stay in this node's memory."""
        if self._fast is not None and self._lane.in_flight is None and self._is_durable:
            self._fast.discard()

    # --- the parts ------------------------------------------------------------------------------------------------

    def _take(self, step: int, components: Mapping[str, Component]) -> Callable[[], Receipt]:
        """What must happen before the training goes on; the rest is returned."""
        first = self._taken(step)
        if first is None and not self._takes_copies:
            first = self._into_fast(step, components)
        if first is not None:
            return lambda: self._store.adopt(first)
        if not self._takes_copies:
            receipt = self._store.publish(step, components)
            return lambda: receipt
        target, draft = self._begin(step)
        late: list[tuple[str, Callable[[Path, str], str]]] = []
        with target.filling(draft):
            for name, component in components.items():
                frozen = None
                if isinstance(component, Freezable):
                    frozen = component.freeze(name, self._arenas.setdefault(name, Arena()).copy)
                if frozen is None:
                    draft.add(name, component.save)
                else:
                    late.append((name, frozen))
        return lambda: self._write(target, draft, late)

    def _begin(self, step: int) -> tuple[Store, Draft]:
        if self._fast is not None:
            try:
                return self._fast.store, self._fast.store.begin(step)
            except CheckpointError as error:
                self._give_up_fast(error)
        return self._store, self._store.begin(step)

    def _write(self, target: Store, draft: Draft, late: list[tuple[str, Callable[[Path, str], str]]]) -> Receipt:
        partial = bool(draft.components)
        try:
            receipt = self._fill(target, draft, late)
        except CheckpointError as error:
            if target is self._store:
                raise
            self._give_up_fast(error)
            if partial:  # what was written at the boundary went with it; the next save has it again
                raise
            return self._fill(self._store, self._store.begin(draft.step), late)
        if target is self._store:
            return receipt
        self._note_fast(receipt.published)
        return self._store.adopt(receipt.published)

    @staticmethod
    def _fill(target: Store, draft: Draft, late: list[tuple[str, Callable[[Path, str], str]]]) -> Receipt:
        with target.filling(draft):
            for name, save in late:
                draft.add(name, save)
        return target.commit(draft)

    def _taken(self, step: int) -> Published | None:
        """What the fast tier has of `step` already: the shared file system has refused it before."""
        return self._first if self._first is not None and self._first.step == step else None

    def _into_fast(self, step: int, components: Mapping[str, Component]) -> Published | None:
        """The fast tier's copy; None where there is no fast tier, or no more."""
        if self._fast is None:
            return None
        try:
            first = self._fast.store.publish(step, components).published
        except CheckpointError as error:
            self._give_up_fast(error)
            return None
        self._note_fast(first)
        return first

    def _note_fast(self, first: Published) -> None:
        self._first = first
        self._note("saved_fast", step=first.step)

    def _give_up_fast(self, error: CheckpointError) -> None:
        self._say(f"the fast tier is full or broken ({error}); saves go to the shared file system alone from now on")
        if self._fast is not None:
            self._fast.discard()
        self._fast = self._first = None

    def _deliver(self, deliver: Callable[[], Receipt], flight: InFlight, trigger: str, blocked: float) -> None:
        """In the background. A refusal of the disk is said; anything else is kept for the training's own thread."""
        try:
            with self._noted(flight.step, trigger):
                receipt = deliver()
        except CheckpointError as error:
            self._say(
                f"step {flight.step} could not be saved: {error}; step {self.published} is still the last good one"
            )
            return
        self._done(receipt, flight, trigger, blocked)

    def _done(self, receipt: Receipt, flight: InFlight, trigger: str, blocked: float | None) -> None:
        self.published = flight.step
        for warning in receipt.warnings:
            self._say(warning)
        seconds = time.monotonic() - flight.since
        self._seconds.append(seconds)
        more = {} if blocked is None else {"blocked": round(blocked, 6)}
        if self._mirror is not None:
            self._mirror(flight.step, receipt.published.directory)
        self._note("saved", step=flight.step, seconds=round(seconds, 6), trigger=trigger, **more)

    def _raise_if_held(self) -> None:
        """Of what went wrong behind, only the loss of the run matters to a last save: it is tried all the same."""
        try:
            self._lane.check()
        except RunHeldError:
            raise
        except Exception as error:  # noqa: BLE001 - it was noted when it happened
            self._say(f"the save before failed: {describe(error, os.environ)}")

    @contextmanager
    def _noted(self, step: int, trigger: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._note("save_failed", step=step, trigger=trigger, error=describe(error, os.environ))
            raise
