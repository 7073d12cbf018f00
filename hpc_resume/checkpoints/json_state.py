"""State dictionaries as typed JSON: what comes back is equal and of the same types, and nothing is executed.

JSON's own forms for what JSON can hold; `{"$tuple": [...]}` and the like for the rest of plain Python. Rejected:
pickle, because a checkpoint on a shared file system would run whatever somebody put there. Exact types only: a
subclass would come back as its base and pass unnoticed. NumPy's scalars, which schedules make learning rates of, are
`{"$numpy": [type, bytes]}`; its arrays have a format of their own. Not kept: that two places held the same list.
"""

from __future__ import annotations

import json
import math
import struct
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Any, Final

from hpc_resume.checkpoints.numpy_inside import scalar_of, scalar_text
from hpc_resume.checkpoints.split import Leaf
from hpc_resume.checkpoints.unfit import UnfitError
from hpc_resume.durable import write_new

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME: Final = "json"
SUFFIX: Final = ".json"

# Python refuses to print integers beyond 4300 digits (CVE-2020-10735); hexadecimal has no limit and is linear.
_PLAIN_INT_BITS: Final = 256


def available() -> bool:
    """Plain Python is always there."""
    return True


def prepare(state: object) -> bytes:
    """The bytes to write. Raises UnfitError, naming the place, for a value that JSON cannot give back."""
    try:
        return json.dumps(_encode(state, ""), allow_nan=False, separators=(",", ":")).encode()
    except RecursionError as error:
        raise UnfitError("", "nested too deeply, or it holds itself") from error


def write(path: Path, prepared: object) -> None:
    """Write what `prepare` gave to a new file."""
    assert isinstance(prepared, bytes)  # noqa: S101 - what `prepare` returned
    write_new(path, prepared)


def read(path: Path, present: Callable[[], object]) -> object:  # noqa: ARG001 - the protocol's
    """The state that was saved."""
    return decode(path.read_bytes())


def decode(data: bytes) -> object:
    """The inverse of `prepare`."""
    return _decode(json.loads(data))


def _encode(value: Any, place: str) -> object:
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is str:
        return _encode_text(value)
    if kind is int:
        return value if value.bit_length() <= _PLAIN_INT_BITS else {"$int": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"$float": struct.pack(">d", value).hex()}
    if kind is list:
        return _encode_items(value, place)
    if kind is dict:
        return _encode_dict(value, place)
    encoder = _ENCODERS.get(kind)
    if encoder is None:
        if (text := scalar_text(value)) is not None:
            return {"$numpy": text}
        raise UnfitError(place, f"is a {kind.__module__}.{kind.__qualname__}")
    tag, encode = encoder
    return {tag: encode(value, place)}


def _encode_items(values: Any, place: str) -> list[object]:
    return [_encode(value, f"{place}[{index}]") for index, value in enumerate(values)]


def _encode_unordered(values: Any, place: str) -> list[object]:
    return [_encode(value, f"{place}{{...}}") for value in values]


def _encode_dict(value: dict[Any, Any], place: str) -> object:
    if all(type(key) is str and not key.startswith("$") and key.isascii() for key in value):
        return {key: _encode(item, f"{place}[{key!r}]") for key, item in value.items()}
    return {"$dict": _encode_pairs(value, place)}


def _encode_pairs(value: dict[Any, Any], place: str) -> list[object]:
    return [[_encode(k, f"{place} key {k!r}"), _encode(v, f"{place}[{k!r}]")] for k, v in value.items()]


def _encode_text(value: str) -> object:
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:  # lone surrogates (undecodable file names): JSON would join two of them into one
        return {"$text": value.encode("utf-8", "surrogatepass").hex()}
    return value


def _encode_complex(value: complex, _place: str) -> str:
    return struct.pack(">dd", value.real, value.imag).hex()


def _encode_leaf(value: Leaf, _place: str) -> list[object]:
    return [_encode_text(value.name), value.kind]


def _encode_bytes(value: bytes, _place: str) -> str:
    return value.hex()


def _decode(value: object) -> object:
    if type(value) is list:
        return [_decode(item) for item in value]
    if type(value) is not dict:
        return value
    if len(value) == 1:
        ((tag, payload),) = value.items()
        decoder = _DECODERS.get(tag)
        if decoder is not None:
            return decoder(payload)
    return {key: _decode(item) for key, item in value.items()}


def _decode_items(payload: Any) -> list[Any]:
    return [_decode(item) for item in payload]


def _decode_pairs(payload: Any) -> list[tuple[Any, Any]]:
    return [(_decode(key), _decode(item)) for key, item in payload]


_ENCODERS: Final[dict[type, tuple[str, Callable[[Any, str], object]]]] = {
    tuple: ("$tuple", _encode_items),
    set: ("$set", _encode_unordered),
    frozenset: ("$frozenset", _encode_unordered),
    bytes: ("$bytes", _encode_bytes),
    bytearray: ("$bytearray", _encode_bytes),
    complex: ("$complex", _encode_complex),
    OrderedDict: ("$ordered", _encode_pairs),
    Counter: ("$counter", _encode_pairs),
    Leaf: ("$leaf", _encode_leaf),
}

_DECODERS: Final[dict[str, Callable[[Any], object]]] = {
    "$int": lambda payload: int(payload, 16),
    "$float": lambda payload: struct.unpack(">d", bytes.fromhex(payload))[0],
    "$text": lambda payload: bytes.fromhex(payload).decode("utf-8", "surrogatepass"),
    "$dict": lambda payload: dict(_decode_pairs(payload)),
    "$tuple": lambda payload: tuple(_decode_items(payload)),
    "$set": lambda payload: set(_decode_items(payload)),
    "$frozenset": lambda payload: frozenset(_decode_items(payload)),
    "$bytes": bytes.fromhex,
    "$bytearray": bytearray.fromhex,
    "$complex": lambda payload: complex(*struct.unpack(">dd", bytes.fromhex(payload))),
    "$ordered": lambda payload: OrderedDict(_decode_pairs(payload)),
    "$numpy": scalar_of,
    "$leaf": lambda payload: Leaf(*_decode_items(payload)),
    "$counter": lambda payload: Counter(dict(_decode_pairs(payload))),
}
