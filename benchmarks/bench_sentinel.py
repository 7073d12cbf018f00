"""What the sentinel step gains: from the warning to the end of a preempted job, on a real Slurm cluster."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from figures import Figure

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "slurm"))

from cluster import Cluster, installed, wait_for  # the tests' own

GRACE = 12  # KillWait is 5 on that cluster

# A program that never leaves by itself; started by the batch shell, not by srun.
TRAINING = """
import os, signal, sys, time
if os.environ["HPC_RESUME_ATTEMPT"] != "1":
    sys.exit(78)
seen = []
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, lambda *_: seen or seen.append(time.monotonic()))
with open("alive", "wb", buffering=0) as alive:
    while True:
        os.pwrite(alive.fileno(), b"%020.6f %020.6f %09d" % (seen[0] if seen else 0, time.monotonic(), os.getpid()), 0)
        time.sleep(0.02)
"""
# The setup of a node that has no srun.
WITHOUT = 'srun() { return 127; }\ncommand() { if [[ $2 == srun ]]; then return 1; fi; builtin command "$@"; }'


def submit(cluster: Cluster, directory: Path, setup: str) -> str:
    """One job; its id."""
    directory.mkdir()
    (directory / "train.py").write_text(TRAINING)
    slurm = {"partition": "patient", "time": "10:00", "mem": "100M", "exclusive": True}
    spec = {"name": "bench", "command": [sys.executable, "train.py"], "setup": setup, "slurm": slurm}
    (directory / "job.yaml").write_text(json.dumps(spec))  # JSON is YAML
    words = [sys.executable, "-m", "hpc_resume", "submit", "job.yaml", "--json"]
    done = subprocess.run(words, cwd=directory, env=cluster.env, check=True, capture_output=True, text=True)
    return str(json.loads(done.stdout)["job_id"])


def look(directory: Path) -> tuple[float, float, int] | None:
    """When the program was warned, when it was last alive, and its pid."""
    try:
        warned, alive, pid = (directory / "alive").read_text().split()
    except (OSError, ValueError):
        return None
    return float(warned), float(alive), int(pid)


def seconds(cluster: Cluster, jobs: dict[Path, str]) -> list[float]:
    """Preempts all of them at once; of each the seconds from its warning to its end."""
    for directory, job in jobs.items():
        wait_for(lambda directory=directory: look(directory), 60, "the program")
        if "srun" not in (directory / "job.yaml").read_text():
            wait_for(lambda directory=directory: list(directory.glob("runs/*/attempts/0001/sentinels/*.json")), 60, job)
    nodes = [cluster.show(job)["NodeList"] for job in jobs.values()]
    for node in nodes:
        cluster.sbatch(
            "-p", "high", "-w", node, "-o", "/dev/null", script="#!/bin/bash\nsleep 60\n", cwd=cluster.directory
        )
    values = []
    for directory in jobs:
        pid = wait_for(lambda directory=directory: look(directory), 1, "it")[2]
        wait_for(lambda pid=pid: not Path(f"/proc/{pid}/exe").exists(), GRACE + 30, "its end")
        found = look(directory)
        assert found is not None
        assert found[0], "it was never warned"
        values.append(found[1] - found[0])
    return values


def figures(trials: int = 3) -> list[Figure]:
    """With and without, on a node each, at the same time; nothing where Slurm is not installed."""
    if not installed():
        print("no Slurm here: the sentinel is not measured", file=sys.stderr)
        return []
    with tempfile.TemporaryDirectory() as name, Cluster(nodes=2 * trials, patience=GRACE) as cluster:
        directories = [Path(name, f"{kind}-{trial}") for kind in ("with", "without") for trial in range(trials)]
        jobs = {one: submit(cluster, one, WITHOUT if one.name.startswith("without") else "") for one in directories}
        values = seconds(cluster, jobs)
    what = f"warning to the end of a preempted job, GraceTime={GRACE}, KillWait=5"
    return [Figure(what, "s", values[:trials], "without the sentinel", values[trials:], "nearly all of GraceTime")]
