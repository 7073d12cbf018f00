"""Which process is which: pid, start time in ticks, boot and host together name it, over pid reuse and reboots.

A container may have a PID namespace of its own: the same number then names two processes of one host, so a record also
says in which namespace its pid counts. Start ticks are the kernel's own and the same from every namespace (measured).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final, Literal

# bash's $HOSTNAME is inherited from the submit host under Slurm; the kernel's own name is the same for both sides.
_HOST_FILE: Final = Path("/proc/sys/kernel/hostname")
_BOOT_FILE: Final = Path("/proc/sys/kernel/random/boot_id")
_DEAD_STATES: Final = frozenset({"Z", "X", "x"})


@dataclass(frozen=True, slots=True)
class Identity:
    """One process of one boot of one host. `pid_ns` is the inode of the namespace in which `pid` counts, 0: unknown.

    Two records are equal over a namespace that only one of them knows; `is_same` looks at it where both do.
    """

    pid: int
    start_ticks: int
    boot_id: str
    host: str
    pid_ns: int = field(default=0, compare=False)

    def is_same(self, other: Identity | None) -> bool:
        """Whether both name one process; a namespace that is not known on one side does not tell them apart."""
        return other == self and (0 in (self.pid_ns, other.pid_ns) or self.pid_ns == other.pid_ns)


@dataclass(frozen=True, slots=True)
class Stat:
    """What /proc/<pid>/stat says."""

    name: str
    state: str
    parent: int
    start_ticks: int


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
    # /proc may be the host's inside a namespace: there our own number is somebody else's, and only `self` is us.
    stat = read_stat("self" if pid == os.getpid() else pid)
    if stat is None or stat.state in _DEAD_STATES:
        return None
    return Identity(pid, stat.start_ticks, boot_id(), host_name(), pid_namespace())


def own_identity() -> Identity:
    """Who we are."""
    me = identify(os.getpid())
    return me or Identity(os.getpid(), 0, boot_id(), host_name(), pid_namespace())


def is_alive(identity: Identity) -> bool | None:
    """Whether exactly this process still runs; None when it cannot be seen from here: another host, a container's."""
    if identity.pid_ns not in (0, pid_namespace()) and identity.boot_id == boot_id():
        return True if find_outside(identity) is not None else None
    if identity.host != host_name():
        return None
    if identity.boot_id != boot_id():
        return False
    return identity.is_same(identify(identity.pid))


@cache
def pid_namespace() -> int:
    """The inode of this process's PID namespace, 0 where /proc does not say."""
    return _inode(Path("/proc/self/ns/pid"))


def namespace_pids() -> tuple[int, ...]:
    """Our own pid in every namespace from the one that /proc shows to its own; more than one in a container."""
    return _nspid("self")


def find_outside(identity: Identity) -> int | None:
    """The pid that a process of an inner PID namespace has here; None when it is gone or not below us."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        pids = _nspid(entry.name)
        if len(pids) < 2 or pids[-1] != identity.pid:
            continue
        stat = read_stat(int(entry.name))
        if stat is None or stat.state in _DEAD_STATES or stat.start_ticks != identity.start_ticks:
            continue
        if _inode(entry / "ns" / "pid") in (0, identity.pid_ns):  # 0: not ours to look at, the rest must do
            return int(entry.name)
    return None


def read_stat(pid: int | Literal["self"]) -> Stat | None:
    """/proc/<pid>/stat, None when it is gone. The name may hold spaces and parentheses."""
    text = _read(Path(f"/proc/{pid}/stat"))
    if ")" not in text:
        return None
    name = text[text.index("(") + 1 : text.rindex(")")]
    fields = text[text.rindex(")") + 2 :].split()  # from the third field of proc(5) on
    return Stat(name, fields[0], int(fields[1]), int(fields[19]))


def _nspid(pid: str) -> tuple[int, ...]:
    for line in _read(Path(f"/proc/{pid}/status")).splitlines():
        if line.startswith("NSpid:"):
            return tuple(int(number) for number in line.split()[1:])
    return ()


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").strip()
    except OSError:
        return ""
