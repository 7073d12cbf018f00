"""NumPy's values inside a state of another kind: a learning rate that np.cos gave, a permutation beside tensors.

Text for JSON (scalars), bytes as tensors of uint8 for torch (arrays too): both give back the same type, no pickle.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_MARK: Final = "hpc_resume.numpy"
_STATE: Final = "state"


def scalar_text(value: object) -> list[object] | None:
    """The type and the bytes of a NumPy scalar, as JSON; None for anything else."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.generic) or not _has_a_name(value.dtype) or value.dtype.names:
        return None
    return [value.dtype.str, value.tobytes().hex()]


def scalar_of(text: Any) -> object:
    """The inverse of `scalar_text`."""
    import numpy as np  # noqa: PLC0415 - the training that saved has used it

    kind, data = text
    return np.frombuffer(bytes.fromhex(data), np.dtype(kind))[0]


def take_out(state: object) -> tuple[object, Mapping[tuple[object, ...], Any]]:
    """`state` with None in the place of each array and scalar, and those by their place."""
    found: dict[tuple[object, ...], Any] = {}
    rest = _taken_out(state, (), found)
    return (rest, found) if found else (state, found)


def with_tensors(rest: object, found: Mapping[tuple[object, ...], Any]) -> object:
    """One state of what `take_out` gave: the bytes of NumPy's values are tensors beside the rest."""
    return {_STATE: rest, _MARK: [(path, *_as_tensor(value)) for path, value in found.items()]} if found else rest


def put_back(state: object) -> object:
    """The inverse of `take_out` and `with_tensors`."""
    if type(state) is not dict or state.keys() != {_MARK, _STATE}:
        return state
    return _put_back(state[_STATE], (), {path: _of_tensor(*rest) for path, *rest in state[_MARK]})


def _taken_out(value: Any, path: tuple[object, ...], found: dict[tuple[object, ...], Any]) -> Any:
    kind = type(value)
    if kind is dict or kind is OrderedDict:
        made = kind((key, _taken_out(item, (*path, key), found)) for key, item in value.items())
        if kind is OrderedDict:
            vars(made).update(vars(value))  # a module's state has its versions there
        return made
    if kind is list or kind is tuple:
        return kind(_taken_out(item, (*path, index), found) for index, item in enumerate(value))
    numpy = sys.modules.get("numpy")
    if numpy is not None and (kind is numpy.ndarray or isinstance(value, numpy.generic)) and _has_a_name(value.dtype):
        found[path] = value
        return None
    return value


def _put_back(value: Any, path: tuple[object, ...], found: Mapping[tuple[object, ...], Any]) -> Any:
    if path in found:
        return found[path]
    kind = type(value)
    if kind is dict or kind is OrderedDict:
        for key, item in value.items():
            value[key] = _put_back(item, (*path, key), found)
        return value
    if kind is list or kind is tuple:
        return kind(_put_back(item, (*path, index), found) for index, item in enumerate(value))
    return value


def _as_tensor(value: Any) -> tuple[object, ...]:
    import numpy as np  # noqa: PLC0415 - the training has imported both
    import torch  # noqa: PLC0415 - as above

    array = np.asanyarray(value)
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    flat = np.ascontiguousarray(array.ravel(order)).view(np.uint8)
    # What cannot be written to is no memory for a tensor.
    data = torch.from_numpy(flat if flat.flags.writeable else flat.copy())
    descr = np.lib.format.dtype_to_descr(array.dtype)
    return isinstance(value, np.generic), descr, tuple(array.shape), order, data


def _of_tensor(is_scalar: Any, descr: Any, shape: Any, order: Any, data: Any) -> Any:
    import numpy as np  # noqa: PLC0415 - the training that saved has used it

    array = data.numpy().view(np.lib.format.descr_to_dtype(descr)).reshape(shape, order=order)
    return array[()] if is_scalar else array


def _has_a_name(dtype: Any) -> bool:
    """Whether NumPy finds the type again by its description: not Python's objects, nor other libraries' own types."""
    return bool(dtype.itemsize) and not dtype.hasobject and dtype.isbuiltin != 2 and (dtype.kind != "V" or dtype.names)
