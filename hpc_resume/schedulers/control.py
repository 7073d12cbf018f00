"""control.json: what the owner asks of one attempt; written here alone, read by its batch shell and its training."""

from __future__ import annotations

import time
from typing import Final, Literal

from hpc_resume.contract import FORMAT_VERSION
from hpc_resume.durable import write_json
from hpc_resume.errors import RunStateError
from hpc_resume.run.records import read_fields
from hpc_resume.run.rundir import AttemptDir

# cancel: end for good, by `hpc-resume cancel` or Ctrl-C; stop: the same, by poke; requeue: save and go back into the
# queue; save: save and go on.
Request = Literal["cancel", "stop", "requeue", "save"]

CANCEL: Final = "cancel"


def ask_to_stop(attempt: AttemptDir, by: str) -> None:
    """Ask that this attempt ends for good. Raises RunStateError when that cannot be written."""
    ask(attempt, CANCEL, by)


def ask(attempt: AttemptDir, request: Request, by: str) -> float:
    """Leave the wish where this attempt looks for it; `by` says who asks, in words. When it was asked, epoch seconds.

    Raises RunStateError when it cannot be written.
    """
    now = round(time.time(), 6)
    record = {"version": FORMAT_VERSION, "request": request, "by": by, "t": now, "attempt": attempt.number}
    try:
        write_json(attempt.control_file, record)
    except OSError as error:
        raise RunStateError(f"{attempt.control_file}: {error.strerror or error}; nothing was signalled") from error
    return now


def asked_of(attempt: AttemptDir) -> str:
    """The last wish, empty without one. Raises RunStateError for what is no record of ours."""
    fields = read_fields(attempt.control_file)
    return fields.text("request") if fields is not None else ""
