"""A run's name at W&B, and what the owner asked for: from job.yaml, the environment and run.json. No wandb here.

The id is in run.json before the first `init`, so that an attempt that was killed in it is still the same run.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hpc_resume.contract import ENV_DRILL, ENV_WANDB
from hpc_resume.durable import write_json
from hpc_resume.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hpc_resume.trackers import Facts

RESUME_MODES: Final = ("allow", "must", "never", "auto")
STEP_METRIC: Final = "global_step"
_ID_LENGTH: Final = 64  # W&B's limit; its client does not check it
_DIGEST: Final = 8
_SECTION: Final = "wandb"  # of run.json


@dataclass(frozen=True, slots=True)
class Wishes:
    """job.yaml's `wandb:`, with what W&B's own variables say in its place. Empty: nobody said."""

    run_id: str = ""
    project: str = ""
    entity: str = ""
    group: str = ""
    name: str = ""
    notes: str = ""
    tags: tuple[str, ...] = ()
    resume: str = "allow"
    step_metric: str = STEP_METRIC
    rewind: bool = False


def read_wishes(variables: Mapping[str, str]) -> Wishes | None:
    """None where job.yaml has no `wandb:`, and in a drill, whose metrics are nobody's.

    Raises ConfigError for what W&B would refuse in the middle of the start.
    """
    text = variables.get(ENV_WANDB, "")
    if not text or variables.get(ENV_DRILL):
        return None
    try:
        told = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{ENV_WANDB} is not JSON ({error}); let `hpc-resume render` write it") from None
    resume = variables.get("WANDB_RESUME") or told.get("resume") or "allow"
    if resume not in RESUME_MODES:
        raise ConfigError(
            f"WANDB_RESUME={resume}: W&B takes {', '.join(RESUME_MODES)}; `allow` is what a requeue needs"
        )
    return Wishes(
        run_id=variables.get("WANDB_RUN_ID", ""),
        project=variables.get("WANDB_PROJECT") or told.get("project", ""),
        entity=variables.get("WANDB_ENTITY") or told.get("entity", ""),
        group=variables.get("WANDB_RUN_GROUP") or told.get("group", ""),
        name=variables.get("WANDB_NAME") or told.get("name", ""),
        notes=variables.get("WANDB_NOTES") or told.get("notes", ""),
        tags=tuple(told.get("tags", ())),
        resume=resume,
        step_metric=told.get("step_metric") or STEP_METRIC,
        rewind=told.get("rewind") is True,
    )


def as_run_id(text: str) -> str:
    """`text` as W&B takes an id: 64 characters, dashes for what is no word; two texts never become one.

    What is an id already stays as it is; anything else gets a piece of its SHA-256.
    """
    plain = re.sub(r"[^A-Za-z0-9_-]", "-", text)
    if plain == text and 0 < len(text) <= _ID_LENGTH:
        return text
    return f"{plain[: _ID_LENGTH - _DIGEST - 1]}-{_digest(text)}"


def own_run_id(key: str, place: Path, created: str, variables: Mapping[str, str]) -> str:
    """The id of a run that nobody has named: its key, and a piece of a hash against namesakes in the same project.

    Under Slurm the hash is the same on an empty disk: a requeued job finds its run. A run of a plain `python train.py`
    whose directory was deleted is another run, so `created` goes in.
    """
    cluster = variables.get("SLURM_CLUSTER_NAME", "")
    owner = str(os.getuid())
    told = "\0".join((cluster, owner, str(place), "" if variables.get("SLURM_JOB_ID") else created))
    return as_run_id(f"{key[: _ID_LENGTH - _DIGEST - 1]}-{_digest(told)}")


def config_changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What has another value than in the attempt before, as `lr 0.1 -> 0.2`."""
    return [f"{name} {old} -> {now[name]}" for name, old in before.items() if now.get(name, old) != old]


class Changes:
    """Those since the attempt before, each told once: a training may put its configuration together piece by piece."""

    def __init__(self, before: Mapping[str, str]) -> None:
        self._before = before
        self._told: set[str] = set()

    def new(self, now: Mapping[str, str]) -> list[str]:
        """What was not told yet."""
        changed = [change for change in config_changes(self._before, now) if change not in self._told]
        self._told.update(changed)
        return changed


def name_run(facts: Facts, wishes: Wishes, variables: Mapping[str, str]) -> str:
    """The id of this run: the one it was given, the one in run.json, else its own."""
    file = RunFile(facts.run_file)
    if wishes.run_id:
        return as_run_id(wishes.run_id)
    if known := file.section().get("id"):
        return str(known)
    record, key = file.whole(), facts.run_key
    name = f"{record.get('name')}-{key}" if key.isdigit() else key
    return own_run_id(name, facts.run_file.parent, str(record.get("created")), variables)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:_DIGEST]


class RunFile:
    """The `wandb` section of run.json. Its only writer is the process that continues the run."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def whole(self) -> dict[str, Any]:
        """run.json, {} when it cannot be read."""
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def section(self) -> dict[str, Any]:
        """What is known of this run at W&B: id, project, entity, started, config."""
        found = self.whole().get(_SECTION)
        return found if isinstance(found, dict) else {}

    def note(self, **facts: object) -> None:
        """Add `facts`, durably; the rest stays as it is. Raises OSError."""
        record = self.whole()
        if not record:
            return  # the launcher's to write; without it there is nothing to add to
        record[_SECTION] = self.section() | facts
        write_json(self._path, record)
