"""What kind of file system a path is on, and so who its locks can keep out: this machine alone, or other nodes too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_MOUNTS: Final = Path("/proc/self/mountinfo")
# Seen by one kernel alone: its own locks are exact there, and no other node can be at work on the same files.
NODE_LOCAL: Final = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "ramfs", "overlay", "bcachefs", "reiserfs", "vfat"}
)
# These live in a node's memory or under its container: gone with it, and never the place for a run of many nodes.
VOLATILE: Final = frozenset({"tmpfs", "ramfs", "overlay"})
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


def kind(path: Path, table: str | None = None) -> str:
    """The type of the mount that `path` is below, as mount(8) names it ("ext4", "nfs4"); empty when nothing says.

    `table` is the text of /proc/self/mountinfo, read from there without it.
    """
    if table is None:
        try:
            table = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return ""
    real = path.resolve()
    best, found = -1, ""
    for line in table.splitlines():
        fields, _, rest = line.partition(" - ")
        words = fields.split()
        if len(words) < 5 or not rest:
            continue
        point = Path(_ESCAPE.sub(lambda octal: chr(int(octal[1], 8)), words[4]))
        # The later of two mounts on one point hides the earlier.
        if real.is_relative_to(point) and len(point.parts) >= best:
            best, found = len(point.parts), rest.split()[0]
    return found


def is_node_local(name: str) -> bool:
    """Whether a file system of this kind is seen by one machine alone; False for one that nobody knows."""
    return name in NODE_LOCAL
