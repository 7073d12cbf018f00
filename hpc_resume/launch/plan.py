"""Spec to plan: every decision of a rendered script, as frozen data. The template prints it and decides nothing.

The digest names the spec: it leaves out which run is continued and which version renders, so that `submit --resume`
and an upgrade keep it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from hpc_resume.contract import VERSION
from hpc_resume.launch import sbatch_options, units
from hpc_resume.launch.launchers import choose
from hpc_resume.launch.spec import AUTO, Checkpoint, Job

DIGEST_DIGITS: Final = 12
UNLIMITED: Final = -1
DEFAULT_INTERVAL: Final = 1000  # milliseconds between the questions of two agents; the lease keeps them apart anyway

Value = str | int | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Directive:
    """One #SBATCH line: `--option=value`, or `--option` where value is None; and the keys it comes from."""

    option: str
    value: str | None
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """One assignment of the script: a text, a whole number, or an array of words; and the keys it comes from."""

    name: str
    value: Value
    sources: tuple[str, ...]
    why: str = ""  # where the keys alone do not tell


@dataclass(frozen=True, slots=True)
class Plan:
    """A script before it is printed. `variables` are contract.SCRIPT_VARIABLES, in that order."""

    digest: str
    directives: tuple[Directive, ...]
    variables: tuple[Variable, ...]


def decide(job: Job, *, run_key: str | None = None, array: str | None = None) -> Plan:
    """Everything a script for `job` says. `run_key` continues that run; `array` replaces the job's own array."""
    digest = _digest(_directives(job, None), _variables(job, _width(job.slurm.get("array"))))
    identity = (
        Variable("HR_VERSION", VERSION, ()),
        Variable("HR_SPEC_DIGEST", digest, ()),
        Variable("HR_NAME", job.name, ("name",)),
        Variable("HR_RUN_DIR", job.run_dir, ("run_dir",)),
        Variable("HR_RUN_KEY", run_key or "", ()),
    )
    variables = _variables(job, _width(array or job.slurm.get("array")))
    return Plan(digest, tuple(_directives(job, array)), (*identity, *variables))


def _width(array: str | None) -> int:
    return units.array_indexes(array).width if array else 0


def _variables(job: Job, width: int) -> Iterator[Variable]:
    launcher = choose("direct" if job.sweep else job.launcher, job.command, job.slurm)
    yield Variable("HR_LAUNCHER", launcher.words, ("launcher",), launcher.why)
    yield Variable("HR_RANKS", int(launcher.ranks), ("launcher",), launcher.why)
    yield Variable("HR_COMMAND", *_command(job))
    yield Variable("HR_SWEEP", job.sweep.id if job.sweep else "", ("sweep.id",))
    yield Variable("HR_SETUP", job.setup, ("setup",))
    yield Variable("HR_ENV", tuple(f"{name}={value}" for name, value in job.env.items()), ("env",))
    yield Variable("HR_SIGNAL", job.preemption.signal, ("preemption.signal",))
    yield Variable("HR_LEAD", _seconds(job.preemption.lead), ("preemption.lead",))
    yield from _requeue(job)
    yield from _checkpoint(job.checkpoint)
    yield Variable("HR_WANDB", _wandb(job), ("wandb",))
    yield Variable("HR_MIRROR", job.checkpoint.mirror or "", ("checkpoint.mirror",))
    yield from _stagger(job, width)


def _directives(job: Job, array: str | None) -> Iterator[Directive]:
    yield Directive("job-name", job.name, ("name",))
    chosen = list(sbatch_options.options(job.slurm))
    for option in chosen:
        value = array if array is not None and option.name == "array" else option.value
        yield Directive(option.name, value, (option.source,))
    if array is not None and not any(option.name == "array" for option in chosen):
        yield Directive("array", array, ())
    yield Directive("open-mode", "append", ())
    lead = _seconds(job.preemption.lead)
    # B: to the batch shell alone. Without it only the tasks of steps hear it, and a job without srun never does.
    yield Directive("signal", f"B:{job.preemption.signal}@{lead}", ("preemption.signal", "preemption.lead"))
    # Slurm's own requeueing, after a preemption or a lost node; without it `scontrol requeue` is refused as well.
    yield Directive("requeue" if job.requeue.on or job.requeue.max.crash != 0 else "no-requeue", None, ("requeue.on",))


def _command(job: Job) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words, and the keys they come from."""
    if job.sweep is None:
        return _watched(job), ("command", "watch") if job.watch else ("command",)
    interval, jitter, burst = DEFAULT_INTERVAL, 0, 1
    if job.stagger is not None:
        interval, jitter = units.milliseconds_of(job.stagger.interval), units.milliseconds_of(job.stagger.jitter)
        burst = job.stagger.burst
    options = (f"--interval={interval / 1000:g}", f"--jitter={jitter / 1000:g}", f"--burst={burst}")
    return ("hpc-resume", "agent", *options, job.sweep.id), ("sweep.id", "stagger")


def _words(command: str | tuple[str, ...]) -> tuple[str, ...]:
    # pipefail: `train.py | tee log` must end with the training's own exit code.
    return ("bash", "-o", "pipefail", "-c", command) if isinstance(command, str) else command


def _watched(job: Job) -> tuple[str, ...]:
    words = _words(job.command)
    if job.watch is None:
        return words
    options = [f"--on-warning={job.watch.on_warning}", f"--timeout={_seconds(job.watch.timeout)}s"]
    if job.watch.expect:
        options.append(f"--expect={job.watch.expect}")
    return ("hpc-resume", "watch", *options, "--", *words)


def _requeue(job: Job) -> Iterator[Variable]:
    requeue = job.requeue
    yield Variable("HR_REQUEUE_ON", requeue.on, ("requeue.on",))
    yield Variable("HR_REQUEUE_METHOD", requeue.method, ("requeue.method",))
    for name in ("timeout", "preempted", "crash", "no_progress", "total"):
        budget = getattr(requeue.max, name)
        # An agent publishes no checkpoint of its own: its runs do, in directories of theirs.
        unlimited = budget == "unlimited" or (name == "no_progress" and job.sweep is not None)
        value = UNLIMITED if unlimited else int(budget)
        yield Variable(f"HR_MAX_{name.upper()}", value, (f"requeue.max.{name}",))


def _checkpoint(checkpoint: Checkpoint) -> Iterator[Variable]:
    every = checkpoint.every
    timed = isinstance(every, str) and every != AUTO
    yield Variable("HR_SAVE_STEPS", every if isinstance(every, int) else 0, ("checkpoint.every",))
    yield Variable("HR_SAVE_SECONDS", _seconds(every) if timed else 0, ("checkpoint.every",))
    yield Variable("HR_SAVE_AUTO", int(every == AUTO), ("checkpoint.every",))
    yield Variable("HR_BACKEND", checkpoint.backend or "", ("checkpoint.backend",))
    yield Variable("HR_KEEP", checkpoint.keep, ("checkpoint.keep",))
    yield Variable("HR_KEEP_EVERY", checkpoint.keep_every or 0, ("checkpoint.keep_every",))
    told = checkpoint.save_async
    yield Variable("HR_SAVE_ASYNC", "" if told is None else str(int(told)), ("checkpoint.async",))
    yield Variable("HR_FAST_DIR", checkpoint.fast_dir or "", ("checkpoint.fast_dir",))
    yield Variable("HR_RESHARD", int(checkpoint.reshard), ("checkpoint.reshard",))
    yield Variable("HR_CHECKSUMS", int(checkpoint.checksums), ("checkpoint.checksums",))


def _wandb(job: Job) -> str:
    """What the training is told of it: the keys that somebody set, and `resume`, so that {} is something too."""
    if job.wandb is None:
        return ""
    return json.dumps({"resume": job.wandb.resume} | job.wandb.model_dump(mode="json", exclude_unset=True))


def _stagger(job: Job, width: int) -> Iterator[Variable]:
    stagger = None if job.sweep else job.stagger  # agents share a token bucket
    interval = units.milliseconds_of(stagger.interval) if stagger else 0
    jitter = units.milliseconds_of(stagger.jitter) if stagger else 0
    yield Variable("HR_STAGGER_MS", interval, ("stagger.interval",))
    yield Variable("HR_STAGGER_JITTER_MS", jitter, ("stagger.jitter",))
    yield Variable("HR_STAGGER_WIDTH", width, ("slurm.array",))


def _seconds(value: int | str) -> int:
    return units.milliseconds_of(value) // 1000


def _digest(directives: Iterable[Directive], variables: Iterable[Variable]) -> str:
    """First hex digits of the SHA-256 of the values as canonical JSON."""
    values = {
        "directives": {directive.option: directive.value for directive in directives},
        "variables": {variable.name: variable.value for variable in variables},
    }
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:DIGEST_DIGITS]
