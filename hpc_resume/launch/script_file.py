"""Writes a script so that it is whole and valid, or not there: `bash -n`, then a rename over the old one."""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from hpc_resume.durable import sync_directory
from hpc_resume.errors import CommandLineError, ConfigError, HpcResumeError
from hpc_resume.launch.bash_syntax import syntax_error

SCRIPT_MODE: Final = 0o755
MAX_BYTES: Final = 16 * 1024 * 1024  # far above any script


def verify(script: str) -> None:
    """Raise HpcResumeError unless bash can parse `script`."""
    if error := syntax_error(script):
        line, words = error
        raise HpcResumeError(
            f"the rendered script is not valid bash (line {line}: {words}): nothing was written. "
            "This is a fault of hpc_resume, not of your job.yaml: please report it with the job.yaml"
        )


def write_whole(path: Path, text: str, mode: int, *, replace: bool = True) -> None:
    """Write `text` to `path`; on any failure `path` is as it was and nothing is left beside it.

    A symbolic link is followed. Raises CommandLineError for a place that is no ordinary file, FileExistsError where
    `replace` is False and something is there, OSError for what the file system refuses.
    """
    target = Path(os.path.realpath(path))
    _refuse_odd(path, target)
    if not replace and os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    try:
        _replace(target, text.encode(), mode)
    except OSError as error:
        # Under the name that the person gave: the temporary one is gone.
        raise OSError(error.errno, error.strerror, str(path)) from None


def _replace(target: Path, content: bytes, mode: int) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name[:64]}.tmp.", dir=target.parent)
    written = Path(temporary)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        written.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            written.unlink()
        raise
    sync_directory(target.parent)


def _refuse_odd(path: Path, target: Path) -> None:
    # A rename over /dev/stdout or a named pipe would replace the device itself.
    with contextlib.suppress(FileNotFoundError):
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise CommandLineError(f"{path}: is a directory; name the file to write, in it or elsewhere")
        if not stat.S_ISREG(mode):
            raise CommandLineError(f"{path}: is not an ordinary file; for standard output leave -o out")
    if not target.parent.is_dir():
        raise CommandLineError(f"{path}: the directory {target.parent} does not exist; make it first")


def changes(old: Path, script: str) -> str:
    """A unified diff from the script in `old` to `script`, empty when they are the same bytes."""
    try:
        with old.open("rb") as file:  # a pipe is fine, and /dev/zero has no end
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{old}: cannot be read: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{old}: is larger than {MAX_BYTES // 1024 // 1024} MiB: this is not a script of ours")
    if content == script.encode():
        return ""
    lines = content.decode(errors="backslashreplace").splitlines(keepends=True)
    return "".join(difflib.unified_diff(lines, script.splitlines(keepends=True), str(old), "rendered now"))
