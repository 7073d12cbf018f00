"""Where two traces part, and how two states differ: bit for bit, or within a tolerance. Pure."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hpc_resume.errors import CommandLineError
from hpc_resume.verify.arrays import array_difference
from hpc_resume.verify.trace import Trace

_CLOCKS: Final = ("time", "sec", "speed", "throughput", "per_s", "/s", "eta", "mem", "date", "duration", "elapsed")
_BATCH: Final = "batch"


@dataclass(frozen=True, slots=True)
class Parting:
    """The first step at which `name` is not the same; `difference` is 0 where it is no number."""

    name: str
    step: int
    expected: object
    found: object
    difference: float
    steps: int  # how many steps differ


@dataclass(frozen=True, slots=True)
class StateDifference:
    """One value of one component that is not the same: `place` is its path inside the state."""

    component: str
    place: str
    words: str
    difference: float  # the largest, absolute; 0 where there is none to tell


def metrics_to_compare(traces: Sequence[Trace], asked: Sequence[str]) -> tuple[str, ...]:
    """The metrics that must agree: those asked for; else every loss; else everything that is not about time.

    Raises CommandLineError for one that neither run has logged: nothing would be compared, and pass for equal.
    """
    known = {name for trace in traces for values in trace.metrics.values() for name in values}
    if unknown := [name for name in asked if name not in known]:
        there = ", ".join(sorted(known)) or "none: run.log({...}) records them"
        raise CommandLineError(f"--metric {unknown[0]}: the training has logged no such metric; there are {there}")
    if asked:
        return tuple(asked)
    losses = {name for name in known if "loss" in name.lower()}
    return tuple(sorted(losses or {name for name in known if not any(word in name.lower() for word in _CLOCKS)}))


def partings(reference: Trace, resumed: Trace, names: Sequence[str], tolerance: float) -> Iterator[Parting]:
    """For each of `names`, and for the batches, where the two runs part, if they do."""
    steps = sorted({*reference.metrics, *resumed.metrics})
    for name in names:
        pairs = [(s, reference.metrics.get(s, {}).get(name), resumed.metrics.get(s, {}).get(name)) for s in steps]
        yield from _parting(name, pairs, tolerance)
    seen = sorted({*reference.batches, *resumed.batches})
    yield from _parting(_BATCH, [(s, reference.batches.get(s), resumed.batches.get(s)) for s in seen], 0.0)


def _parting(name: str, pairs: Sequence[tuple[int, object, object]], tolerance: float) -> Iterator[Parting]:
    differing = [(step, left, right) for step, left, right in pairs if not same(left, right, tolerance)]
    if differing:
        step, left, right = differing[0]
        largest = max(distance(a, b) for _, a, b in differing)
        yield Parting(name, step, left, right, largest, len(differing))


def same(left: object, right: object, tolerance: float) -> bool:
    """Equal in every bit; or, for numbers, within `tolerance` of each other, relative to the larger where above 1."""
    if isinstance(left, float) and isinstance(right, float):
        if struct.pack("d", left) == struct.pack("d", right):
            return True
        near = abs(left - right) <= tolerance * max(1.0, abs(left), abs(right))
        return tolerance > 0 and near and math.isfinite(left - right)
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)) and type(left) is type(right):
        return len(left) == len(right) and all(same(a, b, tolerance) for a, b in zip(left, right, strict=True))
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same(left[key], right[key], tolerance) for key in left)
    return type(left) is type(right) and left == right


def distance(left: object, right: object) -> float:
    """The absolute difference of two numbers; 0.0 where there is none."""
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return abs(left - right)
    return 0.0


def state_differences(component: str, expected: Any, found: Any, tolerance: float) -> Iterator[StateDifference]:
    """Every value inside two states that differs, named by its place."""
    left, right = dict(_leaves(expected, "")), dict(_leaves(found, ""))
    for place in [*left, *(place for place in right if place not in left)]:
        if place not in right or place not in left:
            missing = "the interrupted run" if place not in right else "the uninterrupted run"
            yield StateDifference(component, place, f"not in {missing}", 0.0)
        elif difference := _leaf_difference(component, place, left[place], right[place], tolerance):
            yield difference


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{place}.{key}" if place else str(key))
    elif isinstance(value, (list, tuple)) and any(not isinstance(item, (int, float, str)) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{place}[{index}]")
    else:
        yield place, value


def _leaf_difference(component: str, place: str, left: Any, right: Any, tolerance: float) -> StateDifference | None:
    if hasattr(left, "dtype") and hasattr(right, "dtype"):
        return _array_difference(component, place, left, right, tolerance)
    if same(left, right, tolerance):
        return None
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)) and len(left) == len(right):
        differing = [i for i, (a, b) in enumerate(zip(left, right, strict=True)) if not same(a, b, tolerance)]
        largest = max(distance(left[i], right[i]) for i in differing)
        return StateDifference(component, place, f"{len(differing)} of {len(left)} values differ", largest)
    return StateDifference(component, place, f"{_short(left)} and {_short(right)}", distance(left, right))


def _array_difference(component: str, place: str, left: Any, right: Any, tolerance: float) -> StateDifference | None:
    if left.dtype != right.dtype or tuple(left.shape) != tuple(right.shape):
        kinds = f"{left.dtype} {tuple(left.shape)} and {right.dtype} {tuple(right.shape)}"
        return StateDifference(component, place, kinds, 0.0)
    count, of, largest = array_difference(left, right, tolerance)
    return StateDifference(component, place, f"{count} of {of} values differ", largest) if count else None


def _short(value: object, limit: int = 40) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def finite(value: float) -> float | None:
    """For JSON, which has no NaN."""
    return value if math.isfinite(value) else None
