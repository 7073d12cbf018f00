"""`make demo` shows what it says it shows, in the time it has, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pexpect
import pytest

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples" / "demo.py"

pytestmark = pytest.mark.timeout(480)


def environment(tmp_path: Path) -> dict[str, str]:
    """Temporary directories of its own; an outer job's facts, which must not reach the demo's."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "HPC_RESUME"))}
    return env | {"TMPDIR": str(tmp_path), "TERM": "xterm", "SLURM_JOB_ID": "9", "HPC_RESUME_RUN_DIR": "/nowhere"}


def test_the_demo_interrupts_three_times_and_ends_equal(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, DEMO], env=environment(tmp_path), cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 attempts, 0 steps lost in all; final state equal to the uninterrupted run" in done.stdout
    digests = re.findall(r"interrupted +([0-9a-f]{64})", done.stdout)
    assert len(digests) == 2
    assert digests[0] == digests[1]
    assert re.findall(r"\[bold\]|\x1b", done.stdout) == []
    sent = re.findall(r"(SIG\w+) → (batch shell|training)", done.stdout)
    assert sent == [("SIGUSR1", "batch shell"), ("SIGTERM", "batch shell"), ("SIGTERM", "training")]
    assert list(tmp_path.iterdir()) == []


def test_on_a_terminal_it_is_live_and_fits_in_80_columns(tmp_path: Path) -> None:
    terminal = pexpect.spawn(
        sys.executable, [str(DEMO)], env=environment(tmp_path), cwd=tmp_path, timeout=90, encoding="utf-8", dimensions=(24, 80)
    )  # fmt: skip
    terminal.expect(r"attempt 2 .*step \d+/200")
    terminal.expect("4 attempts, 0 steps lost")
    table = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.before)
    assert max(len(line.rstrip()) for line in table.splitlines()) <= 80
    rows = [line for line in table.splitlines() if re.search("→ (batch shell|training)", line)]
    assert len(rows) == 3
    assert all(re.search(r"\d\.\d\d s +\d+ +\d+ *$", row) for row in rows), rows
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0


def test_a_final_state_that_differs_is_a_failure(tmp_path: Path) -> None:
    """The comparison is real: a training whose end depends on how often it was started is found out."""
    examples = tmp_path / "examples"
    (examples / "minimal").mkdir(parents=True)
    train = (DEMO.parent / "minimal" / "train.py").read_text()
    spoilt = train.replace('print(f"final state {train()}")', 'print(f"final state {train()[:40]}{os.getpid():024x}")')
    assert spoilt != train
    (examples / "minimal" / "train.py").write_text(spoilt)
    (examples / "minimal" / "job.yaml").write_text((DEMO.parent / "minimal" / "job.yaml").read_text())
    (examples / "demo.py").write_text(DEMO.read_text())
    (tmp_path / "tmp").mkdir()
    done = subprocess.run(
        [sys.executable, examples / "demo.py"], env=environment(tmp_path / "tmp"), cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "final state NOT equal to the uninterrupted run" in done.stdout
    kept = re.search(r"what happened is in (\S+)", done.stdout)
    assert kept is not None
    assert Path(kept[1], "runs").is_dir()
    assert Path(kept[1]).is_relative_to(tempfile.gettempdir()) or Path(kept[1]).is_relative_to(tmp_path)
