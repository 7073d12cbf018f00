"""What a cell left on disk and in the process table: read, never written."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from survival_cells import STEPS


def executed(run: Path) -> list[tuple[int, int]]:
    """(attempt, step) of every executed step, in order."""
    try:
        lines = (run / "executed.log").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [(int(attempt), int(step)) for attempt, step in (line.split() for line in lines)]


def lost(run: Path) -> int:
    """Steps executed more than once, each further time counted."""
    return sum(count - 1 for count in Counter(step for _, step in executed(run)).values())


def published(run: Path) -> int:
    """The step of the newest published checkpoint, 0 before the first."""
    try:
        return int((run / "latest").read_text().strip().removeprefix("step-"))
    except FileNotFoundError:
        return 0


def read(path: Path) -> dict[str, Any]:
    """A record, empty when it is not there."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return {}


def attempts(run: Path) -> list[Path]:
    return sorted((run / "attempts").glob("[0-9]*"))


def causes(run: Path) -> tuple[str, ...]:
    return tuple(str(read(attempt / "exit.json").get("cause", "")) for attempt in attempts(run))


def warned_at(run: Path) -> float | None:
    """When the first warning reached the batch shell or a sentinel of the first attempt, epoch seconds."""
    found = [event["t"] for event in _events(run / "attempts/0001") if event.get("event") == "received"]
    return min(found, default=None)


def _events(attempt: Path) -> Iterator[dict[str, Any]]:
    for path in (attempt / "events").glob("*.jsonl"):
        for line in path.read_text().splitlines():
            with suppress(ValueError):  # half a line of a process that was killed
                yield json.loads(line)


def is_final(run: Path, reference: str) -> bool:
    """Every step was executed, and the state in the end is that of the uninterrupted run."""
    try:
        final = (run / "final.json").read_text()
    except FileNotFoundError:
        return False
    return final == reference and {step for _, step in executed(run)} == set(range(STEPS))


def processes(marks: tuple[bytes, ...]) -> dict[int, str]:
    """PID and words of every living process that has one of `marks` in its environment; slurmstepd is Slurm's own."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            environment = (entry / "environ").read_bytes()
            if any(mark in environment for mark in marks) and (entry / "comm").read_text() != "slurmstepd\n":
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if words:  # a zombie has none
                    found[int(entry.name)] = words[:80]
    return found


def left(marks: tuple[bytes, ...], seconds: float) -> tuple[str, ...]:
    """Those that are still there after `seconds`."""
    deadline = time.monotonic() + seconds
    while (found := processes(marks)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return tuple(f"{pid} {words}" for pid, words in found.items())


def start_ticks(pid: int) -> str:
    """Field 22 of /proc/PID/stat; empty for a process that is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat[stat.rindex(")") + 2 :].split()
    return "" if fields[0] in "ZX" else fields[19]
