"""Reads the .wandb file of a run: LevelDB's log format with W&B's header, each record a protobuf message.

Blocks of 32 KiB; a file begins with `:W&B`, 0xBEE1 and a version; each piece has a CRC, its length and its type (1 whole,
2 first, 3 middle, 4 last).
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCK = 32 * 1024
FILE_HEADER = struct.Struct("<4sHB")
PIECE_HEADER = struct.Struct("<IHB")
WHOLE, FIRST, LAST = 1, 2, 4


@dataclass(frozen=True, slots=True)
class LoggedRun:
    """`exit_code` is None where the run said nothing of its end."""

    run_id: str
    preempting: bool
    exit_code: int | None
    rows: list[dict[str, object]]


def messages(content: bytes) -> Iterator[bytes]:
    """The records' bytes; a torn end is left out."""
    magic, number, _ = FILE_HEADER.unpack_from(content)
    assert (magic, number) == (b":W&B", 0xBEE1)
    place, record = FILE_HEADER.size, b""
    while place + PIECE_HEADER.size <= len(content):
        left = BLOCK - place % BLOCK
        if left < PIECE_HEADER.size:
            place += left
            continue
        _, length, kind = PIECE_HEADER.unpack_from(content, place)
        place += PIECE_HEADER.size
        piece = content[place : place + length]
        place += length
        record = piece if kind in (WHOLE, FIRST) else record + piece
        if kind in (WHOLE, LAST):
            yield record


def read_log(path: Path) -> LoggedRun:
    from wandb.proto.wandb_internal_pb2 import Record

    run_id, preempting, exit_code, rows = "", False, None, []
    for message in messages(path.read_bytes()):
        record = Record()
        record.ParseFromString(message)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run_id = record.run.run_id
        elif kind == "preempting":
            preempting = True
        elif kind == "exit":
            exit_code = record.exit.exit_code
        elif kind == "history":
            items = record.history.item
            rows.append({item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items})
    return LoggedRun(run_id, preempting, exit_code, rows)


def only_log(home: Path) -> LoggedRun:
    """That of the newest run below `home`/wandb."""
    return read_log(max(home.glob("wandb/*run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime_ns))
