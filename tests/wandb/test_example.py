"""examples/wandb as it is, from job.yaml through the rendered script: interrupted, requeued, one run at W&B."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples/wandb"


@pytest.mark.timeout(300)
def test_the_example_interrupted_is_one_run_at_wandb(server, tmp_path):
    home = tmp_path / "wandb"
    shutil.copytree(EXAMPLE, home, ignore=shutil.ignore_patterns("runs", "__pycache__"))
    more = {"PATH": f"{sys.prefix}/bin:/usr/bin:/bin", "TOTAL_STEPS": "400", "STEP_SECONDS": "0.02"}
    variables = server.environment(home, **more)
    for name in ("WANDB_PROJECT", "WANDB_ENTITY"):  # job.yaml and the server's own user
        del variables[name]
    cli = [sys.executable, "-m", "hpc_resume"]
    with (tmp_path / "output").open("wb") as output:
        job = subprocess.Popen([*cli, "run", "job.yaml"], cwd=home, env=variables, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 120
        while not (found := [path for path in home.glob("runs/*/attempts/0001/metrics.jsonl") if path.stat().st_size]):
            assert time.monotonic() < deadline, (tmp_path / "output").read_text()
            time.sleep(0.05)
        key = found[0].parents[2].name
        subprocess.run([*cli, "poke", key, "requeue"], cwd=home, env=variables, check=True, timeout=120)
        assert job.wait(240) == 0, (tmp_path / "output").read_text()
    finally:
        if job.poll() is None:
            job.kill()
            job.wait(60)
    (seen,) = server.runs()
    assert (seen.state, seen.starts, seen.tags) == ("finished", 2, ["example"]), (tmp_path / "output").read_text()
    assert seen.name.startswith(f"{key}-")
    assert seen.column("global_step") == list(range(400))
    assert seen.config["rate"] == 0.01
    assert seen.said[0] == "preempting"
