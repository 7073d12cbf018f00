"""The job's side: which job this is over all its attempts, and what a warning does to what was submitted.

A @resumable function needs nothing: it stops at its step boundary and the process leaves with 128+signum. Any other
function starts again from its beginning, as with submitit.
"""

from __future__ import annotations

import functools
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from submitit.slurm.slurm import SlurmJobEnvironment

from hpc_resume import contract
from hpc_resume.integrations.submitit import checkpointable, sharing
from hpc_resume.integrations.submitit.naming import CLUSTER, job_id_of

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission, JobPaths

sharing.begin()


class HpcResumeJobEnvironment(SlurmJobEnvironment):
    """As submitit's own for Slurm; the handlers are ours."""

    @classmethod
    def name(cls) -> str:
        """As the executor's."""
        return CLUSTER

    @property
    def job_id(self) -> str:
        """The one that the run began as, also in a successor: submitit's files are named after it."""
        run_dir = os.environ.get(contract.ENV_RUN_DIR)
        return job_id_of(Path(run_dir)) if run_dir else str(super().job_id)

    def _handle_signals(self, paths: JobPaths, submission: DelayedSubmission) -> None:
        clear_leftovers(paths)
        function = submission.function
        if checkpointable.is_checkpointable(function):
            pickled = Path(paths.submitted_pickle) if self.global_rank == 0 else None
            checkpointable.Boundary(submission, pickled).install()
        submission.function = functools.partial(_kept, function)


def clear_leftovers(paths: JobPaths) -> None:
    """Of attempts before: an error they met is no result now, and submitit refuses to write beside half a file."""
    result = Path(paths.result_pickle)
    for path in (result, result.with_suffix(f"{result.suffix}.save_tmp")):
        path.unlink(missing_ok=True)


def _kept(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Call it; a warning after its end must not keep submitit from writing what it returned."""
    result = function(*args, **kwargs)
    for signum in checkpointable.warned_by():
        signal.signal(signum, signal.SIG_IGN)
    return result
