"""The rows in a run's .wandb file, read as wandb's own `sync` reads them: LevelDB's log format, protobuf messages.

Blocks of 32 KiB; the file begins with `:W&B`, 0xBEE1 and a version; each piece has a CRC over its type and content, its
length and its type (1 whole, 2 first, 3 middle, 4 last). Seen with wandb 0.31.
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader
    from pathlib import Path

_BLOCK: Final = 32 * 1024
_MAGIC: Final = b":W&B"
_FILE_HEADER: Final = 7
_PIECE: Final = struct.Struct("<IHB")
_WHOLE, _FIRST, _LAST = 1, 2, 4


def read_history(path: Path) -> list[dict[str, Any]]:
    """Every row that was logged, with wandb's own `_step` and `_timestamp`; [] without a file. A torn end is left out.

    Raises ImportError for a wandb that keeps its messages elsewhere.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # noqa: PLC0415 - wandb's
    from wandb.proto.wandb_internal_pb2 import Record  # noqa: PLC0415 - asked for by the training or by job.yaml

    rows: list[dict[str, Any]] = []
    try:
        with path.open("rb") as stream:
            for message in _messages(stream):
                record: Any = Record()
                try:
                    record.ParseFromString(message)
                except DecodeError:
                    continue
                if record.WhichOneof("record_type") == "history":
                    rows.append(_row(record.history.item))
    except OSError:
        return rows
    return rows


def _row(items: Any) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for item in items:
        *outer, last = list(item.nested_key) or [item.key]
        place = row
        for name in outer:
            place = place.setdefault(name, {})
        place[last] = json.loads(item.value_json)
    return row


def _messages(stream: BufferedReader) -> Iterator[bytes]:
    record: bytes | None = None  # None: whose beginning was not read
    begins = True
    while block := stream.read(_BLOCK):
        place = 0
        if begins:
            if not block.startswith(_MAGIC):
                return
            place, begins = _FILE_HEADER, False
        while place + _PIECE.size <= len(block):
            checksum, length, kind = _PIECE.unpack_from(block, place)
            place += _PIECE.size
            piece = block[place : place + length]
            place += length
            if len(piece) < length or checksum != zlib.crc32(piece, zlib.crc32(bytes([kind]))):
                record = None
                break  # torn, or space that was never written: the next block begins a piece of its own
            if kind in (_WHOLE, _FIRST):
                record = piece
            elif record is not None:
                record += piece
            if kind in (_WHOLE, _LAST) and record is not None:
                yield record
                record = None
