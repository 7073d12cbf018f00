"""job.yaml, version 1: one model for every key, from which both the checks and the JSON Schema are made.

Values stay as the person wrote them (`lead: 120s`); plan.py makes numbers of them. Unknown keys and wrong types are
refused here; what needs more than one key to see is in checks.py.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from hpc_resume.launch import units
from hpc_resume.launch.sbatch_schema import SLURM_SCHEMA
from hpc_resume.launch.wandb_spec import Section as _Section
from hpc_resume.launch.wandb_spec import Wandb

MAX_LEAD: Final = 65_535  # seconds; sbatch keeps the time of --signal in 16 bits

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_BACKEND: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_SWEEP: Final = re.compile(r"[^/\s]+/[^/\s]+/[A-Za-z0-9_-]+")
_SCALAR_TYPES: Final = ["string", "number", "boolean"]
_DURATION_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": units.DURATION_PATTERN}]
}
AUTO: Final = "auto"
_EVERY_SCHEMA: Final = {"anyOf": [*_DURATION_SCHEMA["anyOf"], {"const": AUTO}]}


def is_name(text: str) -> bool:
    """Whether `text` can be the name of a job."""
    return _NAME.fullmatch(text) is not None


def _name(value: str) -> str:
    if not is_name(value):
        raise ValueError(
            f"{value!r}: must begin with a letter or a digit and go on with letters, digits, '.', '_' or '-', "
            "at most 64 characters: it names the job and its run directories"
        )
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value


def _node_directory(value: str) -> str:
    if not value.startswith(("/", "$")):
        raise ValueError("must be an absolute path on the node, such as /dev/shm or $TMPDIR")
    return value


def _not_empty(value: str) -> str:
    if not value:
        raise ValueError("must not be empty")
    return value


def _command(value: object) -> object:
    if not isinstance(value, str | list):
        raise ValueError("must be a list of words, as [python, train.py], or one string, run by bash")  # noqa: TRY004
    if not value or (isinstance(value, str) and not value.strip()) or value[0] == "":
        raise ValueError("must name a program, as [python, train.py]")
    if isinstance(value, str):
        return value
    for index, word in enumerate(value):
        if not isinstance(word, str):
            raise ValueError(f"word {index + 1} is a list or a mapping, not text: put it in quotes")  # noqa: TRY004
    return tuple(value)


def _duration(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("must be a time with its unit, as 120s or 15min; a plain whole number is seconds")  # noqa: TRY004
    units.milliseconds_of(value)
    return value


def _lead(value: object) -> object:
    ms = units.milliseconds_of(value) if _duration(value) is value and isinstance(value, int | str) else 0
    if ms < 1000 or ms % 1000 or ms > MAX_LEAD * 1000:
        raise ValueError(f"{value}: must be whole seconds, from 1s to {MAX_LEAD}s")
    return value


def _every(value: object) -> object:
    """A plain number is steps, a text is a time."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 1:
            raise ValueError(f"{value}: must be at least 1 step, or a time as 15min")
    elif isinstance(value, str) and value != AUTO:
        try:
            ms = units.milliseconds(value)
        except ValueError as error:
            raise ValueError(f"{error}; or a number of steps, or auto") from None
        if ms < 1000 or ms % 1000:
            raise ValueError(f"{value}: must be whole seconds, at least 1s")
    elif value != AUTO:
        raise ValueError("must be a number of steps, or a time with its unit, as 15min, or auto")
    return value


def _backend(value: str) -> str:
    if _BACKEND.fullmatch(value) is None:
        raise ValueError(f"{value!r}: must be the name of a format: json, numpy, torch, safetensors, dcp")
    return value


def _budget(value: object) -> object:
    if value == "unlimited" or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise ValueError("must be a whole number, 0 or more, or `unlimited`")


def _causes(value: object) -> object:
    if not isinstance(value, list):
        raise ValueError("must be a list, as [preempted, timeout, node_fail]; [] for never")  # noqa: TRY004
    if "crash" in value:
        raise ValueError("crash has a budget of its own: `requeue: {max: {crash: 3}}`")
    if any(value.count(item) > 1 for item in value):
        raise ValueError("names a cause twice")
    return tuple(value)


Duration = Annotated[int | str, BeforeValidator(_duration), WithJsonSchema(_DURATION_SCHEMA)]
Lead = Annotated[int | str, BeforeValidator(_lead), WithJsonSchema(_DURATION_SCHEMA)]
Every = Annotated[int | str, BeforeValidator(_every), WithJsonSchema(_EVERY_SCHEMA)]
Budget = Annotated[
    int | Literal["unlimited"],
    BeforeValidator(_budget),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"const": "unlimited"}]}),
]
Cause = Literal["preempted", "timeout", "node_fail"]
Command = Annotated[
    str | tuple[str, ...],
    BeforeValidator(_command),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "minItems": 1, "items": {"type": _SCALAR_TYPES}},
                {"type": "string", "minLength": 1},
            ]
        }
    ),
]
Environment = Annotated[
    dict[str, str],
    WithJsonSchema({"type": "object", "additionalProperties": {"type": _SCALAR_TYPES}}),
]


class Preemption(_Section):
    """The warning before the end."""

    signal: Literal["USR1", "USR2"] = Field(default="USR1", description="The warning signal.")
    lead: Lead = Field(
        default="120s", description="How long before the end the warning comes: 120s, 5min, or a number of seconds."
    )


class RequeueBudgets(_Section):
    """How often the job may go back into the queue, by cause."""

    timeout: Budget = Field(default="unlimited", description="After the time limit.")
    preempted: Budget = Field(default="unlimited", description="After a preemption or a lost node.")
    crash: Budget = Field(default=0, description="After the training's own failure.")
    no_progress: Budget = Field(default=2, description="Attempts in a row that may end without a newer checkpoint.")
    total: Budget = Field(default=1000, description="All requeues of one run together.")


class Requeue(_Section):
    """When the job goes back into the queue."""

    on: Annotated[tuple[Cause, ...], BeforeValidator(_causes)] = Field(
        default=("preempted", "timeout", "node_fail"), description="After which causes."
    )
    max: RequeueBudgets = Field(default_factory=RequeueBudgets, description="How often; a number or `unlimited`.")
    method: Literal["auto", "scontrol", "successor"] = Field(
        default="auto", description="How: scontrol requeue, else a successor job on the same run; or one of them alone."
    )


class Checkpoint(_Section):
    """When the training's state is saved without any warning."""

    every: Every = Field(
        default="15min",
        description="A time as 15min, a number of steps, or auto: from the cost of a save and the interruptions.",
    )
    backend: Annotated[str, AfterValidator(_backend)] | None = Field(
        default=None,
        description="Format of every state_dict: json, numpy, torch, safetensors, dcp, or a package's own.",
        json_schema_extra={"pattern": _BACKEND.pattern},
    )
    keep: int = Field(default=2, ge=2, description="How many checkpoints stay: the newest, and one to fall back on.")
    keep_every: int | None = Field(
        default=None, ge=1, description="Of every so many steps the first checkpoint stays for good, too."
    )
    save_async: bool | None = Field(
        default=None,
        alias="async",
        description="true: a save costs the training a copy in memory, and is written behind it.",
    )
    mirror: Literal["wandb"] | None = Field(
        default=None, description="wandb: the run at W&B keeps the newest two as files, for an empty disk."
    )
    fast_dir: Annotated[str, AfterValidator(_node_directory)] | None = Field(
        default=None,
        description="A directory of the node (tmpfs, NVMe; $NAMES are the node's) that takes a save first.",
    )
    reshard: bool = Field(
        default=False,
        description="true: a checkpoint of another number of ranks is loaded, where its format can (dcp).",
    )
    checksums: bool = Field(
        default=True,
        description="false: a start compares sizes only; every byte is still checked before an older one is removed.",
    )


class Stagger(_Section):
    """Array tasks that would start at the same moment start one after the other."""

    interval: Duration = Field(description="Between the starts of two array tasks.")
    jitter: Duration = Field(default="0s", description="Upper bound of a random part on top.")
    burst: int = Field(default=1, ge=1, description="With `sweep:`, so many agents may ask at once after a rest.")


def _expression(value: str) -> str:
    try:
        re.compile(value.encode())
    except re.error as error:
        raise ValueError(f"{value!r}: {error}; it is a regular expression of Python") from None
    return value


class Watch(_Section):
    """A program that nobody can edit, under `hpc-resume watch`."""

    on_warning: Annotated[str, AfterValidator(_not_empty)] = Field(
        description='What is typed into it at the warning, as "save\\n".'
    )
    expect: Annotated[str, AfterValidator(_expression)] = Field(
        default="", description="Its answer: a regular expression; without it, its end is waited for."
    )
    timeout: Duration = Field(default="60s", description="How long to wait for the answer.")


def _sweep_id(value: str) -> str:
    if _SWEEP.fullmatch(value) is None:
        raise ValueError(f"{value!r}: must be entity/project/id, as `wandb sweep` prints it")
    return value


class Sweep(_Section):
    """A fleet of W&B sweep agents, one in each task of an array."""

    id: Annotated[str, AfterValidator(_sweep_id)] = Field(
        description="entity/project/id, as `wandb sweep` prints it.",
        json_schema_extra={"pattern": f"^{_SWEEP.pattern}$"},
    )
    agents: int = Field(default=1, ge=1, description="How many array tasks.")


class Job(_Section):
    """One job.yaml of hpc_resume."""

    name: Annotated[str, AfterValidator(_name)] = Field(
        description="Name of the job and of its run directories.", json_schema_extra={"pattern": f"^{_NAME.pattern}$"}
    )
    command: Command = Field(description="The training: a list of words, or one string that bash runs with pipefail.")
    slurm: Annotated[dict[str, Any], WithJsonSchema(SLURM_SCHEMA)] = Field(
        default_factory=dict, description="sbatch's own long options, with _ for -."
    )
    launcher: Literal["auto", "direct", "srun", "torchrun", "accelerate", "mpirun"] = Field(
        default="auto",
        description="What starts the command: the batch shell itself (direct), srun (a rank per task), torchrun,"
        " accelerate or mpirun; auto: srun where there is more than one task.",
    )
    setup: str = Field(default="", description="bash to evaluate before the command: module load, conda activate.")
    env: Environment = Field(
        default_factory=dict, description="Environment variables for the command; literal text, no secrets."
    )
    run_dir: Annotated[str, AfterValidator(_not_blank)] = Field(
        default="runs", description="Parent of the run directories, on a file system that every node sees."
    )
    preemption: Preemption = Field(default_factory=Preemption, description="The warning before the end.")
    requeue: Requeue = Field(default_factory=Requeue, description="When the job goes back into the queue.")
    checkpoint: Checkpoint = Field(default_factory=Checkpoint, description="When the state is saved.")
    wandb: Wandb | None = Field(default=None, description="The run at W&B; {} is enough.")
    sweep: Sweep | None = Field(default=None, description="In place of `command`: agents of a W&B sweep.")
    watch: Watch | None = Field(
        default=None, description="The command is a program that nobody can edit: asked to save by its terminal."
    )
    stagger: Stagger | None = Field(default=None, description="Spread the starts of array tasks.")

    @model_validator(mode="before")
    @classmethod
    def _fleet(cls, data: Any) -> Any:
        """A sweep is a job with a command of ours and an array of its own."""
        sweep = data.get("sweep") if isinstance(data, dict) else None
        if not isinstance(sweep, dict):
            return data
        agents, slurm = sweep.get("agents", 1), data.get("slurm") or {}
        last = agents - 1 if isinstance(agents, int) and agents > 0 else 0
        if isinstance(slurm, dict):
            slurm = slurm | {"array": f"0-{last}"}
        return data | {"command": ["hpc-resume", "agent", str(sweep.get("id"))], "slurm": slurm}


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of job.yaml, as the models have it."""
    schema = Job.model_json_schema()
    schema["required"].remove("command")
    either = {"oneOf": [{"required": ["command"]}, {"required": ["sweep"]}]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, **either}
