"""From the signal at the batch shell to the handler in the training process, against a direct kill(2)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import Figure

# Our handler calls the one it found: this one notes when that was. CLOCK_MONOTONIC is one clock for all processes.
TRAINING = """
import os, signal, time
signal.signal(signal.SIGUSR1, lambda *_: os.write(log, str(time.monotonic_ns()).encode()))
log = os.open("heard", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
import hpc_resume
@hpc_resume.resumable
def train(run):
    for step in run.steps(10**9):
        if step == 0:
            open("ready", "w").close()
        time.sleep(0.001)
train()
"""
DIRECT = """
import os, signal, time
signal.signal(signal.SIGUSR1, lambda *_: os.write(log, str(time.monotonic_ns()).encode()))
log = os.open("heard", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
open("ready", "w").close()
time.sleep(60)
"""


def wait_for(find, seconds: float = 20.0):
    """Poll until `find` gives something."""
    deadline = time.monotonic() + seconds
    while not (found := find()):
        if time.monotonic() > deadline:
            raise TimeoutError(find)
        time.sleep(0.005)
    return found


def heard(directory: Path, sent: int) -> float:
    """Milliseconds from `sent` to the handler."""
    text = wait_for(lambda: (directory / "heard").read_text())
    return (int(text) - sent) / 1e6


def through_the_batch_shell(directory: Path) -> float:
    """One attempt of a rendered script under plain bash."""
    (directory / "train.py").write_text(TRAINING)
    (directory / "job.yaml").write_text(f"name: bench\ncommand: [{sys.executable}, train.py]\n")
    script = subprocess.run(
        [sys.executable, "-m", "hpc_resume", "render"], cwd=directory, check=True, capture_output=True, text=True
    ).stdout
    (directory / "job.sbatch").write_text(script)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "HPC_RESUME_"))}
    with subprocess.Popen(["bash", "job.sbatch"], cwd=directory, env=env, stderr=subprocess.DEVNULL) as shell:
        wait_for(lambda: (directory / "ready").exists())
        sent = time.monotonic_ns()
        shell.send_signal(signal.SIGUSR1)
        return heard(directory, sent)


def directly(directory: Path) -> float:
    """The same handler without a batch shell."""
    with subprocess.Popen([sys.executable, "-c", DIRECT], cwd=directory) as process:
        wait_for(lambda: (directory / "ready").exists())
        sent = time.monotonic_ns()
        process.send_signal(signal.SIGUSR1)
        milliseconds = heard(directory, sent)
        process.kill()
    return milliseconds


def figures(trials: int = 25) -> list[Figure]:
    """The two ways in turn, each trial in a directory of its own."""
    shell, direct = [], []
    for _ in range(trials):
        for way, values in ((through_the_batch_shell, shell), (directly, direct)):
            with tempfile.TemporaryDirectory() as directory:
                values.append(way(Path(directory)))
    return [Figure("signal at the batch shell to handler", "ms", shell, "a direct kill", direct, "median < 50 ms")]
