"""A disk that is full: training goes on, the last good checkpoint stays, and the message says what to free."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpc_resume.run.rundir import RunDir

TRAIN = """
import os, signal, sys, time
from pathlib import Path
import hpc_resume

class State:
    def __init__(self): self.step, self.text = 0, ""
    def state_dict(self): return {"step": self.step, "text": self.text}
    def load_state_dict(self, state): self.step, self.text = state["step"], state["text"]

def ballast(size):
    Path("ballast").write_bytes(b"x" * size)

with hpc_resume.Run("run", every=1) as run:
    state = State()
    run.register(state=state)
    for step in run.steps(int(sys.argv[2])):
        state.step, state.text = step + 1, "y" * 40_000
        print(f"step {step}\\n", end="")
        if sys.argv[1] == "fill" and step == 3:
            try:
                ballast(10_000_000)
            except OSError:
                print("full\\n", end="")
        if sys.argv[1] == "fill" and step == 6 and sys.argv[3] == "free":
            os.remove("ballast")
        if step == 5 and sys.argv[3] == "stop":
            os.kill(os.getpid(), signal.SIGUSR1)
"""


def private_tmpfs(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it on a 1 MiB tmpfs of its own mount namespace; afterwards list what is left there."""
    shell = (
        'mount -t tmpfs -o size=1m none "$1" && cd "$1" && shift && "$@" 2>&1; echo "code $?";'
        " rm -f ballast; find run -path '*checkpoints/*' | sort; cat run/latest"
    )
    mount = script.parent / "small"
    mount.mkdir()
    argv = ["unshare", "-m", "sh", "-c", shell, "sh", str(mount), sys.executable, str(script), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=90, check=False)


def may_mount() -> bool:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


needs_mount = pytest.mark.skipif(not may_mount(), reason="only root can mount a small file system")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "train.py"
    path.write_text(TRAIN)
    return path


@needs_mount
def test_a_full_disk_is_said_and_survived_and_later_saves_work_again(script):
    done = private_tmpfs(script, "fill", "10", "free")
    lines = done.stdout.splitlines()
    assert "full" in lines, done.stderr
    assert [f"step {n}" in lines for n in range(10)] == [True] * 10
    failed = [line for line in lines if "could not be saved" in line]
    assert len(failed) == 3
    assert "step 4 could not be saved: No space left on device below" in failed[0]
    assert "free space or quota there" in failed[0]
    assert "step 3 is still the last good one" in failed[0]
    assert "code 0" in lines
    assert lines[-1] == "step-00000010"
    assert not [line for line in lines if ".tmp." in line or ".trash." in line]


@needs_mount
def test_a_stop_on_a_full_disk_leaves_with_its_code_and_the_last_good_step(script):
    done = private_tmpfs(script, "fill", "10", "stop")
    lines = done.stdout.splitlines()
    assert "code 138" in lines, done.stderr
    assert any("step 3 is what will be resumed" in line for line in lines)
    assert lines[-1] == "step-00000003"
    assert not [line for line in lines if ".tmp." in line]
    assert "Traceback" not in done.stdout


@needs_mount
def test_a_run_whose_last_steps_cannot_be_saved_is_not_called_finished(script):
    done = private_tmpfs(script, "fill", "6", "-")
    lines = done.stdout.splitlines()
    assert "code 1" in lines, done.stderr
    assert lines[-1] == "step-00000003"
    assert not [line for line in lines if "finished.json" in line]
    assert "No space left on device" in done.stdout


def test_a_limit_on_file_sizes_is_met_in_the_same_way(start, tmp_path):
    """EFBIG, for who cannot mount: a quota behaves like it."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    child = start(TRAIN, "no", "1000000", "stop", preexec=limit)
    child.wait_line("step 3")
    assert child.code() == 138
    assert "could not be saved: File too large" in child.output
    assert "step 0 is what will be resumed" in child.output
    run = RunDir(tmp_path / "run")
    assert list(run.checkpoints_dir.iterdir()) == []
    assert run.attempt(1).outcome().code == 128 + signal.SIGUSR1


SMALL = """
import errno, os, sys
import hpc_resume

class State:
    def state_dict(self): return {"n": 1}
    def load_state_dict(self, state): pass

with hpc_resume.Run("run", every=1) as run:
    run.register(state=State())
    for step in run.steps(8):
        if step == 2:
            if sys.argv[1] == "inodes":
                try:
                    for number in range(10_000):
                        open(f"filler{number}", "w").close()
                except OSError as error:
                    print("full", error.errno, flush=True)
            else:
                os.system("cd run/checkpoints; mount --bind . . && mount -o remount,ro,bind $PWD")
        if step == 5:
            if sys.argv[1] == "inodes":
                for number in range(200):
                    os.remove(f"filler{number}")
            else:
                os.system("umount run/checkpoints")
"""


@needs_mount
@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("inodes", "nr_inodes=300", "no inodes are left there (df -i): remove files"),
        ("read-only", "size=8m", "the file system has become read-only"),
    ],
)
def test_without_inodes_or_read_only_the_training_goes_on_and_saves_again_later(tmp_path, kind, options, words):
    script, mount = tmp_path / "small.py", tmp_path / "small"
    script.write_text(SMALL)
    mount.mkdir()
    shell = (
        f'mount -t tmpfs -o {options} none "$1" && cd "$1" && shift && "$@" 2>&1; echo "code $?";'
        " ls run/checkpoints; cat run/latest"
    )
    argv = ["unshare", "-m", "sh", "-c", shell, "sh", str(mount), sys.executable, str(script), kind]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=90, check=False)
    lines = done.stdout.splitlines()
    assert "code 0" in lines, done.stdout + done.stderr
    failed = [line for line in lines if "could not be saved" in line]
    assert len(failed) == 3, done.stdout
    assert words in failed[0]
    assert "step 2 is still the last good one" in failed[0]
    assert lines[lines.index("code 0") + 1 :] == ["step-00000007", "step-00000008", "step-00000008"]
