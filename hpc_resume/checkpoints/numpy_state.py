"""State dictionaries with NumPy arrays: each array a .npy file, the plain rest as typed JSON beside them. No pickle.

`<name>.numpy/state.json`, `<name>.numpy/<n>.npy`. NumPy's scalars keep their type too. Refused, with its place: arrays
of Python objects, which only pickle can hold, and subclasses of ndarray, which would come back as their base.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from hpc_resume.checkpoints import json_state
from hpc_resume.checkpoints.sink import Sink
from hpc_resume.checkpoints.split import Leaf, join, split
from hpc_resume.checkpoints.unfit import UnfitError
from hpc_resume.durable import DIR_MODE, write_new

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME: Final = "numpy"
SUFFIX: Final = ".numpy"

_REST: Final = "state.json"
_SCALAR: Final = "scalar"


def available() -> bool:
    """Whether the training has imported NumPy; we never do so on our own before there is something to load."""
    return "numpy" in sys.modules


def prepare(state: object) -> object:
    """The JSON of the rest, and the arrays. Raises UnfitError for what neither can give back."""
    import numpy as np  # noqa: PLC0415 - the training has imported it, or asked for this format

    def kind_of(value: Any, place: str) -> str | None:
        if not isinstance(value, (np.ndarray, np.generic)):
            return None
        if value.dtype.hasobject or (isinstance(value, np.ndarray) and type(value) is not np.ndarray):
            raise UnfitError(place, f"is a {type(value).__module__}.{type(value).__qualname__} of {value.dtype}")
        return _SCALAR if isinstance(value, np.generic) else "array"

    rest, arrays = split(state, kind_of, numbered=True)
    return json_state.prepare(rest), arrays


def write(path: Path, prepared: Any) -> None:
    """Make the directory `path`. Raises OSError."""
    import numpy as np  # noqa: PLC0415 - as above

    rest, arrays = prepared
    path.mkdir(DIR_MODE)
    write_new(path / _REST, rest)
    for name, array in arrays.items():
        with Sink(path / f"{name}.npy") as sink:  # not a real file: NumPy's way with those loses the error number
            np.lib.format.write_array(sink, np.asanyarray(array), allow_pickle=False)


def read(path: Path, present: Callable[[], object]) -> object:  # noqa: ARG001 - the protocol's
    """The state that was saved."""
    import numpy as np  # noqa: PLC0415 - needed for its checkpoint

    def array_of(leaf: Leaf) -> Any:
        array = np.load(path / f"{int(leaf.name)}.npy", allow_pickle=False)
        return array[()] if leaf.kind == _SCALAR else array

    return join(json_state.decode((path / _REST).read_bytes()), array_of)
