"""Who an agent is and where: as its launcher has told it, or a person at a terminal. Read once."""

from __future__ import annotations

import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpc_resume import contract
from hpc_resume.durable import DIR_MODE, make_directory
from hpc_resume.errors import ConfigError
from hpc_resume.run.environment import Environment, read_environment, run_key
from hpc_resume.run.rundir import AttemptDir, RunDir

if TYPE_CHECKING:
    from collections.abc import Mapping

_SWEEP: Final = re.compile(r"[^/\s]+/[^/\s]+/[A-Za-z0-9_-]+")
# The allocation's own: a run in it has a directory, attempts and a history of its own.
_OWN: Final = (
    *(contract.ENV_RUN_DIR, contract.ENV_ATTEMPT, contract.ENV_ATTEMPT_DIR, contract.ENV_CAUSE),
    *(contract.ENV_RUN_KEY, contract.ENV_SCHEDULER, contract.ENV_ARRAY_TASK),
)
_FOR_WANDB: Final = {
    "WANDB_AGENT_DISABLE_FLAPPING": "true",  # 128+signum is no failure, though W&B's agent takes it for one
    "WANDB_AGENT_MAX_INITIAL_FAILURES": "1000000",
    contract.ENV_WANDB: '{"resume": "allow"}',
}


@dataclass(frozen=True, slots=True)
class Place:
    """`allocation` is the attempt of the batch shell; None at a terminal. `fleet` names all agents of one job."""

    sweep: str  # entity/project/id
    runs: Path
    environment: Environment
    allocation: AttemptDir | None
    fleet: str
    index: int

    @property
    def shared(self) -> Path:
        """What all agents of the sweep have in common."""
        return self.runs / f"{contract.SWEEP_PREFIX}{self.sweep.rpartition('/')[2]}"

    @property
    def hand_file(self) -> Path:
        """Where the run in hand is on record."""
        if self.allocation is not None:
            return self.allocation.path / contract.HAND_FILE
        return self.shared / f"hand-{os.uname().nodename}-{os.getpid()}.json"

    @property
    def seed(self) -> int:
        """Of the jitter: by array, task and restart, so that after a mass requeue the same do not meet again."""
        return zlib.crc32(f"{self.fleet} {self.index} {self.environment.restart_count}".encode())

    def run_dir(self, run: str) -> RunDir:
        """The directory of a W&B run."""
        return RunDir(self.runs / run_key(run))

    def variables(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """For the agent and its runs."""
        told = {name: value for name, value in inherited.items() if name not in _OWN}
        told[contract.ENV_RUNS] = str(self.runs)
        told[contract.ENV_JOB_ID] = self.environment.job_id
        told[contract.ENV_RESTART_COUNT] = str(self.environment.restart_count)
        if self.allocation is not None:
            told[contract.ENV_ALLOCATION] = str(self.allocation.path)
            told[contract.ENV_WARNING_FILE] = str(self.allocation.warning_file)
        return told | {name: value for name, value in _FOR_WANDB.items() if not told.get(name)}


def locate(sweep: str, runs: Path | None, variables: Mapping[str, str]) -> Place:
    """Raises ConfigError for what is no sweep, or a directory that cannot be used."""
    if not _SWEEP.fullmatch(sweep):
        raise ConfigError(f"{sweep}: not a sweep; give it as entity/project/id, as `wandb sweep` prints it")
    environment = read_environment(variables)
    attempt_dir, own = environment.attempt_dir, environment.run_dir
    parent = runs or (own.parent if own is not None and attempt_dir is not None else Path("runs"))
    task = variables.get("SLURM_ARRAY_TASK_ID", "") if attempt_dir is not None else ""
    fleet = own.name.removesuffix(f"_{task}") if own is not None and attempt_dir is not None else ""
    allocation = AttemptDir(attempt_dir) if attempt_dir is not None else None
    place = Place(sweep, parent.absolute(), environment, allocation, fleet, int(task) if task.isdigit() else 0)
    try:
        place.runs.mkdir(DIR_MODE, parents=True, exist_ok=True)
        make_directory(place.shared)
    except OSError as error:
        raise ConfigError(
            f"{place.shared}: {error.strerror or error}; run_dir must be one that you can write"
        ) from error
    return place
