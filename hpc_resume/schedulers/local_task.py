"""One run under the local scheduler: its batch shell, started again as long as the shell's own decision says so."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from hpc_resume import contract
from hpc_resume.errors import RunStateError
from hpc_resume.run.events import say
from hpc_resume.run.records import ExitRecord
from hpc_resume.run.rundir import AttemptDir, RunDir
from hpc_resume.schedulers.batch_shell import BatchShell
from hpc_resume.schedulers.continuation import Ended, Streak, count, job_key, task_key, what_next
from hpc_resume.schedulers.control import ask_to_stop

# What a job must not inherit: it would take an outer job's facts, or sbatch's options, for its own.
_NOT_INHERITED: Final = ("SLURM_", "SLURMD_", "SBATCH_", "SRUN_", "HPC_RESUME_", "HR_")


@dataclass(frozen=True, slots=True)
class LocalJob:
    """A rendered script and where it runs. `tasks` are the array's indexes, (None,) without an array."""

    name: str
    script: str
    digest: str  # of the spec
    directory: Path  # of job.yaml: the job's working directory
    run_parent: Path
    signal: signal.Signals  # the warning
    tasks: tuple[int | None, ...]
    width: int  # tasks at once
    stdout: int | None  # a descriptor for the job's standard output; None: ours
    stderr: int | None = None  # the same for its standard error


@dataclass(frozen=True, slots=True)
class TaskResult:
    """How a run ended under us: `step` is the published one, `decision` and `cause` the last attempt's, or empty."""

    run: str
    attempts: int
    code: int
    decision: str
    cause: str
    step: int | None


class LocalTask:
    """The run of one array task, or of the whole job when it is no array."""

    def __init__(self, job: LocalJob, number: int, task: int | None) -> None:
        self.run_dir = RunDir(job.run_parent / task_key(job_key(job.name, number), task))
        self.interruptions = 0  # attempts that ended with a requeue under this scheduler
        self.due = 0.0  # monotonic seconds before which it is not started (again)
        self.result: TaskResult | None = None
        self._job, self._number, self._task = job, number, task
        self._shell: BatchShell | None = None
        self._starts = 0
        self._streak = Streak()
        self._warnings = 0  # signals that wait for the batch shell to be ready for them
        self._stop_asked_by = ""
        self._stop_written = False

    @property
    def running(self) -> bool:
        """Whether its batch shell, or something of it, is there."""
        return self._shell is not None

    def start(self, script: Path, base: Mapping[str, str]) -> None:
        """One more attempt of the job's script, which is in a file now, over the environment `base`."""
        job = self._job
        env = task_environment(base, job, self._number, self._task, restarts=self._starts)
        self._starts += 1
        self._warnings, self._stop_written = 0, False
        self._shell = BatchShell(script, cwd=job.directory, env=env, stdout=job.stdout, stderr=job.stderr)

    def warn(self) -> None:
        """Pass a warning on, as `scancel -b -s USR1` would."""
        if self.running:
            self._warnings += 1

    def stop(self, by: str) -> None:
        """Ask the training to save and end for good; `by` says who asked."""
        self._stop_asked_by = by
        self.warn()

    def end_hard(self) -> None:
        """End every process of it: TERM, then KILL."""
        if self._shell is None:
            return
        attempt = self.attempt()
        self._shell.end_hard(record.process for record in (attempt.pids() if attempt else ()))

    def poll(self) -> None:
        """Deliver what waits, and settle what has ended."""
        if self._shell is None:
            return
        if self._warnings or (self._stop_asked_by and not self._stop_written):
            self._deliver(self._shell)
        code = self._shell.poll()
        if code is not None:
            attempt, by_signal = self.attempt(), self._shell.by_signal
            self._shell = None
            self._settle(code, attempt, by_signal=by_signal)

    def give_up(self) -> None:
        """The end of a run that waits for its next start, on the owner's word."""
        if self.result is None and self._starts:
            newest = self.run_dir.newest_attempt()
            ended = newest.exit() if newest else None
            self._end(ended.code if ended else 128 + signal.SIGTERM, ended, decision="stop")

    def attempt(self) -> AttemptDir | None:
        """The attempt of the batch shell that runs now; None until it has written who it is."""
        ours = self._shell.identity if self._shell is not None else None
        if ours is None:
            return None
        # Not the newest alone: a second launcher may have begun one meanwhile, and been refused at the lock.
        for attempt in reversed(self.run_dir.attempts()):
            record = attempt.attempt()  # of one host and boot, where it is ours: we have started it
            if record is not None and (record.process.pid, record.process.start_ticks) == (ours.pid, ours.start_ticks):
                return attempt
        return None

    def _deliver(self, shell: BatchShell) -> None:
        """Not before the attempt is on disk: until its traps are set, a signal would just kill the shell."""
        attempt = self.attempt()
        if attempt is None:
            return
        if self._stop_asked_by and not self._stop_written:
            self._stop_written = True
            try:
                ask_to_stop(attempt, self._stop_asked_by)
            except RunStateError as error:
                say(str(error))
        for _ in range(self._warnings):
            shell.signal(self._job.signal)
        self._warnings = 0

    def _settle(self, code: int, attempt: AttemptDir | None, *, by_signal: bool) -> None:
        """The shell has ended: again, or the end."""
        record = attempt.exit() if attempt else None
        ended = Ended(code, attempt is not None, record, by_signal, str(self.run_dir.path))
        self._streak = count(self._streak, ended)
        following = what_next(ended, self._streak)
        if following.reason:
            say(f"{self.run_dir.key}: {following.reason}")
        if following.again and not self._stop_asked_by:
            self.interruptions += 1
            self.due = time.monotonic() + following.pause
            if following.pause:
                say(f"{self.run_dir.key}: the next attempt starts in {following.pause:.0f} s")
            return
        decision = record.decision if record else ""
        self._end(record.code if record else code, record, decision="stop" if decision == "requeue" else decision)

    def _end(self, code: int, record: ExitRecord | None, *, decision: str) -> None:
        if self.run_dir.finished() is not None:
            decision = "finish"
        step, attempts = self.run_dir.latest_step(), len(self.run_dir.attempts())
        self.result = TaskResult(self.run_dir.key, attempts, code, decision, record.cause if record else "", step)


def task_environment(
    base: Mapping[str, str], job: LocalJob, number: int, task: int | None, *, restarts: int
) -> dict[str, str]:
    """What the batch shell is told, over the user's own environment without any outer job's."""
    env = {name: value for name, value in base.items() if not name.startswith(_NOT_INHERITED)}
    job_id = f"local-{number}" if task is None else f"local-{number}_{task}"
    env |= {
        contract.ENV_SCHEDULER: "local",
        contract.ENV_RUN_KEY: job_key(job.name, number),
        contract.ENV_JOB_ID: job_id,
        contract.ENV_RESTART_COUNT: str(restarts),
    }
    tasks = [index for index in job.tasks if index is not None]
    if task is not None and tasks:
        steps = {second - first for first, second in pairwise(tasks)}
        env |= {
            contract.ENV_ARRAY_TASK: str(task),
            "SLURM_ARRAY_JOB_ID": str(number),
            "SLURM_ARRAY_TASK_ID": str(task),
            "SLURM_ARRAY_TASK_MIN": str(tasks[0]),
            "SLURM_ARRAY_TASK_MAX": str(tasks[-1]),
            "SLURM_ARRAY_TASK_STEP": str(steps.pop() if len(steps) == 1 else 1),
            "SLURM_ARRAY_TASK_COUNT": str(len(tasks)),
        }
    return env
