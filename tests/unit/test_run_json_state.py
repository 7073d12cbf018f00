"""Plain Python through JSON and back: equal, of the same types, in the same order, or refused with the place."""

from __future__ import annotations

import math
import random
import struct
from collections import Counter, OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_resume.checkpoints.json_state import decode, prepare
from hpc_resume.checkpoints.unfit import UnfitError

text = st.text(st.characters(codec=None), max_size=8)  # lone surrogates too
keys = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text | st.binary(max_size=8)
hashable = st.recursive(keys, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=4)
leaves = keys | st.floats() | st.complex_numbers(allow_nan=False) | st.binary(max_size=8).map(bytearray)
states = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(text, inner, max_size=4)
        | st.dictionaries(hashable, inner, max_size=4)
        | st.dictionaries(text, inner, max_size=3).map(OrderedDict)
        | st.sets(hashable, max_size=4)
    ),
    max_leaves=12,
)


def exact(value):
    """A form in which 1, 1.0 and True differ, -0.0 and 0.0 do, and nan equals itself."""
    kind = type(value)
    if kind is float:
        return kind, struct.pack(">d", value)
    if kind in (list, tuple):
        return kind, [exact(item) for item in value]
    if kind in (set, frozenset):
        return kind, sorted(repr(exact(item)) for item in value)
    if kind in (dict, OrderedDict, Counter):
        return kind, [(exact(key), exact(item)) for key, item in value.items()]
    return kind, hex(value) if kind is int else repr(value)


@settings(max_examples=300, deadline=None)
@given(states)
def test_any_plain_state_comes_back_as_it_was(state):
    assert exact(decode(prepare(state))) == exact(state)


@pytest.mark.parametrize(
    "state",
    [
        {"$tuple": [1]},
        {"$dict": 1, "a": 2},
        {"a": {"$int": "0x1"}},
        [10**10_000],
        -(2**300),
        [math.nan, math.inf, -math.inf, -0.0, 5e-324, 0.1 + 0.2],
        Counter({"a": 2, 3: -1}),
        {1: "a", "1": "b", None: "c", (1, 2): "d"},
        "\ud83d\ude00",
        "😀",
        {"é": 1},
        b"\x00\xff",
        (),
        {},
    ],
)
def test_the_forms_that_usual_json_loses(state):
    assert exact(decode(prepare(state))) == exact(state)


def test_the_random_numbers_go_on():
    generator = random.Random(3)
    generator.gauss(0, 1)
    other = random.Random()
    other.setstate(decode(prepare(generator.getstate())))
    assert [other.gauss(0, 1) for _ in range(9)] == [generator.gauss(0, 1) for _ in range(9)]


class Number(float):
    pass


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"a": [1, Number(2)]}, r"state\['a'\]\[1\] is a .*Number"),
        ({(1, Number(2)): 1}, r"state key \(1, 2.0\)\[1\] is a"),
        (object(), "state is a builtins.object"),
        ([{1: {2: range(3)}}], r"state\[0\]\[1\]\[2\] is a builtins.range"),
        ({frozenset([print])}, "builtin_function_or_method"),
    ],
)
def test_what_would_come_back_as_something_else_is_refused_with_its_place(state, words):
    with pytest.raises(UnfitError, match=words):
        prepare(state)


def test_a_state_that_holds_itself_is_refused():
    state: dict = {}
    state["me"] = [state]
    with pytest.raises(UnfitError, match="holds itself"):
        prepare(state)
