"""The fast tier: a directory of this node (tmpfs, NVMe) that takes a save first; the shared file system gets it behind.

What is in it dies with the node, so it is never what `latest` names. A start believes it only when it was written by
this run, on this host, since its last boot; it is loaded when it is newer than the shared one and verifies. It is
removed at the end of the run's process, when all of it is on the shared file system: memory of the node is not ours.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpc_resume.checkpoints.store import Store
from hpc_resume.contract import CHECKPOINTS_DIR, FORMAT_VERSION
from hpc_resume.durable import DIR_MODE, read_plain, write_json
from hpc_resume.errors import RunStateError
from hpc_resume.run.events import say
from hpc_resume.run.process import boot_id, host_name

if TYPE_CHECKING:
    from hpc_resume.checkpoints.generations import Generations
    from hpc_resume.run.opening import Opening

_OWNER_FILE: Final = "owner.json"
_NAME: Final = re.compile(r"\$\{?(\w+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class FastTier:
    """`directory` is this run's own in fast_dir."""

    directory: Path
    store: Store

    def discard(self) -> None:
        """Give the node's memory back."""
        shutil.rmtree(self.directory, ignore_errors=True)


def open_fast(fast_dir: str, opening: Opening, log: Generations, generation: int) -> FastTier | None:
    """What is this run's in `fast_dir` ($NAMES in it are the node's own); None, said, where it cannot be used.

    Raises RunStateError when somebody else has put something in its place.
    """
    # Left as it is, an unset name would make a directory "$TMPDIR" beside the program, on the shared file system.
    unset = next((name for name in _NAME.findall(fast_dir) if not os.environ.get(name)), None)
    parent = Path(os.path.expandvars(fast_dir))
    if unset or not parent.is_absolute():
        why = f"${unset} is not set on this node" if unset else "it must be absolute, as a directory of the node is"
        say(f"fast_dir {fast_dir}: {why}; saves go to the shared file system alone")
        return None
    run = opening.run_dir.path.resolve()
    directory = parent / f"hpc_resume-{os.geteuid()}-{opening.run_dir.key}-{zlib.crc32(os.fsencode(run)):08x}"
    owner = {"version": FORMAT_VERSION, "run_dir": str(run), "host": host_name(), "boot_id": boot_id()}
    try:
        parent.mkdir(DIR_MODE, parents=True, exist_ok=True)
        directory.mkdir(DIR_MODE, exist_ok=True)
        _check_owner(directory)
        if _read(directory / _OWNER_FILE) != owner:
            _empty(directory)
            write_json(directory / _OWNER_FILE, owner)
    except OSError as error:
        say(f"fast_dir {parent}: {error.strerror or error}; saves go to the shared file system alone")
        return None
    store = Store(
        directory / CHECKPOINTS_DIR,
        None,
        attempt=opening.attempt,
        keep=1,
        generation=generation,
        generations=log,
        durable=False,
    )
    store.clear_leftovers()  # whoever wrote here was this run's process on this node, and we hold the run
    return FastTier(directory, store)


def _check_owner(directory: Path) -> None:
    """A tmpfs is open to all: a link, or a directory of somebody else, would be loaded as ours."""
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise RunStateError(f"{directory} is a link or belongs to somebody else; remove it, or set another fast_dir")
    directory.chmod(DIR_MODE)


def _read(path: Path) -> object:
    try:
        return json.loads(read_plain(path))
    except (OSError, ValueError):
        return None


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
