"""Every example does what its first lines say, from a copy of its directory."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


class Copy:
    """One example, copied; commands run in it with this Python first on PATH."""

    def __init__(self, name: str, directory: Path) -> None:
        self.directory = directory / name
        ignored = shutil.ignore_patterns("runs", "__pycache__", "job.sbatch")
        shutil.copytree(EXAMPLES / name, self.directory, ignore=ignored)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "HPC_RESUME"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{clean['PATH']}"
        self.env = clean | {"PATH": path, "STEP_SECONDS": "0.02", "TOTAL_STEPS": "60"}
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *argv: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            argv, cwd=self.directory, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.started.append(process)
        return process

    def call(self, *argv: str) -> subprocess.CompletedProcess[str]:
        out, err = (process := self.start(*argv)).communicate(timeout=90)
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.call(sys.executable, "-m", "hpc_resume", *words)

    def wait_for(self, pattern: str) -> Path:
        deadline = time.monotonic() + 60
        while not (found := sorted(self.directory.glob(pattern))):
            assert time.monotonic() < deadline, pattern
            time.sleep(0.01)
        return found[-1]


@pytest.fixture
def copy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Copy]:
    copy = Copy(request.param, tmp_path)
    yield copy
    for process in copy.started:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=90)


@pytest.mark.parametrize("directory", sorted(path.parent.name for path in EXAMPLES.glob("*/job.yaml")))
def test_every_job_yaml_is_right(directory: str, tmp_path: Path) -> None:
    done = Copy(directory, tmp_path).cli("check")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("copy", ["minimal"], indirect=True)
def test_minimal_ends_the_same_as_a_job_a_script_and_a_plain_program(copy: Copy) -> None:
    plain = copy.call(sys.executable, "train.py")
    job = copy.cli("run")
    assert copy.cli("render", "-o", "job.sbatch").returncode == 0
    script = copy.call("bash", "job.sbatch")
    ends = [done.stdout.splitlines()[-1] for done in (plain, job, script)]
    assert ends[0].startswith("final state ")
    assert set(ends) == {ends[0]}
    rows = json.loads(copy.cli("status", "--json").stdout)["runs"]
    assert {row["run"]: row["state"] for row in rows} == {
        "minimal-local-1": "finished",
        "minimal-local-2": "finished",
        "train/0001": "finished",
    }


@pytest.mark.parametrize("copy", ["sourcing"], indirect=True)
def test_sourcing_gives_a_hand_written_script_the_traps_and_the_way_back(copy: Copy) -> None:
    assert copy.cli("render", "-o", "job.sbatch").returncode == 0
    process = copy.start("bash", "mine.sh")
    copy.wait_for("runs/sourcing-local-1/attempts/0001/pids/*.child.json")
    launcher = json.loads(copy.wait_for("runs/sourcing-local-1/attempts/0001/attempt.json").read_text())["pid"]
    assert launcher == process.pid  # the hand-written script is the batch shell
    process.send_signal(signal.SIGUSR1)
    out, _ = process.communicate(timeout=90)
    lines = out.splitlines()
    assert process.returncode == 138
    assert (lines[0], lines[-1]) == (
        "before: module load, data staging, whatever there is",
        "after: the program ended with 138",
    )
    assert lines[1].startswith("saved at ")
    again = copy.call("bash", "mine.sh")
    assert (again.returncode, "done at 50\n" in again.stdout) == (0, True)
    ended = json.loads(copy.wait_for("runs/sourcing-local-1/attempts/0002/exit.json").read_text())
    assert (ended["code"], ended["decision"]) == (0, "finish")
