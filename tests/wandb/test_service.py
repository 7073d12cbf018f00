"""wandb-core killed, as by a SIGTERM to every process of a step: noticed, the run brought back, no row lost."""

from __future__ import annotations

import os
import signal

import pytest
from trainings import managed

RUN = {"WANDB_RUN_ID": "net-1", "HPC_RESUME_WANDB": managed()}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("mine", [True, False], ids=["ours", "theirs"])
def test_killed_with_the_training_the_run_still_ends_preempted(server, train, mine):
    """A SIGTERM to every process of the step: the training takes it for a warning, wandb-core dies of it."""
    source = {} if mine else {"source": THEIRS}
    first = train("10000", PACE="0.02", **source, **(RUN if mine else {"WANDB_RUN_ID": "net-1"}))
    first.wait_for("step 20")
    for pid in first.services():
        os.kill(pid, signal.SIGTERM)
    first.warn(signal.SIGTERM)
    assert first.code() == 128 + signal.SIGTERM, first.output
    seen = server.run("net-1")
    assert (seen.state, seen.exit_code) == ("preempted", 143)
    assert "preempting" in seen.said
    if mine:
        assert seen.column("global_step") == list(range(len(seen.rows)))
        assert len(seen.rows) > 20


@pytest.mark.timeout(180)
def test_killed_in_the_middle_it_is_started_again_and_no_row_is_lost(server, train):
    first = train("200", PACE="0.02", **RUN)
    first.wait_for("step 20")
    for pid in first.services():
        os.kill(pid, signal.SIGKILL)
    assert first.code() == 0, first.output
    seen = server.run("net-1")
    assert (seen.state, seen.column("global_step")) == ("finished", list(range(200))), first.output


THEIRS = """
import sys, time, wandb, hpc_resume

@hpc_resume.resumable
def train(run, steps):
    metrics = wandb.init()
    for step in run.steps(steps):
        try:
            metrics.log({"loss": step})
        except OSError:
            pass
        print("step", step, flush=True)
        time.sleep(0.02)

train(int(sys.argv[1]))
"""
