"""State dictionaries through torch.distributed.checkpoint (DCP): sharded tensors, each rank its own part.

`<name>.dcp/`, and in it `state.json` for the plain rest. In one process, or collectively: then every rank calls save
and load with the same directory. What was saved by n ranks is loaded by m. DCP's index is a pickle: it is read with a
list of the classes that may be in it, and everything that would be unpickled beyond that is refused.
"""

from __future__ import annotations

import pickle
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from hpc_resume.checkpoints import json_state
from hpc_resume.checkpoints.split import join, split
from hpc_resume.durable import DIR_MODE, write_new

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

NAME: Final = "dcp"
SUFFIX: Final = ".dcp"
COLLECTIVE: Final = True

_REST: Final = "state.json"
_INDEX: Final = ".metadata"
_CLASSES: Final = frozenset(
    {
        ("torch.distributed.checkpoint.metadata", "Metadata"),
        ("torch.distributed.checkpoint.metadata", "MetadataIndex"),
        ("torch.distributed.checkpoint.metadata", "TensorStorageMetadata"),
        ("torch.distributed.checkpoint.metadata", "TensorProperties"),
        ("torch.distributed.checkpoint.metadata", "ChunkStorageMetadata"),
        ("torch.distributed.checkpoint.metadata", "StorageMeta"),
        ("torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING"),
        ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
        ("torch.serialization", "_get_layout"),
        ("torch", "Size"),
        ("pathlib", "PosixPath"),
        ("collections", "OrderedDict"),
    }
)


def available() -> bool:
    """Where ranks work together; asked after torch.save, so only for what that cannot hold (DTensor)."""
    import sys  # noqa: PLC0415 - one look

    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and distributed.is_initialized()


def prepare(state: object) -> object:
    """The JSON of the rest, and the tensors. Raises UnfitError."""
    import torch  # noqa: PLC0415 - the training has imported it, or asked for this format

    rest, tensors = split(state, lambda value, _place: "tensor" if isinstance(value, torch.Tensor) else None)
    return json_state.prepare(rest), {name: tensor.detach() for name, tensor in tensors.items()}


def write(path: Path, prepared: Any) -> None:
    """Make the directory `path`. Raises OSError."""
    from torch.distributed import checkpoint as dcp  # noqa: PLC0415 - 0.5 s that only its users pay

    rest, tensors = prepared
    path.mkdir(DIR_MODE, exist_ok=True)  # another rank may have
    if _rank() == 0:
        write_new(path / _REST, rest)
    # Not synced here: the store syncs every file once, when all are written.
    writer = dcp.FileSystemWriter(path, sync_files=False)
    with _errors_of_the_disk():
        dcp.save(tensors, storage_writer=writer, no_dist=not available())


def read(path: Path, present: Callable[[], object]) -> object:
    """The state that was saved: sharded where `present` is, else whole and on the CPU."""
    import torch  # noqa: PLC0415 - needed for its checkpoint
    from torch.distributed import checkpoint as dcp  # noqa: PLC0415 - as above

    reader = _reader(path)
    saved = reader.read_metadata().state_dict_metadata
    _, like = split(present(), lambda value, _place: "tensor" if isinstance(value, torch.Tensor) else None)
    target = {name: _room(entry, like.get(name)) for name, entry in saved.items()}
    with _errors_of_the_disk():
        dcp.load(target, storage_reader=reader, no_dist=not available())
    return join(json_state.decode((path / _REST).read_bytes()), lambda leaf: target[leaf.name])


def present(source: Any) -> object:
    """The state of `source` as a pattern for the load: an optimizer of sharded parameters gets its state first.

    Before its first step it has none, and what was sharded would come back whole. A step of zero gradients with a
    learning rate of zero changes no parameter; what it leaves in the state is overwritten by the load.
    """
    groups = getattr(source, "param_groups", None)
    params = [param for group in groups for param in group["params"]] if isinstance(groups, list) else []
    if any(type(param.data).__name__ == "DTensor" for param in params) and not source.state_dict()["state"]:
        import torch  # noqa: PLC0415 - as above

        rates = [group["lr"] for group in groups or ()]
        for param in params:
            param.grad = torch.zeros_like(param) if param.requires_grad else None
        for group in groups or ():
            group["lr"] = torch.zeros_like(group["lr"]) if isinstance(group["lr"], torch.Tensor) else 0.0
        source.step()
        for group, rate in zip(groups or (), rates, strict=True):
            group["lr"] = rate
        source.zero_grad(set_to_none=True)
    return source.state_dict()


def _room(entry: Any, present: Any) -> Any:
    """An empty tensor for what is stored, laid out over the ranks as `present` is."""
    import torch  # noqa: PLC0415 - as above

    if present is not None and type(present).__name__ == "DTensor" and present.size() == entry.size:
        return torch.empty_like(present.detach())
    return torch.empty(entry.size, dtype=entry.properties.dtype)


def _rank() -> int:
    from torch import distributed  # noqa: PLC0415 - as above

    return int(distributed.get_rank()) if available() else 0


def _reader(path: Path) -> Any:
    from torch.distributed import checkpoint as dcp  # noqa: PLC0415 - as above
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata  # noqa: PLC0415

    class Reader(dcp.FileSystemReader):  # type: ignore[misc]
        """DCP's own, which would run any pickle."""

        def read_metadata(self, *_args: Any, **_kwargs: Any) -> Any:
            with (path / _INDEX).open("rb") as stream:
                index = _Index(stream).load()
            for name, entry in index.state_dict_metadata.items():
                if not isinstance(entry, TensorStorageMetadata):
                    raise pickle.UnpicklingError(f"{name!r} is not a tensor; it would be unpickled")
            _refuse_paths(index.storage_data)
            return index

    return Reader(path)


def _refuse_paths(stored: Mapping[Any, Any]) -> None:
    for info in stored.values():
        if "/" in str(info.relative_path) or str(info.relative_path).startswith(".."):
            raise pickle.UnpicklingError(f"{info.relative_path!r} is outside the checkpoint")


class _Index(pickle.Unpickler):
    """Knows the classes of DCP's index, and nothing that acts."""

    def find_class(self, module: str, name: str) -> Any:
        """The class, if it is one of these."""
        import torch  # noqa: PLC0415 - as above

        if module == "pathlib._local":  # what Python 3.13 calls it, and no other
            module = "pathlib"
        if (module, name) in _CLASSES:
            return super().find_class(module, name)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a checkpoint")


@contextmanager
def _errors_of_the_disk() -> Iterator[None]:
    """DCP gathers the errors of all ranks in one of its own: what the disk said is inside."""
    from torch.distributed.checkpoint.api import CheckpointException  # noqa: PLC0415 - as above

    try:
        yield
    except CheckpointException as error:
        for failure, _ in error.failures.values():
            cause: BaseException | None = failure
            while cause is not None:
                if isinstance(cause, OSError):
                    raise cause from error
                cause = cause.__cause__ or cause.__context__
        rank, (failure, _) = next(iter(error.failures.items()))
        # DCP's own is no Exception: a training's `except Exception`, and ours, would let it pass.
        raise RuntimeError(f"rank {rank}: {type(failure).__name__}: {failure}") from error
