"""A job.yaml from disk, or from standard input as `-`, read and checked completely: what every verb begins with."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpc_resume.errors import ConfigError, Problem, SpecError
from hpc_resume.launch import checks
from hpc_resume.launch.bash_syntax import syntax_error
from hpc_resume.launch.spec import Job
from hpc_resume.launch.validate import job_of
from hpc_resume.launch.yaml_source import MAX_BYTES, Source, parse_all

DEFAULT_NAME: Final = "job.yaml"
STDIN_NAME: Final = "-"


@dataclass(frozen=True, slots=True)
class JobFile:
    """A valid job: its spec, where each key stands, and what is allowed and yet hardly meant."""

    directory: Path  # where the job runs
    job: Job
    source: Source
    notes: tuple[Problem, ...]


def read_job(path: Path) -> JobFile:
    """Read and check `path`. Raises SpecError with every problem in it, ConfigError where it cannot be read."""
    is_stdin = str(path) == STDIN_NAME
    source, of_form = parse_all(_content(path), "stdin" if is_stdin else str(path))
    job = _checked(source, of_form)
    directory = Path.cwd() if is_stdin else path.parent.absolute()
    return JobFile(directory, job, source, tuple(checks.notes(source)))


def _content(path: Path) -> bytes:
    try:
        if str(path) == STDIN_NAME:
            return sys.stdin.buffer.read(MAX_BYTES + 1)
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; `hpc-resume init` writes one") from None
    except IsADirectoryError:
        hint = path / DEFAULT_NAME
        advice = f"; did you mean {hint}?" if hint.is_file() else ""
        raise ConfigError(f"{path}: is a directory, not a job.yaml{advice}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def _checked(source: Source, of_form: Sequence[Problem]) -> Job:
    """The job, when the models, the checks and bash have nothing against it, nor had the reader."""
    problems: list[Problem] = [*of_form, *_bash_problems(source)]
    unread = {problem.key for problem in of_form}
    try:
        job = job_of(source)
        if not problems:
            return job
    except SpecError as error:
        problems += [problem for problem in error.problems if problem.key not in unread]
    raise SpecError(sorted(problems, key=lambda problem: (problem.line, problem.column)))


def _bash_problems(source: Source) -> Iterator[Problem]:
    for key in ("setup", "command"):
        text = source.data.get(key)
        if isinstance(text, str) and (error := syntax_error(text)):
            line, column = source.place((key,))
            if (key,) in source.blocks:
                line, column = line + error[0], 1
            yield Problem(source.file, line, column, key, f"bash does not understand this: {error[1]}")
