"""What is registered, what has been restored, and which step is safe on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hpc_resume.checkpoints.layout import check_component_name
from hpc_resume.errors import RunStateError, UsageError
from hpc_resume.run.forgotten import forgotten, kind_of
from hpc_resume.run.publishing import Publisher

if TYPE_CHECKING:
    from collections.abc import Callable

    from hpc_resume.checkpoints import Component
    from hpc_resume.run.behind import InFlight
    from hpc_resume.run.storage import Storage


_LAST: Final = ("warning", "end")


class Saver:
    """The registered components of one run and the store they go to."""

    def __init__(
        self, storage: Storage, *, may_write: bool, say: Callable[[str], None], note: Callable[..., None]
    ) -> None:
        self._loaded = storage.loaded.newest
        self._may_write = may_write
        self._say = say
        self._note = note
        self._components: dict[str, Component] = {}
        self._sealed = False
        self._publisher = Publisher(storage, say=say, note=note)
        self.wait = self._publisher.wait
        self.close = self._publisher.close

    @property
    def published(self) -> int:
        """The newest step that any node can load."""
        return self._publisher.published

    @property
    def in_flight(self) -> InFlight | None:
        """The save that is under way; any thread may ask, and `wait` for it."""
        return self._publisher.in_flight

    @property
    def measured(self) -> float | None:
        """What a save takes, seconds; None before the first."""
        return self._publisher.measured

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
        self._publisher.secure()
        self._name_forgotten()

    def restore_last(self) -> None:
        """What the script itself has changed since the registration: random numbers that it drew.

        Right before the first step, and never after it.
        """
        if self._loaded is None:
            return
        for name, component in self._components.items():
            if getattr(getattr(component, "source", None), "restore_last", False):
                component.load(self._loaded.directory, name, self._loaded.manifest.components[name])

    def _name_forgotten(self) -> None:
        sources = {name: getattr(component, "source", None) for name, component in self._components.items()}
        self._note("registered", components={name: kind_of(name, source) for name, source in sources.items()})
        for what, words in forgotten(sources) if self._may_write else ():
            self._say(words)
            self._note("forgotten", what=what)

    def save(self, step: int, trigger: str) -> bool:
        """Publish `step`, or begin to in the background; False while the save before is still under way there.

        The last save of a process ("warning", "end") is on disk at the return. Raises CheckpointError when the disk
        refuses, RunHeldError when the run was taken over, and what a component's own code raises.
        """
        if not self._may_write:
            return True
        if self._publisher.is_behind and trigger not in _LAST:
            return self._publisher.behind(step, self._components, trigger)
        self._publisher.now(step, self._components, trigger)
        return True

    def _mismatch(self, what: str) -> RunStateError:
        assert self._loaded is not None  # noqa: S101 - only asked with a checkpoint
        return RunStateError(
            f"{self._loaded.directory}: {what} (checkpoint: {_listed(self._loaded.manifest.components)};"
            f" registered: {_listed(self._components)}); register what was saved, or start a new run"
        )


def _listed(names: Any) -> str:
    return ", ".join(sorted(names)) or "nothing"
