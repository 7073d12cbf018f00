"""A token bucket that agents on many machines share: starts are spread, and nobody waits longer than the rate demands.

Time is cut into slots of one interval by the file server's clock (the mtime of a file just written), and a start is the
exclusive creation of its slot's file. Who finds its slot taken looks for another in a range that doubles with every
try: a thousand that come at once need about ten tries each, and no lock that one of them could die with.
Rejected: one file with the next free time behind a lock; its cost for each grows with the number of those who wait.
"""

from __future__ import annotations

import os
import random
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hpc_resume.durable import DIR_MODE, FILE_MODE

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet
    from pathlib import Path

_KEPT: Final = 100  # slots of the past that stay, for whoever looked long ago


@dataclass(frozen=True, slots=True)
class Rate:
    """One start in `interval` seconds, and `burst` at once after a rest; up to `jitter` seconds more for each."""

    interval: float
    burst: int = 1
    jitter: float = 0.0


def choose(now: int, taken: AbstractSet[int], burst: int, reach: int, chance: random.Random) -> int:
    """One of the first `reach` free slots from the saved ones on. Pure but for `chance`."""
    skip = chance.randrange(reach)
    slot = now - burst + 1
    while True:
        if slot not in taken:
            if skip == 0:
                return slot
            skip -= 1
        slot += 1


class Bucket:
    """The starts in `directory`; one object for one agent."""

    def __init__(self, directory: Path, rate: Rate, seed: int) -> None:
        self._directory = directory / f"{rate.interval:g}s"
        self._rate = rate
        self._chance = random.Random(seed)  # noqa: S311 - no secret
        self.tries = 0

    def take(self) -> float:
        """Take a token: the seconds until it may be used. Raises OSError where the directory cannot be used."""
        if self._rate.interval <= 0:
            return self._chance.uniform(0.0, self._rate.jitter)
        self._directory.mkdir(DIR_MODE, parents=True, exist_ok=True)
        reach = 1
        while True:
            self.tries += 1
            stamp = self._server_time()
            now = int(stamp / self._rate.interval)
            slot = choose(now, self._taken(now), self._rate.burst, reach, self._chance)
            if self._create(slot):
                wait = slot * self._rate.interval - stamp
                return max(0.0, wait) + self._chance.uniform(0.0, self._rate.jitter)
            reach *= 2

    def _server_time(self) -> float:
        probe = self._directory / f".now.{os.uname().nodename}.{os.getpid()}"
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
        try:
            os.write(descriptor, b".")
            return os.fstat(descriptor).st_mtime
        finally:
            os.close(descriptor)
            with suppress(OSError):
                probe.unlink()

    def _taken(self, now: int) -> set[int]:
        found = {int(name) for name in os.listdir(self._directory) if name.isdigit()}  # noqa: PTH208 - names alone
        old = [slot for slot in found if slot < now - self._rate.burst - _KEPT]
        for slot in old[:_KEPT]:  # each takes a little away: nobody pays for all
            with suppress(OSError):
                (self._directory / str(slot)).unlink()
        return found

    def _create(self, slot: int) -> bool:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(self._directory / str(slot), flags, FILE_MODE))
        except FileExistsError:
            return False
        return True


def by_index(rate: Rate, index: int, seed: int) -> float:
    """The recipe where no directory is shared: the array task's place times the interval, and its jitter."""
    return index * rate.interval + random.Random(seed).uniform(0.0, rate.jitter)  # noqa: S311 - no secret


def wait(seconds: float, is_warned: Callable[[], bool]) -> bool:
    """Wait, or not beyond a warning; whether the time was waited."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if is_warned():
            return False
        time.sleep(min(0.1, max(0.0, until - time.monotonic())))
    return True
