"""The old way to bring a checkpoint back, wandb.save and wandb.restore, as W&B's documentation had it: it works under us."""

from __future__ import annotations

import shutil

import pytest
from trainings import managed

# No run.register(): what is saved and restored is the training's own file at W&B.
OLD_WAY = """
import json, sys, time
import wandb
import hpc_resume

with hpc_resume.Run() as run:
    metrics = wandb.init(id="net-1", resume="allow")
    step = 0
    if metrics.resumed:
        step = json.load(wandb.restore("state.json"))["step"]
    print("restored", step, flush=True)
    while step < int(sys.argv[1]):
        step += 1
        with open("state.json", "w") as state:
            json.dump({"step": step}, state)
        wandb.save("state.json", policy="now")
        metrics.log({"done": step})
        print("step", step, flush=True)
        time.sleep(0.05)
        run.checkpoint_point(step)
"""


@pytest.mark.timeout(200)
@pytest.mark.parametrize("told", [{"HPC_RESUME_WANDB": managed(), "WANDB_RUN_ID": "net-1"}, {}], ids=["ours", "theirs"])
def test_a_training_that_restores_its_own_file_goes_on(server, train, told):
    first = train("10000", source=OLD_WAY, home="first", HPC_RESUME_RUN_DIR="run", **told)
    first.wait_for("step 10\n")
    first.warn()
    assert first.code() == 138, first.output
    reached = int(first.output.rpartition("after step ")[2].partition(";")[0])
    assert server.run("net-1").state == "preempted"
    shutil.rmtree(first.log.parent / "run")
    second = train(str(reached + 5), source=OLD_WAY, home="an-empty-disk", HPC_RESUME_RUN_DIR="run", **told)
    assert second.code() == 0, second.output
    assert f"restored {reached}\n" in second.output
    seen = server.run("net-1")
    assert (seen.state, seen.starts) == ("finished", 2)
    assert seen.column("done") == list(range(1, reached + 6))
