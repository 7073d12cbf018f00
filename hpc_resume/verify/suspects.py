"""From where two runs part to what was not saved: the rules of a person who has seen it before. Pure.

What the first step after a resume tells: other batches, so the position in the data is lost. The same batch, another
loss: the forward pass draws other random numbers. The same loss, and the next one differs: the update was another, so
the optimizer began anew.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from hpc_resume.verify.compare import Parting, StateDifference


@dataclass(frozen=True, slots=True)
class Suspicion:
    """`suspect` is data, rng, optimizer, scheduler, model or unknown; `words` says why, and what to do."""

    suspect: str
    words: str


def suspect(
    partings: Sequence[Parting],
    states: Sequence[StateDifference],
    stops: Collection[int],
    kinds: Mapping[str, str],
    first_batch: object,
) -> Suspicion:
    """What was most probably not saved. `first_batch` is the reference's at step 0, None when not recorded."""
    batch = next((parting for parting in partings if parting.name == "batch"), None)
    metric = min((p for p in partings if p.name != "batch"), key=lambda parting: parting.step, default=None)
    there = set(kinds.values())
    if batch is not None and (metric is None or batch.step <= metric.step):
        return _data(batch, _resume_before(batch.step, stops), there, first_batch)
    if metric is None:
        names = ", ".join(dict.fromkeys(state.component for state in states)) or "the last step"
        return Suspicion("unknown", f"only the final state differs ({names}): no metric shows where it began")
    resume = _resume_before(metric.step, stops)
    if resume is None:
        return Suspicion(
            "unknown",
            f"{metric.name} differs at step {metric.step}, before any interruption: this training does not repeat"
            " itself at all; seed it, and see torch.use_deterministic_algorithms",
        )
    if metric.step == resume:
        return _forward(metric, there, batches_known=first_batch is not None)
    return _update(metric, resume, there, partings)


def _resume_before(step: int, stops: Collection[int]) -> int | None:
    return max((stop for stop in stops if stop <= step), default=None)


def _data(batch: Parting, resume: int | None, there: set[str], first_batch: object) -> Suspicion:
    if resume is None:
        return Suspicion(
            "unknown", f"the batches differ at step {batch.step}, before any interruption: seed the shuffle"
        )
    if batch.step > resume and "rng" not in there:
        return Suspicion(
            "rng",
            f"the batches are the same up to step {batch.step} and differ from there on, which is where a new shuffle"
            " was drawn: the random numbers are not saved; run.register(rng=hpc_resume.rng())",
        )
    anew = "the data began anew" if batch.found == first_batch else "another batch was seen"
    remedy = (
        "nothing that is registered knows the position in the data: register the data loader (torchdata's"
        " StatefulDataLoader), or the object that draws the batches"
        if "data" not in there
        else "the registered data loader did not come back to its position: see its load_state_dict"
    )
    return Suspicion("data", f"after the resume at step {resume}, {anew} at step {batch.step}; {remedy}")


def _forward(metric: Parting, there: set[str], *, batches_known: bool) -> Suspicion:
    seen = f"{metric.name} differs at step {metric.step}, the first after a resume"
    if not batches_known and "data" not in there:
        also = " or the random numbers" if "rng" not in there else ""
        return Suspicion(
            "data",
            f"{seen}: the position in the data{also} is not saved; run.log(..., batch=ids) would tell which",
        )
    if "rng" not in there:
        return Suspicion(
            "rng",
            f"{seen}, on the same batch: the random numbers of the forward pass (dropout, augmentation) are not saved;"
            " run.register(rng=hpc_resume.rng())",
        )
    if "model" not in there:
        return Suspicion("model", f"{seen}, on the same batch: the model's weights are not saved; register the model")
    return Suspicion(
        "unknown",
        f"{seen}, on the same batch: the forward pass depends on something that no registered component restores"
        " (a generator of one's own: hpc_resume.rng(generator); or non-deterministic kernels)",
    )


def _update(metric: Parting, resume: int, there: set[str], partings: Sequence[Parting]) -> Suspicion:
    seen = f"after the resume at step {resume} {metric.name} is the same until step {metric.step - 1} and then differs"
    rate = next((parting for parting in partings if "lr" in parting.name.lower()), None)
    if "optimizer" not in there:
        return Suspicion("optimizer", f"{seen}: the update was another; the optimizer is not saved, register it")
    if "scheduler" not in there and (rate is not None or "scaler" in there):
        return Suspicion("scheduler", f"{seen}: the learning rate was another; register the learning-rate scheduler")
    return Suspicion(
        "optimizer",
        f"{seen}: the update was another, though an optimizer is registered: is it the one that the training uses, and"
        " was it made before run.register()? A scheduler or GradScaler that is not registered looks the same",
    )
