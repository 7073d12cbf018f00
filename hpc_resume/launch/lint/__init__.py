"""What will go wrong at the first interruption, found in the text: one function per rule, registered by its decorator.

A Python rule takes a `Module` and yields (node, message); a job rule takes a `Source` and yields (path, message). The
message says what happens, then what to do.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from hpc_resume.errors import ConfigError, Problem, SpecError
from hpc_resume.launch.lint.job_rules import JOB_RULES
from hpc_resume.launch.lint.python_rules import PYTHON_RULES
from hpc_resume.launch.lint.python_source import read_module
from hpc_resume.launch.yaml_source import parse

MAX_BYTES: Final = 4 * 1024 * 1024
_JOB_SUFFIXES: Final = (".yaml", ".yml")
_PYTHON_SUFFIXES: Final = (".py", ".pyw", ".pyi", "")
_JOB_FILES: Final = ("job.yaml", "*.job.yaml")
_SKIPPED: Final = {"__pycache__", "node_modules", "site-packages"}


def rules() -> dict[str, str]:
    """Every rule's name and what it is about."""
    every: dict[str, Callable[..., object]] = {**PYTHON_RULES, **JOB_RULES}
    return {name: (rule.__doc__ or "").partition("\n")[0] for name, rule in sorted(every.items())}


def lint(paths: list[Path]) -> list[Problem]:
    """The findings in `paths`, by file and place; a directory stands for the Python files and job.yaml files in it.

    Raises ConfigError for a path that cannot be read, or is neither by its name. What is no Python or no YAML then is a
    finding.
    """
    found: list[Problem] = []
    for path in paths:
        for file in _files(path):
            found.extend(sorted(lint_file(file), key=lambda problem: (problem.line, problem.column, problem.key)))
    return found


def lint_file(path: Path) -> Iterator[Problem]:
    """The findings in one file, in no particular order."""
    content = _read(path)
    if path.suffix in _JOB_SUFFIXES:
        try:
            source = parse(content, str(path))
        except SpecError as error:
            yield from error.problems
            return
        for name, job_rule in JOB_RULES.items():
            for key, message in job_rule(source):
                line, column = source.place(key)
                yield Problem(str(path), line, column, name, message)
        return
    try:
        yield from _python_findings(path, content)
    except (RecursionError, MemoryError):
        yield Problem(str(path), 1, 1, "syntax", "its expressions are nested too deeply to be looked at")


def _python_findings(path: Path, content: bytes) -> list[Problem]:
    try:
        module = read_module(content)
    except (SyntaxError, ValueError) as error:
        line, column = getattr(error, "lineno", None) or 1, getattr(error, "offset", None) or 1
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        what = f"this is no Python {version}: {getattr(error, 'msg', None) or error}"
        return [Problem(str(path), line, column, "syntax", what)]
    if not module.names_run:
        module = replace(module, names_run=_is_named_by_a_job(path))
    return [
        Problem(str(path), _line(node), _column(node), name, message)
        for name, rule in PYTHON_RULES.items()
        for node, message in rule(module)
    ]


def _is_named_by_a_job(path: Path) -> bool:
    """Whether a job.yaml beside it gives the training its W&B run id: `wandb:` and `sweep:` do."""
    for pattern in _JOB_FILES:
        for job in path.parent.glob(pattern):
            try:
                data = parse(_read(job), str(job)).data
            except (SpecError, ConfigError):  # its own findings say so
                continue
            if {"wandb", "sweep"} & set(data):
                return True
    return False


def _line(node: ast.AST) -> int:
    return int(getattr(node, "lineno", 1))


def _column(node: ast.AST) -> int:
    return int(getattr(node, "col_offset", 0)) + 1


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        if path.suffix not in (*_JOB_SUFFIXES, *_PYTHON_SUFFIXES):
            raise ConfigError(
                f"{path}: neither Python nor YAML by its name; name Python files, job.yaml files or directories"
            )
        return [path]
    every = (file for pattern in ("*.py", *_JOB_FILES) for file in path.rglob(pattern) if file.is_file())
    return sorted(file for file in every if not any(_is_skipped(part) for part in file.relative_to(path).parts))


def _is_skipped(part: str) -> bool:
    return part in _SKIPPED or part.startswith(".")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror or error}; name Python files, job.yaml files or directories"
        ) from None
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES} bytes; name the sources themselves")
    return content
