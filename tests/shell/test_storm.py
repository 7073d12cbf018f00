"""A storm of signals at the batch shell: the training's own code, heard once, and never a hang."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from .conftest import Job

STORM = 1000


def storm(process: subprocess.Popen[str], every: int) -> None:
    """STORM times USR1 in about a second, each `every`th of them a TERM, or until the process has ended."""
    for number in range(STORM):
        if process.poll() is not None:
            return
        os.kill(process.pid, signal.SIGTERM if number % every == every - 1 else signal.SIGUSR1)
        if number % 5 == 0:
            time.sleep(0.001)


@pytest.mark.parametrize("trial", range(8))
def test_the_end_of_the_training_is_not_lost_between_signals(job: Job, training: list[str], trial: int) -> None:
    """Another child that lives on makes bash's `wait` block for ever where it has forgotten the training's end."""
    job.write(HR_COMMAND=training, HR_SETUP="sleep 30 &")
    process = job.start(env={"CODE": "37", "LINGER": "1.5"})  # it outlives the storm: Python's own end has no handlers
    job.file("*/attempts/0001/pids/*.0.json")
    storm(process, every=STORM if trial % 2 else 100)
    assert process.wait(60) == 37, process.stderr.read()
    assert [event["event"] for event in job.events()].count("gone") == 1
    assert job.json("*/attempts/0001/exit.json")["code"] == 37
