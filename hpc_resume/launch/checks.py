"""What no single key can tell: secrets, and keys that contradict each other.

Every check reads the raw data and bears what another check will refuse, so that one pass shows all problems.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Final

from hpc_resume.errors import Problem
from hpc_resume.launch import env_rules, launchers, sbatch_options, units
from hpc_resume.launch.yaml_source import KeyPath, Source

DEFAULT_LEAD: Final = "120s"
DEFAULT_MAX_ARRAY: Final = 1001  # MaxArraySize where slurm.conf does not say


def problems(source: Source) -> Iterator[Problem]:
    """Every problem that the models cannot see, in no particular order."""
    yield from _environment(source)
    yield from _secrets(source)
    yield from _slurm(source)
    yield from _launcher(source)
    yield from _lead(source)
    yield from _watch(source)
    yield from _sweep(source)
    yield from _mirror(source)


def notes(source: Source) -> Iterator[Problem]:
    """What is allowed and yet hardly meant: text that looks as if the shell would expand it."""
    command = source.data.get("command")
    for index, word in enumerate(command if isinstance(command, list) else ()):
        if _looks_expanded(word):
            yield source.problem(("command", index), f"{word} stays as it is in a list; {_AS_STRING}")
    env = source.data.get("env")
    for name, value in env.items() if isinstance(env, Mapping) else ():
        if _looks_expanded(value):
            yield source.problem(("env", name), f"{value} stays as it is; to expand it, use `setup: export {name}=…`")
    if _looks_expanded(source.data.get("run_dir")):
        yield source.problem(("run_dir",), "$ and ~ stay as they are: this names a directory of exactly that spelling")
    yield from _large_array(source)
    yield from _task_of_no_array(source)


def _large_array(source: Source) -> Iterator[Problem]:
    array = _at(source, ("slurm", "array"))
    try:
        tasks = units.array_indexes(str(array)).tasks if array is not None else 0
    except ValueError:
        return
    if tasks > DEFAULT_MAX_ARRAY:
        yield source.problem(
            ("slurm", "array"),
            f"{tasks:,} tasks: Slurm takes {DEFAULT_MAX_ARRAY:,} unless the site allows more"
            " (`scontrol show config | grep MaxArraySize`)",
        )


def _task_of_no_array(source: Source) -> Iterator[Problem]:
    if _at(source, ("slurm", "array")) is not None or _at(source, ("sweep",)) is not None:
        return
    for key in ("output", "error"):
        given = _at(source, ("slurm", key))
        # A backslash anywhere, and Slurm leaves every % of the name as it is (sbatch(1); measured under 22.05).
        if isinstance(given, str) and "\\" not in given and re.search(r"(?<!%)(?:%%)*%\d*a", given):
            yield source.problem(("slurm", key), f"this job is no array: Slurm writes {_NO_TASK} for %a; use %j")


_NO_TASK: Final = 4294967294  # NO_VAL of slurm.h, measured under 22.05
_AS_STRING: Final = "a command given as one string is run by bash, which expands it"


def _looks_expanded(value: object) -> bool:
    return isinstance(value, str) and re.search(r"\$[A-Za-z_{(]|^~(?:/|$)|`", value) is not None


def _environment(source: Source) -> Iterator[Problem]:
    env = source.data.get("env")
    for name in env if isinstance(env, Mapping) else ():
        if message := env_rules.name_problem(name):
            yield source.problem(("env", name), message, at_key=True)


def _secrets(source: Source) -> Iterator[Problem]:
    command = source.data.get("command")
    words = [(("command", index), word) for index, word in enumerate(command)] if isinstance(command, list) else []
    options = [
        (("command", index), f"{before} {word}")
        for index, (before, word) in enumerate(pairwise(command if isinstance(command, list) else ()), 1)
        if isinstance(before, str) and "=" not in before
    ]
    texts: list[tuple[KeyPath, object]] = [
        *words,
        *options,
        (("command",), command),
        (("setup",), source.data.get("setup")),
        (("slurm", "export"), _at(source, ("slurm", "export"))),
    ]
    for path, text in texts:
        if isinstance(text, str) and (message := env_rules.secret_in(text)):
            yield source.problem(path, message)


def _slurm(source: Source) -> Iterator[Problem]:
    section = source.data.get("slurm")
    if not isinstance(section, Mapping):
        return
    for path, message, at_key in sbatch_options.complaints(section):
        yield source.problem(path, message, at_key=at_key)


def _launcher(source: Source) -> Iterator[Problem]:
    """Many tasks need something that starts them, and one launcher in another is hardly meant."""
    command, asked = source.data.get("command"), source.data.get("launcher")
    words = tuple(command) if isinstance(command, list) and all(isinstance(word, str) for word in command) else command
    own = launchers.starts_its_own(words) if isinstance(words, str | tuple) and words and str(words).strip() else None
    if own and asked in ("srun", "torchrun", "accelerate", "mpirun"):
        yield source.problem(("launcher",), f"{asked} would start {own}, which starts ranks itself; use direct")
    slurm = source.data.get("slurm")
    if asked != "direct" or own or not isinstance(slurm, Mapping):
        return
    for name in launchers.TASK_COUNTS:
        if name in slurm and re.fullmatch(r"[0-9]{1,9}", str(slurm[name])) and int(str(slurm[name])) > 1:
            words = "direct starts one process on one node; use `launcher: srun`, or auto"
            yield source.problem(("launcher",), f"{words}: slurm.{name} asks for {slurm[name]}")
            return


def _lead(source: Source) -> Iterator[Problem]:
    """The warning must come after the start: a lead as long as the time limit would fire at once, or never."""
    given = _at(source, ("preemption", "lead"))
    lead = DEFAULT_LEAD if given is None else given
    for option in ("time", "time_min"):
        limit = _at(source, ("slurm", option))
        try:
            seconds = units.slurm_seconds(limit) if isinstance(limit, str) else None
            lead_ms = units.milliseconds_of(lead) if isinstance(lead, int | str) else 0
        except ValueError:
            continue
        if seconds is not None and lead_ms >= seconds * 1000:
            path = ("slurm", option) if given is None else ("preemption", "lead")
            yield source.problem(
                path,
                f"the lead ({lead}{', the default' if given is None else ''}) must be shorter than slurm.{option} "
                f"({limit}, which is {units.clock_words(seconds)})",
            )


def _watch(source: Source) -> Iterator[Problem]:
    """The answer must come before the end."""
    lead, timeout = _at(source, ("preemption", "lead")), _at(source, ("watch", "timeout"))
    lead = DEFAULT_LEAD if lead is None else lead
    timeout = "60s" if timeout is None else timeout
    if _at(source, ("watch",)) is None or not isinstance(lead, int | str) or not isinstance(timeout, int | str):
        return
    try:
        milliseconds, lead_ms = units.milliseconds_of(timeout), units.milliseconds_of(lead)
    except ValueError:
        return
    if milliseconds < 1000 or milliseconds >= lead_ms:
        yield source.problem(
            ("watch", "timeout") if ("watch", "timeout") in source.keys else ("watch",),
            f"the timeout ({timeout}) must be at least 1s and shorter than preemption.lead ({lead})",
        )


def _sweep(source: Source) -> Iterator[Problem]:
    """What an array of agents is by itself, and what has no meaning beside it."""
    if source.data.get("sweep") is None:
        if ("stagger", "burst") in source.keys:
            yield source.problem(("stagger", "burst"), "is for the agents of a `sweep:`, which share a token bucket")
        return
    for path, reason in _NOT_BESIDE_A_SWEEP:
        if path in source.keys:
            yield source.problem(path, reason, at_key=True)
    if source.data.get("launcher") in ("srun", "torchrun"):
        yield source.problem(
            ("launcher",), "an agent is one process of the batch shell; its runs may call srun themselves"
        )


_NOT_BESIDE_A_SWEEP: Final[tuple[tuple[KeyPath, str], ...]] = (
    (("command",), "the command of a sweep's runs is in the sweep's own configuration; give `command:` or `sweep:`"),
    (("slurm", "array"), "the agents are an array already: `sweep: {agents: N}` says how many"),
    (("watch",), "a sweep's runs are started by W&B's agent, not under `hpc-resume watch`"),
    (("requeue", "max", "no_progress"), "counts checkpoints, and an agent has none of its own; its runs are W&B's"),
)


def _mirror(source: Source) -> Iterator[Problem]:
    if _at(source, ("checkpoint", "mirror")) == "wandb" and "wandb" not in source.data:
        path = ("checkpoint", "mirror")
        yield source.problem(path, "the files are the W&B run's: say `wandb: {}` too, or with its project")


def _at(source: Source, path: KeyPath) -> object:
    found: object = source.data
    for part in path:
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
