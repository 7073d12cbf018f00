"""What somebody has planted into a run directory, and whose it is: refused or not followed, and nothing else is touched."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import hpc_resume
from hpc_resume.errors import RunStateError
from hpc_resume.observe import checkpoints
from hpc_resume.run.rundir import RunDir

TRAIN = """
import os, signal, sys
import hpc_resume

class State:
    step = 0
    def state_dict(self): return {"step": self.step}
    def load_state_dict(self, state): self.step = state["step"]

with hpc_resume.Run("run", every=1) as run:
    state = State()
    run.register(state=state)
    print("start", run.start_step, state.step, flush=True)
    for step in run.steps(run.start_step + 3):
        state.step = step + 1
        if step == 2:
            os.kill(os.getpid(), signal.SIGUSR1)
"""
STOPPED = 128 + signal.SIGUSR1
PYTHONS = (sys.executable, "/usr/bin/python3")  # the first may live where only root may look
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def plant(place: Path, outside: Path) -> None:
    """Move what is there out of the run directory, and leave a link to it."""
    outside.mkdir()
    if place.exists():
        shutil.move(place, outside / place.name)
    else:
        (outside / place.name).mkdir()
    place.symlink_to(outside / place.name)


def picture(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() if path.is_file() else b"" for path in directory.rglob("*")}


@pytest.fixture
def run(start, tmp_path) -> RunDir:
    """A run that was interrupted after three steps."""
    assert start(TRAIN).code() == STOPPED
    return RunDir(tmp_path / "run")


@pytest.mark.parametrize("name", ["checkpoints", "lease", "attempts", "attempts/0002", "run.json", "run.lock"])
def test_a_link_in_the_place_of_what_a_start_needs_is_refused(start, run, tmp_path, name):
    plant(run.path / name, tmp_path / "outside")
    before = picture(tmp_path / "outside")
    child = start(TRAIN)
    assert child.code() == 78, child.output
    assert f"run/{name}" in child.output
    assert "Traceback" not in child.output
    assert picture(tmp_path / "outside") == before


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("checkpoints/step-00000003", 2),
        ("checkpoints/step-00000003/manifest.json", 2),
        ("checkpoints/step-00000003/state.json", 2),
        ("checkpoints/step-00000003.tmp.2", 3),
        ("latest", 3),
        ("attempts/0001/outcome.json", 3),
    ],
)
def test_a_link_in_the_place_of_what_can_be_done_without_is_not_followed(start, run, tmp_path, name, step):
    plant(run.path / name, tmp_path / "outside")
    before = picture(tmp_path / "outside")
    child = start(TRAIN)
    if name.startswith("attempts"):
        assert child.code() == 78
        assert "outcome.json: cannot be read: Too many levels of symbolic links" in child.output
    else:
        child.wait_line(f"start {step} {step}")
        child.code()
        assert run.latest_step() == (6 if step == 3 else 3)
        rows = checkpoints.listing(run, verify=True)
        assert {row.state for row in rows} <= {"verified", "broken"}
        assert checkpoints.prune(run, 2)[1] == tuple(row for row in rows if row.state == "broken")
    assert picture(tmp_path / "outside") == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to somebody else, or become somebody")
def test_neither_side_uses_the_other_ones_run(run, tmp_path):
    os.chown(run.path, 65534, 65534)
    with pytest.raises(RunStateError, match="belongs to user id 65534, this is 0: only its owner prunes it"):
        checkpoints.prune(run, 2)
    with tempfile.TemporaryDirectory() as name:  # pytest's own is closed to others
        home = Path(name)
        home.chmod(0o755)
        shutil.copytree(run.path, home / "run")
        (home / "train.py").write_text(TRAIN)
        shutil.copytree(
            Path(hpc_resume.__file__).parent, home / "hpc_resume", ignore=shutil.ignore_patterns("__pycache__")
        )
        for path in home.rglob("*"):
            path.chmod(0o777 if path.is_dir() else 0o666)
        python = next(
            (p for p in PYTHONS if not subprocess.run([*NOBODY, p, "-c", "import enum"], check=False).returncode), None
        )
        if python is None:
            pytest.skip("no Python that another user may start")
        before = picture(home / "run")
        for rank in ("0", "1"):
            env = {"PYTHONPATH": str(home), "RANK": rank, "WORLD_SIZE": "2", "HPC_RESUME_RUN_DIR": str(home / "run")}
            done = subprocess.run(
                [*NOBODY, python, "-B", "train.py"],
                cwd=home,
                env=env,
                capture_output=True,
                text=True,
                timeout=90,
                check=False,
            )
            assert done.returncode == 78, done.stderr
            assert "belongs to user id 0, this is 65534: what is in it would be loaded as yours" in done.stderr
        assert picture(home / "run") == before
