"""A state in two parts: arrays or tensors by name, and the plain rest with their names in their places. Pure.

So a format that holds nothing but tensors can hold any state: it keeps the leaves, JSON keeps the rest. The name of a
leaf is its path ("0.weight", "state.3.exp_avg"), so that other tools find what they look for.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True)
class Leaf:
    """In the place of the value that is kept elsewhere under `name`; `kind` is the format's own mark."""

    name: str
    kind: str


def split(
    state: Any, kind_of: Callable[[Any, str], str | None], *, numbered: bool = False
) -> tuple[object, dict[str, Any]]:
    """The rest, and the leaves by name, or by number.

    `kind_of(value, place)` is None for what is no leaf, and may raise UnfitError. Looked into: dict, OrderedDict, list
    and tuple, by exact type, as the formats give back nothing else.
    """
    leaves: dict[str, Any] = {}

    def rest_of(value: Any, path: tuple[str, ...], place: str) -> object:
        kind = type(value)
        if kind is dict or kind is OrderedDict:
            return kind((key, rest_of(item, (*path, str(key)), f"{place}[{key!r}]")) for key, item in value.items())
        if kind is list or kind is tuple:
            return kind(rest_of(item, (*path, str(i)), f"{place}[{i}]") for i, item in enumerate(value))
        mark = kind_of(value, place)
        if mark is None:
            return value
        name = str(len(leaves)) if numbered else _unused(".".join(path) or "value", leaves)
        leaves[name] = value
        return Leaf(name, mark)

    return rest_of(state, (), ""), leaves


def join(rest: Any, leaf: Callable[[Leaf], Any]) -> object:
    """The inverse of `split`, with `leaf` to give back each leaf."""
    kind = type(rest)
    if kind is dict or kind is OrderedDict:
        return kind((key, join(item, leaf)) for key, item in rest.items())
    if kind is list or kind is tuple:
        return kind(join(item, leaf) for item in rest)
    return leaf(rest) if kind is Leaf else rest


def _unused(name: str, taken: Mapping[str, object]) -> str:
    """{"a": {"b": x}, "a.b": y} has two of one name."""
    number, candidate = 2, name
    while candidate in taken:
        candidate, number = f"{name}#{number}", number + 1
    return candidate
