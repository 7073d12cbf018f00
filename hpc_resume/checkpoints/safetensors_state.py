"""State dictionaries as safetensors, which other tools read: the tensors there, the plain rest as typed JSON.

`<name>.safetensors` and `<name>.json`. Tensors come back on the CPU. Not kept: that two entries shared their memory.
Refused, with its place: what is neither a dense tensor nor plain Python.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from hpc_resume.checkpoints import json_state
from hpc_resume.checkpoints.split import Leaf, join, split
from hpc_resume.checkpoints.unfit import UnfitError
from hpc_resume.durable import write_new

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

NAME: Final = "safetensors"
SUFFIX: Final = ".safetensors"

_PARAMETER: Final = "parameter"
_OS_ERROR: Final = re.compile(r"\(os error (\d+)\)")  # how the library's Rust half reports what the disk said


def available() -> bool:
    """Only when it is asked for: it needs a package of its own, and splits what torch keeps together."""
    return False


def prepare(state: object) -> object:
    """The JSON of the rest, and the tensors, dense and each with memory of its own. Raises UnfitError."""
    import safetensors.torch  # noqa: F401, PLC0415 - asked for by name: its absence is said before the first step
    import torch  # noqa: PLC0415 - as above

    def kind_of(value: Any, place: str) -> str | None:
        if not isinstance(value, torch.Tensor):
            return None
        if type(value) not in (torch.Tensor, torch.nn.Parameter) or value.layout is not torch.strided:
            raise UnfitError(place, f"is a {type(value).__qualname__} of {value.layout}; the backend dcp may hold it")
        return _PARAMETER if type(value) is torch.nn.Parameter else "tensor"

    rest, tensors = split(state, kind_of)
    return json_state.prepare(rest), _on_their_own(tensors)


def write(path: Path, prepared: Any) -> None:
    """Create both files. Raises OSError."""
    import safetensors.torch  # noqa: PLC0415 - as above

    rest, tensors = prepared
    write_new(path.with_suffix(".json"), rest)
    try:
        safetensors.torch.save_file(tensors, path)
    except safetensors.SafetensorError as error:
        if number := _OS_ERROR.search(str(error)):
            raise OSError(int(number[1]), str(error).partition(" (os error")[0].rpartition(": ")[2]) from error
        raise


def read(path: Path, present: Callable[[], object]) -> object:  # noqa: ARG001 - the protocol's
    """The state that was saved."""
    import safetensors.torch  # noqa: PLC0415 - needed for its checkpoint
    import torch  # noqa: PLC0415 - as above

    tensors: dict[str, Any] = safetensors.torch.load_file(path)

    def tensor_of(leaf: Leaf) -> Any:
        tensor = tensors[leaf.name]
        return torch.nn.Parameter(tensor) if leaf.kind == _PARAMETER else tensor

    return join(json_state.decode(path.with_suffix(".json").read_bytes()), tensor_of)


def _on_their_own(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Tied weights share memory, which the library refuses to write; views may hold far more than they show."""
    seen: set[int] = set()
    alone = {}
    for name, tensor in tensors.items():
        dense = tensor.detach().contiguous()
        storage = dense.untyped_storage()
        shared = storage.data_ptr() in seen or storage.nbytes() != dense.numel() * dense.element_size()
        alone[name] = dense.clone() if shared else dense
        seen.add(storage.data_ptr())
    return alone
