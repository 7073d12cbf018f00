"""Checkpoints as files of the W&B run: `hpc_resume/slot-0/` and `slot-1/`, written in turn: one is always whole.

Files, and not artifacts: they are overwritten in place, so that a run keeps two checkpoints at W&B and not thousands;
they are what `wandb.restore(name, run_path)` reads, so a person can have them without us.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from hpc_resume.contract import MANIFEST_FILE
from hpc_resume.trackers.wandb_names import RunFile, Wishes, name_run, read_wishes
from hpc_resume.trackers.wandb_service import is_reachable
from hpc_resume.trackers.wandb_session import wandb_module

if TYPE_CHECKING:
    from hpc_resume.trackers import Facts

PREFIX: Final = "hpc_resume"
SLOTS: Final = ("slot-0", "slot-1")


def open(facts: Facts) -> WandbMirror:  # noqa: A001 - the name that every mirror's module offers
    """Wanted where job.yaml has `wandb:` too; without it there is no run to keep anything in."""
    return WandbMirror(facts, read_wishes(os.environ) or Wishes())


class WandbMirror:
    """The files of one run. What goes wrong is said by who calls."""

    def __init__(self, facts: Facts, wishes: Wishes) -> None:
        self._facts = facts
        self._wishes = wishes
        self._file = RunFile(facts.run_file)

    def fetch(self, into: Path) -> None:
        """Each slot that is there, as `into`/slot-N. Raises OSError without a server; wandb would try for minutes."""
        if not is_reachable(os.environ):
            raise OSError("W&B is out of reach")
        import wandb  # noqa: PLC0415 - asked for by job.yaml

        run_id = name_run(self._facts, self._wishes, os.environ)
        api: Any = wandb.Api()
        entity = self._wishes.entity or api.default_entity
        try:
            run = api.run(f"{entity}/{self._wishes.project or 'uncategorized'}/{run_id}")
        except wandb.errors.CommError as error:
            if _says_absent(error):
                return  # no such run yet
            raise
        failed = [why for slot in SLOTS if (why := self._fetch_slot(run, slot, into)) is not None]
        if failed and not any((into / slot).exists() for slot in SLOTS):
            raise failed[0]

    def _fetch_slot(self, run: Any, slot: str, into: Path) -> Exception | None:
        """Why it could not be fetched; None for one that is here now, and for one that is not whole at W&B either."""
        place = f"{PREFIX}/{slot}"
        try:
            if not _download(run, f"{place}/{MANIFEST_FILE}", into):
                return None
            for path in _stored(into / place / MANIFEST_FILE):
                if not _download(run, f"{place}/{path}", into):
                    return None
            (into / place).rename(into / slot)
        except (ValueError, KeyError, TypeError):
            return None  # a torn manifest
        except Exception as error:  # noqa: BLE001 - wandb raises its CommError for every kind
            return None if _says_absent(error) else error
        return None

    def publish(self, step: int, directory: Path) -> None:
        """Copy it into the run's own directory, from where wandb-core uploads it behind the training."""
        del step
        run = getattr(wandb_module(), "run", None)
        if run is None or getattr(run, "offline", False):
            return
        number = 1 - int(self._file.section().get("slot", 1))
        slot = Path(run.dir) / PREFIX / SLOTS[number]
        shutil.rmtree(slot, ignore_errors=True)
        # A copy, since retention may remove the checkpoint before it is sent.
        shutil.copytree(directory, slot, copy_function=_link_or_copy)
        for path in sorted(slot.rglob("*"), key=lambda path: path.name == MANIFEST_FILE):
            if path.is_file():
                run.save(str(path), base_path=run.dir, policy="now")
        self._file.note(slot=number)


def _download(run: Any, name: str, into: Path) -> bool:
    """Whether there is such a file; one that there is not has the md5 "0", says wandb.restore."""
    found = [file for file in run.files(names=[name]) if file.md5 != "0"]
    if found:
        found[0].download(root=str(into), replace=True).close()
    return bool(found)


def _says_absent(error: Exception) -> bool:
    return any(words in str(error).lower() for words in ("not found", "could not find"))


def _stored(manifest: Path) -> list[str]:
    """The files that a manifest names, none of them outside of its directory."""
    files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    paths = [PurePosixPath(str(file["path"])) for file in files]
    if any(path.is_absolute() or ".." in path.parts for path in paths):
        raise ValueError("a file outside of the checkpoint")
    return [str(path) for path in paths]


def _link_or_copy(source: str, target: str) -> None:
    """A second name where the file system can: what is published is never changed."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
