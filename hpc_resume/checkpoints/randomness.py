"""Every random number that is still to come: Python's, NumPy's, torch's on CPU and GPUs, and generators of one's own.

Chosen: plain Python as state, so that it is readable and needs no library to be saved. Rejected: saving a seed; a
seed says where a generator began, not how far it has come. Libraries that the training has not imported are left out.
"""

from __future__ import annotations

import random
import sys
import warnings
from typing import TYPE_CHECKING, Any, Final

from hpc_resume.errors import RunStateError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Randomness:
    """The global generators of all libraries in use, and those that were passed in.

    `restore_last`: what a script draws between the registration and the first step (weights, the first shuffle) must
    not change what comes after, so steps() restores the state once more. A loop of one's own registers it last.
    """

    restore_last: Final = True

    def __init__(self, generators: Mapping[str, Any]) -> None:
        self._generators = {name: as_source(generator) for name, generator in generators.items()}
        for name, source in self._generators.items():
            if source is None:
                kind = type(generators[name])
                raise UsageError(
                    f"rng({name}): {kind.__module__}.{kind.__qualname__} is no generator that is known here; give a"
                    " random.Random, a numpy.random.Generator or RandomState, or a torch.Generator"
                )

    def state_dict(self) -> dict[str, Any]:
        """What each library's generator is at."""
        state: dict[str, Any] = {"python": random.getstate()}
        if (numpy := sys.modules.get("numpy")) is not None:
            state["numpy"] = _plain(numpy.random.get_state(legacy=False))
        if (torch := _torch()) is not None:
            state["torch"] = _bytes(torch.get_rng_state())
            # Not before the training has used a GPU: asking would start CUDA, which costs memory and time.
            if torch.cuda.is_initialized():
                state["cuda"] = [_bytes(one) for one in torch.cuda.get_rng_state_all()]
        if self._generators:
            state["own"] = {name: source.state_dict() for name, source in self._generators.items() if source}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set every generator. Raises RunStateError for one of one's own that is missing on either side."""
        saved = state.get("own", {})
        if set(saved) != set(self._generators):
            raise RunStateError(
                f"rng() was saved with the generators {_listed(saved)} and has {_listed(self._generators)} now;"
                " pass the same ones, or start a new run"
            )
        random.setstate(state["python"])
        if "numpy" in state:
            import numpy as np  # noqa: PLC0415 - it was used by the training that saved

            np.random.set_state(_with_arrays(state["numpy"]))  # noqa: NPY002 - the global one is what is restored
        if "torch" in state:
            import torch  # noqa: PLC0415 - as above

            torch.set_rng_state(_tensor(torch, state["torch"]))
            if "cuda" in state:
                _restore_cuda(torch, state["cuda"])
        for name, source in self._generators.items():
            if source:
                source.load_state_dict(saved[name])


def rng(*generators: Any, **named: Any) -> Randomness:
    """What `run.register(rng=hpc_resume.rng())` saves: the state of every random number generator.

    Args:
        generators: those of one's own besides the global ones: random.Random, numpy.random.Generator or RandomState,
            torch.Generator (also on a GPU). Pass them in the same order each time.
        named: the same, by name.

    Raises UsageError for anything else.
    """
    return Randomness({str(number): generator for number, generator in enumerate(generators)} | named)


def as_source(generator: Any) -> GeneratorState | None:
    """state_dict and load_state_dict for a generator of a known library, None for anything else."""
    if isinstance(generator, random.Random):
        return GeneratorState(generator, "random")
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(generator, (numpy.random.Generator, numpy.random.RandomState)):
        return GeneratorState(generator, "numpy")
    torch = _torch()
    if torch is not None and isinstance(generator, torch.Generator):
        return GeneratorState(generator, "torch")
    return None


class GeneratorState:
    """One generator, as something that can be registered."""

    restore_last: Final = True

    def __init__(self, generator: Any, library: str) -> None:
        self._generator = generator
        self._library = library

    def state_dict(self) -> dict[str, Any]:
        """Where it is, in plain Python."""
        if self._library == "random":
            return {"random": self._generator.getstate()}
        if self._library == "torch":
            return {"torch": _bytes(self._generator.get_state())}
        bits = getattr(self._generator, "bit_generator", None)
        return {"numpy": _plain(bits.state if bits is not None else self._generator.get_state(legacy=False))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set it. Raises RunStateError for the state of another library's generator."""
        if self._library not in state:
            raise RunStateError(f"this generator is {self._library}'s, the saved one {_listed(state)}'s")
        if self._library == "random":
            self._generator.setstate(state["random"])
        elif self._library == "torch":
            self._generator.set_state(_tensor(_torch(), state["torch"]))
        elif (bits := getattr(self._generator, "bit_generator", None)) is not None:
            bits.state = _with_arrays(state["numpy"])
        else:
            self._generator.set_state(_with_arrays(state["numpy"]))


def _restore_cuda(torch: Any, states: list[bytes]) -> None:
    """Device by device; another number of GPUs than before is no reason not to go on, but it is said."""
    devices = torch.cuda.device_count()
    if devices != len(states):
        warnings.warn(
            f"the random state of {len(states)} GPUs was saved and {devices} are here: random numbers on GPUs will"
            " not be those of an uninterrupted run",
            RuntimeWarning,
            stacklevel=2,
        )
    for device, state in zip(range(devices), states, strict=False):
        torch.cuda.set_rng_state(_tensor(torch, state), device)


def _torch() -> Any:
    """torch, when the training has imported it, whole (an import may be under way in another thread)."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and hasattr(torch, "get_rng_state") else None


def _bytes(state: Any) -> bytes:
    return bytes(state.tolist())


def _tensor(torch: Any, state: bytes) -> Any:
    return torch.tensor(list(state), dtype=torch.uint8)


def _plain(state: Any) -> Any:
    """NumPy's state without NumPy's types."""
    if isinstance(state, dict):
        return {key: _plain(value) for key, value in state.items()}
    return {"dtype": str(state.dtype), "values": state.tolist()} if hasattr(state, "tolist") else state


def _with_arrays(state: Any) -> Any:
    import numpy as np  # noqa: PLC0415 - only with a state of its own

    if not isinstance(state, dict):
        return state
    if set(state) == {"dtype", "values"}:
        return np.array(state["values"], dtype=state["dtype"])
    return {key: _with_arrays(value) for key, value in state.items()}


def _listed(names: Any) -> str:
    return ", ".join(sorted(names)) or "none"
