"""kill -9 in the middle of saves, publishes and prunes, and many of them: nothing is lost, nothing piles up."""

from __future__ import annotations

import mmap
import os
import random
import signal
import struct
import time
from pathlib import Path

import pytest

from hpc_resume.checkpoints.generations import Generations
from hpc_resume.checkpoints.state_dict import StateComponent
from hpc_resume.checkpoints.store import Store


class State:
    def __init__(self, step=0, size=0):
        self.step, self.text = step, f"{step} " * size

    def state_dict(self):
        return {"step": self.step, "text": self.text}

    def load_state_dict(self, state):
        self.step, self.text = state["step"], state["text"]


def parts(step, size=300):
    return {name: StateComponent(State(step, size)) for name in ("model", "optimizer", "rng")}


def open_store(run: Path, keep=2) -> tuple[Store, int]:
    """As an attempt opens it: claim, clear, load, go on."""
    log = Generations(run / "lease")
    number = log.claim({"pid": os.getpid()})
    store = Store(run / "checkpoints", run / "latest", attempt=number, keep=keep, generation=number)
    store.clear_leftovers()
    newest = store.load().newest
    log.go_on_from(number, newest.step if newest else 0)
    return store, newest.step if newest else 0


def publish_until_killed(run: Path, told: mmap.mmap, ready: int) -> None:
    store, step = open_store(run)
    os.write(ready, b"r")
    while True:
        step += 1
        store.publish(step, parts(step))
        told[:8] = struct.pack("q", step)


@pytest.mark.timeout(480)
def test_kill_at_a_thousand_random_moments_of_save_publish_and_prune(tmp_path):
    rng, told = random.Random(int(os.environ.get("SEED", "11"))), mmap.mmap(-1, 8)
    newest_before, gained, window = 0, 0, 0.02  # seconds; a publish takes 4 to 10 ms on an idle machine
    for trial in range(1000):
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                publish_until_killed(tmp_path, told, theirs)
            finally:
                os._exit(1)
        if trial % 5:  # else in the middle of its start
            os.read(ours, 1)
        time.sleep(rng.uniform(0.0, window))
        os.kill(child, signal.SIGKILL)
        os.close(ours)
        os.close(theirs)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        loaded = Store(tmp_path / "checkpoints", tmp_path / "latest", attempt=0, keep=2).load()
        assert loaded.skipped == (), trial
        published = struct.unpack("q", told[:8])[0]
        if loaded.newest is None:
            assert published == 0
            window = min(1.0, window * 1.1)
            continue
        assert loaded.newest.step >= max(published, newest_before), trial
        state = State()
        StateComponent(state).load(loaded.newest.directory, "model", "json")
        assert (state.step, state.text) == (loaded.newest.step, f"{loaded.newest.step} " * 300)
        gains = loaded.newest.step > newest_before
        gained += gains
        window = max(0.02, window * 0.92) if gains else min(1.0, window * 1.1)  # about every second kill hits one
        newest_before = loaded.newest.step
    assert gained > 200, "the kills came too early to hit a publish"
    store, step = open_store(tmp_path)
    store.publish(step + 1, parts(step + 1))
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == [f"step-{step:08d}", f"step-{step + 1:08d}"], "what the killed ones left is gone"
    assert len(list((tmp_path / "lease").iterdir())) < 150, "the log of generations grows without end"


def resident() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors_open() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def check_leaks(run: Path, count: int) -> None:
    store, _ = open_store(run, keep=3)
    warm = min(500, count // 4)
    descriptors = memory = 0
    for step in range(1, count + 1):
        assert store.publish(step, parts(step, 5)).warnings == ()
        if step == warm:
            descriptors, memory = descriptors_open(), resident()
    assert descriptors_open() == descriptors
    assert resident() - memory < 8 << 20
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        f"step-{step:08d}" for step in (count - 2, count - 1, count)
    ]
    assert sorted(path.name for path in run.iterdir()) == ["checkpoints", "latest", "lease"]


def test_two_thousand_published_and_pruned_steps_leak_nothing(tmp_path):
    check_leaks(tmp_path, 2000)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_published_and_pruned_steps_leak_nothing(tmp_path):
    check_leaks(tmp_path, 100_000)
