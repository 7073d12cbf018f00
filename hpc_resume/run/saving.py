"""What is registered, what has been restored, and which step is safe on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hpc_resume.checkpoints.layout import check_component_name
from hpc_resume.checkpoints.parts import components_of
from hpc_resume.errors import RunStateError, UsageError
from hpc_resume.run.forgotten import forgotten, kind_of
from hpc_resume.run.publishing import Publisher

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hpc_resume.checkpoints import Component
    from hpc_resume.run.behind import InFlight
    from hpc_resume.run.ranks.joint import JointPublisher
    from hpc_resume.run.storage import Storage


_LAST: Final = ("warning", "end")


class Saver:
    """The registered components of one run and the store they go to."""

    def __init__(
        self,
        storage: Storage,
        *,
        say: Callable[[str], None],
        note: Callable[..., None],
        rank: int = 0,
        joint: JointPublisher | None = None,
        mirror: Callable[[int, Path], None] | None = None,
    ) -> None:
        self._loaded = storage.loaded.newest
        self._rank = rank
        self._say = say
        self._note = note
        self._components: dict[str, Component] = {}
        self._sealed = False
        self._shared: set[str] = set()  # the same on every rank
        self._stored = components_of(self._loaded.manifest, rank) if self._loaded is not None else {}
        self._alone = None if joint is not None else Publisher(storage, say=say, note=note, mirror=mirror)
        self._joint = joint
        self._publisher: Publisher | JointPublisher = joint or self._alone  # type: ignore[assignment]
        self.wait = self._publisher.wait

    @property
    def joint(self) -> JointPublisher:
        """Where many ranks save together."""
        assert self._joint is not None  # noqa: S101 - only asked among many
        return self._joint

    def joint_write(self, step: int, place: str) -> None:
        """Write the rank's part of a save of all ranks. Raises as JointPublisher.write does."""
        self.joint.write(step, place, self._components, frozenset(self._shared))

    def close(self) -> None:
        """At the end of the process."""
        if self._alone is not None:
            self._alone.close()

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

    def register(self, name: str, component: Component, *, shared: bool = False) -> None:
        """Check that it can be saved, and restore it if there is a checkpoint; `shared`: the same on every rank.

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
        if shared:
            self._shared.add(name)
        if self._loaded is not None:
            self._load(self._loaded.directory, name)

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
            unknown = sorted(set(self._stored) - set(self._components))
            if unknown:
                raise self._mismatch(f"nothing is registered as {', '.join(unknown)}")
        if self._alone is not None:
            self._alone.secure()
        self._name_forgotten()

    def restore_last(self) -> None:
        """What the script itself has changed since the registration: random numbers that it drew.

        Right before the first step, and never after it.
        """
        if self._loaded is None:
            return
        for name, component in self._components.items():
            if getattr(getattr(component, "source", None), "restore_last", False):
                self._load(self._loaded.directory, name)

    def _name_forgotten(self) -> None:
        sources = {name: getattr(component, "source", None) for name, component in self._components.items()}
        self._note("registered", components={name: kind_of(name, source) for name, source in sources.items()})
        for what, words in forgotten(sources) if self._rank == 0 else ():
            self._say(words)
            self._note("forgotten", what=what)

    def save(self, step: int, trigger: str) -> bool:
        """Publish `step`, or begin to in the background; False while the save before is still under way there.

        The last save of a process ("warning", "end") is on disk at the return. Raises CheckpointError when the disk
        refuses, RunHeldError when the run was taken over, and what a component's own code raises.
        """
        if self._rank:  # of a number that nobody has told us: rank 0 saves
            return True
        assert self._alone is not None  # noqa: S101 - many ranks save by joint_write
        if self._alone.is_behind and trigger not in _LAST:
            return self._alone.behind(step, self._components, trigger)
        self._alone.now(step, self._components, trigger)
        return True

    def _load(self, directory: Path, name: str) -> None:
        if name not in self._stored:
            raise self._mismatch(f"{name!r} is registered but not in the checkpoint")
        below, backend = self._stored[name]
        self._components[name].load(directory / below, name, backend)

    def _mismatch(self, what: str) -> RunStateError:
        assert self._loaded is not None  # noqa: S101 - only asked with a checkpoint
        return RunStateError(
            f"{self._loaded.directory}: {what} (checkpoint: {_listed(self._stored)};"
            f" registered: {_listed(self._components)}); register what was saved, or start a new run"
        )


def _listed(names: Any) -> str:
    return ", ".join(sorted(names)) or "nothing"
