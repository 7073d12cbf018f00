"""Warnings at random moments while logging as fast as possible: none hangs, and every run is marked before its end."""

from __future__ import annotations

import pytest
from trainings import managed

# One process, many runs one after the other: each is warned at a moment of its own.
STORM = """
import os, random, signal, sys, threading
import wandb
import hpc_resume

class State:
    def state_dict(self): return {}
    def load_state_dict(self, state): pass

def one(name, delay, theirs):
    os.environ["WANDB_RUN_ID"] = name
    if theirs:
        os.environ.pop("HPC_RESUME_WANDB", None)
    timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGUSR1))
    with hpc_resume.Run(f"runs/{name}", every=10**9) as run:
        run.register(state=State())
        metrics = wandb.init(id=name, resume="allow") if theirs else None
        for step in run.steps(10**9):
            if step == 0:
                timer.start()
            if metrics is not None:
                metrics.log({"loss": step})
            else:
                run.log({"loss": step})

seed, count = int(sys.argv[1]), int(sys.argv[2])
random.seed(seed)
told = os.environ["HPC_RESUME_WANDB"]
for number in range(count):
    os.environ["HPC_RESUME_WANDB"] = told
    try:
        one(f"w{seed}-{number}", random.random() ** 2 * 0.5, theirs=number % 2 == 1)
    except SystemExit as left:
        assert left.code == 138, left.code
    else:
        raise AssertionError("it was not warned")
    print("left", number, flush=True)
"""


def storm(server, train, seeds, count):
    told = {"HPC_RESUME_WANDB": managed(), "HPC_RESUME_RUN_DIR": ""}
    running = [train(str(seed), str(count), source=STORM, home=f"storm-{seed}", **told) for seed in seeds]
    for training in running:
        assert training.code(600) == 0, training.output
    seen = server.runs()
    assert len(seen) == len(seeds) * count
    for run in seen:
        assert (run.state, run.exit_code, run.said[:1]) == ("preempted", 138, ["preempting"]), run
        assert run.column("loss") == list(range(len(run.rows)))


@pytest.mark.timeout(300)
def test_twenty_warnings_at_random_moments(server, train):
    storm(server, train, seeds=(1, 2), count=10)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(5))
def test_two_hundred_warnings_at_random_moments(server, train, part):
    storm(server, train, seeds=(100 + part, 200 + part), count=20)
