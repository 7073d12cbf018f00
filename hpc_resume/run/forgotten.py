"""What looks forgotten among the registered components: named once, before the first step, and never an error.

A resume without it works, and ends somewhere else: nobody notices. Only what can be seen is named; a training that
keeps its own random state says so in the component's name ("rng", "random").
"""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PARTS: Final = ("sampler", "batch_sampler", "dataset", "generator")  # of a loader: one that is saved is enough
_OPTIMIZER: Final = "torch.optim.optimizer.Optimizer"
_NAMES: Final = (
    ("rng", ("rng", "random", "seed", "generator")),
    ("optimizer", ("optim",)),
    ("scheduler", ("sched",)),
    ("scaler", ("scaler",)),
    ("data", ("batch", "data", "loader", "sampler", "order", "shuffle")),
    ("model", ("model", "net", "weights", "params")),
)

# What a component is, by the classes it comes from: nothing is imported to find out. The first that fits.
_KINDS: Final = (
    ("rng", ("hpc_resume.checkpoints.randomness.Randomness", "hpc_resume.checkpoints.randomness.GeneratorState")),
    ("model", ("torch.nn.modules.module.Module",)),
    ("optimizer", (_OPTIMIZER,)),
    ("scheduler", ("torch.optim.lr_scheduler.LRScheduler", "torch.optim.lr_scheduler.ReduceLROnPlateau")),
    ("scaler", ("torch.amp.grad_scaler.GradScaler",)),
    (
        "data",
        (
            "torchdata.stateful_dataloader.stateful_dataloader.StatefulDataLoader",
            "torch.utils.data.dataloader.DataLoader",
            "torch.utils.data.sampler.Sampler",
            "torch.utils.data.dataset.Dataset",
        ),
    ),
)


def kind_of(name: str, source: Any) -> str:
    """model, optimizer, scheduler, scaler, rng, data or other: by the object's classes, else by its name."""
    lower = name.lower()
    by_name = (kind for kind, words in _NAMES if any(word in lower for word in words))
    return _kind_by_class(source) or next(by_name, "other")


def _kind_by_class(source: Any) -> str | None:
    classes = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(source).__mro__}
    return next((kind for kind, known in _KINDS if not classes.isdisjoint(known)), None)


def forgotten(sources: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(what, in words) for each thing that looks forgotten."""
    kinds = {kind_of(name, source) for name, source in sources.items()}
    if "optimizer" in map(_kind_by_class, sources.values()) and "rng" not in kinds:
        words = (
            "an optimizer is registered and no random numbers: dropout and shuffling will go on differently after an"
            " interruption; run.register(rng=hpc_resume.rng())"
        )
        yield "rng", words
    for loader in _unsaved_loaders(sources.values()):
        if _is_random(loader):
            does, begins = "shuffles", "a new epoch"
        elif _is_stream(loader) and "data" not in kinds:  # with data registered, it may be a validation's
            does, begins = "streams", "its stream anew"
        else:
            continue
        words = (
            f"a DataLoader that {does} ({_described(loader)}) is not registered: after an interruption it begins"
            f" {begins}; use torchdata's StatefulDataLoader and register it"
        )
        yield "data", words
        return


def _unsaved_loaders(registered: Any) -> Iterator[Any]:
    """Living DataLoaders whose position nobody saves.

    Asked of the garbage collector, once: 40 to 90 ms with torch loaded. Rejected: replacing DataLoader.__init__.
    """
    data = sys.modules.get("torch.utils.data")
    loader_class = getattr(data, "DataLoader", None)
    if loader_class is None:
        return
    saved = {id(source) for source in registered}
    classes = _with_subclasses(loader_class)
    for loader in [found for found in gc.get_objects() if type(found) in classes]:
        parts = [loader, *(getattr(loader, name, None) for name in _PARTS)]
        if saved.isdisjoint(map(id, parts)):
            yield loader


def _with_subclasses(kind: type) -> set[type]:
    """By hand: isinstance() on a quarter of a million objects took 1.8 s."""
    return {kind}.union(*map(_with_subclasses, kind.__subclasses__()))


def _is_random(loader: Any) -> bool:
    sampler = getattr(loader, "sampler", None)
    kinds = {kind.__name__ for kind in type(sampler).__mro__}
    if "DistributedSampler" in kinds:
        return bool(getattr(sampler, "shuffle", True))
    return not kinds.isdisjoint({"RandomSampler", "WeightedRandomSampler", "SubsetRandomSampler"})


def _is_stream(loader: Any) -> bool:
    return any(kind.__name__ == "IterableDataset" for kind in type(getattr(loader, "dataset", None)).__mro__)


def _described(loader: Any) -> str:
    sampler = "" if _is_stream(loader) else f", {type(loader.sampler).__name__}"  # a stream has one that says nothing
    return f"{type(loader.dataset).__name__}, batches of {loader.batch_size}{sampler}"
