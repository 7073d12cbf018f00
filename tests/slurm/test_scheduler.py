"""The Slurm scheduler against a real cluster: what it submits, sees and cancels, and how it says no."""

from __future__ import annotations

import os

import pytest
from cluster import wait_for

from hpc_resume.errors import SchedulerError
from hpc_resume.schedulers import slurm

SLEEPER = "#!/bin/bash\n#SBATCH --job-name=sleeper\nexec sleep 60\n"


@pytest.fixture(autouse=True)
def here(cluster, monkeypatch):
    """Our own process talks to the cluster of the test, with a person's taste in output."""
    for name in [name for name in os.environ if name.startswith(("SLURM", "SBATCH"))]:
        monkeypatch.delenv(name)
    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, cluster.env[name])
    monkeypatch.setenv("SQUEUE_FORMAT", "%i")
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")


def test_a_job_is_seen_from_pending_to_its_end(cluster, tmp_path):
    directory = tmp_path / "with = and space"
    directory.mkdir()
    job = slurm.submit(SLEEPER + "\n", directory=directory)
    state = wait_for(lambda: [s for s in slurm.jobs([job]) if s.state == "RUNNING" and s.nodes], 10, "it to run")[0]
    assert (state.job_id, state.name, state.restarts, state.array_task) == (job, "sleeper", 0, None)
    assert state.nodes in cluster.nodes
    assert state.directory == str(directory)
    assert state.start_time
    slurm.cancel([job])
    ended = wait_for(lambda: [s for s in slurm.jobs([job]) if not s.active], 10, "it to end")[0]
    assert ended.state == "CANCELLED"
    assert ended.end_time >= state.start_time


def test_array_tasks_are_told_one_by_one_also_while_they_wait(cluster, tmp_path):
    job = slurm.submit("#!/bin/bash\n#SBATCH --array=0-3%1\nexec sleep 60\n", directory=tmp_path)
    wait_for(lambda: "RUNNING" in {state.state for state in slurm.jobs([job])}, 10, "one to run")
    states = {state.array_task: state.state for state in slurm.jobs([job])}
    assert sorted(states) == [0, 1, 2, 3]
    assert sorted(states.values()) == ["PENDING", "PENDING", "PENDING", "RUNNING"]
    slurm.cancel([f"{job}_2"])
    assert {s.array_task for s in slurm.jobs([job]) if s.active} == {0, 1, 3}
    assert [s.job_id for s in slurm.jobs([f"{job}_3"])] == [f"{job}_3"]


def test_unknown_jobs_are_left_out_and_no_accounting_is_no_error(tmp_path):
    job = slurm.submit(SLEEPER, directory=tmp_path)
    assert slurm.jobs(["99"]) == ()
    assert [state.job_id for state in slurm.jobs(["99", job])] == [job]
    slurm.cancel(["99"])


def test_a_restart_is_counted(cluster, tmp_path):
    job = slurm.submit(f"{SLEEPER.splitlines()[0]}\n#SBATCH --requeue\nexec sleep 60\n", directory=tmp_path)
    cluster.wait_state(job, "RUNNING", seconds=10)
    cluster.check("scontrol", "requeue", job)
    wait_for(lambda: slurm.jobs([job])[0].restarts == 1, 10, "the restart")


@pytest.mark.parametrize(
    ("directive", "words"),
    [
        ("--partition=nope", "invalid partition specified: nope; Batch job submission failed: Invalid partition name"),
        ("--nonsense=1", "unrecognized option"),
        ("--time=soon", "Invalid --time specification"),
    ],
)
def test_sbatchs_own_words_are_passed_on(tmp_path, directive, words):
    with pytest.raises(SchedulerError, match=r"^sbatch refused the job: ") as caught:
        slurm.submit(f"#!/bin/bash\n#SBATCH {directive}\n", directory=tmp_path)
    assert words in str(caught.value)


def test_a_controller_that_is_away_is_named(cluster, tmp_path):
    cluster.stop_controller()
    with pytest.raises(SchedulerError, match=r"sbatch refused the job: .*Unable to contact slurm controller"):
        slurm.submit(SLEEPER, directory=tmp_path)


def test_the_users_partition_variable_does_not_beat_the_script(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("SBATCH_PARTITION", "high")
    monkeypatch.setenv("SBATCH_TIMELIMIT", "3")
    script = "#!/bin/bash\n#SBATCH --partition=low\nexec sleep 60\n"
    shown = cluster.show(slurm.submit(script, directory=tmp_path))
    assert (shown["Partition"], shown["TimeLimit"]) == ("low", "00:03:00")
