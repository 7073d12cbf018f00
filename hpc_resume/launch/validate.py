"""Source to spec: everything wrong with a job.yaml in one pass, each with its place and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ValidationError

from hpc_resume.errors import Problem, SpecError
from hpc_resume.launch import checks
from hpc_resume.launch.sbatch_options import OPTIONS, unknown_key
from hpc_resume.launch.spec import Checkpoint, Job, Preemption, Requeue, RequeueBudgets, Stagger, Sweep, Watch
from hpc_resume.launch.wandb_spec import Wandb
from hpc_resume.launch.yaml_source import KeyPath, Source

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_SECTIONS: Final[
    Mapping[KeyPath, type[Job | Preemption | Requeue | RequeueBudgets | Checkpoint | Stagger | Sweep | Wandb | Watch]]
] = {
    (): Job,
    ("preemption",): Preemption,
    ("requeue",): Requeue,
    ("requeue", "max"): RequeueBudgets,
    ("checkpoint",): Checkpoint,
    ("stagger",): Stagger,
    ("wandb",): Wandb,
    ("sweep",): Sweep,
    ("watch",): Watch,
}

# A section with every line commented out is an absent one.
_MAY_BE_EMPTY: Final = ("slurm", "setup", "env", "preemption", "requeue", "checkpoint", "stagger")

_WANTED: Final = {
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping: lines of `key: value`",
    "model_type": "must be a mapping: lines of `key: value`",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
}


def job_of(source: Source) -> Job:
    """The spec of a well-formed job.yaml. Raises SpecError with every problem, in the order of the file."""
    found = list(checks.problems(source))
    known = {problem.key for problem in found}
    data = {key: value for key, value in source.data.items() if value is not None or key not in _MAY_BE_EMPTY}
    job = None
    try:
        job = Job.model_validate(data)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            problem = _problem(detail, source)
            replaced = detail["loc"] == ("command",) and detail["type"] == "missing" and "sweep" in source.data
            if problem.key not in known and not replaced:
                found.append(problem)
    if found or job is None:
        raise SpecError(sorted(set(found), key=lambda problem: (problem.line, problem.column, problem.message)))
    return job


def _problem(detail: ErrorDetails, source: Source) -> Problem:
    path = _path(detail["loc"], source)
    kind = detail["type"]
    if kind == "extra_forbidden":
        return source.problem(path, _unknown(path), at_key=True)
    if kind == "missing":
        return source.problem((*path, str(detail["loc"][-1])), "this key is required and missing")
    return source.problem(path, _message(detail))


def _path(location: tuple[int | str, ...], source: Source) -> KeyPath:
    """The keys of `location` that are in the file; pydantic mixes the names of its own types in."""
    path: KeyPath = ()
    for part in location:
        if (*path, part) in source.values:
            path = (*path, part)
    return path


def _message(detail: ErrorDetails) -> str:
    kind, value = detail["type"], detail["input"]
    context = detail.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", str(context["expected"]))
        bare = str(value).upper().removeprefix("SIG")
        near = next((word for word in allowed if word.upper() == bare), None)
        return f"{value}: must be {' or '.join(allowed)}" + (f"; did you mean {near}?" if near else "")
    if kind == "greater_than_equal":
        return f"{value}: must be at least {context['ge']}"
    wanted = _WANTED.get(kind)
    return f"{wanted}, not {_described(value)}" if wanted else str(detail["msg"])


def _described(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "a mapping"
    return f"the text {value!r}" if isinstance(value, str) else f"{str(value).lower()}"


def _unknown(path: KeyPath) -> str:
    name = str(path[-1])
    if name == "<<":
        return "merge keys (<<) are YAML 1.1, not 1.2: write the keys out"
    section = _SECTIONS.get(path[:-1])
    here = _keys(section) if section else ()
    homes = "".join(_homes(name, path[:-1]))
    return unknown_key(name, here, homes or f"; the keys here are {', '.join(here)}")


def _keys(section: type[BaseModel]) -> tuple[str, ...]:
    """As they are written in job.yaml: `async` is no name in Python."""
    return tuple(field.alias or name for name, field in section.model_fields.items())


def _homes(name: str, here: KeyPath) -> Iterator[str]:
    """Where else a key of this name is at home."""
    homes = [".".join(map(str, path)) for path, model in _SECTIONS.items() if path != here and name in _keys(model)]
    if name.replace("-", "_") in OPTIONS:
        homes.append("slurm")
    if homes:
        places = " or ".join(f"under `{home}:`" if home else "at the top level" for home in homes)
        yield f"; `{name}` belongs {places}"
