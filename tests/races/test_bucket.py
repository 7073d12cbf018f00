"""The token bucket: nobody twice in a slot, nobody later than the rate demands, and no clock but the file server's."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from types import SimpleNamespace

import pytest

from hpc_resume.run.rundir import RunDir
from hpc_resume.sweeps import bucket
from hpc_resume.sweeps.agent import OneAgent
from hpc_resume.sweeps.bucket import Bucket, Rate, choose
from hpc_resume.sweeps.decide import Leave, Situation, Take, decide
from hpc_resume.sweeps.hand import Hand, is_settled


def test_the_first_free_slot_is_taken_and_saved_ones_before_it():
    chance = random.Random(1)
    assert choose(100, set(), 1, 1, chance) == 100
    assert choose(100, {100, 101}, 1, 1, chance) == 102
    assert choose(100, {100}, 3, 1, chance) == 98
    assert {choose(100, {101}, 1, 4, chance) for _ in range(100)} == {100, 102, 103, 104}


def test_many_at_the_same_moment_each_get_a_slot_of_their_own(tmp_path):
    children = []
    for agent in range(60):
        pid = os.fork()
        if pid == 0:
            try:
                time.time = lambda: 0.0  # its clock does not matter
                mine = Bucket(tmp_path, Rate(0.5), agent)
                mine.take()
                os._exit(min(mine.tries, 99))
            finally:
                os._exit(120)
        children.append(pid)
    tries = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    assert max(tries) < 40, tries
    slots = sorted(int(path.name) for path in (tmp_path / "0.5s").iterdir() if path.name.isdigit())
    assert len(slots) == 60, "each has created a file of its own"
    assert slots[-1] - slots[0] < 4 * 60, "and nobody waits four times as long as the rate demands"


def test_an_agent_alone_starts_at_once_and_again_after_a_rest(tmp_path):
    alone = Bucket(tmp_path, Rate(30.0), 1)
    assert alone.take() == 0.0
    assert 0.0 < alone.take() <= 30.0
    burst = Bucket(tmp_path / "burst", Rate(30.0, burst=3), 1)
    assert [burst.take() for _ in range(3)] == [0.0, 0.0, 0.0]
    assert burst.take() > 0.0


def test_without_a_rate_nothing_is_shared_and_nobody_waits(tmp_path):
    assert Bucket(tmp_path, Rate(0.0), 1).take() == 0.0
    assert list(tmp_path.iterdir()) == []


def test_the_jitter_is_by_the_seed(tmp_path):
    waits = [bucket.by_index(Rate(5.0, jitter=2.0), 3, seed) for seed in (1, 1, 2)]
    assert waits[0] == waits[1] != waits[2]
    assert all(15.0 <= wait <= 17.0 for wait in waits)


def test_a_warning_ends_the_wait():
    began = time.monotonic()
    assert not bucket.wait(60.0, lambda: True)
    assert time.monotonic() - began < 30.0


@pytest.mark.parametrize(
    ("situation", "step"),
    [
        (Situation(), Take(0.0)),
        (Situation(signals=(10, 15), signum=10), 138),
        (Situation(state="RUNNING"), Take(0.0)),
        (Situation(state="PAUSED"), Take(0.0)),
        (Situation(state="FINISHED"), 0),
        (Situation(state="CANCELED"), 0),
        (Situation(signum=10, left=100.0, lead=120.0), 138),
        (Situation(signum=10, left=121.0, lead=120.0), Take(0.0)),
        (Situation(failures=3), Take(20.0)),
        (Situation(failures=10), 75),
        (Situation(signals=(2,), state="FINISHED"), 130),
    ],
)
def test_what_an_agent_does_next(situation, step):
    found = decide(situation)
    assert (found.code if isinstance(found, Leave) else found) == step


@pytest.mark.parametrize(
    ("taken_at", "data", "settled"),
    [
        (0, {}, True),
        (0, {"untold": []}, True),
        (0, {"untold": ["wandb"]}, False),
        (0, {"stuck": False}, False),
        (1, {}, False),
    ],
)
def test_a_run_is_handed_back_unless_its_training_has_surely_told_wandb(tmp_path, taken_at, data, settled):
    attempt = RunDir(tmp_path).attempt(1)
    attempt.events_dir.mkdir(parents=True)
    attempt.outcome_file.write_text('{"version": 1, "outcome": "stopped", "step": 0, "signal": "USR1", "code": 138}')
    attempt.events_file("n1", 7).write_text(json.dumps({"t": 1.0, "event": "stopped"} | data) + "\n")
    assert is_settled(Hand("abc", taken_at), RunDir(tmp_path)) is settled


def test_an_agent_whose_question_is_never_answered_is_ended_all_the_same(tmp_path):
    place = SimpleNamespace(hand_file=tmp_path / "hand.json", allocation=None, environment=SimpleNamespace(lead=2.0))
    deaf = ["bash", "-c", "trap '' TERM; echo; exec sleep 600"]  # as wandb's agent is while it asks
    agent = subprocess.Popen(deaf, stdout=subprocess.PIPE)
    agent.stdout.readline()
    one = OneAgent(place, {}, lambda: (signal.SIGTERM,))
    deadline = time.monotonic() + 60.0
    try:
        while agent.poll() is None:
            assert time.monotonic() < deadline, "it waits for W&B"
            one._attend(agent)
            time.sleep(0.05)
        assert agent.returncode == -signal.SIGKILL
    finally:
        agent.kill()
        agent.communicate()
