"""State dictionaries with tensors through torch.save, loaded with weights_only=True: nothing in the file is executed.

What weights_only would refuse at load is refused here before it is saved: a checkpoint that cannot be loaded is none.
NumPy's values, which it would refuse, go as tensors (numpy_inside): schedules often make learning rates of them.
Tensors come back on the CPU; load_state_dict copies them to where the module is.
"""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from hpc_resume.checkpoints.numpy_inside import put_back, take_out, with_tensors
from hpc_resume.checkpoints.sink import Sink
from hpc_resume.checkpoints.unfit import UnfitError
from hpc_resume.errors import RunStateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NAME: Final = "torch"
SUFFIX: Final = ".pt"

_PLAIN: Final = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray})
_MAPPINGS: Final = frozenset({dict, OrderedDict, Counter})
_SEQUENCES: Final = frozenset({list, tuple, set})


def available() -> bool:
    """Whether the training has imported torch; we never do so on our own before there is something to load."""
    return "torch" in sys.modules


def prepare(state: object) -> object:
    """The state, NumPy's values as tensors. Raises UnfitError, naming the place, for what weights_only would refuse."""
    import torch  # noqa: PLC0415 - imported by the training, or needed for its checkpoint

    exact = _PLAIN | {torch.Tensor, torch.nn.Parameter, torch.Size, torch.dtype, torch.device}
    try:
        rest, arrays = take_out(state)
        _check(rest, "", exact)
    except RecursionError as error:
        raise UnfitError("", "nested too deeply, or it holds itself") from error
    return with_tensors(rest, arrays)


def write(path: Path, prepared: object) -> None:
    """Write to a new file. Raises OSError for the disk's errors, which torch would report as RuntimeError."""
    import torch  # noqa: PLC0415 - imported by the training, or needed for its checkpoint

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        try:
            with _pinned():
                return _write(torch, path, prepared)
        except RuntimeError:  # no memory can be pinned here, say: a save that is slow is better than none
            path.unlink(missing_ok=True)
    return _write(torch, path, prepared)


def _write(torch: Any, path: Path, prepared: object) -> None:
    with Sink(path) as sink, _unsummed(torch):
        try:
            torch.save(prepared, sink)
        except Exception as error:
            if sink.error is not None:
                raise sink.error from error
            raise


@contextmanager
def _pinned() -> Iterator[None]:
    """What is on a GPU comes through pinned memory, one tensor at a time: tensor.cpu() goes through fresh pages."""
    try:
        from torch.utils.serialization import config  # noqa: PLC0415 - since 2.6

        config.save.use_pinned_memory_for_d2h  # noqa: B018 - since 2.7
    except (ImportError, AttributeError):
        yield
    else:
        with config.patch({"save.use_pinned_memory_for_d2h": True}):
            yield


@contextmanager
def _unsummed(torch: Any) -> Iterator[None]:
    """Without the sums of torch's own that nothing reads: 0.2 s a GiB here. The manifest has the sum of every byte."""
    serialization = torch.serialization
    if not hasattr(serialization, "set_crc32_options"):  # since 2.6
        yield
        return
    before = serialization.get_crc32_options()
    serialization.set_crc32_options(False)
    try:
        yield
    finally:
        serialization.set_crc32_options(before)


def read(path: Path, present: Callable[[], object]) -> object:  # noqa: ARG001 - the protocol's
    """The state that was saved, on the CPU."""
    try:
        import torch  # noqa: PLC0415 - imported by the training, or needed for its checkpoint
    except ImportError as error:
        raise RunStateError(f"{path} was saved by torch, which is not here ({error}); pip install torch") from error
    return put_back(torch.load(path, map_location="cpu", weights_only=True))


def _check(value: Any, place: str, exact: frozenset[type]) -> None:
    kind = type(value)
    if kind in exact:
        return
    if kind in _MAPPINGS:
        for key, item in value.items():
            _check(key, f"{place} key {key!r}", exact)
            _check(item, f"{place}[{key!r}]", exact)
    elif kind in _SEQUENCES:
        for index, item in enumerate(value):
            _check(item, f"{place}[{index}]", exact)
    else:
        raise UnfitError(place, f"is a {kind.__module__}.{kind.__qualname__}")
