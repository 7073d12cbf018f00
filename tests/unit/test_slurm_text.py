"""Slurm's words as recorded from a real cluster (22.05.8), and the environment its commands are given."""

from __future__ import annotations

import time

import pytest

from hpc_resume.errors import SchedulerError
from hpc_resume.schedulers import SCHEDULERS, get, slurm

# name "a=b c", a comment that tries to forge fields, an array of three with one at a time, a job that failed
SQUEUE = (
    "5576001\x1fdone\x1fFAILED\x1fNonZeroExitCode\x1f0\x1f2026-11-21T07:31:37\x1f2026-11-21T07:31:39\x1fN/A\x1fn1\x1f"
    "root\x1f/tmp/dir with = and space\x1f/tmp/dir with = and space/slurm-5576001.out\x1f1\x1f\x1f\n"
    "5576000_2\x1fa=b c\x1fPENDING\x1fJobArrayTaskLimit\x1f0\x1fN/A\x1fN/A\x1fN/A\x1f\x1froot\x1f/tmp/x\x1f"
    "/tmp/x/logs %x-%A_%a.out\x1f3\x1fafterany:5(unfulfilled)\x1f\n"
    "5576000_0\x1fa=b c\x1fRUNNING\x1fNone\x1f2\x1f2026-11-21T07:31:37\x1f2027-11-21T07:31:37\x1f2026-11-21T07:40:00\x1f"
    "n1\x1froot\x1f/tmp/x\x1f/tmp/x/logs %x-%A_%a.out\x1f1\x1f(null)\x1f\n"
)
SACCT = (
    "12_3\x1fa=b c\x1fCANCELLED by 1000\x1f2026-11-21T07:31:37\x1f2026-11-21T07:31:39\x1fn1\x1froot\x1f/tmp/x\n"
    "13\x1fdone\x1fTIMEOUT\x1fUnknown\x1fUnknown\x1fNone assigned\x1froot\x1f/tmp/x\n"
)


def epoch(text: str) -> float:
    return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))


def test_squeue_lines_keep_spaces_and_equal_signs_and_array_tasks():
    done, waiting, running = slurm.parse_squeue(SQUEUE)
    assert (done.job_id, done.state, done.reason, done.active) == ("5576001", "FAILED", "NonZeroExitCode", False)
    assert done.directory == "/tmp/dir with = and space"
    assert (done.start_time, done.end_time) == (epoch("2026-11-21T07:31:37"), epoch("2026-11-21T07:31:39"))
    assert (waiting.job_id, waiting.array_task, waiting.active) == ("5576000_2", 2, True)
    assert (waiting.start_time, waiting.end_time, waiting.nodes) == (None, None, "")
    assert (running.name, running.restarts, running.reason, running.nodes) == ("a=b c", 2, "", "n1")
    assert running.preempt_time == epoch("2026-11-21T07:40:00")
    assert (waiting.batch_flag, waiting.dependency) == (3, "afterany:5(unfulfilled)")
    assert (running.batch_flag, running.dependency) == (1, "")
    assert running.output == "/tmp/x/logs %x-%A_%a.out"


@pytest.mark.parametrize("text", ["", "\n", "slurm_load_jobs error\n", "12\x1fRUNNING\n"])
def test_other_lines_are_no_jobs(text):
    assert list(slurm.parse_squeue(text)) == []
    assert list(slurm.parse_sacct(text)) == []


def test_a_line_separator_in_a_directory_does_not_split_the_line():
    line = SQUEUE.split("\n", maxsplit=1)[0].replace("with = and", "with\u2028and")
    assert [job.directory for job in slurm.parse_squeue(line)] == ["/tmp/dir with\u2028and space"]


def test_sacct_lines():
    cancelled, late = slurm.parse_sacct(SACCT)
    assert (cancelled.job_id, cancelled.state, cancelled.active, cancelled.array_task) == (
        "12_3",
        "CANCELLED",
        False,
        3,
    )
    assert (late.state, late.start_time) == ("TIMEOUT", None)


def test_taste_in_output_does_not_reach_a_query_and_the_cluster_does():
    taste = {"SQUEUE_FORMAT": "%i", "SQUEUE_ARRAY": "", "SLURM_TIME_FORMAT": "relative", "SACCT_FORMAT": "jobid"}
    stays = {"SLURM_CONF": "/etc/slurm.conf", "SLURM_CLUSTERS": "a", "PATH": "/bin", "HOME": "/root"}
    assert slurm.query_environment(taste | stays) == stays


def test_what_job_yaml_says_beats_the_users_sbatch_variables_and_what_it_leaves_open_is_theirs():
    script = "#!/bin/bash\n#SBATCH --time=10\n#SBATCH --partition=low\n#SBATCH --requeue\necho\n"
    beaten = ("TIMELIMIT", "PARTITION", "NO_REQUEUE", "REQUEUE", "SIGNAL", "OPEN_MODE", "ARRAY_INX", "JOB_NAME", "WAIT")
    users = {"SBATCH_ACCOUNT": "physics", "SBATCH_QOS": "long", "WANDB_API_KEY": "x", "SQUEUE_FORMAT": "%i"}
    environment = {f"SBATCH_{name}": "1" for name in beaten} | users
    assert slurm.submit_environment(environment, slurm.script_options(script)) == users


def test_a_job_that_submits_a_job_hands_on_nothing_of_its_own():
    own = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "9", "SLURMD_NODENAME": "n1", "SRUN_CPUS_PER_TASK": "4"}
    run = {"HPC_RESUME_RUN_KEY": "other", "HPC_RESUME_ATTEMPT": "3"}
    stays = {"SLURM_CONF": "/etc/slurm.conf", "HOME": "/root"}
    assert slurm.submit_environment(own | run | stays, frozenset()) == stays
    outside = {"SLURM_CLUSTERS": "a", "SLURM_TIME_FORMAT": "relative"}  # the user's own, and the job's to inherit
    assert slurm.submit_environment(outside | run, frozenset()) == outside


def test_no_sbatch_on_path_says_where_to_go(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SchedulerError, match=r"no sbatch on PATH.*hpc-resume run"):
        slurm.submit("#!/bin/bash\n", directory=tmp_path)
    with pytest.raises(SchedulerError, match="no squeue on PATH"):
        slurm.jobs(["1"])


def test_a_command_that_hangs_is_given_up(monkeypatch, tmp_path):
    for name in ("sbatch", "squeue"):
        (tmp_path / name).write_text("#!/bin/sh\nexec sleep 60\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(slurm, "TIMEOUT", 0.2)
    with pytest.raises(SchedulerError, match=r"may be in the queue all the same.*squeue --me"):
        slurm.submit("#!/bin/bash\n", directory=tmp_path)
    with pytest.raises(SchedulerError, match="is slurmctld up"):
        slurm.jobs(["1"], patience=0.2)


def test_schedulers_are_found_by_name_and_an_unknown_one_names_them():
    assert get("slurm") is slurm
    with pytest.raises(SchedulerError, match=f"no scheduler 'pbs'; there are {', '.join(sorted(SCHEDULERS))}"):
        get("pbs")
