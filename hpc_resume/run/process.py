"""Which process is which: pid, start time in ticks, boot and host together name it, over pid reuse and reboots."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

# bash's $HOSTNAME is inherited from the submit host under Slurm; the kernel's own name is the same for both sides.
_HOST_FILE: Final = Path("/proc/sys/kernel/hostname")
_BOOT_FILE: Final = Path("/proc/sys/kernel/random/boot_id")
_DEAD_STATES: Final = frozenset({"Z", "X", "x"})


@dataclass(frozen=True, slots=True)
class Identity:
    """One process of one boot of one host."""

    pid: int
    start_ticks: int
    boot_id: str
    host: str


@cache
def host_name() -> str:
    """The kernel's host name."""
    return _read(_HOST_FILE) or os.uname().nodename


@cache
def boot_id() -> str:
    """Changes at every boot of the host; empty where /proc does not say."""
    return _read(_BOOT_FILE)


def identify(pid: int) -> Identity | None:
    """Who `pid` is now, on this host; None when it is gone (a zombie is gone)."""
    fields = _stat(pid)
    if fields is None or fields[0] in _DEAD_STATES:
        return None
    return Identity(pid, int(fields[19]), boot_id(), host_name())


def is_alive(identity: Identity) -> bool | None:
    """Whether exactly this process still runs; None when it is on another host and cannot be seen from here."""
    if identity.host != host_name():
        return None
    if identity.boot_id != boot_id():
        return False
    return identify(identity.pid) == identity


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat from the third on; the second may hold spaces and parentheses."""
    text = _read(Path(f"/proc/{pid}/stat"))
    return text[text.rindex(")") + 2 :].split() if ")" in text else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").strip()
    except OSError:
        return ""
