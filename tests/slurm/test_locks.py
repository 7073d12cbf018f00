"""Two nodes and one directory: `hpc-resume locks` as srun starts it, and a lease whose owner Slurm knows to be gone."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from cluster import Cluster, wait_for

BIN = Path(sys.executable).parent


def test_two_nodes_try_a_directory_out_together(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    step = "srun -N2 -n2 --ntasks-per-node=1 hpc-resume locks runs --json >told.json"
    script = f"#!/bin/bash\nPATH={BIN}:$PATH\n{step} || true\n"
    job = cluster.sbatch("-N2", "-p", "normal", script=script, cwd=tmp_path)
    cluster.wait_state(job, "COMPLETED", seconds=60)
    told = json.loads((tmp_path / "told.json").read_text())
    assert len(told["nodes"]) == (2 if os.geteuid() == 0 else 1), "each node has a name of its own"
    assert told["claimed_twice"] == []
    assert told["seen_after"] < 5.0
    assert told["refused"] == "" or os.geteuid() != 0, "only two names prove two nodes"
    assert list((tmp_path / "runs").iterdir()) == []


HOLD = """
import os, time
from pathlib import Path
from hpc_resume.run import lease
from hpc_resume.run.environment import read_environment
from hpc_resume.run.rundir import RunDir
told = read_environment(os.environ)
began = time.monotonic()
while (held := lease.take(RunDir(Path("run")), lease.Claimant(told.job_id, told.restart_count))) is None:
    time.sleep(0.1)
Path(f"taken-{told.job_id}").write_text(f"{held.generation} {time.monotonic() - began}")
time.sleep(600 if held.generation == 1 else 0)
held.release()
"""


def test_an_owner_whose_job_slurm_knows_to_be_gone_is_taken_over_at_once(cluster: Cluster, tmp_path: Path) -> None:
    """Every process of it is killed at once, its heartbeat too, which would be missed only after 105 s."""
    (tmp_path / "run").mkdir()
    (tmp_path / "hold.py").write_text(HOLD)
    export = "export HPC_RESUME_LOCKS=log HPC_RESUME_HEARTBEAT=60"
    script = f"#!/bin/bash\n{export}\nexec {sys.executable} hold.py\n"
    first, second = cluster.nodes[:2]
    owner = cluster.sbatch("-p", "normal", f"--nodelist={first}", script=script, cwd=tmp_path)
    wait_for((tmp_path / f"taken-{owner}").exists, 60, "the first owner")
    cluster.check("scancel", "--full", "--signal=KILL", owner)
    cluster.wait_state(owner, "FAILED", "CANCELLED", "NODE_FAIL", seconds=60)
    began = time.monotonic()
    heir = cluster.sbatch("-p", "normal", f"--nodelist={second}", script=script, cwd=tmp_path)
    taken = tmp_path / f"taken-{heir}"
    wait_for(lambda: taken.exists() and taken.read_text(), 90, "the heir")
    assert taken.read_text().split()[0] == "2"
    assert time.monotonic() - began < 60
