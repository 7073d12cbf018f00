"""Hydra's launcher with our script: its own example, swept over two values, one task interrupted."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest
from cluster import wait_for
from submitit_plugin import ROOT, registered


@pytest.mark.frameworks
@pytest.mark.timeout(180)
def test_a_sweep_goes_on_where_a_warning_stopped_it(cluster, tmp_path):
    directory = tmp_path / "hydra"
    shutil.copytree(ROOT / "examples/hydra", directory, ignore=shutil.ignore_patterns("__pycache__", "runs"))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HPC_RESUME_")}
    env = clean | cluster.env | registered(tmp_path / "plugin")
    alone = {}
    for lr in ("0.1", "0.2"):
        words = [sys.executable, "train.py", f"lr={lr}", "steps=60", "pause=0"]
        done = subprocess.run(words, cwd=directory, env=env, capture_output=True, text=True, timeout=60, check=True)
        alone[lr] = done.stdout.splitlines()[-1]
    shutil.rmtree(directory / "runs")

    words = ["train.py", "-m", "hydra/launcher=hpc_resume", "lr=0.1,0.2", "steps=60", "hydra.sweep.dir=sweep"]
    words += ["hydra.launcher.partition=low", "+hydra.launcher.additional_parameters.mem=100M"]
    with (tmp_path / "log").open("w") as log:
        sweep = subprocess.Popen([sys.executable, *words], cwd=directory, env=env, stdout=log, stderr=log)
    try:
        task = wait_for(lambda: next((job for job in sorted(cluster.queue()) if job.endswith("_1")), ""), 60, "task 1")
        out = directory / "sweep/.submitit" / task / f"{task}_0_log.out"
        wait_for(lambda: out.exists() and "step 8\n" in out.read_text(), 60, "step 8")
        cluster.check("scancel", "--batch", "--signal=USR1", task)
        assert sweep.wait(120) == 0, (tmp_path / "log").read_text()
    finally:
        sweep.kill()
        sweep.wait()
    logs = [out.parents[1] / job / f"{job}_0_log.out" for job in (task[:-1] + "0", task)]
    ends = [re.findall(r"^final state .*$", log.read_text(), re.MULTILINE) for log in logs]
    assert ends == [[alone["0.1"]], [alone["0.2"]]]
    steps = [line for line in out.read_text().splitlines() if line.startswith("step")]
    assert steps == [f"step {n}" for n in range(60)]
    attempts = next((directory / "sweep/.submitit/runs").glob(f"*-{task}")) / "attempts"
    assert [path.name for path in sorted(attempts.iterdir())] == ["0001", "0002"]
