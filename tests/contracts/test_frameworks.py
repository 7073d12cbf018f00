"""What every adapter to a framework keeps, shown on its example: a real training, warned, failed and gone on with.

A line in hpc_resume.integrations.ADAPTERS brings a new one here.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpc_resume.integrations import ADAPTERS
from hpc_resume.run.rundir import RunDir

ROOT = Path(__file__).parents[2]
STEPS = 24  # in epochs of 8 or 12
DEADLINE = 120.0  # seconds; importing two frameworks on a cold machine takes most of a minute


class Training:
    """The example of one framework, started again and again in one directory."""

    def __init__(self, name, directory):
        self.script = ROOT / "examples" / name / "train.py"
        self.directory = directory
        self.run_dir = directory / "run"
        self.started = []

    def start(self, *before, run_dir=None, pause=0.05):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("HPC_RESUME_", "SLURM_", "WANDB_"))}
        more = {"HPC_RESUME_RUN_DIR": str(run_dir or self.run_dir), "HPC_RESUME_SAVE_STEPS": "4"}
        out = self.directory / f"{len(self.started)}.out"
        with out.open("w") as stream, (self.directory / "err").open("a") as err:
            process = subprocess.Popen(
                [sys.executable, "-u", *before, str(self.script), "--steps", str(STEPS), "--pause", str(pause)],
                cwd=self.directory,
                env=clean | more | {"PYTHONPATH": os.pathsep.join([str(ROOT), clean.get("PYTHONPATH", "")])},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=err,
            )
        self.started.append(process)
        return process, out

    def to_the_end(self, *before, **options):
        """(exit code, steps that were begun, the last line)."""
        process, out = self.start(*before, **options)
        code = process.wait(DEADLINE)
        return code, *said(out)

    def warned(self, signum, step):
        process, out = self.start()
        until = time.monotonic() + DEADLINE
        while f"step {step}\n" not in out.read_text():
            assert process.poll() is None, (self.directory / "err").read_text()[-2000:]
            assert time.monotonic() < until, f"no step {step}"
            time.sleep(0.01)
        process.send_signal(signum)
        return process.wait(DEADLINE), *said(out)

    @property
    def published(self):
        return RunDir(self.run_dir).latest_step()

    def outcome(self):
        attempt = RunDir(self.run_dir).newest_attempt()
        assert attempt is not None
        outcome = attempt.outcome()
        assert outcome is not None
        return outcome.outcome


def said(out):
    lines = out.read_text().splitlines()
    steps = [int(line.split()[1]) for line in lines if line.startswith("step ")]
    return steps, lines[-1] if lines else ""


@pytest.fixture
def training(request, tmp_path):
    training = Training(request.param, tmp_path)
    yield training
    for process in training.started:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait(45)


@pytest.mark.frameworks
@pytest.mark.torch
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("training", "signum"),
    # SIGTERM is a warning too, and the one that Lightning takes for itself; half of them get it, the soak test gives both.
    list(zip(sorted(ADAPTERS), itertools.cycle((signal.SIGTERM, signal.SIGUSR1)), strict=False)),
    indirect=["training"],
)
def test_stops_saves_goes_on_and_ends_in_the_same_state(training, signum, tmp_path):
    code, steps, alone = training.to_the_end(run_dir=tmp_path / "alone", pause=0)
    assert (code, steps, alone[:12]) == (0, list(range(STEPS)), "final state "), (tmp_path / "err").read_text()[-2000:]

    # Warned in the middle of an epoch: the step that is under way is the last one, and it is saved.
    code, steps, _ = training.warned(signum, 5)
    assert (code, training.outcome(), steps[0]) == (128 + signum, "stopped", 0)
    assert training.published == steps[-1] + 1
    assert steps[-1] <= 7, "it did not leave at the next boundary"

    # A failure is a failure; the next start goes on from the last save, at most its interval away.
    begun = training.published
    code, steps, _ = training.to_the_end(str(ROOT / "tests/contracts/crashing.py"), "step 19")
    assert (code, training.outcome(), steps) == (1, "crashed", list(range(begun, 20)))
    assert training.published == 16

    code, steps, last = training.to_the_end(pause=0)
    assert (code, steps, last) == (0, list(range(16, STEPS)), alone)
    assert RunDir(training.run_dir).finished() is not None  # what a later start looks at, before anything else


@pytest.mark.frameworks
@pytest.mark.torch
@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("training", sorted(ADAPTERS), indirect=True)
def test_stopped_at_every_other_step_it_ends_in_the_same_state(training, tmp_path):
    _, _, alone = training.to_the_end(run_dir=tmp_path / "alone", pause=0)
    warnings = itertools.cycle((signal.SIGUSR1, signal.SIGTERM))
    while (done := training.published or 0) < STEPS - 3:
        code, steps, _ = training.warned(next(warnings), done + 1)
        assert (code > 128, training.published, steps[0]) == (True, steps[-1] + 1, done)
    assert training.to_the_end(pause=0)[::2] == (0, alone)
    assert training.to_the_end()[:2] == (0, []), "a finished run was run again"
