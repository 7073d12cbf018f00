"""The one wording for a run that nobody knows: what was looked for, what there is, and where."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Final

from hpc_resume.errors import RunNotFoundError
from hpc_resume.run.rundir import find_runs

NOT_QUEUED: Final = "and no such job is in the queue"
_SHOWN: Final = 5


def no_such_run(wanted: str, parent: Path, queue: str = "") -> RunNotFoundError:
    """The error to raise; `queue` is what was found out from the queue, in words."""
    keys = [run.key for run in find_runs(parent)]
    there = "there are no runs"
    if keys:
        count = f"{len(keys)} runs, the last of them " if len(keys) > _SHOWN else ""
        there = f"there are {count}{', '.join(keys[-_SHOWN:])}"
    near = difflib.get_close_matches(wanted, keys, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    found = f" ({queue})" if queue else ""
    return RunNotFoundError(f"no run {wanted}: {there} in {parent}{found}{hint}")
