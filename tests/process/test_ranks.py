"""Many ranks in real processes, warned through one: all of them leave at the same step, with all their parts saved."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpc_resume.run.rundir import RunDir

TRAIN = Path(__file__).parents[1] / "slurm" / "ranks_train.py"
DEADLINE = 60.0


class Ranks:
    """The ranks of one attempt, started as the batch script starts them."""

    def __init__(
        self, directory: Path, size: int, *arguments: str, attempt: int = 1, source: str = "", **more: str
    ) -> None:
        self.run = RunDir(directory / "run")
        self.attempt = self.run.attempt(attempt)
        for made in (self.attempt.pids_dir, self.attempt.events_dir):
            made.mkdir(parents=True, mode=0o700)
        foreign = ("HPC_RESUME_", "SLURM_", "RANK", "WORLD_SIZE", "LOCAL_")
        mine = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        told = {"RUN_DIR": str(self.run.path), "ATTEMPT": str(attempt), "ATTEMPT_DIR": str(self.attempt.path)}
        told |= {"SIGNAL": "USR1", "LEAD": "60"}
        mine |= {f"HPC_RESUME_{key}": value for key, value in told.items()}
        mine |= {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)} | more
        self.log = (directory / f"out.{attempt}").open("w+b")
        script = directory / "train.py"
        script.write_text(source or TRAIN.read_text())
        command = [sys.executable, "-m", "hpc_resume.run", "--", sys.executable, str(script), *arguments]
        self.processes = [
            subprocess.Popen(command, env=mine | {"RANK": str(rank)}, stdout=self.log, stderr=self.log, cwd=directory)
            for rank in range(size)
        ]

    def codes(self) -> list[int]:
        until = time.monotonic() + DEADLINE
        return [process.wait(max(0.1, until - time.monotonic())) for process in self.processes]

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        self.log.close()

    @property
    def words(self) -> str:
        return Path(self.log.name).read_text()

    def executed(self, rank: int) -> list[int]:
        """The steps that this attempt has begun on `rank`."""
        try:
            lines = (self.run.path / f"executed.{rank}").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [
            int(step) for attempt, step, _ in (line.split() for line in lines) if int(attempt) == self.attempt.number
        ]

    def await_step(self, step: int) -> None:
        until = time.monotonic() + DEADLINE
        while not self.executed(0) or self.executed(0)[-1] < step:
            assert time.monotonic() < until, f"not at step {step} in {DEADLINE} s:\n{self.words}"
            assert all(process.poll() is None for process in self.processes), self.words
            time.sleep(0.005)

    def await_warning(self, rank: int) -> None:
        """Until `rank` has heard of a warning; the others than the warned one hear of it from rank 0."""
        until = time.monotonic() + DEADLINE
        record = next(record for record in self.attempt.pids() if record.rank == rank)
        events = self.attempt.events_file(record.process.host, record.process.pid)
        while '"event": "received"' not in events.read_text():
            assert time.monotonic() < until, self.words
            time.sleep(0.005)


@pytest.fixture
def ranks(tmp_path) -> Iterator[Callable[..., Ranks]]:
    started: list[Ranks] = []

    def start(size: int, *arguments: str, **more) -> Ranks:
        started.append(Ranks(tmp_path, size, *arguments, **more))
        return started[-1]

    yield start
    for one in started:
        one.end()


def finals(directory: Path, size: int) -> list[dict]:
    return [json.loads((directory / f"final.{rank}.json").read_text()) for rank in range(size)]


def test_warned_through_one_rank_at_random_moments_the_end_is_that_of_an_uninterrupted_run(ranks, tmp_path):
    size, steps = 3, 60
    (tmp_path / "reference").mkdir()
    reference = Ranks(tmp_path / "reference", size, str(steps), "0")
    try:
        assert reference.codes() == [0] * size, reference.words
    finally:
        reference.end()
    rng, saved = random.Random(3), 0
    for attempt in range(1, 4):
        one = ranks(size, str(steps), "0.01", "7", "9", attempt=attempt)
        one.await_step(saved + rng.randrange(1, 12))
        time.sleep(rng.random() * 0.03)
        one.processes[rng.randrange(size)].send_signal(signal.SIGUSR1)
        assert one.codes() == [138] * size, one.words
        saved = one.run.latest_step()
        assert {one.executed(rank)[-1] for rank in range(size)} == {saved - 1}, "all left at one step, which is saved"
        outcome = one.attempt.outcome()
        assert (outcome.outcome, outcome.step, outcome.signal) == ("stopped", saved, "USR1")
    last = ranks(size, str(steps), "0.001", "7", "9", attempt=4)
    assert last.codes() == [0] * size, last.words
    assert finals(tmp_path / "run", size) == finals(tmp_path / "reference" / "run", size)
    for rank in range(size):
        lines = (tmp_path / "run" / f"executed.{rank}").read_text().splitlines()
        assert [int(line.split()[1]) for line in lines] == list(range(steps)), "no step was done twice"


def test_warned_while_they_still_come_together_all_leave_at_once(ranks):
    one = ranks(3, "50", "0.01")
    until = time.monotonic() + DEADLINE
    while not any(record.rank == 2 for record in one.attempt.pids()):
        assert time.monotonic() < until
        time.sleep(0.002)
    one.processes[2].send_signal(signal.SIGUSR1)
    assert one.codes() == [138] * 3, one.words
    again = ranks(3, "8", "0", attempt=2)
    assert again.codes() == [0] * 3, again.words


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_is_killed_takes_nobody_with_it_and_nothing_that_is_published(ranks, victim):
    """After the warning, in the middle of the agreement: the rest leave resumable."""
    one = ranks(3, "100000", "0.002", "5")
    one.await_step(12)
    one.processes[victim].send_signal(signal.SIGSTOP)  # nothing can be agreed without it
    one.processes[2].send_signal(signal.SIGUSR1)
    one.await_warning(0 if victim else 2)
    one.processes[victim].kill()
    codes = one.codes()
    assert codes[victim] == -signal.SIGKILL
    assert {code for rank, code in enumerate(codes) if rank != victim} == {138}, one.words
    published = one.run.latest_step()
    assert published >= 10
    again = ranks(3, str(published + 5), "0", attempt=2)
    assert again.codes() == [0] * 3, again.words
    assert again.executed(1)[0] == published


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_is_killed_before_the_others_hear_of_the_warning_makes_no_crash_of_it(ranks, victim):
    """A preemption kills one and warns another at the same moment; the rest fail in their collective, too."""
    one = ranks(3, "100000", "0.002", "5")
    one.await_step(12)
    one.processes[victim].kill()
    one.processes[2].send_signal(signal.SIGUSR1)
    codes = one.codes()
    assert codes[victim] == -signal.SIGKILL
    assert {code for rank, code in enumerate(codes) if rank != victim} == {138}, one.words
    outcome = one.attempt.outcome()
    assert (outcome.outcome, outcome.signal) == ("stopped", "USR1"), "said by another when rank 0 cannot"
    assert outcome.step == one.run.latest_step() >= 10


def test_a_rank_that_is_killed_without_a_warning_ends_all_as_a_crash(ranks):
    one = ranks(3, "100000", "0.002")
    one.await_step(5)
    one.processes[1].kill()
    assert one.codes() == [1, -signal.SIGKILL, 1], one.words
    outcome = one.attempt.outcome()
    assert outcome.outcome == "crashed"
    assert "rank 1" in outcome.error
    assert "gone without a word" in outcome.error


HELD = """
def hold(name):
    if Path(f"hold.{name}").exists():
        Path(name).touch()
        while Path(f"hold.{name}").exists():
            time.sleep(0.005)

rename, state_dict, mine = Path.rename, Walk.state_dict, os.environ["RANK"]

def held_rename(self, target):
    if mine == "0" and ".tmp." in self.name:
        hold("publish")
    return rename(self, target)

def held_state_dict(self):
    if mine == "1":
        hold("save")
    return state_dict(self)

Path.rename, Walk.state_dict = held_rename, held_state_dict
"""


@pytest.mark.parametrize("warned", [True, False], ids=["warned", "unwarned"])
@pytest.mark.parametrize(("moment", "victim"), [("save", 1), ("publish", 0), ("publish", 1)])
def test_a_rank_that_is_killed_in_the_middle_of_a_save_leaves_a_whole_checkpoint(
    ranks, tmp_path, moment, victim, warned
):
    """Where rank 1 writes its part, and between the last part and the rename that publishes them all."""
    source = TRAIN.read_text().replace("@hpc_resume", f"{HELD}\n@hpc_resume", 1)
    one = ranks(3, "100000", "0.002", "5", source=source)
    one.await_step(12)
    hold = tmp_path / f"hold.{moment}"
    hold.touch()
    until = time.monotonic() + DEADLINE
    while not (tmp_path / moment).exists():
        assert time.monotonic() < until, one.words
        time.sleep(0.005)
    if warned:
        one.processes[2].send_signal(signal.SIGUSR1)
        one.await_warning(2)
    one.processes[victim].kill()
    assert one.processes[victim].wait(DEADLINE) == -signal.SIGKILL
    hold.unlink()
    codes = one.codes()
    assert {code for rank, code in enumerate(codes) if rank != victim} == {138 if warned else 1}, one.words
    published = one.run.latest_step()
    assert published >= 10
    again = ranks(3, str(published + 5), "0", attempt=2)
    assert again.codes() == [0] * 3, again.words
    assert {again.executed(rank)[0] for rank in range(3)} == {published}


FULL = """
def full(self):
    if self.rank == 1 and Path("full").exists():
        raise OSError(28, "No space left on device")
    return {"random": self.random.getstate(), "total": self.total, "order": self.order}
Walk.state_dict = full
"""


def test_a_part_that_cannot_be_written_is_not_published_and_the_training_goes_on(ranks, tmp_path):
    source = TRAIN.read_text().replace(
        "self.random = random.Random(rank)", "self.rank, self.random = rank, random.Random(rank)"
    )
    one = ranks(2, "100000", "0.002", "10", source=source.replace("@hpc_resume", f"{FULL}\n@hpc_resume", 1))
    one.await_step(12)
    (tmp_path / "full").touch()
    one.await_step(one.run.latest_step() + 25)
    before = one.run.latest_step()
    assert "No space left on device" in one.words
    assert "could not be saved: rank 1:" in one.words
    assert f"step {before} is still the last good one" in one.words
    (tmp_path / "full").unlink()
    one.await_step(before + 45)
    assert one.run.latest_step() > before, "with space again it saves again"
    one.processes[0].send_signal(signal.SIGUSR1)
    assert one.codes() == [138, 138], one.words
    names = sorted(path.name for path in one.run.checkpoints_dir.iterdir())
    assert len(names) == 2, names
    assert not any("tmp" in name for name in names)


def test_an_error_in_one_rank_is_the_end_of_all_and_names_it(ranks):
    source = TRAIN.read_text().replace(
        "walk.advance(step, all_reduce)", "walk.advance(step, all_reduce); 1 / (step - rank * 7)"
    )
    one = ranks(3, "100000", "0.001", source=source)
    assert one.codes() == [1, 1, 1], one.words
    outcome = one.attempt.outcome()
    assert (outcome.outcome, outcome.code) == ("crashed", 1)
    assert "ZeroDivisionError" in one.words


def test_who_does_not_know_the_secret_is_not_let_in(ranks):
    """A stranger at the door is turned away, and the training does not notice."""
    one = ranks(2, "60", "0.01")
    one.await_step(1)
    invitation = json.loads((one.attempt.path / "rendezvous.json").read_text())
    assert (one.attempt.path / "rendezvous.json").stat().st_mode & 0o777 == 0o600
    address = tuple(invitation["addresses"][0])
    for words in (b'{"rank":1,"nonce":"00","proof":"00"}\n', b"GET / HTTP/1.0\r\n\r\n", b"x" * 100_000, b""):
        with socket.create_connection(address, 5) as stranger:
            assert stranger.recv(4096)
            with contextlib.suppress(OSError):  # closed by then
                stranger.sendall(words)
                stranger.shutdown(socket.SHUT_WR)
                assert stranger.recv(4096) == b""
    assert one.codes() == [0, 0], one.words
