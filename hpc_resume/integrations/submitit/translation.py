"""submitit's parameters as a job.yaml: pure. What has no place in one is refused, never left out in silence."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from hpc_resume.errors import ConfigError, SpecError
from hpc_resume.integrations.submitit.naming import CLUSTER, runs_of
from hpc_resume.launch.spec import Job
from hpc_resume.launch.validate import job_of
from hpc_resume.launch.yaml_source import parse

# Sections of job.yaml that a submitit user can give, as `hpc_resume_requeue={"max": {"timeout": 3}}`.
SECTIONS: Final = ("preemption", "requeue", "checkpoint", "stagger", "env", "wandb")

# What submitit itself names otherwise than sbatch, or means for itself.
_OWN: Final = frozenset(
    (
        *("job_name", "setup", "teardown", "signal_delay_s", "stderr_to_stdout", "srun_args", "use_srun"),
        *("array_parallelism", "additional_parameters", "num_gpus", "time"),
    )
)
_TIME: Final = 5  # minutes, as submitit has it
_LEAD: Final = 90  # seconds, as submitit has it
_PARALLEL: Final = 256  # array tasks, as submitit has it


def job_of_parameters(
    parameters: Mapping[str, Any], *, folder: Path, python: str, logs: tuple[str, str], tasks: int | None = None
) -> Job:
    """The job that runs what was pickled into `folder`.

    Args:
        parameters: as update_parameters of the executor has them, in Slurm's names.
        folder: submitit's folder, absolute.
        python: shell words that start Python.
        logs: stdout and stderr of task 0, with sbatch's %-patterns.
        tasks: length of the array; None for a single job.

    Raises ConfigError with everything that is wrong with `parameters`.
    """
    data = _data(parameters, folder=folder, python=python, logs=logs, tasks=tasks)
    try:
        return job_of(parse(json.dumps(data).encode(), "update_parameters"))
    except SpecError as error:
        found = (f"{problem.key}: {problem.message}" if problem.key else problem.message for problem in error.problems)
        raise ConfigError("submitit's parameters as a job.yaml: " + "; ".join(found)) from None


def without_progress(requeue: Mapping[str, Any]) -> dict[str, Any]:
    """`requeue` for a callable that is saved by submitit's pickle: no checkpoint of ours would show that it gets on."""
    return {**requeue, "max": {"no_progress": "unlimited", **requeue.get("max", {})}}


def _data(
    parameters: Mapping[str, Any], *, folder: Path, python: str, logs: tuple[str, str], tasks: int | None
) -> dict[str, Any]:
    given = {name: value for name, value in parameters.items() if value is not None}
    _refuse_unheard(given)
    minutes = given.get("time", _TIME)
    slurm = {name: value for name, value in given.items() if name not in _OWN and name not in SECTIONS}
    if "num_gpus" in given:
        slurm["gpus_per_node"] = given["num_gpus"]
    extra = {name.replace("-", "_"): value for name, value in given.get("additional_parameters", {}).items()}
    slurm = {"time": minutes} | {name: value for name, value in slurm.items() if name not in extra} | extra
    slurm |= {"output": logs[0]} | ({} if given.get("stderr_to_stdout") else {"error": logs[1]})
    if tasks is not None:
        slurm["array"] = f"0-{tasks - 1}%{min(tasks, given.get('array_parallelism', _PARALLEL))}"
    sections: dict[str, Any] = {name: given[name] for name in SECTIONS if name in given}
    sections["env"] = {**sections.get("env", {}), "SUBMITIT_EXECUTOR": CLUSTER}
    sections["preemption"] = {"lead": _lead(given, minutes)} | sections.get("preemption", {})
    return {
        "name": given.get("job_name", "submitit"),
        "command": [*shlex.split(python), "-u", "-m", "submitit.core._submit", str(folder)],
        "slurm": {name: _text(name, value) for name, value in slurm.items()},
        "setup": "\n".join(given.get("setup", ())),
        "run_dir": str(runs_of(folder)),
        **sections,
    }


def _text(name: str, value: object) -> str | bool:
    """As sbatch has it. submitit writes memory with a B, which only sbatch's parser forgives."""
    if isinstance(value, bool):
        return value
    return re.sub(r"(?<=[KMGT])B$", "", str(value)) if name.startswith("mem") else str(value)


def _lead(given: Mapping[str, Any], minutes: object) -> int:
    """The delay that submitit has; half of a time limit that is too short for it."""
    if "signal_delay_s" in given:
        return int(given["signal_delay_s"])
    return min(_LEAD, minutes * 30) if isinstance(minutes, int) and minutes > 0 else _LEAD


def _refuse_unheard(given: Mapping[str, Any]) -> None:
    if given.get("teardown"):
        raise ConfigError("teardown: a warned job has no time for it; put it at the end of the function, or leave it")
    if given.get("srun_args"):
        raise ConfigError("srun_args: the training is started by the batch shell itself; leave them out")
