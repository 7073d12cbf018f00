"""What a disk means when it refuses a save, in words that say what to do about it."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_ADVICE: Final = {
    errno.EDQUOT: "free some of your quota there, or lower checkpoint.keep",
    errno.EFBIG: "free space or quota there, or raise the limit on file sizes (ulimit -f)",
    errno.EROFS: "the file system has become read-only: tell its administrators, or move the run",
    errno.EIO: "the disk or its network failed: the training goes on and tries again at the next save",
    errno.ESTALE: "the file server has lost the directory: the training goes on and tries again at the next save",
    errno.EACCES: "make the directory yours again (mode 0700)",
    errno.EMFILE: "close files, or raise the limit on open ones (ulimit -n)",
}


def explain(error: OSError, root: Path) -> str:
    """One sentence for a save below `root` that ended with `error`."""
    reason = f"{error.strerror or error} below {root}"
    advice = _no_space(root) if error.errno == errno.ENOSPC else _ADVICE.get(error.errno or 0)
    return f"{reason}: {advice}" if advice else reason


def _no_space(root: Path) -> str:
    """ENOSPC is two things: bytes, or inodes, which `df` does not show unless asked (-i)."""
    try:
        found = os.statvfs(root)
    except OSError:
        found = None
    if found is not None and found.f_files and not found.f_favail:
        return "no inodes are left there (df -i): remove files, however small"
    left = f" ({found.f_bavail * found.f_frsize >> 20} MiB are left)" if found is not None else ""
    return f"free space or quota there{left}, or lower checkpoint.keep"
