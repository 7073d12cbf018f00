"""control.json: the owner's wish that an attempt ends for good; the batch shell looks for it before it decides."""

from __future__ import annotations

import time

from hpc_resume.contract import FORMAT_VERSION
from hpc_resume.durable import write_json
from hpc_resume.errors import RunStateError
from hpc_resume.run.rundir import AttemptDir


def ask_to_stop(attempt: AttemptDir, by: str) -> None:
    """Leave the wish where the batch shell of this attempt looks before it decides; `by` says who, in words.

    Raises RunStateError when it cannot be written.
    """
    try:
        write_json(attempt.control_file, {"version": FORMAT_VERSION, "request": "cancel", "by": by, "t": time.time()})
    except OSError as error:
        raise RunStateError(f"{attempt.control_file}: {error.strerror or error}; nothing was signalled") from error
