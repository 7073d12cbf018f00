"""A real network, stopped three times, ends in the same weights bit for bit."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from hpc_resume.run.rundir import RunDir

SOURCE = Path(__file__).parents[2] / "examples/torch/train.py"


@pytest.mark.torch
@pytest.mark.timeout(480)
def test_the_example_ends_in_the_same_weights_bit_for_bit(start, tmp_path):
    source = SOURCE.read_text()
    arguments = ("--steps", "40", "--pause", "0.01")
    alone = start(source, *arguments, HPC_RESUME_RUN_DIR=str(tmp_path / "alone"))
    assert alone.code() == 0, alone.output
    for signum, after in ((signal.SIGUSR1, "step 3"), (signal.SIGTERM, "step 17"), (signal.SIGKILL, "step 30")):
        child = start(source, *arguments, HPC_RESUME_SAVE_STEPS="5")
        child.wait_line(after)
        child.signal(signum)
        assert child.code() == (-9 if signum == signal.SIGKILL else 128 + signum), child.output
    last = start(source, *arguments)
    assert last.code() == 0, last.output
    assert last.seen[-1] == alone.seen[-1]
    assert last.seen[-1].startswith("final state ")
    run = RunDir(tmp_path / "runs/train/0001")
    names = {path.name for path in run.checkpoint_dir(40).iterdir()}
    assert names == {"batches.pt", "manifest.json", "model.pt", "optimizer.pt", "rng.json", "schedule.json"}
