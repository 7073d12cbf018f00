"""Durations, Slurm times, memory sizes and array indexes: one parser each, text to numbers, nothing else.

Every parser raises ValueError with a sentence that says what it wants.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

_UNIT_MS: Final = {"ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_PART: Final = re.compile(r"(?P<number>[0-9]{1,9}(?:\.[0-9]{1,3})?)\s?(?P<unit>ms|s|min|h|d)")
DURATION_PATTERN: Final = r"^([0-9]{1,9}(\.[0-9]{1,3})?\s?(ms|s|min|h|d)\s?)+$"
_OTHER_UNITS: Final = {
    **dict.fromkeys(("sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("m", "mins", "minute", "minutes"), "min"),
    **dict.fromkeys(("hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("day", "days"), "d"),
}

_CLOCK: Final = re.compile(r"(?:(?P<days>[0-9]{1,6})-)?(?P<clock>[0-9]{1,9}(?::[0-9]{1,6}){0,2})")
_MEMORY: Final = re.compile(r"(?P<number>[0-9]{1,15})(?P<unit>[KMGTkmgt]?)")
_MEMORY_KIB: Final = {"K": 1, "M": 1024, "": 1024, "G": 1024**2, "T": 1024**3}

_ARRAY_PART: Final = re.compile(r"(?P<first>[0-9]{1,9})(?:-(?P<last>[0-9]{1,9})(?::(?P<step>[0-9]{1,9}))?)?")


def milliseconds_of(value: int | str) -> int:
    """`milliseconds` of a text; a plain number is seconds."""
    if isinstance(value, str):
        return milliseconds(value)
    if not 0 <= value <= 999_999_999:
        raise ValueError(f"{value}: must be a number of seconds from 0 to 999999999")
    return value * 1000


def milliseconds(text: str) -> int:
    """`120s`, `15min`, `1.5h`, `1h30min`, `250ms` in milliseconds."""
    stripped = text.strip()  # then the pattern's $ has no line break to overlook
    if not re.match(DURATION_PATTERN, stripped):
        raise ValueError(_duration_advice(stripped))
    total = 0
    for part in _PART.finditer(stripped):
        whole, _, fraction = part["number"].partition(".")
        unit = _UNIT_MS[part["unit"]]
        total += int(whole) * unit + int(fraction.ljust(3, "0")) * unit // 1000
    return total


def _duration_advice(text: str) -> str:
    wants = "must be a time with its unit, as 120s, 15min, 2h or 1d"
    other = re.fullmatch(r"([0-9.]+)\s?([a-z]+)", text.lower())
    if other and other[2] in _OTHER_UNITS:
        return f"{text}: {wants}; did you mean {other[1]}{_OTHER_UNITS[other[2]]}?"
    return f"{text!r}: {wants}"


def duration_words(ms: int) -> str:
    """Milliseconds in the largest unit that divides them: `2min`, `90s`, `250ms`."""
    for unit in ("d", "h", "min", "s"):
        if ms and ms % _UNIT_MS[unit] == 0:
            return f"{ms // _UNIT_MS[unit]}{unit}"
    return f"{ms}ms"


def slurm_seconds(text: str) -> int | None:
    """A Slurm time in seconds, None for no limit.

    Slurm's forms: minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS, UNLIMITED, INFINITE; 0 asks for no limit.
    """
    if text.upper() in ("UNLIMITED", "INFINITE"):
        return None
    match = _CLOCK.fullmatch(text)
    if not match:
        raise ValueError(
            f"{text!r}: must be a Slurm time: minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS or UNLIMITED"
            f"{_slurm_time_advice(text)}"
        )
    parts = [int(part) for part in match["clock"].split(":")]
    if match["days"] is not None:
        hours, minutes, seconds = [*parts, 0, 0][:3]
        total = int(match["days"]) * 86_400 + hours * 3600 + minutes * 60 + seconds
    else:
        # Without days a single figure is minutes and two are MM:SS: `1:30` is a minute and a half, not 90 minutes.
        hours, minutes, seconds = [[0, *parts, 0], [0, *parts], parts][len(parts) - 1]
        total = hours * 3600 + minutes * 60 + seconds
    return total or None


def _slurm_time_advice(text: str) -> str:
    """`24h` is a time of ours and of other schedulers, not of Slurm."""
    try:
        seconds = milliseconds(text) // 1000
    except ValueError:
        return ""
    return f"; did you mean {clock_words(seconds)}?"


def clock_words(seconds: int) -> str:
    """Seconds as Slurm shows a time limit: `1-02:00:00`, `00:30:00`."""
    days, rest = divmod(seconds, 86_400)
    clock = f"{rest // 3600:02}:{rest % 3600 // 60:02}:{rest % 60:02}"
    return f"{days}-{clock}" if days else clock


def memory_kib(text: str) -> int:
    """A Slurm memory size in KiB: a whole number and K, M (when none is given), G or T; 0 asks for all of a node."""
    match = _MEMORY.fullmatch(text)
    if not match:
        hint = ""
        other = re.fullmatch(r"([0-9]+)\s?([KMGT])i?B", text, re.IGNORECASE)
        if other:
            hint = f"; did you mean {other[1]}{other[2].upper()}?"
        elif re.fullmatch(r"[0-9]+\.[0-9]+[KMGT]?", text, re.IGNORECASE):
            hint = "; Slurm takes no fractions: use a smaller unit"
        raise ValueError(f"{text!r}: must be a whole number and K, M, G or T, as 16G{hint}")
    return int(match["number"]) * _MEMORY_KIB[match["unit"].upper()]


@dataclass(frozen=True, slots=True)
class ArrayIndexes:
    """What `--array` asks for: how many tasks, and how many of them at once (0: no limit)."""

    tasks: int
    width: int


def array_indexes(text: str) -> ArrayIndexes:
    """`0-9%4`, `1,3,5-7`, `0-15:4`. Counts indexes given twice once, as Slurm does."""
    indexes, percent, width = text.partition("%")
    if percent and not re.fullmatch(r"[0-9]{1,9}", width):
        raise ValueError(f"{text!r}: after % stands how many tasks may run at once, as 0-9%4")
    tasks: set[range] = set()
    for part in indexes.split(","):
        match = _ARRAY_PART.fullmatch(part)
        if not match:
            raise ValueError(f"{text!r}: must be array indexes, as 0-9, 0-9%4, 0-15:4 or 1,3,5")
        first = int(match["first"])
        last = int(match["last"] or first)
        step = int(match["step"] or 1)
        if last < first or step < 1:
            raise ValueError(f"{text!r}: {part} counts nothing: the first index must not be above the last")
        tasks.add(range(first, last + 1, step))
    return ArrayIndexes(_union_size(tasks), int(width or 0))


def _union_size(ranges: set[range]) -> int:
    ordered = sorted(ranges, key=lambda indexes: indexes.start)
    if all(before[-1] < after.start for before, after in pairwise(ordered)):
        return sum(map(len, ordered))  # without a set of what may be millions
    if sum(len(indexes) for indexes in ranges) > 4_000_001:  # MaxArraySize is 4000001 at most (slurm.conf)
        raise ValueError("more array tasks than any Slurm takes (4000001)")
    return len(set().union(*ranges))
