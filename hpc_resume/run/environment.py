"""What the launcher, Slurm or nobody has told this process: read once, from a mapping, into plain data."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpc_resume import contract
from hpc_resume.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

_NOT_IN_A_KEY = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True, slots=True)
class Environment:
    """`launched`: a launcher keeps the books (run.json, attempt.json, exit.json, finished.json). None: not told.

    `sweep_run` is the W&B run that a sweep's agent has started this process for, and the key of its run directory.
    """

    run_dir: Path | None
    runs: Path | None
    sweep_run: str
    attempt: int | None
    attempt_dir: Path | None
    signal_name: str
    lead: float | None
    save_steps: int | None
    save_seconds: float | None
    save_auto: bool
    keep: int | None
    keep_every: int | None
    save_async: bool | None
    fast_dir: str | None
    checksums: bool
    backend: str | None
    mirror: str
    drill: tuple[int, ...] | None
    end_time: float | None
    job_id: str
    restart_count: int
    cause: str | None
    warning_file: Path | None
    rank: int
    world_size: int  # 0: nobody said
    one_host: bool  # all ranks are on this host
    incarnation: int  # how often an agent (torchrun) has started these ranks anew within the attempt
    reshard: bool  # a checkpoint of another number of ranks may be loaded where the format can

    @property
    def is_many(self) -> bool:
        """Whether there are other ranks."""
        return self.world_size > 1

    @property
    def launched(self) -> bool:
        """Whether a launcher started this process."""
        return self.attempt_dir is not None

    @property
    def has_end(self) -> bool:
        """Whether somebody ends this process some time after a warning."""
        return self.launched or self.warning_file is not None

    @property
    def signum(self) -> int:
        """Number of the warning signal."""
        return int(signal.Signals[f"SIG{self.signal_name}"])


def run_key(run_id: str) -> str:
    """The name of the run directory of a W&B run."""
    return _NOT_IN_A_KEY.sub("-", run_id).lstrip(".") or "-"


def read_environment(variables: Mapping[str, str]) -> Environment:
    """Raises ConfigError, naming the variable, for a value that cannot be meant."""
    run_dir = variables.get(contract.ENV_RUN_DIR)
    attempt_dir = variables.get(contract.ENV_ATTEMPT_DIR)
    runs = variables.get(contract.ENV_RUNS)
    warning_file = variables.get(contract.ENV_WARNING_FILE)
    is_swept = bool(variables.get("WANDB_SWEEP_ID") and variables.get("WANDB_RUN_ID"))
    if attempt_dir and not run_dir:
        raise ConfigError(f"{contract.ENV_ATTEMPT_DIR} is set and {contract.ENV_RUN_DIR} is not; set both or none")
    return Environment(
        run_dir=Path(run_dir).absolute() if run_dir else None,
        runs=Path(runs).absolute() if runs else None,
        sweep_run=run_key(variables["WANDB_RUN_ID"]) if is_swept else "",
        attempt=_whole(variables, contract.ENV_ATTEMPT),
        attempt_dir=Path(attempt_dir).absolute() if attempt_dir else None,
        signal_name=_signal(variables),
        lead=_number(variables, contract.ENV_LEAD) or None,
        save_steps=_whole(variables, contract.ENV_SAVE_STEPS),
        save_seconds=_number(variables, contract.ENV_SAVE_SECONDS),
        save_auto=variables.get(contract.ENV_SAVE_AUTO) == "1",
        keep=_whole(variables, contract.ENV_KEEP),
        keep_every=_whole(variables, contract.ENV_KEEP_EVERY) or None,
        save_async=_truth(variables, contract.ENV_SAVE_ASYNC),
        fast_dir=variables.get(contract.ENV_FAST_DIR) or None,
        checksums=_truth(variables, contract.ENV_CHECKSUMS) is not False,
        backend=variables.get(contract.ENV_BACKEND) or None,
        mirror=variables.get(contract.ENV_MIRROR, ""),
        drill=_drill(variables),
        end_time=_number(variables, contract.ENV_END_TIME),
        job_id=variables.get(contract.ENV_JOB_ID) or _slurm_job(variables),
        restart_count=_whole(variables, contract.ENV_RESTART_COUNT) or _whole(variables, "SLURM_RESTART_COUNT") or 0,
        cause=variables.get(contract.ENV_CAUSE) or None,
        warning_file=Path(warning_file) if warning_file else None,
        rank=_rank(variables),
        world_size=_world_size(variables),
        one_host=_is_one_host(variables),
        incarnation=_whole(variables, "TORCHELASTIC_RESTART_COUNT") or 0,
        reshard=_truth(variables, contract.ENV_RESHARD) or False,
    )


# Who says which rank this is, and of how many. RANK first: torchrun's workers all inherit the one SLURM_PROCID of the
# task that started it; mpirun's daemons are tasks of a step, too.
_TELLERS: Final = (
    ("RANK", "WORLD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)


def _rank(variables: Mapping[str, str]) -> int:
    return next((rank for name, _ in _TELLERS if (rank := _whole(variables, name)) is not None), 0)


def _world_size(variables: Mapping[str, str]) -> int:
    """Of the same teller as the rank: a step's tasks are not torchrun's workers."""
    sizes = (size for rank, size in _TELLERS if _whole(variables, rank) is not None)
    return _whole(variables, next(sizes, "SLURM_STEP_NUM_TASKS")) or 0


def _is_one_host(variables: Mapping[str, str]) -> bool:
    local = next((_whole(variables, name) for name in _LOCAL_SIZES if name in variables), None)
    if local is not None and local == _world_size(variables):
        return True
    nodes = _whole(variables, "SLURM_STEP_NUM_NODES") or _whole(variables, "SLURM_JOB_NUM_NODES")
    return nodes == 1 or (nodes is None and local is None)


_LOCAL_SIZES: Final = ("LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE")


def _slurm_job(variables: Mapping[str, str]) -> str:
    # In the last array task SLURM_JOB_ID is the id of the whole array (measured on 22.05, 24.11 and 26.05).
    array, task = variables.get("SLURM_ARRAY_JOB_ID"), variables.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else variables.get("SLURM_JOB_ID", "")


def _signal(variables: Mapping[str, str]) -> str:
    name = (variables.get(contract.ENV_SIGNAL) or "USR1").upper().removeprefix("SIG")
    if f"SIG{name}" not in signal.Signals.__members__ or name in ("KILL", "STOP"):
        raise ConfigError(f"{contract.ENV_SIGNAL}={name}: no signal that a process can be warned with; use USR1")
    return name


def _drill(variables: Mapping[str, str]) -> tuple[int, ...] | None:
    text = variables.get(contract.ENV_DRILL, "").strip()
    if not text:
        return None
    steps = text.split(",")
    if not all(step.isascii() and step.isdigit() for step in steps):
        raise ConfigError(f"{contract.ENV_DRILL}={text}: not step numbers with commas between; unset it")
    return tuple(int(step) for step in steps if int(step))


def _whole(variables: Mapping[str, str], name: str) -> int | None:
    text = variables.get(name, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise ConfigError(f"{name}={text}: not a whole number; correct or unset it")
    return int(text)


def _truth(variables: Mapping[str, str], name: str) -> bool | None:
    text = variables.get(name, "").strip().lower()
    if text not in ("", "0", "1", "true", "false"):
        raise ConfigError(f"{name}={text}: give 1 or 0, or unset it")
    return text in ("1", "true") if text else None


def _number(variables: Mapping[str, str], name: str) -> float | None:
    text = variables.get(name, "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ConfigError(f"{name}={text}: not a number of seconds; correct or unset it")
    return value
