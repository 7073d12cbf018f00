"""sbatch's own long options, 22.05 to 26.05: which there are, what each takes, and which ones this project owns.

From sbatch(1) and `sbatch --help` of 22.05 and the release notes after it; a newer one goes through `slurm.extra`.
Values are checked where it is cheap and certain; the rest is Slurm's to judge, in its own words.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from hpc_resume.launch import units
from hpc_resume.launch.yaml_source import KeyPath

Complaint = tuple[KeyPath, str, bool]  # the key, what is wrong with it, and whether to point at the key or its value


def _text(value: str) -> None:
    """Any text: Slurm judges it."""


def _count(value: str) -> None:
    if not re.fullmatch(r"[0-9]{1,9}", value):
        raise ValueError(f"{value!r}: must be a whole number")


def _at_least_one(value: str) -> None:
    _count(value)
    if int(value) == 0:
        raise ValueError("0: must be at least 1")


def _node_range(value: str) -> None:
    if not re.fullmatch(r"[0-9]{1,9}[KkMm]?(?:-[0-9]{1,9}[KkMm]?)?(?:,[0-9,:-]+)?", value):
        raise ValueError(f"{value!r}: must be a number of nodes, as 1 or 1-4")


def _gpu_count(value: str) -> None:
    for part in value.split(","):
        if not re.fullmatch(r"(?:[A-Za-z][\w.+-]*:)*[0-9]{1,9}", part):
            raise ValueError(f"{value!r}: must be a number of GPUs or type:number, as 2 or a100:2")


def _yes_no(value: str) -> None:
    if value not in ("yes", "no"):
        raise ValueError(f"{value!r}: must be yes or no")


def _zero_one(value: str) -> None:
    if value not in ("0", "1"):
        raise ValueError(f"{value!r}: must be 0 or 1")


def _time(value: str) -> None:
    units.slurm_seconds(value)


def _memory(value: str) -> None:
    units.memory_kib(value)


def _array(value: str) -> None:
    units.array_indexes(value)


Check = Callable[[str], None]

# What an option takes: a check of its value, with FLAG or MAYBE for those that stand alone or may.
FLAG: Final = "flag"  # --contiguous
MAYBE: Final = "maybe"  # --exclusive, --exclusive=user

_FLAGS: Final = """
consolidate_segments contiguous hold ignore_pbs overcommit oversubscribe reboot spread_job spread_segments stepmgr
use_min_nodes
"""
_COUNTS: Final = """
cores_per_socket cpus_per_gpu cpus_per_task mincpus ntasks ntasks_per_core ntasks_per_gpu ntasks_per_node
ntasks_per_socket sockets_per_node threads_per_core
"""
_TEXTS: Final = """
account acctg_freq batch bb bbf begin cluster_constraint clusters comment constraint container container_id cpu_freq
deadline dependency distribution error exclude export export_file extra_node_info gid gpu_bind gpu_freq gres gres_flags
hint input licenses mail_type mail_user mcs_label mem_bind network nodefile nodelist output partition power prefer
priority profile qos reservation switches tres_bind tres_per_task uid wckey
"""

_BY_KIND: Final[tuple[tuple[Check | str, str], ...]] = (
    (FLAG, _FLAGS),
    (MAYBE, "exclusive get_user_env nice no_kill propagate resv_ports"),
    (_text, _TEXTS),
    (_at_least_one, _COUNTS),
    (_count, "core_spec delay_boot segment thread_spec"),
    (_memory, "mem mem_per_cpu mem_per_gpu tmp"),
    (_gpu_count, "gpus gpus_per_node gpus_per_socket gpus_per_task"),
    (_time, "time time_min"),
    (_zero_one, "oom_kill_step wait_all_nodes"),
    (_array, "array"),
    (_yes_no, "kill_on_invalid_dep"),
    (_node_range, "nodes"),
)

OPTIONS: Final[Mapping[str, Check | str]] = {name: kind for kind, names in _BY_KIND for name in names.split()}

_SUBMIT: Final = "it belongs on the command line of `hpc-resume submit`, not in a job"

# Options that this project writes itself, or that would take a script of its away.
OWNED: Final[Mapping[str, str]] = {
    "job_name": "use the top-level key `name`",
    "signal": "use `preemption: {signal: …, lead: …}`: the trap and the handler must agree with it",
    "requeue": "use `requeue: {on: […]}`",
    "no_requeue": "use `requeue: {on: []}`",
    "open_mode": "it is always `append`: otherwise each attempt would erase the output of the one before",
    "chdir": "a job runs in the directory of its job.yaml",
    "wrap": "use the top-level key `command`",
    **dict.fromkeys(("parsable", "test_only", "wait", "quiet", "verbose", "help", "usage", "version"), _SUBMIT),
}


@dataclass(frozen=True, slots=True)
class Option:
    """One option as sbatch gets it: `--name=value`, or `--name` where value is None."""

    name: str
    value: str | None
    source: str


def complaints(section: Mapping[str, object]) -> Iterator[Complaint]:
    """Everything wrong with `slurm:`, as far as it can be known without Slurm."""
    for name, value in section.items():
        if name != "extra":
            yield from _complain(name, value, ("slurm", name))
    extra = section.get("extra")
    if extra in (None, ""):
        return
    if not isinstance(extra, Mapping):
        yield ("slurm", "extra"), "must be a mapping of sbatch options, as {constraint: a100}", False
        return
    for key, value in extra.items():
        yield from _complain_extra(str(key), value, section)


def _complain(name: str, value: object, path: KeyPath) -> Iterator[Complaint]:
    if name in OWNED:
        yield path, f"--{_dashed(name)} is not yours to set here: {OWNED[name]}", True
    elif name not in OPTIONS:
        yield path, unknown_key(name, (*OPTIONS, "extra"), "; any other sbatch option goes under `slurm.extra`"), True
    elif isinstance(value, list | dict):
        yield path, "must be one value, not a list or a mapping", False
    elif value in (None, ""):
        yield path, "has no value: give one, or leave the line out", True
    else:
        yield from _complain_value(name, str(value), path)


def _complain_value(name: str, value: str, path: KeyPath) -> Iterator[Complaint]:
    kind = OPTIONS[name]
    if control := re.search(r"[\x00-\x1f\x7f]", value):
        yield path, f"{_named(control[0])} cannot stand in an #SBATCH line", False
    elif kind == FLAG:
        if flag(value) is None:
            yield path, f"{value!r}: must be true or false", False
    elif callable(kind):
        try:
            kind(value)
        except ValueError as error:
            yield path, str(error), False


def _complain_extra(key: str, value: object, section: Mapping[str, object]) -> Iterator[Complaint]:
    path = ("slurm", "extra", key)
    name = key.removeprefix("--").replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        yield path, "must be the long name of an sbatch option, as constraint or gres-flags", True
    elif name in OWNED:
        yield path, f"--{_dashed(name)} is not yours to set here: {OWNED[name]}", True
    elif name == "array":
        yield path, "write it as slurm.array: its tasks are runs of their own here, and are counted", True
    elif name in section and name != "extra":  # sbatch has an --extra of its own
        yield path, f"given twice: also as slurm.{name}", True
    elif name in OPTIONS:
        yield from _complain(name, value, path)
    elif isinstance(value, list | dict):
        yield path, "must be one value, not a list or a mapping", False
    elif control := re.search(r"[\x00-\x1f\x7f]", str(value)):
        yield path, f"{_named(control[0])} cannot stand in an #SBATCH line", False


def options(section: Mapping[str, object]) -> Iterator[Option]:
    """The options of a `slurm:` section that has no complaints, in the order of the file; `extra` comes last."""
    extra = section.get("extra")
    for name, value in section.items():
        if name != "extra":
            yield from _option(name, str(value), f"slurm.{name}")
    if isinstance(extra, Mapping):
        for key, value in extra.items():
            yield from _option(str(key).removeprefix("--").replace("-", "_"), str(value), f"slurm.extra.{key}")


def _option(name: str, value: str, source: str) -> Iterator[Option]:
    may_stand_alone = OPTIONS.get(name, MAYBE) in (FLAG, MAYBE)
    state = flag(value) if may_stand_alone else None
    if state is False:
        return
    yield Option(_dashed(name), None if state or not value else value, source)


def flag(value: str) -> bool | None:
    """`true` and `false` as YAML 1.2 spells them, None for anything else."""
    return {"true": True, "false": False}.get(value.lower()) if value in _BOOLEANS else None


_BOOLEANS: Final = ("true", "True", "TRUE", "false", "False", "FALSE")


# What people write who come from another scheduler, or from a shorter name of the same thing.
_OTHER_NAMES: Final = {
    "cpus": "cpus_per_task",
    "memory": "mem",
    "gpu": "gpus",
    "queue": "partition",
    "walltime": "time",
    "time_limit": "time",
    "stdout": "output",
    "stderr": "error",
    "tasks": "ntasks",
}


def unknown_key(name: str, known: tuple[str, ...], otherwise: str = "") -> str:
    """`unknown key`, with the known one that is nearest, else with `otherwise`."""
    dashless = name.replace("-", "_")
    other = _OTHER_NAMES.get(dashless, dashless)
    near = [other] if other in known else difflib.get_close_matches(dashless, known, n=1, cutoff=0.7)
    return f"unknown key; did you mean {near[0]}?" if near else f"unknown key{otherwise}"


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _named(character: str) -> str:
    return {"\n": "a line break", "\t": "a tab", "\r": "a carriage return"}.get(
        character, f"the control character U+{ord(character):04X}"
    )
