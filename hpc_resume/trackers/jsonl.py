"""Metrics as JSON lines in the attempt's directory: one object a line, `step` and `t` (epoch seconds) first.

One file per attempt: steps that an interrupted attempt logged and lost are logged again by the next one, and a reader
takes the later attempt's. Not synced: a power cut may cost the last lines, a killed process none.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from hpc_resume.durable import FILE_MODE

if TYPE_CHECKING:
    from pathlib import Path

    from hpc_resume.trackers import Facts


def open(facts: Facts) -> JsonLines:  # noqa: A001 - the name that every tracker's module offers
    """Always wanted."""
    return JsonLines(facts.metrics_file)


class JsonLines:
    """Appends to one file; each line is one write, so that a reader never sees a mixture."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, FILE_MODE)

    def begin(self) -> None:
        """The file is there."""

    def log(self, metrics: Mapping[str, object], step: int) -> None:
        """One line. Numbers of other libraries (0-d tensors, NumPy scalars) become Python's, anything else its text."""
        record = {"step": step, "t": round(time.time(), 3)}
        record.update((str(name), _plain(value)) for name, value in metrics.items())  # type: ignore[misc]
        os.write(self._descriptor, (json.dumps(record) + "\n").encode())

    def mark_preempting(self) -> None:
        """The events file says so already."""

    def finish(self, exit_code: int) -> None:  # noqa: ARG002 - the protocol's; outcome.json has it
        """Close the file."""
        os.close(self._descriptor)


def _plain(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)  # JSON has no NaN: "nan" is read back by float()
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    item = getattr(value, "item", None)
    if callable(item):
        try:
            return _plain(item())
        except (TypeError, ValueError, RuntimeError):  # more than one element
            return str(value)
    return str(value)
