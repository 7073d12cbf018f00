"""submitit's parameters become a job.yaml: what was given is in it, and what cannot be is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_resume.errors import ConfigError
from hpc_resume.integrations.submitit.naming import job_id_of, runs_of
from hpc_resume.integrations.submitit.parameters import split
from hpc_resume.integrations.submitit.translation import job_of_parameters

FOLDER = Path("/work/log/%j")


def job(tasks=None, **parameters):
    return job_of_parameters(parameters, folder=FOLDER, python="python3", logs=("o/%j.out", "o/%j.err"), tasks=tasks)


def test_slurms_options_budgets_and_environment_arrive():
    made = job(
        job_name="hydra.job",
        time=60,
        mem="102MB",
        partition="low",
        ntasks_per_node=1,
        exclusive=True,
        setup=["module load cuda", "ulimit -c 0"],
        additional_parameters={"partition": "high", "mail-type": "END"},
        requeue={"max": {"timeout": 3}},
        env={"OMP_NUM_THREADS": 2},
        account=None,
    )
    assert made.name == "hydra.job"
    assert made.command == ("python3", "-u", "-m", "submitit.core._submit", "/work/log/%j")
    assert made.slurm == {
        "time": "60",
        "mem": "102M",
        "ntasks_per_node": "1",
        "exclusive": "true",
        "partition": "high",
        "mail_type": "END",
        "output": "o/%j.out",
        "error": "o/%j.err",
    }
    assert (made.setup, made.run_dir) == ("module load cuda\nulimit -c 0", "/work/log/runs")
    assert (made.requeue.max.timeout, made.preemption.lead) == (3, 90)
    assert made.env == {"OMP_NUM_THREADS": "2", "SUBMITIT_EXECUTOR": "hpc_resume"}


def test_the_lead_is_submitits_and_half_of_a_limit_that_is_too_short_for_it():
    assert job(time=2).preemption.lead == 60
    assert job(time=2, signal_delay_s=20).preemption.lead == 20
    assert job(time=2, preemption={"lead": "30s", "signal": "USR2"}).preemption.lead == "30s"


def test_an_array_is_as_wide_as_it_was_asked_for():
    assert job(tasks=3).slurm["array"] == "0-2%3"
    assert job(tasks=9, array_parallelism=4).slurm["array"] == "0-8%4"
    assert "error" not in job(stderr_to_stdout=True).slurm


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"teardown": ["rm x"]}, "teardown: "),
        ({"srun_args": ["--mpi=pmix"]}, "srun_args: "),
        ({"requeue": {"on": ["crash"]}}, "requeue.on: crash has a budget of its own"),
        ({"setup": ["export WANDB_API_KEY=abc"]}, "setup: writes out WANDB_API_KEY"),
        ({"job_name": "a b"}, "name: 'a b': must begin"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(parameters, words):
    with pytest.raises(ConfigError) as refused:
        job(**parameters)
    assert words in str(refused.value)


def test_parameters_with_slurms_prefix_or_ours_are_ours_and_ours_go_first():
    given = {"slurm_partition": "a", "hpc_resume_partition": "b", "slurm_mem_gb": 2, "name": "x", "slurm_qos": None}
    ours, rest = split(given, generic=frozenset(("name", "mem_gb")))
    assert (ours, rest) == ({"partition": "b"}, {"name": "x", "mem_gb": 2})


def test_a_run_is_named_after_its_first_job():
    assert runs_of(FOLDER) == Path("/work/log/runs")
    assert job_id_of(Path("/work/log/runs/my-name-12_3")) == "12_3"
