"""Who has a run: never two at once, soon somebody when its owner is dead, nobody else while it lives."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpc_resume.errors import RunHeldError
from hpc_resume.run import lease as leases
from hpc_resume.run import process
from hpc_resume.run.rundir import RunDir

STORM = Path(__file__).with_name("lease_storm.py")
PERIOD = 2.0  # a heartbeat may be late by three quarters of it on a machine with no time to spare

OWNER = """
import sys, time
from pathlib import Path
from hpc_resume.run import lease, process
from hpc_resume.run.rundir import RunDir
process.host_name = lambda: "elsewhere"
held = lease.take(RunDir(Path(sys.argv[1])))
print(held.generation, held._pulse._process.pid, flush=True)
sys.stdin.readline()
try:
    held.check()
    print("still ours", flush=True)
except Exception as error:
    print(error, flush=True)
"""


def storm(directory: Path, takeovers: int, contenders: int, runs: int, period: float) -> dict:
    words = [str(directory), str(takeovers), str(contenders), str(runs), "1"]
    done = subprocess.run(
        [sys.executable, str(STORM), *words],
        env=os.environ | {"HPC_RESUME_HEARTBEAT": str(period)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=1700,
        check=True,
    )
    return json.loads(done.stdout)


def test_no_two_hold_a_run_while_owners_are_killed_stopped_and_frozen(tmp_path: Path) -> None:
    told = storm(tmp_path / "storm", 50, 12, 6, 3.0)
    assert told["violations"] == [], told
    assert told["killed"] > 10, told
    assert told["stopped"] > 1, told


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("place", ["disk", "memory"])
def test_ten_thousand_takeovers_by_sixty_four_contenders(tmp_path: Path, place: str) -> None:
    directory = tmp_path / "storm" if place == "disk" else Path("/dev/shm") / f"hpc_resume-storm-{os.getpid()}"
    try:
        told = storm(directory, 10_000, 64, 64, 2.0)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(told)
    assert told["violations"] == [], told


@pytest.fixture
def owner(tmp_path, monkeypatch):
    """owner() is a process "elsewhere" that holds the run: (process, its heartbeat's pid)."""
    monkeypatch.setenv("HPC_RESUME_LOCKS", "log")
    monkeypatch.setenv("HPC_RESUME_HEARTBEAT", str(PERIOD))
    (tmp_path / "run").mkdir()
    begun = []

    def begin() -> tuple[subprocess.Popen[str], int]:
        child = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(tmp_path / "run")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        begun.append(child)
        return child, int(child.stdout.readline().split()[1])

    yield begin
    for child in begun:
        child.kill()
        child.communicate()


def taken_within(run: RunDir, seconds: float) -> tuple[leases.Lease, float]:
    began = time.monotonic()
    while (lease := leases.take(run)) is None:
        assert time.monotonic() - began < seconds + 20, "never taken"
    return lease, time.monotonic() - began


def test_a_killed_owner_on_a_living_node_is_taken_over_at_once(owner, tmp_path):
    run = RunDir(tmp_path / "run")
    child, _ = owner()
    assert leases.take(run) is None
    child.kill()
    lease, _ = taken_within(run, 1.0)
    assert lease.generation == 2
    assert "died" in (run.lease_dir / "00000001.beat").read_text()
    lease.release()


def test_an_owner_lost_with_its_node_is_taken_over_within_two_periods(owner, tmp_path):
    run = RunDir(tmp_path / "run")
    child, heart = owner()
    os.kill(heart, signal.SIGKILL)
    child.kill()
    lease, seconds = taken_within(run, 2 * PERIOD)
    assert lease.generation == 2
    # 1.75 periods of silence, an eighth of one between two looks; and what a loaded machine takes for it.
    assert 1.5 * PERIOD < seconds < 2 * PERIOD + 5
    lease.release()


def test_a_stopped_owner_keeps_its_run(owner, tmp_path):
    run = RunDir(tmp_path / "run")
    child, _ = owner()
    child.send_signal(signal.SIGSTOP)
    until = time.monotonic() + 2.5 * PERIOD
    while time.monotonic() < until:
        assert leases.take(run) is None
    child.send_signal(signal.SIGCONT)
    child.stdin.write("\n")
    child.stdin.flush()
    assert child.stdout.readline() == "still ours\n"


def test_an_owner_frozen_with_its_heartbeat_finds_itself_fenced_off(owner, tmp_path):
    run = RunDir(tmp_path / "run")
    child, heart = owner()
    os.kill(heart, signal.SIGSTOP)
    child.send_signal(signal.SIGSTOP)
    lease, _ = taken_within(run, 2 * PERIOD)
    os.kill(heart, signal.SIGCONT)
    child.send_signal(signal.SIGCONT)
    child.stdin.write("\n")
    child.stdin.flush()
    assert (
        f"pid {os.getpid()} on {process.host_name()} has taken this run over (generation 2" in child.stdout.readline()
    )
    lease.release()


def test_a_heartbeat_that_something_killed_is_started_again(owner, tmp_path):
    run = RunDir(tmp_path / "run")
    lease = leases.take(run)
    first = lease._pulse._process
    first.kill()
    first.wait()
    lease.check()
    assert lease._pulse._process.pid != first.pid
    lease.release()
    again = leases.take(run)
    assert again.generation == 2
    again.release()


def test_a_run_broken_by_hand_is_free_and_its_owner_is_told(owner, tmp_path):
    run = RunDir(tmp_path / "run")
    lease = leases.take(run)
    assert leases.break_lease(run, "root") == 2
    with pytest.raises(RunHeldError, match="has taken this run over"):
        lease.check()
    other = leases.take(run)
    assert other.generation == 3
    other.release()
    lease.release()


def test_what_serves_the_files_to_another_machine_asks_the_log_first(owner, tmp_path, monkeypatch):
    child, _ = owner()
    monkeypatch.setenv("HPC_RESUME_LOCKS", "kernel")
    assert leases.take(RunDir(tmp_path / "run")) is None
    child.kill()
    lease, _ = taken_within(RunDir(tmp_path / "run"), 1.0)
    lease.release()
