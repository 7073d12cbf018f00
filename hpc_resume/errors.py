"""One root error; every class has its exit code, and every message says what to do next. All codes are on this page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpc_resume.contract import EXIT_CONFIG, EXIT_NO_WORK, EXIT_USAGE


class HpcResumeError(Exception):
    """The root: what a user did or met, never a bug of ours. The CLI prints it without a traceback."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a file: `line` and `column` start at 1; 0 where the place is unknown."""

    file: str
    line: int
    column: int
    key: str  # dotted path, "" for the file as a whole
    message: str

    def __str__(self) -> str:
        place = self.file if self.line == 0 else f"{self.file}:{self.line}:{self.column}"
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class SpecError(HpcResumeError):
    """job.yaml is wrong: carries every problem found in one pass."""

    exit_code = EXIT_CONFIG

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ConfigError(HpcResumeError):
    """Something other than job.yaml will fail again the same way (a directory, a variable, a missing program)."""

    exit_code = EXIT_CONFIG


class SchedulerError(HpcResumeError):
    """A scheduler's command refused or failed; its own words are in the message."""

    exit_code = 1


class RunNotFoundError(HpcResumeError):
    """No run of that name, key or job id where we looked."""

    exit_code = 1


class RunHeldError(HpcResumeError):
    """Another process is continuing this run."""

    exit_code = EXIT_NO_WORK


class RunStateError(HpcResumeError):
    """The run directory holds something this version cannot use (newer format, wrong owner, unknown backend)."""

    exit_code = EXIT_CONFIG


class CheckpointError(HpcResumeError):
    """A checkpoint could not be written or read."""

    exit_code = 1


class RankLostError(HpcResumeError):
    """Another rank is gone, or has failed: this one cannot go on alone. `code` is what all ranks end with."""

    def __init__(self, words: str, code: int) -> None:
        super().__init__(words)
        self.exit_code = code


class CommandLineError(HpcResumeError):
    """A verb's command line asks for what cannot be: a name that is none, a place that takes no file."""

    exit_code = EXIT_USAGE


class MirrorError(HpcResumeError):
    """What this run would go on from is out of reach for now."""

    exit_code = EXIT_NO_WORK


class UsageError(HpcResumeError):
    """The Python API was called in a way that cannot work (no main thread, register after the first step)."""

    exit_code = EXIT_CONFIG
