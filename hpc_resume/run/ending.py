"""How a run ends: the two ways of leaving as exceptions, and the judgement of every other one. Pure but for `leave`."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from hpc_resume import contract
from hpc_resume.errors import HpcResumeError

if TYPE_CHECKING:
    from collections.abc import Mapping

_ERROR_LIMIT: Final = 300  # characters of an exception's text that outcome.json keeps
_SECRET_NAME: Final = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
_SECRET_LENGTH: Final = 8


class Stopped(SystemExit):
    """Training stopped at a step boundary for a warning: what is on disk is resumable.

    A SystemExit, so that `except Exception` in a training loop does not swallow it.
    """

    def __init__(self, signum: int, step: int) -> None:
        super().__init__(contract.SIGNAL_BASE + signum)
        self.signum = signum
        self.step = step


class AlreadyFinished(SystemExit):
    """There is nothing left to train; the process ends with 0 and does not train."""

    def __init__(self) -> None:
        super().__init__(contract.EXIT_FINISHED)


@dataclass(frozen=True, slots=True)
class Ending:
    """What outcome.json will say."""

    outcome: str
    code: int
    signal: str | None = None
    error: str = ""

    def record(self, step: int) -> dict[str, object]:
        """The JSON object, for `step` completed steps."""
        record: dict[str, object] = {
            "version": contract.FORMAT_VERSION,
            "outcome": self.outcome,
            "step": step,
            "signal": self.signal,
            "code": self.code,
        }
        return record | ({"error": self.error} if self.error else {})


def judge(error: BaseException | None, variables: Mapping[str, str]) -> Ending:
    """What the exception that left the training means (None: it returned)."""
    if error is None:
        return Ending(contract.OUTCOME_FINISHED, contract.EXIT_FINISHED)
    if isinstance(error, Stopped):
        name = signal.Signals(error.signum).name.removeprefix("SIG")
        return Ending(contract.OUTCOME_STOPPED, contract.SIGNAL_BASE + error.signum, name)
    if isinstance(error, KeyboardInterrupt):
        return Ending(contract.OUTCOME_STOPPED, contract.SIGNAL_BASE + signal.SIGINT, "INT")
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if code == 0:
            return Ending(contract.OUTCOME_FINISHED, contract.EXIT_FINISHED)
        return Ending(contract.OUTCOME_CRASHED, code & 0xFF, error=f"sys.exit({code})")
    code = error.exit_code if isinstance(error, HpcResumeError) else 1
    return Ending(contract.OUTCOME_CRASHED, code, error=describe(error, variables))


def describe(error: BaseException, variables: Mapping[str, str]) -> str:
    """Type and first line, bounded, without the values of variables that are named like secrets."""
    first_line = str(error).partition("\n")[0]
    text = f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__
    for name, value in variables.items():
        if len(value) >= _SECRET_LENGTH and _SECRET_NAME.search(name):
            text = text.replace(value, "***")
    return text[:_ERROR_LIMIT]


def place_of(error: BaseException) -> str:
    """`file:line: ` of the user's own line that led to `error`, empty when there is none."""
    package, library = (f"{Path(file).parent}{os.sep}" for file in (contract.__file__, os.__file__))
    found, trace = "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        # What is installed lies below the library at some places (lib/python3.11/site-packages), and is not of it.
        is_library = file.startswith(library) and "-packages" not in file
        if not (is_library or file.startswith((package, "<"))):
            found = f"{file}:{trace.tb_lineno}: "
        trace = trace.tb_next
    return found


def leave(reason: SystemExit) -> NoReturn:
    """Raise `reason`, after a sys.exit() with its code.

    Looked up now: wandb replaces sys.exit to learn the exit code, and takes a bare SystemExit for success.
    """
    with contextlib.suppress(SystemExit):
        sys.exit(reason.code)
    raise reason
