"""What a directory's locks and renames are worth: tried out, from one node or from several at once.

Nobody can promise a site's mount; so the very operations that a lease rests on are done there, and looked at.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpc_resume.checkpoints.generations import Generations
from hpc_resume.durable import DIR_MODE, sync_directory, write_atomic, write_new
from hpc_resume.run.process import host_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CLAIMS: Final = 100  # by each node, for the same numbers
_MEET_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Probe:
    """One operation; `needed` is False for one that there is another way for."""

    name: str
    good: bool
    words: str
    needed: bool = True


@dataclass(frozen=True, slots=True)
class Together:
    """What several nodes saw of each other. `twice` are the numbers that two of them got: there must be none."""

    hosts: tuple[str, ...]
    twice: tuple[int, ...]
    seen_after: float  # seconds from a rename on one node to the sight of it on the slowest other


def probe(directory: Path) -> tuple[Probe, ...]:
    """Try everything out in a directory of our own below `directory`. Raises OSError when it cannot be made."""
    place = directory / f".locks-{host_name()}-{os.getpid()}-{time.monotonic_ns()}"
    place.mkdir(DIR_MODE)
    try:
        return (_links(place), _exclusive(place), _rename(place), _sync(place), _clock(place))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _links(place: Path) -> Probe:
    source, target = place / "link-from", place / "link-to"
    write_new(source, b"x")
    try:
        os.link(source, target)
    except OSError as error:
        return Probe("hard links", False, f"{error.strerror}; a claim is an exclusive creation instead", needed=False)
    try:
        os.link(source, target)
    except FileExistsError:
        good = target.stat().st_nlink == 2
        return Probe("hard links", good, "the second of two claims is refused" if good else "the link count is wrong")
    return Probe("hard links", False, "two claims of one name both succeeded")


def _exclusive(place: Path) -> Probe:
    write_new(place / "once", b"x")
    try:
        write_new(place / "once", b"y")
    except FileExistsError:
        return Probe("O_EXCL", True, "the second of two creations is refused")
    return Probe("O_EXCL", False, "two creations of one name both succeeded")


def _rename(place: Path) -> Probe:
    target, inner = place / "renamed", place / "directory"
    inner.mkdir(DIR_MODE)
    try:
        for number in range(20):
            write_atomic(target, b"%d" % number)
            if target.read_bytes() != b"%d" % number:
                return Probe("rename", False, "the old content was read after the rename")
        inner.rename(place / "moved")
    except OSError as error:
        return Probe("rename", False, str(error))
    return Probe("rename", True, "files are replaced whole, directories moved")


def _sync(place: Path) -> Probe:
    began = time.perf_counter()
    try:
        write_new(place / "synced", b"x")
        sync_directory(place)
    except OSError as error:
        words = f"{error.strerror}; what is written may be lost with the file server"
        return Probe("fsync", False, words, needed=error.errno not in (errno.EINVAL, errno.ENOTSUP))
    return Probe("fsync", True, f"{1000 * (time.perf_counter() - began):.1f} ms for a file and its directory")


def _clock(place: Path) -> Probe:
    """No lease compares clocks; told because other tools do."""
    write_new(place / "clock", b"x")
    ahead = (place / "clock").stat().st_mtime - time.time()
    return Probe(
        "clock", True, f"the file server is {abs(ahead):.1f} s {'ahead' if ahead > 0 else 'behind'}", needed=False
    )


def together(directory: Path, name: str, rank: int, count: int) -> Together | None:
    """The same from `count` processes on several nodes at once; what was seen, for rank 0, None for the others.

    Raises TimeoutError when the others do not show up: they do not see this directory.
    """
    place = directory / f".locks-{name}"
    place.mkdir(DIR_MODE, parents=True, exist_ok=True)
    try:
        _meet(place, "ready", rank, count)
        log = Generations(place / "log")
        mine = [log.claim({"rank": rank}) for _ in range(CLAIMS)]
        write_atomic(place / f"mine.{rank}", " ".join(map(str, mine)).encode())
        _meet(place, "claimed", rank, count)
        seen = _flash(place, rank, count)
        write_atomic(place / f"seen.{rank}", f"{host_name()} {seen}".encode())
        _meet(place, "told", rank, count)
        return _judge(place, count) if rank == 0 else None
    finally:
        if rank == 0:
            with suppress(TimeoutError):
                _meet(place, "judged", rank, count)
            shutil.rmtree(place, ignore_errors=True)
        else:
            write_new(place / f"judged.{rank}", b"x")


def _flash(place: Path, rank: int, count: int) -> float:
    """Rank 0 replaces a file five times, and each other answers what it has read: the longest round, in seconds."""
    worst = 0.0
    for number in range(5):
        if rank == 0:
            began = time.monotonic()
            write_atomic(place / "flash", b"%d" % number)
            answers = [place / f"answer.{other}" for other in range(1, count)]
            _await(partial(_say, answers, b"%d" % number))
            worst = max(worst, time.monotonic() - began)
        else:
            _await(partial(_say, [place / "flash"], b"%d" % number))
            write_atomic(place / f"answer.{rank}", b"%d" % number)
    return worst


def _say(files: Sequence[Path], data: bytes) -> bool:
    return all(_read(file) == data for file in files)


def _judge(place: Path, count: int) -> Together:
    got: list[int] = []
    hosts, worst = [], 0.0
    for rank in range(count):
        got.extend(int(word) for word in _read(place / f"mine.{rank}").split())
        host, seconds = _read(place / f"seen.{rank}").decode().split()
        hosts.append(host)
        worst = max(worst, float(seconds))
    twice = tuple(sorted({number for number in got if got.count(number) > 1}))
    return Together(tuple(dict.fromkeys(hosts)), twice, worst)


def _meet(place: Path, what: str, rank: int, count: int) -> None:
    write_new(place / f"{what}.{rank}", b"x")
    _await(lambda: all((place / f"{what}.{other}").exists() for other in range(count)))


def _await(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + _MEET_SECONDS
    while not holds():
        if time.monotonic() > until:
            raise TimeoutError
        time.sleep(0.002)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
