"""Which launcher starts the ranks, with which words, and why: decided from job.yaml alone."""

from __future__ import annotations

import os
import subprocess

import pytest

from hpc_resume.launch.launchers import choose, read_tasks

PYTHON = ("python", "train.py")


@pytest.mark.parametrize(
    ("slurm", "nodes", "total"),
    [
        ({}, 1, 1),
        ({"nodes": "2"}, 2, 2),
        ({"nodes": "2", "ntasks_per_node": "4"}, 2, 8),
        ({"ntasks": 3}, 1, 3),
        ({"nodes": "1-4", "ntasks": "7"}, 4, 7),
        ({"gpus_per_node": "a100:4", "ntasks_per_gpu": "1"}, 1, 4),
        ({"ntasks_per_socket": "2"}, 1, 2),
        ({"extra": {"ntasks-per-node": 4}}, 1, 4),
        ({"nodes": "1", "ntasks_per_node": "1"}, 1, 1),
    ],
)
def test_how_many_tasks_a_job_has(slurm, nodes, total):
    tasks = read_tasks(slurm)
    assert (tasks.nodes, tasks.total) == (nodes, total)


@pytest.mark.parametrize(
    ("command", "slurm", "name", "why"),
    [
        (PYTHON, {}, "direct", "one task"),
        (PYTHON, {"nodes": 2, "ntasks_per_node": 4}, "srun", "8 tasks"),
        ("python train.py | tee log", {"ntasks": 2}, "srun", "2 tasks"),
        (("torchrun", "--nproc-per-node=4", "train.py"), {"ntasks": 4}, "direct", "(torchrun)"),
        (("python", "-m", "torch.distributed.run", "train.py"), {}, "direct", "(torchrun)"),
        ("mpirun -np 4 ./a.out", {"ntasks": 4}, "direct", "(mpirun)"),
    ],
)
def test_auto_picks_and_says_why(command, slurm, name, why):
    chosen = choose("auto", command, slurm)
    assert chosen.name == name
    assert why in chosen.why


def test_a_step_of_many_ranks_kills_nobody_for_anothers_end():
    words = choose("auto", PYTHON, {"ntasks": 2}).words
    assert words[:3] == ("srun", "--kill-on-bad-exit=0", "--wait=0")
    environment = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1", "PATH": "/usr/bin:/bin"}
    asked = [*words[3:], "bash", "-c", 'echo "$RANK $WORLD_SIZE $LOCAL_RANK"']
    assert subprocess.run(asked, env=environment, capture_output=True, text=True, check=True).stdout == "3 8 1\n"


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("command", [PYTHON, ("./train",)])
def test_torchrun_is_the_jobs_own_and_gets_what_only_the_job_knows(nodes, command, tmp_path):
    chosen = choose("torchrun", command, {"nodes": nodes, "ntasks_per_node": 4, "cpus_per_task": 2})
    words = list(chosen.words)
    step = words[: words.index("bash")]
    assert step == (
        []
        if nodes == 1
        else [
            "srun",
            "--kill-on-bad-exit=0",
            "--wait=0",
            "--ntasks-per-node=1",
            "--nodes=2",
            "--ntasks=2",
            "--cpus-per-task=8",
        ]
    )
    for name in ("python", "torchrun"):
        (tmp_path / name).write_text('#!/bin/sh\nfor word; do echo "$word"; done\n')
        (tmp_path / name).chmod(0o755)
    told = {
        "MASTER_ADDR": "n 1",
        "MASTER_PORT": "12345",
        "HPC_RESUME_JOB_ID": "7_1",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_NODEID": "1",
    }
    done = subprocess.run(
        [*words[len(step) :], *command],
        env=told | {"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    said = done.stdout.splitlines()
    assert said[:2] == (["-m", "torch.distributed.run"] if command is PYTHON else said[:2])
    assert {"--rdzv-endpoint=n 1:12345", "--rdzv-id=7_1", "--nproc-per-node=4"} <= set(said)
    assert ("--nnodes=2" in said) == (nodes == 2)
    assert said[-len(command) - 1 :] == ["--no-python", *command]


def test_accelerate_and_mpirun():
    words = choose("accelerate", PYTHON, {"nodes": 2, "gpus_per_node": 4}).words
    assert "--num_processes=8" in words
    assert words[-1] == "--no_python"
    assert choose("mpirun", PYTHON, {"ntasks": 4}).words == ("mpirun", "-np", "4")


@pytest.mark.parametrize(("config", "nodes", "tasks", "multi"), [
    (None, 1, 2, True), (None, 2, 1, True), (None, 1, 1, False), ("default_config.yaml", 1, 2, False)
])  # fmt: skip
def test_accelerate_starts_as_many_as_were_asked_for_without_two_gpus_in_sight(config, nodes, tasks, multi, tmp_path):
    """It starts one alone otherwise; what `accelerate config` has written goes before our word."""
    (tmp_path / "accelerate").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "accelerate").chmod(0o755)
    if config is not None:
        (tmp_path / "home/accelerate").mkdir(parents=True)
        (tmp_path / "home/accelerate" / config).touch()
    words = choose("accelerate", PYTHON, {"nodes": nodes, "ntasks_per_node": tasks}).words
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HF_HOME": str(tmp_path / "home")}
    env |= {"MASTER_ADDR": "n1", "MASTER_PORT": "12345"}
    command = [*words[words.index("bash") :], *PYTHON]
    said = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.splitlines()
    assert ("--multi_gpu" in said) == multi
    assert said[: said.index("--main_process_ip=n1")] == ["launch", f"--num_machines={nodes}", "--machine_rank=0"]
    assert said[-len(PYTHON) - 2 :] == [f"--num_processes={nodes * tasks}", "--no_python", *PYTHON]
