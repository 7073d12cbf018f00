"""A @resumable function under submitit's own `local` and `debug`: the same function, the same result."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from submitit_plugin import registered

SOURCE = """
import hashlib, json, os, signal, sys, time
from pathlib import Path
import hpc_resume, submitit

class Walk:
    order = ""
    def advance(self, step):
        self.order = hashlib.sha256(f"{self.order}{step}".encode()).hexdigest()
    def state_dict(self):
        return {"order": self.order}
    def load_state_dict(self, state):
        self.order = state["order"]

@hpc_resume.resumable
def train(run, total, pause=0.02):
    walk = Walk()
    run.register(walk=walk)
    for step in run.steps(total):
        walk.advance(step)
        print(f"attempt {run.attempt}, step", step, flush=True)
        time.sleep(pause)
    return walk.order, run.attempt

def plain(x):
    return x * x

executor = submitit.AutoExecutor("log", cluster=sys.argv[1])
executor.update_parameters(timeout_min=2)
first = executor.submit(train, 150)
if sys.argv[1] == "local":
    for attempt in (1, 2):
        words = f"attempt {attempt}, step"
        while not (first.paths.stdout.exists() and first.paths.stdout.read_text().count(words) >= 5):
            time.sleep(0.01)
        children = Path(f"/proc/{first.job_id}/task/{first.job_id}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGUSR2)  # as submitit's own controller does it before a time limit
jobs = [first, *executor.map_array(train, [20, 30])]
said = [executor.submit(plain, 4).result()]
print(json.dumps(said + [job.result() for job in jobs]))
"""


def run(cluster, tmp_path):
    (tmp_path / "submission.py").write_text(SOURCE)
    done = subprocess.run(
        [sys.executable, "submission.py", cluster],
        cwd=tmp_path,
        env={**_clean(), **registered(tmp_path / "plugin")},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _clean():
    return {name: value for name, value in os.environ.items() if not name.startswith(("HPC_RESUME_", "SLURM_"))}


def test_debug_and_local_give_the_same_and_local_goes_on_after_submitits_own_warning(tmp_path):
    plain, (long, once), *short = run("debug", tmp_path)
    assert (plain, once) == (16, 1)
    (tmp_path / "second").mkdir()
    assert run("local", tmp_path / "second") == [16, [long, 3], *short]
    log = next(path for path in (tmp_path / "second/log").glob("*_0_log.out") if "attempt 3" in path.read_text())
    steps = [line.partition(", ")[2] for line in log.read_text().splitlines() if line.startswith("attempt")]
    assert steps == [f"step {n}" for n in range(150)]  # none lost, none twice
