"""The executor: what submitit's own would hand to sbatch as its script, we render."""

from __future__ import annotations

import shlex
import shutil
import sys
import uuid
from pathlib import Path
from typing import Any

from submitit.core.core import PicklingExecutor
from submitit.core.utils import DelayedSubmission, JobPaths
from submitit.slurm.slurm import SlurmExecutor

from hpc_resume.integrations.submitit import checkpointable, parameters
from hpc_resume.integrations.submitit.job import HpcResumeJob
from hpc_resume.integrations.submitit.naming import CLUSTER, runs_of
from hpc_resume.integrations.submitit.translation import SECTIONS, job_of_parameters, without_progress
from hpc_resume.launch import script_file
from hpc_resume.launch.plan import decide
from hpc_resume.launch.render import render
from hpc_resume.schedulers import places, slurm

parameters.hear()


class HpcResumeExecutor(SlurmExecutor):
    """As submitit's SlurmExecutor, with hpc_resume's script.

    Its parameters are SlurmExecutor's, and these sections of job.yaml: preemption, requeue, checkpoint, stagger, env,
    wandb. How often a job comes back is `requeue`'s to say; `max_num_timeout` is not used.
    """

    job_class = HpcResumeJob

    def __init__(
        self,
        folder: str | Path,
        max_num_timeout: int = 3,
        max_pickle_size_gb: float = 1.0,
        python: str | None = None,
    ) -> None:
        # Not SlurmExecutor's own, which refuses an affinity of 0.
        PicklingExecutor.__init__(self, folder, max_num_timeout, max_pickle_size_gb)
        self._uncounted = False  # the submission at hand saves itself, so that its progress is not seen
        self.python = shlex.quote(sys.executable) if python is None else python

    @classmethod
    def name(cls) -> str:
        """For AutoExecutor(cluster=...)."""
        return CLUSTER

    @classmethod
    def affinity(cls) -> int:
        """0: never chosen unless asked for by its name."""
        return 0 if shutil.which("sbatch") else -1

    @classmethod
    def _valid_parameters(cls) -> set[str]:
        return {*super()._valid_parameters(), *SECTIONS}

    def _internal_update_parameters(self, **kwargs: Any) -> None:
        unknown = sorted(set(kwargs) - self._valid_parameters())
        if unknown:
            known = ", ".join(sorted(self._valid_parameters()))
            raise ValueError(f"unknown parameters: {', '.join(unknown)}; there are {known}")
        self._script(self.parameters | kwargs, None)  # what is wrong with them is said now
        self.parameters.update(kwargs)

    def _internal_process_submissions(self, delayed_submissions: list[DelayedSubmission]) -> list[Any]:
        self._uncounted = all(checkpointable.is_checkpointable(one.function) for one in delayed_submissions)
        if len(delayed_submissions) == 1:
            return list(super()._internal_process_submissions(delayed_submissions))
        folder = Path(JobPaths.get_first_id_independent_folder(self.folder))
        folder.mkdir(parents=True, exist_ok=True)
        pickles = []
        for delayed in delayed_submissions:
            delayed.set_timeout(self.parameters.get("time", 5), self.max_num_timeout)
            pickles.append(folder / f"{uuid.uuid4().hex}.pkl")
            delayed.dump(pickles[-1])
        self._throttle()
        first = self._queue(len(pickles))
        ranks = list(range(self._num_tasks()))
        jobs = [HpcResumeJob(self.folder, f"{first}_{task}", ranks) for task in range(len(pickles))]
        for job, pickled in zip(jobs, pickles, strict=True):
            job.paths.move_temporary_file(pickled, "submitted_pickle")
        return jobs

    def _submit_command(self, command: str) -> Any:  # noqa: ARG002 - ours is in the script
        return HpcResumeJob(self.folder, self._queue(None), list(range(self._num_tasks())))

    def _queue(self, tasks: int | None) -> str:
        """Render, hand to sbatch, keep a copy where submitit keeps its own; the job's id."""
        chosen = self.parameters
        if self._uncounted:
            chosen = chosen | {"requeue": without_progress(chosen.get("requeue", {}))}
        script = self._script(chosen, tasks)
        script_file.verify(script)
        runs = runs_of(self.folder)
        places.check_run_dir(runs)
        for key, output in zip(("output", "error"), self._logs(tasks), strict=True):
            places.make_output_directory(Path.cwd(), key, output)
        job_id = slurm.submit(script, directory=Path.cwd())
        # A folder named after the job (Hydra's) cannot be there before it, and Slurm makes none: at once, as submitit.
        for name in [f"{job_id}_{task}" for task in range(tasks)] if tasks else [job_id]:
            Path(JobPaths(self.folder, name).folder).mkdir(parents=True, exist_ok=True)
        copy = JobPaths(self.folder, f"{job_id}_0" if tasks else job_id).submission_file
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(script)
        return job_id

    def _script(self, chosen: dict[str, Any], tasks: int | None) -> str:
        job = job_of_parameters(chosen, folder=self.folder, python=self.python, logs=self._logs(tasks), tasks=tasks)
        return render(decide(job))

    def _logs(self, tasks: int | None) -> tuple[str, str]:
        paths = JobPaths(self.folder)
        found = (str(path).replace("%t", "0") for path in (paths.stdout, paths.stderr))
        out, err = (path.replace("%j", "%A_%a") if tasks is not None else path for path in found)
        return out, err
