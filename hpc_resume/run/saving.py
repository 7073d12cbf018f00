"""What is registered, what has been restored, and which step is safe on disk."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hpc_resume.checkpoints.layout import check_component_name
from hpc_resume.errors import RunStateError, UsageError
from hpc_resume.run.ending import describe
from hpc_resume.run.forgotten import forgotten, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from hpc_resume.checkpoints import Component
    from hpc_resume.checkpoints.store import Loaded, Published, Store

_MEASURED: Final = 3  # saves; one slow moment of the file system must not rule out the last save of a long run


@dataclass(frozen=True, slots=True)
class InFlight:
    """A save that is not on disk yet: after `step` steps, begun at `since` (time.monotonic())."""

    step: int
    since: float


class Saver:
    """The registered components of one run and the store they go to."""

    def __init__(
        self, store: Store, loaded: Loaded, *, may_write: bool, say: Callable[[str], None], note: Callable[..., None]
    ) -> None:
        self._store = store
        self._loaded = loaded.newest
        self._may_write = may_write
        self._say = say
        self._note = note
        self._components: dict[str, Component] = {}
        self._sealed = False
        self._idle = threading.Event()
        self._idle.set()
        self._seconds: deque[float] = deque(maxlen=_MEASURED)
        self.in_flight: InFlight | None = None  # any thread may look: the watchdog's and the writer's do
        self.published = loaded.newest.step if loaded.newest else 0  # 0: a fresh start is always there

    def register(self, name: str, component: Component) -> None:
        """Check that it can be saved, and restore it if there is a checkpoint.

        Raises UsageError for what cannot work, RunStateError when the checkpoint does not fit.
        """
        check_component_name(name)
        if self._sealed:
            raise UsageError(
                f"register({name}=...) after the first step: the steps before it ran without the restored state;"
                " register everything before steps() or checkpoint_point()"
            )
        if name in self._components:
            raise UsageError(f"{name!r} is registered twice; give the second one another name")
        component.check(name)
        self._components[name] = component
        if self._loaded is None:
            return
        backend = self._loaded.manifest.components.get(name)
        if backend is None:
            raise self._mismatch(f"{name!r} is registered but not in the checkpoint")
        component.load(self._loaded.directory, name, backend)

    def seal(self) -> None:
        """Close the registration, before the first step.

        Raises RunStateError when the checkpoint holds what nobody registered.

        Going on would drop that state for ever at the next save: an optimizer that is forgotten after an edit of the
        script is worth an error, a warning in a log is not read.
        """
        if self._sealed:
            return
        self._sealed = True
        if self._loaded is not None:
            unknown = sorted(set(self._loaded.manifest.components) - set(self._components))
            if unknown:
                raise self._mismatch(f"nothing is registered as {', '.join(unknown)}")
            self._restore_last(self._loaded)
        self._name_forgotten()

    def _restore_last(self, loaded: Published) -> None:
        """What the script itself changed since the registration: random numbers that it drew."""
        for name, component in self._components.items():
            if getattr(getattr(component, "source", None), "restore_last", False):
                component.load(loaded.directory, name, loaded.manifest.components[name])

    def _name_forgotten(self) -> None:
        sources = {name: getattr(component, "source", None) for name, component in self._components.items()}
        self._note("registered", components={name: kind_of(name, source) for name, source in sources.items()})
        for what, words in forgotten(sources) if self._may_write else ():
            self._say(words)
            self._note("forgotten", what=what)

    def save(self, step: int, trigger: str) -> None:
        """Publish `step` unless it is the last published one.

        Raises CheckpointError when the disk refuses, and what a component's own code raises; `published` stays.
        """
        if not self._may_write or step == self.published:
            return
        started = time.monotonic()
        self.in_flight = InFlight(step, started)
        self._idle.clear()
        try:
            receipt = self._store.publish(step, self._components)
        except Exception as error:
            self._note("save_failed", step=step, trigger=trigger, error=describe(error, os.environ))
            raise
        finally:
            self.in_flight = None
            self._idle.set()
        self.published = step
        for warning in receipt.warnings:
            self._say(warning)
        seconds = time.monotonic() - started
        self._seconds.append(seconds)
        self._note("saved", step=step, seconds=round(seconds, 6), trigger=trigger)

    @property
    def measured(self) -> float | None:
        """What a save takes, seconds: the longest of the last few; None before the first."""
        return max(self._seconds, default=None)

    def wait(self, seconds: float) -> bool:
        """Wait, in any thread, until no save is in flight; False when one still is after `seconds`."""
        return self._idle.wait(seconds)

    def _mismatch(self, what: str) -> RunStateError:
        assert self._loaded is not None  # noqa: S101 - only asked with a checkpoint
        return RunStateError(
            f"{self._loaded.directory}: {what} (checkpoint: {_listed(self._loaded.manifest.components)};"
            f" registered: {_listed(self._components)}); register what was saved, or start a new run"
        )


def _listed(names: Any) -> str:
    return ", ".join(sorted(names)) or "nothing"
