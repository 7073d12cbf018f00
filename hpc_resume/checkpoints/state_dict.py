"""Anything with state_dict and load_state_dict: in the first format that can give its state back unchanged.

JSON where every value is plain (readable, no import needed to load it), NumPy's files where there are arrays, torch
where there are tensors; or always in the one that was asked for. The choice is made at each save, since an optimizer
holds no tensor before its first step; the manifest records it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hpc_resume.checkpoints import formats
from hpc_resume.checkpoints.unfit import UnfitError
from hpc_resume.errors import CheckpointError, RunStateError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


_DDP: Final = "torch.nn.parallel.distributed.DistributedDataParallel"  # broadcasts and reduces: equal everywhere


class StateComponent:
    """One registered object; `backend` is the format that was asked for, None: by content."""

    def __init__(self, source: Any, backend: str | None = None) -> None:
        self.source = source
        self._backend = backend

    def check(self, name: str) -> None:
        """Raise UsageError unless the object has both methods and a format takes its present state."""
        missing = [m for m in ("state_dict", "load_state_dict") if not callable(getattr(self.source, m, None))]
        if missing:
            kind = type(self.source)
            raise UsageError(
                f"register({name}=...): {kind.__module__}.{kind.__qualname__} has no {' and no '.join(missing)};"
                f" {_remedy(self.source)}"
            )
        self._choose(name)

    def save(self, directory: Path, name: str) -> str:
        """Write `<name><suffix>`; the format's name."""
        return self.take(name)[1](directory, name)

    @property
    def is_replicated(self) -> bool:
        """Whether its kind makes it the same on every rank."""
        return any(f"{kind.__module__}.{kind.__qualname__}" == _DDP for kind in type(self.source).__mro__)

    def take(self, name: str) -> tuple[bool, Callable[[Path, str], str]]:
        """Whether all ranks must write it together, and what writes it."""
        chosen, prepared = self._choose(name)

        def save(directory: Path, name: str) -> str:
            chosen.write(directory / f"{name}{chosen.SUFFIX}", prepared)
            return str(chosen.NAME)

        return bool(getattr(chosen, "COLLECTIVE", False)), save

    def freeze(self, name: str, copy: Callable[[object], object]) -> Callable[[Path, str], str] | None:
        """What `save` would write now, to be written later, in any thread; `copy` makes it independent of the training.

        None for a format in which ranks talk to each other: two threads of a rank would do so at once.
        """
        chosen, prepared = self._choose(name)
        if getattr(chosen, "COLLECTIVE", False):
            return None
        frozen = copy(prepared)

        def save(directory: Path, name: str) -> str:
            chosen.write(directory / f"{name}{chosen.SUFFIX}", frozen)
            return str(chosen.NAME)

        return save

    def load(self, directory: Path, name: str, backend: str) -> None:
        """Give the stored state to load_state_dict."""
        chosen = self._writer_of(directory, name, backend)
        path = directory / f"{name}{chosen.SUFFIX}"
        try:
            pattern = getattr(chosen, "present", lambda source: source.state_dict())
            self.source.load_state_dict(chosen.read(path, lambda: pattern(self.source)))  # asked by those who need it
        except (OSError, MemoryError) as error:
            raise CheckpointError(f"{path}: {error}; try again, the checkpoint is untouched") from error
        except RunStateError:
            raise
        except ImportError as error:
            raise RunStateError(
                f"{path} was saved by backend {backend!r}, which cannot be used here ({error}); install that"
            ) from error
        except Exception as error:
            raise RunStateError(
                f"{path} does not fit what is registered as {name!r}: {type(error).__name__}: {error};"
                " restore the code that saved it, or start a new run"
            ) from error

    def _writer_of(self, directory: Path, name: str, backend: str) -> Any:
        if self._backend is not None and backend != self._backend:
            raise RunStateError(
                f"{directory}: {name} was saved by backend {backend!r}, and this run asks for {self._backend!r};"
                f" set checkpoint.backend (or Run(backend=...)) to {backend}, or start a new run"
            )
        try:
            chosen = formats.find(backend)
        except ImportError as error:
            raise RunStateError(f"{directory}: backend {backend!r} of {name} cannot be used here ({error})") from error
        if chosen is None:
            raise RunStateError(
                f"{directory}: {name} was saved by backend {backend!r}, but is registered with register(), which knows"
                f" {', '.join(formats.names())}; register it the way it was saved, or start a new run"
            )
        return chosen

    def _choose(self, name: str) -> tuple[Any, object]:
        state = self.source.state_dict()
        if self._backend is not None:
            return self._asked_for(name, self._backend, state)
        reasons = []
        for candidate in formats.by_content():
            try:
                return candidate, candidate.prepare(state)
            except UnfitError as error:
                reasons.append(f"{candidate.NAME}: {error}")
        raise UsageError(
            f"register({name}=...): its state cannot be saved without pickle ({'; '.join(reasons)});"
            " turn that value into plain Python (a list, a number), or use register_io(save=..., load=...)"
        )

    def _asked_for(self, name: str, backend: str, state: object) -> tuple[Any, object]:
        try:
            chosen = formats.find(backend)
            if chosen is None:
                raise UsageError(f"backend {backend!r}: there is none of that name; {', '.join(formats.names())}")
            return chosen, chosen.prepare(state)
        except ImportError as error:
            raise UsageError(f"backend {backend!r} cannot be used here: {error}; pip install it") from error
        except UnfitError as error:
            raise UsageError(
                f"register({name}=...): backend {backend!r} cannot hold it: {error};"
                " choose another backend, or none: then each component gets one that fits"
            ) from error


def _remedy(source: Any) -> str:
    """What to do with an object that keeps its state to itself; without importing what it may come from."""
    kinds = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(source).__mro__}
    if "torch.utils.data.dataloader.DataLoader" in kinds:
        return "use torchdata.stateful_dataloader.StatefulDataLoader in its place, which knows where it is"
    if "torch.utils.data.sampler.Sampler" in kinds:
        return "use a sampler with a position (torchdata.stateful_dataloader has some), or register its generator"
    return "give it both, or use register_io(save=..., load=...)"
