"""`hpc-resume status` on a real cluster: one run from the queue to its cancellation, as Slurm and the records tell it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, wait_for


class User:
    """A directory with a job.yaml in it, and `hpc-resume` there."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.cluster, self.directory = cluster, directory
        spec = {"name": "job", "command": "exec sleep 300", "slurm": {"mem": "100M", "time": "10", "hold": True}}
        (directory / "job.yaml").write_text(json.dumps(spec))

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "hpc_resume", *words],
            cwd=self.directory,
            env=self.cluster.env,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def row(self, *targets: str) -> dict[str, Any]:
        """The one row."""
        done = self.cli("status", "--json", *targets)
        assert done.returncode == 0, done.stderr
        (row,) = json.loads(done.stdout)["runs"]
        return row

    def await_attempt(self, key: str, number: int) -> None:
        path = self.directory / "runs" / key / f"attempts/{number:04d}/pids"
        wait_for(lambda: list(path.glob("*.child.json")), 30, f"attempt {number}")


@pytest.fixture
def user(cluster: Cluster, tmp_path: Path) -> User:
    return User(cluster, tmp_path)


def test_one_run_from_the_queue_to_its_cancellation(user: User, cluster: Cluster) -> None:
    job = user.cli("submit").stdout.strip()
    key = f"job-{job}"
    for target in ((), (job,), (key,)):  # it has no run directory yet
        waiting = user.row(*target)
        assert (waiting["run"], waiting["state"], waiting["attempts"]) == (key, "pending", 0)
        assert "held by its owner" in waiting["why"]
    cluster.check("scontrol", "release", job)
    user.await_attempt(key, 1)
    running = user.row()
    assert (running["run"], running["state"], running["job_id"], running["why"]) == (key, "running", job, "")
    assert running["host"] in cluster.nodes
    cluster.check("scontrol", "requeue", job)
    cluster.wait_state(job, "PENDING", seconds=20)
    held = user.row(job)
    assert held["state"] == "requeued"
    assert re.search(r"Slurm holds a requeued job back until \d\d:\d\d:\d\d", held["why"])
    remedy = re.search(r"`(scontrol update [^`]*)`", held["why"])
    assert remedy is not None
    cluster.check(*shlex.split(remedy[1]))
    user.await_attempt(key, 2)
    assert (user.row(key)["state"], user.row(key)["attempts"]) == ("running", 2)
    assert user.cli("cancel", key).returncode == 0
    cluster.wait_state(job, "CANCELLED", seconds=20)
    wait_for(lambda: user.row(key)["state"] == "cancelled", 10, "the last word")


def test_a_controller_that_hangs_makes_states_unknown_and_status_does_not_fail(user: User, cluster: Cluster) -> None:
    job = user.cli("submit").stdout.strip()
    cluster.check("scontrol", "release", job)
    user.await_attempt(f"job-{job}", 1)
    cluster.stop_controller()
    done = user.cli("status", "--json")
    assert done.returncode == 0
    answer = json.loads(done.stdout)
    assert answer["runs"][0]["state"] == "unknown"
    assert "is unknown" in answer["notes"][0]
