"""What starts the ranks of a job: which launcher, with which words, and why. Pure.

A launcher's words stand before the command's. Values that are known only in the job (node names, ports) are filled in
by a bash of their own, which then becomes the launcher: `bash -c 'exec torchrun ... "$@"' torchrun COMMAND...`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Name = Literal["direct", "srun", "torchrun", "accelerate", "mpirun"]

# Of the words that people begin a command with, those that start ranks by themselves.
OF_THEIR_OWN: Final = ("srun", "torchrun", "accelerate", "mpirun", "mpiexec", "deepspeed")
TASK_COUNTS: Final = ("nodes", "ntasks", "ntasks_per_node", "ntasks_per_socket", "ntasks_per_gpu", "ntasks_per_core")

# A step waits for all of its tasks, however one of them ends: a rank that still saves is not killed for another's end.
_SRUN: Final = ("srun", "--kill-on-bad-exit=0", "--wait=0")
_RANK: Final = (
    "RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_STEP_NUM_TASKS LOCAL_RANK=$SLURM_LOCALID; export RANK WORLD_SIZE LOCAL_RANK;"
    ' exec "$@"'
)
_ACCELERATE_CONFIG: Final = (
    'config="${HF_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/huggingface}/accelerate/default_config";'
    " [[ -e $config.yaml || -e $config.json ]]"
)
_AGENTS_STEP: Final = ("srun", "--kill-on-bad-exit=0", "--wait=0", "--ntasks-per-node=1")


@dataclass(frozen=True, slots=True)
class Launcher:
    """`words` go before the command; `why` is for people; `ranks` is False for one process without others."""

    name: Name
    words: tuple[str, ...]
    why: str
    ranks: bool


@dataclass(frozen=True, slots=True)
class Tasks:
    """What `slurm:` says of the job's size; `per_node` is None where it is not said."""

    nodes: int
    total: int
    per_node: int | None
    gpus_per_node: int | None
    cpus_per_task: int | None

    @property
    def is_many(self) -> bool:
        """Whether srun would start more than one process."""
        return self.total > 1


def read_tasks(slurm: Mapping[str, object]) -> Tasks:
    """From a `slurm:` section without complaints."""
    extra = slurm.get("extra")
    if isinstance(extra, Mapping):
        slurm = dict(slurm) | {str(key).removeprefix("--").replace("-", "_"): value for key, value in extra.items()}
    nodes = upper(str(slurm["nodes"])) if "nodes" in slurm else 1
    per_node = _whole(slurm, "ntasks_per_node")
    gpus = _last_number(str(slurm["gpus_per_node"])) if "gpus_per_node" in slurm else None
    per_gpu = _whole(slurm, "ntasks_per_gpu")
    by_gpu = per_gpu * gpus * nodes if per_gpu is not None and gpus is not None else None
    total = _whole(slurm, "ntasks") or (nodes * per_node if per_node is not None else by_gpu or nodes)
    others = max(_whole(slurm, name) or 1 for name in TASK_COUNTS if name not in ("nodes", "ntasks"))
    return Tasks(nodes, max(total, 2) if others > 1 else total, per_node, gpus, _whole(slurm, "cpus_per_task"))


def choose(asked: str, command: str | tuple[str, ...], slurm: Mapping[str, object]) -> Launcher:
    """The launcher of a job; `asked` is its `launcher:`."""
    tasks = read_tasks(slurm)
    name, why = (asked, f"launcher: {asked}") if asked != "auto" else _pick(command, tasks)
    match name:
        case "srun":
            words = (*_SRUN, "bash", "-c", _RANK, "rank") if tasks.is_many else ("srun",)
            return Launcher("srun", words, why, tasks.is_many)
        case "torchrun":
            return Launcher("torchrun", _torchrun(command, tasks), why, ranks=True)
        case "accelerate":
            return Launcher("accelerate", _accelerate(tasks), why, ranks=True)
        case "mpirun":
            return Launcher("mpirun", ("mpirun", "-np", str(tasks.total)), why, ranks=True)
        case _:
            return Launcher("direct", (), why, tasks.is_many)


def starts_its_own(command: str | tuple[str, ...]) -> str | None:
    """The launcher that a command itself begins with, None for a training."""
    first, *rest = command.split() if isinstance(command, str) else command
    name = first.rpartition("/")[2]
    if name in OF_THEIR_OWN:
        return name
    modules = [rest[at + 1] for at, word in enumerate(rest[:-1]) if word == "-m"]
    return "torchrun" if modules[:1] in (["torch.distributed.run"], ["torch.distributed.launch"]) else None


def _pick(command: str | tuple[str, ...], tasks: Tasks) -> tuple[str, str]:
    if own := starts_its_own(command):
        return "direct", f"auto: the command starts its ranks by itself ({own})"
    if tasks.is_many:
        return "srun", f"auto: {tasks.total} tasks, of which srun makes one rank each"
    return "direct", "auto: one task, which needs no step of its own"


def _torchrun(command: str | tuple[str, ...], tasks: Tasks) -> tuple[str, ...]:
    """By the job's own Python where the command names it: what is on PATH may be another environment's."""
    python = (
        command[0] if not isinstance(command, str) and re.fullmatch(r"(.*/)?python(3(\.\d+)?)?", command[0]) else ""
    )
    agent = (python, "-m", "torch.distributed.run") if python else ("torchrun",)
    workers = f"--nproc-per-node={_per_node(tasks)}"
    if tasks.nodes == 1:
        meeting = '--rdzv-backend=c10d --rdzv-id="$HPC_RESUME_JOB_ID" --rdzv-endpoint="$MASTER_ADDR:$MASTER_PORT"'
        return (
            "bash",
            "-c",
            f'exec "${{@:1:{len(agent)}}}" {meeting} "${{@:{len(agent) + 1}}}"',
            "torchrun",
            *agent,
            workers,
            "--no-python",
        )
    meeting = (
        '--nnodes="$SLURM_JOB_NUM_NODES" --rdzv-backend=c10d --rdzv-id="$HPC_RESUME_JOB_ID"'
        ' --rdzv-endpoint="$MASTER_ADDR:$MASTER_PORT" --rdzv-conf=is_host=$((SLURM_NODEID == 0))'
    )
    text = f'exec "${{@:1:{len(agent)}}}" {meeting} "${{@:{len(agent) + 1}}}"'
    return (*_step(tasks), "bash", "-c", text, "torchrun", *agent, workers, "--no-python")


def _accelerate(tasks: Tasks) -> tuple[str, ...]:
    """With the person's own `accelerate config`, if there is one.

    Without it accelerate starts a single process where it does not see two GPUs: on CPUs, and on nodes with one GPU
    each. --multi_gpu is its word for many processes, of any device.
    """
    processes = _per_node(tasks) * tasks.nodes
    meeting = (
        f'exec accelerate launch --num_machines={tasks.nodes} --machine_rank="${{SLURM_NODEID:-0}}"'
        ' --main_process_ip="$MASTER_ADDR" --main_process_port="$MASTER_PORT" "$@"'
    )
    if processes > 1:
        meeting = f'{_ACCELERATE_CONFIG} || set -- --multi_gpu "$@"; {meeting}'
    step = _step(tasks) if tasks.nodes > 1 else ()
    return (*step, "bash", "-c", meeting, "accelerate", f"--num_processes={processes}", "--no_python")


def _step(tasks: Tasks) -> tuple[str, ...]:
    """One agent per node, with the CPUs of all the ranks that it will start."""
    cpus = (tasks.cpus_per_task or 1) * (tasks.per_node or 1)
    return (*_AGENTS_STEP, f"--nodes={tasks.nodes}", f"--ntasks={tasks.nodes}", f"--cpus-per-task={cpus}")


def _per_node(tasks: Tasks) -> int:
    return tasks.gpus_per_node or tasks.per_node or max(1, tasks.total // tasks.nodes)


def _whole(slurm: Mapping[str, object], name: str) -> int | None:
    return int(str(slurm[name])) if name in slurm else None


def _last_number(text: str) -> int | None:
    found = re.findall(r"\d+", text)
    return int(found[-1]) if found else None


def upper(value: str) -> int:
    """The largest number that `2`, `1-4` or `2,4-8` allows."""
    scale = {"k": 1024, "m": 1024**2}
    return max(int(n) * scale.get(unit.lower(), 1) for n, unit in re.findall(r"([0-9]+)([KkMm]?)", value))
