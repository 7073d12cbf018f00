"""What submitit's user holds: done, result and state by the run's own records, and by Slurm where there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from submitit.core.core import InfoWatcher
from submitit.core.utils import UncompletedJobError
from submitit.slurm.slurm import SlurmJob

from hpc_resume.errors import SchedulerError
from hpc_resume.integrations.submitit.naming import runs_of
from hpc_resume.run.records import ExitRecord
from hpc_resume.run.rundir import RunDir
from hpc_resume.schedulers import OVER, slurm

FORGOTTEN: Final = "FORGOTTEN"  # no word of Slurm's: the job was, and is known no more
_GOES_ON: Final = ("requeue", "slurm")  # what exit.json decided, while the run is not over


class QueueWatcher(InfoWatcher):
    """Slurm's word on all jobs at once, by squeue where submitit asks sacct: many clusters keep no accounting."""

    def update(self) -> None:
        """Ask, unless there is nothing to ask for. What Slurm does not answer stays as it was."""
        import time  # noqa: PLC0415 - the base class keeps its clock so

        asked = sorted(self._registered - self._finished)
        if asked:
            self._num_calls += 1
            try:
                states = {state.job_id: state for state in slurm.jobs(asked)}
            except SchedulerError:
                states = None
            for job_id in asked if states is not None else ():
                state = states.get(job_id) if states else None
                name, nodes = (state.state, state.nodes) if state else (FORGOTTEN, "")
                self._info_dict[job_id] = {"JobID": job_id, "State": name, "NodeList": nodes}
                if name in OVER or name == FORGOTTEN:
                    self._finished.add(job_id)
        self._last_status_check = time.time()

    def get_state(self, job_id: str, mode: str = "standard") -> str:
        """As squeue says; UNKNOWN before it has been asked."""
        return str(self.get_info(job_id, mode=mode).get("State") or "UNKNOWN")

    def is_done(self, job_id: str, mode: str = "standard") -> bool:
        """Whether the job is in the queue no more."""
        state = self.get_state(job_id, mode=mode)
        return state in OVER or state == FORGOTTEN


class HpcResumeJob(SlurmJob):
    """A job of ours: over when the run is, however many times it was requeued, and in however many Slurm jobs."""

    watcher = QueueWatcher(delay_s=60)

    @property
    def run_dir(self) -> Path | None:
        """Where its run is kept; None before its first attempt."""
        found = sorted(runs_of(self.paths.folder).glob(f"*-{self.job_id}"))
        return found[0] if found else None

    def done(self, force_check: bool = False) -> bool:
        """Whether nothing of it will run any more."""
        if self._sub_jobs:
            return all(job.done(force_check) for job in self._sub_jobs)
        last = self._last_word()
        if last is not None and last.decision not in _GOES_ON:
            return True
        # A lost node, a killed batch shell, a job cancelled in the queue: nobody of ours is left to say so.
        return bool(self.watcher.is_done(self._job_at_work(), mode="force" if force_check else "standard"))

    @property
    def state(self) -> str:
        """Slurm's state of the job that works on the run now."""
        return self.watcher.get_state(self._job_at_work())

    def cancel(self, check: bool = True) -> None:
        """End it for good."""
        try:
            slurm.cancel([self._job_at_work()])
        except SchedulerError:
            if check:
                raise

    def _interrupt(self, timeout: bool = False) -> None:  # noqa: ARG002 - the batch shell finds the cause by itself
        """Warn it, as Slurm would. For tests, as submitit's own."""
        slurm.signal_batch_shell(self._job_at_work(), "USR1")

    def _get_outcome_and_result(self) -> tuple[str, Any]:
        last = self._last_word()
        if last is not None and last.decision != "finish" and not self.paths.result_pickle.exists():
            raise UncompletedJobError(
                f"job {self.job_id} ended without a result: {last.cause} ({last.evidence}), exit code {last.code};"
                f" {last.decision}: {last.reason}. Its logs: {self.paths.stdout} and {self.paths.stderr};"
                f" more by `hpc-resume explain {self.run_dir}`"
            )
        outcome: tuple[str, Any] = super()._get_outcome_and_result()
        return outcome

    def _last_word(self) -> ExitRecord | None:
        """exit.json of the newest attempt; None while it is at work."""
        run_dir = self.run_dir
        newest = RunDir(run_dir).newest_attempt() if run_dir else None
        return newest.exit() if newest else None

    def _job_at_work(self) -> str:
        """The Slurm job that the run is in: another one where it could not be requeued."""
        run_dir = self.run_dir
        newest = RunDir(run_dir).newest_attempt() if run_dir else None
        if newest is None:
            return str(self.job_id)
        ended, begun = newest.exit(), newest.attempt()
        _, _, task = str(self.job_id).partition("_")
        if ended is not None and ended.successor:
            return f"{ended.successor}_{task}" if task else str(ended.successor)
        return begun.job_id if begun is not None and begun.job_id else str(self.job_id)
