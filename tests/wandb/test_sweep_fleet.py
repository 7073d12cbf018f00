"""Two queues, one owner: Slurm requeues agents, W&B requeues runs, and every run finishes once."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from cluster import Cluster, wait_for
from loopback import Loopback
from loopback_backend import Settings
from loopback_sweeps import Habits
from sweep_fleet import GRACE, Fleet, faults, orphans

from hpc_resume.launch.job_file import read_job
from hpc_resume.launch.plan import decide
from hpc_resume.launch.render import render

pytestmark = pytest.mark.slurm

JOB = """\
name: fleet
sweep: {{id: {sweep}, agents: {agents}}}
slurm: {{partition: patient, time: "30:00", cpus_per_task: 8, mem: 100M, output: "%A_%a.out"}}
preemption: {{lead: 30s}}
stagger: {{interval: 300ms}}
"""


def play(directory: Path, *, agents: int, runs: int, hand_out: str, seed: int, seconds: float) -> None:
    settings = Settings(habits=Habits(hand_out=hand_out))
    directory.mkdir()
    with Loopback(settings) as server, Cluster(nodes=agents, patience=GRACE) as cluster:
        values = ", ".join(str(number) for number in range(runs))
        sweep = server.create_sweep(f"{{program: train.py, method: grid, parameters: {{lr: {{values: [{values}]}}}}}}")
        (directory / "job.yaml").write_text(JOB.format(sweep=sweep, agents=agents))
        fleet = Fleet(cluster, server, directory, sweep, random.Random(seed), more=runs // 3)
        fleet.submit(render(decide(read_job(directory / "job.yaml").job)))
        fleet.play(seconds)
        ended = {entry["JobId"]: entry["JobState"] for entry in cluster.completions() if entry["Name"] == "fleet"}
        seen = server.runs()
        resumed = server.backend.sweeps.by_name[sweep.rpartition("/")[2]].states
        wrong = [what for run in seen for what in faults(fleet, run)]
        assert not wrong, f"{wrong}\n{fleet.state()}"
        assert len(seen) == runs, fleet.state()
        assert server.sweep_state(sweep) == "FINISHED"
        assert server.queued(sweep) == []
        assert resumed == ["RUNNING"], "`wandb sweep --resume` once for the whole fleet"
        assert set(ended.values()) == {"COMPLETED"}, ended
        assert orphans(directory) == []
        assert server.unhandled() == []
        assert fleet.at_once > 1, "nobody was interrupted at the same moment as another"
        print(fleet.interruptions)


@pytest.mark.timeout(300)
def test_three_agents_finish_every_run_through_preemptions_though_runs_are_handed_out_twice(tmp_path: Path) -> None:
    play(tmp_path / "fleet", agents=3, runs=3, hand_out="until_init", seed=1, seconds=280)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("hand_out", ["atomic", "racy", "until_init"])
def test_eight_agents_finish_a_grid_of_twenty_four_runs(tmp_path: Path, hand_out: str) -> None:
    play(tmp_path / "fleet", agents=8, runs=24, hand_out=hand_out, seed=7, seconds=1700)


@pytest.mark.timeout(300)
def test_a_cancelled_sweep_ends_its_array_and_no_task_comes_back(tmp_path: Path) -> None:
    directory = tmp_path / "fleet"
    directory.mkdir()
    with Loopback() as server, Cluster(nodes=2, patience=GRACE) as cluster:
        sweep = server.create_sweep("{program: train.py, method: grid, parameters: {lr: {values: [1, 2, 3]}}}")
        (directory / "job.yaml").write_text(JOB.format(sweep=sweep, agents=2))
        fleet = Fleet(cluster, server, directory, sweep, random.Random(1))
        fleet.submit(render(decide(read_job(directory / "job.yaml").job)))
        wait_for(lambda: len(server.runs()) == 2, 90, "a run for each agent")
        words = [sys.executable, "-m", "wandb", "sweep", "--cancel", sweep]
        told = server.environment(directory, PATH="/usr/bin:/bin")
        subprocess.run(words, cwd=directory, env=told, check=True, timeout=90, capture_output=True)
        wait_for(lambda: not fleet.left(), 90, "the end of the array")
        ended = [entry for entry in cluster.completions() if entry["Name"] == "fleet"]
        assert [entry["JobState"] for entry in ended] == ["COMPLETED"] * 2, "each once: none was requeued"
        assert len(server.runs()) == 2, "nobody has taken the third"
        assert orphans(directory) == []
