"""How two tensors or arrays of one shape and type differ: bits first, then the numbers. Pure.

By the library that they come from, so that a state of many GiB is compared in place and not as Python numbers.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any


def array_difference(left: Any, right: Any, tolerance: float) -> tuple[int, int, float]:
    """(how many values differ, of how many, the largest difference); the last is 0.0 where they are no numbers."""
    torch_like = hasattr(left, "untyped_storage")
    xp = _library(torch_like)
    one, two = _flat(left, torch_like), _flat(right, torch_like)
    size = len(one)
    if _same_bits(xp, one, two):
        return 0, size, 0.0
    numbers = _numbers(xp, one, torch_like), _numbers(xp, two, torch_like)
    if numbers[0] is None:  # text, dates, records
        return max(1, int((one != two).sum())), size, 0.0
    a, b = numbers
    with nullcontext() if torch_like else xp.errstate(invalid="ignore"):  # the difference of two infinities
        distance = xp.abs(a - b)
    scale = xp.maximum(xp.maximum(xp.abs(a), xp.abs(b)), xp.ones_like(a))
    nans = xp.isnan(a) != xp.isnan(b)
    near = (distance <= tolerance * scale) & xp.isfinite(distance)  # an infinity is near to nothing but itself
    differs = nans | ~(near | (a == b))
    differs = differs & ~(xp.isnan(a) & xp.isnan(b))
    known = distance[~xp.isnan(distance)]
    count = int(differs.sum())
    if not tolerance:
        count = max(1, count)  # -0.0 and 0.0, or two kinds of nan
    return count, size, float(known.max()) if len(known) else 0.0


def _library(torch_like: bool) -> Any:
    """The one they come from: it is here, somebody made these with it."""
    if torch_like:
        import torch  # noqa: PLC0415

        return torch
    import numpy as np  # noqa: PLC0415

    return np


def _flat(array: Any, torch_like: bool) -> Any:
    return array.detach().cpu().contiguous().reshape(-1) if torch_like else _library(torch_like=False).ravel(array)


def _same_bits(xp: Any, one: Any, two: Any) -> bool:
    if hasattr(xp, "equal") and hasattr(one, "untyped_storage"):
        return bool(xp.equal(one.view(xp.uint8), two.view(xp.uint8)))
    return bool(one.tobytes() == two.tobytes())


def _numbers(xp: Any, flat: Any, torch_like: bool) -> Any:
    """In double precision, complex numbers as pairs; None for what is no number."""
    if torch_like:
        real = xp.view_as_real(flat).reshape(-1) if flat.is_complex() else flat
        return real.to(xp.float64)
    if flat.dtype.kind == "c":
        return flat.view(flat.real.dtype).astype(xp.float64)
    return flat.astype(xp.float64) if flat.dtype.kind in "biuf" else None
