"""The rules for job.yaml: each a generator of (key, message), registered under the name that is printed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from hpc_resume.launch.yaml_source import KeyPath, Source

Finding = tuple[KeyPath, str]
Rule = Callable[[Source], Iterator[Finding]]
JOB_RULES: Final[dict[str, Rule]] = {}

# trap 'anything; exit 0' NAMES, in either kind of quotes.
_TRAP: Final = re.compile(
    r"""trap\s+(['"])(?:(?!\1).)*\bexit(?:\s+0)?\s*;?\s*\1\s+[A-Z0-9 ]*\b(?:SIG)?(USR1|USR2|TERM)\b"""
)


def rule(name: str) -> Callable[[Rule], Rule]:
    """Register a rule."""

    def register(function: Rule) -> Rule:
        JOB_RULES[name] = function
        return function

    return register


@rule("resume-must")
def resume_must(source: Source) -> Iterator[Finding]:
    """resume: must in a job that begins a run: its first start is refused."""
    section, env = source.data.get("wandb"), source.data.get("env")
    named = isinstance(env, Mapping) and "WANDB_RUN_ID" in env
    if isinstance(section, Mapping) and section.get("resume") == "must" and not named:
        yield (
            ("wandb", "resume"),
            "the first start has no run to resume and is refused; `allow` begins it and resumes it from then on",
        )


@rule("resume-variable")
def resume_variable(source: Source) -> Iterator[Finding]:
    """WANDB_RESUME with a value that W&B takes no more, or without an id."""
    env = source.data.get("env")
    if not isinstance(env, Mapping) or "WANDB_RESUME" not in env:
        return
    value = str(env["WANDB_RESUME"]).lower()
    if value in ("true", "1", "yes"):
        yield ("env", "WANDB_RESUME"), "W&B takes allow, must, never and auto, and refuses this at init; write `allow`"
    elif value in ("allow", "must") and "WANDB_RUN_ID" not in env and "wandb" not in source.data:
        yield (
            ("env", "WANDB_RESUME"),
            "resuming without an id begins a new run each time; have `wandb: {}`, which keeps one, in place of this",
        )


@rule("shared-run-id")
def shared_run_id(source: Source) -> Iterator[Finding]:
    """One W&B run id for all tasks of an array: they would write over each other."""
    env, slurm = source.data.get("env"), source.data.get("slurm")
    if isinstance(env, Mapping) and "WANDB_RUN_ID" in env and isinstance(slurm, Mapping) and slurm.get("array"):
        yield (
            ("env", "WANDB_RUN_ID"),
            (
                "every task of the array would be this one run, and two processes on a run spoil it; leave it out, and"
                " have `wandb: {}`: each task gets an id of its own"
            ),
        )


@rule("agent-without-forwarding")
def agent_without_forwarding(source: Source) -> Iterator[Finding]:
    """`wandb agent` without --forward-signals: the warning ends the agent and leaves the training behind."""
    for path, words in _commands(source):
        agent = _after(words, "wandb", "agent")
        if agent is not None and not {"-f", "--forward-signals"} & set(agent):
            yield (
                path,
                (
                    "without --forward-signals the warning ends the agent alone, and its training goes on as an orphan"
                    " until it is killed unsaved; add the option"
                ),
            )


@rule("trap-exits-0")
def trap_exits_0(source: Source) -> Iterator[Finding]:
    """A trap that exits with 0: the job counts as finished."""
    for key in ("setup", "command"):
        text = source.data.get(key)
        found = _TRAP.search(text) if isinstance(text, str) else None
        if found is not None:
            yield (
                (key,),
                (
                    f"this trap ends the job with 0 on SIG{found[2]}, and a finished job is not requeued; the script"
                    " that is rendered has its own trap: leave it out"
                ),
            )


def _commands(source: Source) -> Iterator[tuple[KeyPath, list[str]]]:
    command = source.data.get("command")
    if isinstance(command, list):
        yield ("command",), [str(word) for word in command]
    for key in ("command", "setup"):
        text = source.data.get(key)
        for line in text.splitlines() if isinstance(text, str) else ():
            try:
                yield (key,), shlex.split(line, comments=True)
            except ValueError:  # quotes that go over lines
                yield (key,), line.split()


def _after(words: list[str], *wanted: str) -> list[str] | None:
    """The words after `wanted` (the first of which may be a path), None without them."""
    for index in range(len(words) - len(wanted) + 1):
        first, *rest = words[index : index + len(wanted)]
        if first.rpartition("/")[2] == wanted[0] and rest == list(wanted[1:]):
            return words[index + len(wanted) :]
    return None
