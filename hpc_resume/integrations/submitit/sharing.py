"""A @resumable function under submitit's own executors, local and slurm: it saves at its step boundary there, too.

submitit requeues from inside its signal handler, wherever the training is. Once a run is open, its handler stands
aside: the run hears submitit's signal as its warning, stops at the boundary, and then submitit requeues, with its own
budget. Everything that opens no run goes on as before.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

from submitit.core.job_environment import JobEnvironment, SignalHandler
from submitit.core.utils import DelayedSubmission, JobPaths, UncompletedJobError, temporary_save_path

from hpc_resume import Stopped, contract
from hpc_resume.integrations.submitit.naming import runs_of

_MARK: Final = "_shared_by_hpc_resume"


def begin() -> None:
    """Wrap the method by which submitit's environments install their handlers, once."""
    theirs = JobEnvironment._handle_signals  # noqa: SLF001 - what plugins override, for environments not ours
    if hasattr(theirs, _MARK):
        return

    @functools.wraps(theirs)
    def handle(self: Any, paths: JobPaths, submission: DelayedSubmission) -> None:
        theirs(self, paths, submission)
        _share(self, paths, submission)

    setattr(handle, _MARK, True)
    JobEnvironment._handle_signals = handle  # noqa: SLF001


def _share(environment: Any, paths: JobPaths, submission: DelayedSubmission) -> None:
    signum = environment._usr_sig()  # noqa: SLF001 - as plugins do
    signal.signal(signum, _aside(signal.getsignal(signum)))
    _tell(environment, paths, signum)
    watch = SignalHandler(environment, paths, submission)
    result = submission.result

    def call() -> Any:
        try:
            return result()
        except Stopped as stopped:
            del submission.result  # the class's own again: this one is of this process, and not to be pickled
            _come_back(watch, paths, submission, stopped)

    submission.result = call  # not its function: submitit asks that for `checkpoint`


def _tell(environment: Any, paths: JobPaths, signum: int) -> None:
    """What a launcher would tell the run. A launcher's own words are those of the job that submitted this one."""
    if contract.ENV_ATTEMPT_DIR in os.environ:
        for name in [name for name in os.environ if name.startswith(contract.ENV_PREFIX)]:
            del os.environ[name]
    os.environ[contract.ENV_SIGNAL] = signal.Signals(signum).name.removeprefix("SIG")
    os.environ[contract.ENV_RUN_DIR] = str(_run_dir(environment, paths))
    if lead := os.environ.get("SUBMITIT_LOCAL_SIGNAL_DELAY_S"):
        os.environ[contract.ENV_LEAD] = lead


def _aside(theirs: Any) -> Callable[[int, FrameType | None], None]:
    def handle(signum: int, frame: FrameType | None) -> None:
        if signal.getsignal(signum) is handle:  # else a run has taken the signal over, and this is its chain
            theirs(signum, frame)

    return handle


def _run_dir(environment: Any, paths: JobPaths) -> Path:
    """One per job, and per task of it: without it two jobs of one script would continue each other's runs."""
    many = f".{environment.global_rank}" if environment.num_tasks > 1 else ""
    return runs_of(paths._folder) / f"{environment.job_id}{many}"  # noqa: SLF001 - before %j is filled in


def _come_back(watch: SignalHandler, paths: JobPaths, submission: DelayedSubmission, stopped: Stopped) -> NoReturn:
    """The requeue that submitit has, with its own count of time-outs, now that the step is saved."""
    left = submission._timeout_countdown - watch.has_timed_out()  # noqa: SLF001
    if left < 0:
        raise UncompletedJobError("not requeued: timed-out too many times") from stopped
    submission.set_timeout(submission._timeout_min, left)  # noqa: SLF001
    with temporary_save_path(paths.submitted_pickle) as temporary:
        submission.dump(temporary)
    watch.env._requeue(left)  # noqa: SLF001 - local: leaves with submitit's own code for it
    raise stopped
