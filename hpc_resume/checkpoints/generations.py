"""Who may publish: every process that continues a run takes the next number, and the highest number is the run's owner.

`lease/00000003` is claimed by link(2), which exactly one of many wins on every file system that has hard links, NFS
included, with or without working locks (O_EXCL where there are none). A process that was stopped while another one took
over finds a number above its own and ends; what it still published before it looked is known by `lease/00000004.base`,
in which its successor wrote which step it went on from: a checkpoint of a lower generation beyond that step does not
count. No clock is compared and nobody has to be found dead.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from hpc_resume.contract import FORMAT_VERSION
from hpc_resume.durable import make_directory, read_plain, sync_directory, write_json, write_new

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_DIGITS: Final = 8
# Claims and bases that stay. An older writer that comes back still finds a higher number, and what it publishes is of
# a lower generation than everything else.
_REMEMBERED: Final = 64
_CLAIM: Final = re.compile(rf"\d{{{_DIGITS},}}", re.ASCII)
_BASE: Final = re.compile(rf"(\d{{{_DIGITS},}})\.base", re.ASCII)
_BEAT: Final = re.compile(rf"(\d{{{_DIGITS},}})\.beat", re.ASCII)
_DRAFT: Final = re.compile(rf"\.(\d{{{_DIGITS},}})(?:\.base|\.beat)?\.tmp\.", re.ASCII)
_NO_LINKS: Final = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK, errno.EINVAL)


@dataclass(frozen=True, slots=True)
class Fences:
    """Which step each generation went on from. Pure."""

    bases: dict[int, int] = field(default_factory=dict)

    def superseded(self, generation: int, step: int) -> int | None:
        """The generation that had gone on without this checkpoint when it was published; None when it counts."""
        later = [number for number in self.bases if number > generation]
        return next((number for number in sorted(later) if step > self.bases[number]), None)


class Generations:
    """The log of one run, in `directory`; a directory that is not there has no generation yet."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def claim(self, owner: Mapping[str, object]) -> int:
        """Take the next number; `owner` says who, for people and for `owner()`. Raises OSError."""
        while True:
            number = self.claim_after(self.highest(), owner)
            if number is not None:
                return number

    def claim_after(self, highest: int, owner: Mapping[str, object]) -> int | None:
        """Take the number after `highest`, as it was seen to be; None when somebody else has it. Raises OSError."""
        make_directory(self._directory)
        number = highest + 1
        record = {"version": FORMAT_VERSION, "generation": number, **owner}
        # An old number that had been cleared away can be created again by who looked long ago: not a claim.
        if self._create(number, (json.dumps(record) + "\n").encode()) and number > self.highest() - _REMEMBERED:
            return number
        return None

    def highest(self) -> int:
        """The newest number, 0 before the first. Raises OSError, but not for a missing directory."""
        return max((int(name) for name in self._names() if _CLAIM.fullmatch(name)), default=0)

    def go_on_from(self, number: int, step: int) -> None:
        """Say that generation `number` goes on from `step`: what older ones publish beyond it from now on is void.

        The record repeats the newest of those before it, so that a reader needs one file; the older ones go.
        """
        bases = self.fences().bases | {number: step}
        kept = {str(old): bases[old] for old in sorted(bases)[-_REMEMBERED:]}
        write_json(self._path(number, ".base"), {"version": FORMAT_VERSION, "generation": number, "bases": kept})
        for name in self._names():
            base, beat, draft = _BASE.fullmatch(name), _BEAT.fullmatch(name), _DRAFT.match(name)
            old_claim = _CLAIM.fullmatch(name) is not None and int(name) <= number - _REMEMBERED
            before = any(found and int(found[1]) < number for found in (base, beat))
            if old_claim or before or (draft and int(draft[1]) < number + (".beat." not in name)):
                with contextlib.suppress(OSError):
                    (self._directory / name).unlink()

    def fences(self) -> Fences:
        """What has been said by go_on_from; a record that cannot be read fences nothing off."""
        for name in sorted(self._names(), reverse=True):
            if _BASE.fullmatch(name):
                with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                    bases = json.loads(read_plain(self._directory / name))["bases"]
                    return Fences({int(number): int(step) for number, step in bases.items()})
        return Fences()

    def owner(self, number: int) -> Mapping[str, object]:
        """What `claim` was told; empty when it is gone or garbled."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            return dict(json.loads(read_plain(self._path(number))))
        return {}

    def beat_file(self, number: int) -> Path:
        """Where the owner of `number` shows that it lives; see run/heartbeat.py."""
        return self._path(number, ".beat")

    def _create(self, number: int, data: bytes) -> bool:
        """Whether `number` is ours now. Written beside its place first: who reads it sees all of it."""
        place = self._path(number)
        draft = place.with_name(f".{place.name}.tmp.{os.getpid()}-{os.urandom(4).hex()}")
        try:
            write_new(draft, data)
            try:
                os.link(draft, place)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                write_new(place, data)
        except (FileExistsError, FileNotFoundError):  # not found: whoever has this number has cleared our draft away
            return False
        finally:
            draft.unlink(missing_ok=True)
        sync_directory(self._directory)
        return True

    def _path(self, number: int, suffix: str = "") -> Path:
        return self._directory / f"{number:0{_DIGITS}d}{suffix}"

    def _names(self) -> list[str]:
        try:
            return os.listdir(self._directory)  # noqa: PTH208 - names are all that is needed, at every publish
        except FileNotFoundError:
            return []
