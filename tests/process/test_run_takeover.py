"""Two processes of one run where nothing keeps them apart: the one that was stopped for a while loses, and ends."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from hpc_resume.run.lease import break_lease
from hpc_resume.run.rundir import RunDir

# As on a file system without locks.
TRAIN = """
import errno, fcntl, os, sys, time
def no_locks(*_arguments): raise OSError(errno.ENOLCK, "No locks available")
fcntl.lockf = no_locks
import hpc_resume

class State:
    def __init__(self): self.step, self.by = 0, []
    def state_dict(self): return {"step": self.step, "by": self.by}
    def load_state_dict(self, state): self.step, self.by = state["step"], state["by"]

with hpc_resume.Run("run", every=5) as run:
    state = State()
    run.register(state=state)
    assert state.step == run.start_step
    print(f"start {run.start_step}\\n", end="")
    for step in run.steps(10**6):
        state.step = step + 1
        state.by.append(sys.argv[1])
        print(f"step {step + 1}\\n", end="")
        time.sleep(0.002)
"""


@pytest.mark.parametrize("more", [{}, {"HPC_RESUME_SAVE_ASYNC": "1"}], ids=["sync", "async"])
def test_a_process_that_was_stopped_while_another_took_over_ends_with_75_and_nothing_of_it_counts(
    start, tmp_path, more, eventually
):
    run = RunDir(tmp_path / "run")
    first = start(TRAIN, "first", **more)
    eventually(lambda: (run.latest_step() or 0) >= 10, "two saves of the first")
    first.signal(signal.SIGSTOP)
    refused = start(TRAIN, "second", **more)
    assert refused.code() == 75, "a living owner is never taken over, also when it is stopped"
    break_lease(run, "a test")
    second = start(TRAIN, "second", **more)
    begun = int(second.wait_line("start").split()[1])
    eventually(lambda: run.latest_step() >= begun + 10, "two saves of the second")
    first.signal(signal.SIGCONT)
    assert first.code() == 75, first.output
    assert "has taken this run over" in first.output
    assert "Traceback" not in first.output
    before = run.latest_step()
    eventually(lambda: run.latest_step() >= before + 10, "the second goes on")
    second.signal(signal.SIGUSR1)
    assert second.code() == 138
    last = run.latest_step()
    third = start(TRAIN.replace("10**6", str(last + 1)), "third", **more)
    third.wait_line(f"start {last}")
    assert third.code() == 0, third.output
    assert not [path for path in run.checkpoints_dir.iterdir() if ".tmp." in path.name]


def test_a_newer_format_or_another_number_of_processes_ends_the_start_and_nothing_is_touched(start, tmp_path):
    run = RunDir(tmp_path / "run")
    source = TRAIN.replace("10**6", "20").replace("fcntl.lockf = no_locks\n", "")

    def picture() -> dict[Path, bytes]:
        kept = [path for where in (run.checkpoints_dir, run.path / "latest") for path in (where, *where.rglob("*"))]
        return {path: path.read_bytes() for path in kept if path.is_file()}

    def world(size: int) -> list:
        told = {"WORLD_SIZE": str(size), "HPC_RESUME_RUN_DIR": str(run.path)}
        return [start(source, "x", RANK=str(rank), **told) for rank in range(size)]

    first, second = world(2)
    first.wait_line("step 12")
    first.signal(signal.SIGUSR1)
    assert (first.code(), second.code()) == (138, 138), first.output
    before = picture()
    other = start(source, "x", RANK="0", WORLD_SIZE="4", HPC_RESUME_RUN_DIR=str(run.path))
    assert other.code() == 78
    assert "was saved by 2 ranks, and these are 4; start as many as before" in other.output
    assert "Traceback" not in other.output
    assert picture() == before
    first, second = world(2)
    assert (first.code(), second.code()) == (0, 0), first.output


def test_without_checksums_a_start_compares_sizes_and_nothing_older_goes_for_a_broken_one(start, tmp_path, eventually):
    run = RunDir(tmp_path / "run")
    child = start(TRAIN, "x")
    eventually(lambda: (run.latest_step() or 0) >= 10, "two saves")
    child.signal(signal.SIGKILL)
    child.code()
    newest = run.latest_step()
    state = run.checkpoint_dir(newest) / "state.json"
    state.write_bytes(state.read_bytes().replace(b'"x"', b'"y"', 1))
    again = start(TRAIN.replace("10**6", str(newest + 5)), "x", HPC_RESUME_CHECKSUMS="0")
    again.wait_line(f"start {newest}")
    assert again.code() == 0, again.output
    kept = {path.name for path in run.checkpoints_dir.iterdir()}
    assert f"step-{newest - 5:08d}" in kept, "the newer one was read before this would have gone"
    (run.path / "finished.json").unlink()
    (run.checkpoint_dir(newest + 5) / "state.json").write_bytes(b"{}")
    third = start(TRAIN, "x", HPC_RESUME_CHECKSUMS="0")
    assert "is broken (state.json: 2 bytes where" in third.wait_line("is broken")
    third.wait_line(f"start {newest}")


def test_a_broken_newest_is_set_aside_and_the_run_says_so(start, tmp_path, eventually):
    run = RunDir(tmp_path / "run")
    child = start(TRAIN, "x")
    eventually(lambda: (run.latest_step() or 0) >= 10, "two saves")
    child.signal(signal.SIGKILL)
    child.code()
    newest = run.latest_step()
    state = run.checkpoint_dir(newest) / "state.json"
    data = bytearray(state.read_bytes())
    data[3] ^= 2
    state.write_bytes(data)
    again = start(TRAIN, "x")
    words = again.wait_line("is broken (state.json: checksum")
    assert f"step {newest - 5} is used instead" in words
    again.wait_line(f"start {newest - 5}")
    again.signal(signal.SIGUSR1)
    assert again.code() == 138
    aside = run.checkpoints_dir / f"step-{newest:08d}.broken-1"
    assert (aside / "broken.txt").read_text().startswith("state.json: checksum")


UNREADABLE = """
import os, sys
healthy, left = os.preadv, int(sys.argv[1])
def failing(descriptor, *arguments):
    global left
    if left and "checkpoints/step-" + NEWEST in os.readlink(f"/proc/self/fd/{descriptor}"):
        left -= 1
        raise OSError(5, "Input/output error")
    return healthy(descriptor, *arguments)
os.preadv = failing
"""


@pytest.mark.parametrize(("failures", "lost"), [(2, 0), (1000, 5)])
def test_a_newest_that_cannot_be_read_for_a_moment_is_looked_at_again(start, tmp_path, eventually, failures, lost):
    run = RunDir(tmp_path / "run")
    child = start(TRAIN, "x")
    eventually(lambda: (run.latest_step() or 0) >= 10, "two saves")
    child.signal(signal.SIGKILL)
    child.code()
    newest = run.latest_step()
    source = UNREADABLE.replace("NEWEST", repr(f"{newest:08d}")) + TRAIN
    again = start(source.replace("10**6", str(newest + 1)), str(failures))
    assert "cannot be read now (state.json: Input/output error); it is tried again in 1 s" in again.wait_line("again")
    again.wait_line(f"start {newest - lost}")
    assert again.code() == 0, again.output
    assert again.output.count("it is tried again") == (3 if lost else 2)
    assert again.output.count(f"step {newest - lost} is used instead") == bool(lost)
    assert "is broken" not in again.output
