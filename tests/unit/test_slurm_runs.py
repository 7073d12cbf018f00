"""Which job works on which run: the key in the script that Slurm keeps, and where none is, the job's own id."""

from __future__ import annotations

import pytest

from hpc_resume.launch.job_file import read_job
from hpc_resume.launch.plan import decide
from hpc_resume.launch.render import render
from hpc_resume.schedulers import JobState, slurm, slurm_runs
from hpc_resume.schedulers.places import fixed_directory


@pytest.mark.parametrize("key", ["", "job-12", "job-local-3", "a.b_c-1"])
def test_the_key_is_read_back_from_a_rendered_script(tmp_path, key):
    (tmp_path / "job.yaml").write_text("name: job\ncommand: [a]\nenv: {X: HR_RUN_KEY=job-7}\n")
    job = read_job(tmp_path / "job.yaml").job
    assert slurm_runs.run_key_in(render(decide(job, run_key=key or None))) == key


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ("job-12", ["12"]),  # begun by job 12
        ("job-5", ["20_0", "20_3"]),  # continued by job 20: a key without a task is all of them
        ("job-5_3", ["20_3"]),
        ("job-20", []),  # job 20 works on another run
        ("job-2", []),
        ("job-1", []),
    ],
)
def test_jobs_of_a_run(monkeypatch, wanted, ids):
    queue = tuple(JobState(job_id, "job", "RUNNING") for job_id in ("12", "20_0", "20_3", "30"))
    scripts = {"20": "  HR_RUN_KEY=job-5\n", "12": "  HR_RUN_KEY=''\n"}
    monkeypatch.setattr(slurm, "mine", lambda name: queue)
    monkeypatch.setattr(slurm, "script_of", lambda job_id: scripts.get(job_id, "#!/bin/bash\n"))
    assert [job.job_id for job in slurm_runs.jobs_of(wanted, "job")] == ids


@pytest.mark.parametrize(
    ("output", "directory"),
    [
        ("out", ""),
        ("logs/%x-%A_%a.out", "logs"),
        ("logs/deep/%j.out", "logs/deep"),
        ("logs/%x/a/%j.out", "logs"),
        ("%x/%j.out", ""),
        ("/scratch/%u/%j.out", "/scratch"),
        ("/%j.out", "/"),
    ],
)
def test_the_part_of_an_output_that_can_be_made_before_slurm_fills_it_in(output, directory):
    assert fixed_directory(output) == directory
