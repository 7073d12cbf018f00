"""What the launcher says is read once, and a value that cannot be meant is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_resume.errors import ConfigError
from hpc_resume.run.environment import read_environment


def test_nobody_has_said_anything():
    environment = read_environment({})
    assert (environment.launched, environment.rank, environment.signal_name, environment.job_id) == (
        False,
        0,
        "USR1",
        "",
    )
    assert environment.run_dir is environment.cause is environment.end_time is environment.keep is None


def test_a_launcher_has():
    environment = read_environment(
        {
            "HPC_RESUME_RUN_DIR": "/r",
            "HPC_RESUME_ATTEMPT": "3",
            "HPC_RESUME_ATTEMPT_DIR": "/r/attempts/0003",
            "HPC_RESUME_SIGNAL": "USR2",
            "HPC_RESUME_SAVE_STEPS": "",
            "HPC_RESUME_SAVE_SECONDS": "900",
            "HPC_RESUME_KEEP": "5",
            "HPC_RESUME_END_TIME": "1795244506",
            "HPC_RESUME_JOB_ID": "12_3",
            "HPC_RESUME_RESTART_COUNT": "2",
            "HPC_RESUME_CAUSE": "timeout",
        }
    )
    assert environment.launched
    assert environment.attempt_dir == Path("/r/attempts/0003")
    assert (environment.save_steps, environment.save_seconds, environment.keep) == (None, 900.0, 5)
    assert (environment.attempt, environment.restart_count, environment.signum) == (3, 2, 12)
    assert (environment.end_time, environment.cause, environment.job_id) == (1795244506.0, "timeout", "12_3")


def test_torchruns_rank_goes_before_the_task_that_started_torchrun():
    assert read_environment({"SLURM_PROCID": "0", "RANK": "3"}).rank == 3
    assert read_environment({"SLURM_PROCID": "2"}).rank == 2


def test_the_last_array_task_is_not_taken_for_the_whole_array():
    slurm = {"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}
    assert read_environment(slurm).job_id == "12_3"
    assert read_environment({"SLURM_JOB_ID": "12"}).job_id == "12"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HPC_RESUME_KEEP", "-1"),
        ("HPC_RESUME_ATTEMPT", "٣"),
        ("HPC_RESUME_SAVE_SECONDS", "nan"),
        ("HPC_RESUME_END_TIME", "soon"),
        ("HPC_RESUME_SIGNAL", "STOP"),
        ("HPC_RESUME_SIGNAL", "USR9"),
        ("RANK", "first"),
    ],
)
def test_a_value_that_cannot_be_meant_is_named(name, value):
    with pytest.raises(ConfigError, match=f"{name}={value}"):
        read_environment({name: value})
