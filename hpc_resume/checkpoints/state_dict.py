"""Anything with state_dict and load_state_dict: in the first format that can give its state back unchanged.

JSON where every value is plain (readable, no import needed to load it), torch where there are tensors. The choice is
made at each save, since an optimizer holds no tensor before its first step; the manifest records it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from hpc_resume.checkpoints import json_state, torch_state
from hpc_resume.checkpoints.unfit import UnfitError
from hpc_resume.errors import CheckpointError, RunStateError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


class Format(Protocol):
    """What a module of a format offers."""

    NAME: str
    SUFFIX: str

    def available(self) -> bool:
        """Whether it can be tried now."""

    def prepare(self, state: object) -> object:
        """What `write` takes; raises UnfitError when this format cannot give `state` back."""

    def write(self, path: Path, prepared: object) -> None:
        """Create `path`; raises OSError."""

    def read(self, path: Path) -> object:
        """The state; raises OSError, or anything when the file is not what `write` made."""


FORMATS: Final[tuple[Any, ...]] = (json_state, torch_state)  # modules are Formats; tried in this order


class StateComponent:
    """One registered object."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def check(self, name: str) -> None:
        """Raise UsageError unless the object has both methods and a format takes its present state."""
        missing = [m for m in ("state_dict", "load_state_dict") if not callable(getattr(self._source, m, None))]
        if missing:
            kind = type(self._source)
            raise UsageError(
                f"register({name}=...): {kind.__module__}.{kind.__qualname__} has no {' and no '.join(missing)};"
                " give it both, or use register_io(save=..., load=...)"
            )
        self._choose(name)

    def save(self, directory: Path, name: str) -> str:
        """Write `<name><suffix>`; the format's name."""
        chosen, prepared = self._choose(name)
        chosen.write(directory / f"{name}{chosen.SUFFIX}", prepared)
        return str(chosen.NAME)

    def load(self, directory: Path, name: str, backend: str) -> None:
        """Give the stored state to load_state_dict."""
        chosen = next((f for f in FORMATS if backend == f.NAME), None)
        if chosen is None:
            raise RunStateError(
                f"{directory}: {name} was saved by backend {backend!r}, but is registered with register();"
                " register it the way it was saved, or start a new run"
            )
        path = directory / f"{name}{chosen.SUFFIX}"
        try:
            self._source.load_state_dict(chosen.read(path))
        except (OSError, MemoryError) as error:
            raise CheckpointError(f"{path}: {error}; try again, the checkpoint is untouched") from error
        except RunStateError:
            raise
        except Exception as error:
            raise RunStateError(
                f"{path} does not fit what is registered as {name!r}: {type(error).__name__}: {error};"
                " restore the code that saved it, or start a new run"
            ) from error

    def _choose(self, name: str) -> tuple[Any, object]:
        state = self._source.state_dict()
        reasons = []
        for candidate in FORMATS:
            if not candidate.available():
                continue
            try:
                return candidate, candidate.prepare(state)
            except UnfitError as error:
                reasons.append(f"{candidate.NAME}: {error}")
        raise UsageError(
            f"register({name}=...): its state cannot be saved without pickle ({'; '.join(reasons)});"
            " turn that value into plain Python (a list, a number), or use register_io(save=..., load=...)"
        )
