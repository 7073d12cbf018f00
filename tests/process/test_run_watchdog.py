"""A main thread that comes to no boundary still leaves in time, with the right code and a trace of where it was."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

LOOP = """
with hpc_resume.Run(every=1) as run:
    walk = Walk()
    run.register(walk=walk)
    for step in run.steps(100000):
        walk.advance(step)
        if step == 2:
            print("stuck")
            {stuck}
            print("back")
        time.sleep(0.005)
"""
SLOW_SAVER = """
def save(directory):
    (directory / "state").write_text("x")
    if (directory / "..").resolve().parent.joinpath("slow").exists() or len(sys.argv) > 1:
        print("saving"); time.sleep(float(sys.argv[1]) if len(sys.argv) > 1 else 0); print("saved")
def load(directory): pass
with hpc_resume.Run() as run:
    run.register_io(save=save, load=load)
    for step in run.steps(100000):
        time.sleep(0.01)
        print("step", step)
"""


@pytest.fixture
def launched(tmp_path: Path):
    """What a launcher would have told, `lead` seconds before the end."""
    run = tmp_path / "run"
    attempt = run / "attempts" / "0001"
    (attempt / "pids").mkdir(parents=True)
    (attempt / "events").mkdir()

    def variables(lead: float) -> dict[str, str]:
        return {
            "HPC_RESUME_RUN_DIR": str(run),
            "HPC_RESUME_ATTEMPT": "1",
            "HPC_RESUME_ATTEMPT_DIR": str(attempt),
            "HPC_RESUME_LEAD": str(lead),
        }

    variables.attempt = attempt
    return variables


def events(attempt: Path) -> list[dict]:
    lines = [line for path in (attempt / "events").glob("*.jsonl") for line in path.read_text().splitlines()]
    return sorted((json.loads(line) for line in lines), key=lambda event: event["t"])


def names(attempt: Path) -> list[str]:
    return [event["event"] for event in events(attempt)]


# What keeps the main thread: a mutex in C that it waits for without the GIL and no signal ends; a loop in Python.
STUCK = {
    "c": "mutex = ctypes.create_string_buffer(64); lock = ctypes.CDLL(None).pthread_mutex_lock; lock(mutex); lock(mutex)",
    "python": "deadline = time.monotonic() + 60\n            while time.monotonic() < deadline: sum(range(1000))",
}


@pytest.mark.parametrize("how", ["c", "python"])
def test_a_stuck_main_thread_leaves_before_the_end_with_its_stacks(start, walk, launched, how):
    source = "import threading, ctypes\n" + LOOP.format(stuck=STUCK[how])
    child = start(walk(source), **launched(4))
    child.wait_line("stuck")
    began = time.monotonic()
    child.signal(signal.SIGUSR1)
    assert child.code() == 138
    assert 2.0 < time.monotonic() - began < 3.9
    attempt = launched.attempt
    assert names(attempt)[-3:] == ["received", "stuck", "stopped"]
    outcome = json.loads((attempt / "outcome.json").read_text())
    assert (outcome["outcome"], outcome["step"], outcome["code"]) == ("stopped", 2, 138)
    stacks = next(attempt.glob("stacks.*.txt"))
    assert "train.py" in stacks.read_text()
    assert str(stacks) in child.output


def test_a_warning_is_acknowledged_at_once_while_the_main_thread_is_in_c(start, walk, launched, eventually):
    source = "import threading, ctypes\n" + LOOP.format(stuck=STUCK["c"])
    child = start(walk(source), **launched(60))
    child.wait_line("stuck")
    sent = time.time()
    child.signal(signal.SIGUSR1)
    eventually(lambda: "received" in names(launched.attempt), "an acknowledgement")
    received = next(event for event in events(launched.attempt) if event["event"] == "received")
    assert received["t"] - sent < 0.5
    assert child.process.poll() is None


def test_the_launchers_deadline_goes_before_our_own(start, walk, launched, eventually):
    source = "import threading, ctypes\n" + LOOP.format(stuck=STUCK["python"])
    child = start(walk(source), **launched(600))
    child.wait_line("stuck")
    child.signal(signal.SIGUSR1)
    eventually(lambda: "received" in names(launched.attempt), "an acknowledgement")
    told = {"version": 1, "t": time.time(), "signal": "USR1", "deadline": time.time() + 3, "source": "test"}
    (launched.attempt / "warning.json").write_text(json.dumps(told))
    assert child.code() == 138
    assert "stuck" in names(launched.attempt)


def test_a_second_signal_brings_the_end_nearer(start, walk, launched, eventually):
    """TERM has Slurm's KillWait behind it; here the lead of 33 s would be waited for otherwise."""
    source = "import threading, ctypes\n" + LOOP.format(stuck=STUCK["python"])
    child = start(walk(source), **launched(600))
    child.wait_line("stuck")
    child.signal(signal.SIGUSR1)
    eventually(lambda: "received" in names(launched.attempt), "an acknowledgement")
    child.signal(signal.SIGTERM)
    eventually(lambda: names(launched.attempt).count("received") == 2, "the second")
    told = {"version": 1, "t": time.time(), "signal": "USR1", "deadline": time.time() + 2.5, "source": "TERM"}
    (launched.attempt / "warning.json").write_text(json.dumps(told))
    assert child.code() == 138  # the first signal's
    assert [e["signal"] for e in events(launched.attempt) if e["event"] == "received"] == ["USR1", "TERM"]


def test_a_save_in_flight_is_waited_for(start, walk, launched):
    """Leaving begins 1.5 s before the end of 4 s; the save that began before it ends after that."""
    child = start(walk(SLOW_SAVER), "2.8", **launched(4))
    child.wait_line("step 3")
    child.signal(signal.SIGUSR1)
    assert child.code() == 138
    assert "saved" in child.seen
    assert json.loads((launched.attempt / "outcome.json").read_text())["step"] >= 3


def test_a_save_that_cannot_end_in_time_does_not_outlast_the_deadline(start, walk, launched):
    child = start(walk(SLOW_SAVER), "30", **launched(3))
    child.wait_line("step 3")
    began = time.monotonic()
    child.signal(signal.SIGUSR1)
    assert child.code() == 138
    assert time.monotonic() - began < 3.0
    outcome = json.loads((launched.attempt / "outcome.json").read_text())
    assert (outcome["outcome"], outcome["step"]) == ("stopped", 0)


def test_a_save_known_to_be_too_long_is_not_begun_and_said(start, walk, launched):
    source = """
def save(directory):
    (directory / "state").write_text("x"); time.sleep(2.2)
def load(directory): pass
with hpc_resume.Run(every=2) as run:
    run.register_io(save=save, load=load)
    for step in run.steps(3):
        time.sleep(0.01)
        print("step", step)
        if step == 2:
            time.sleep(1.5)
"""
    child = start(walk(source), **launched(4))
    child.wait_line("step 2")
    child.signal(signal.SIGUSR1)
    assert child.code() == 138
    assert "step 3 is not saved: a save takes 2." in child.output
    assert "goes on from step 2" in child.output
    assert "not_saved" in names(launched.attempt)


def test_a_step_longer_than_the_lead_is_said_once_while_all_is_well(start, walk, launched):
    source = """
with hpc_resume.Run() as run:
    for step in run.steps(3):
        time.sleep(1.6)
        print("step", step)
"""
    child = start(walk(source), **launched(1))
    assert child.code() == 0
    told = [line for line in child.seen if "no step boundary for" in line]
    assert len(told) == 1
    assert "only 1 s before the end" in told[0]
    assert [e["lead"] for e in events(launched.attempt) if e["event"] == "slow_boundary"] == [1]


def test_checkpoint_point_in_a_long_evaluation_is_a_boundary(start, walk, launched):
    source = """
with hpc_resume.Run() as run:
    for step in run.steps(1):
        for batch in range(150):
            time.sleep(0.01)
            run.checkpoint_point(step)
"""
    child = start(walk(source), **launched(1))
    assert child.code() == 0
    assert "no step boundary" not in child.output


def test_a_handler_put_over_ours_is_named_called_and_keeps_nothing_from_us(start, walk, launched):
    source = """
import signal
class Library:
    def handler(self, signum, frame):
        print("library", signum)
with hpc_resume.Run() as run:
    walk = Walk()
    run.register(walk=walk)
    for step in run.steps(100000):
        walk.advance(step)
        if step == 1:
            signal.signal(signal.SIGUSR1, Library().handler)
        print("step", step)
        time.sleep(0.05)
"""
    child = start(walk(source), **launched(4))
    child.wait_line("was replaced by __main__.Library.handler")
    child.signal(signal.SIGUSR1)
    assert child.code() == 138
    assert "library 10" in child.seen
    assert [e["by"] for e in events(launched.attempt) if e["event"] == "handler_replaced"] == [
        "__main__.Library.handler"
    ]


def test_a_handler_over_ours_that_calls_ours_does_not_go_round_in_circles(start, walk, launched):
    source = """
import signal
with hpc_resume.Run() as run:
    for step in run.steps(100000):
        if step == 1:
            ours = signal.getsignal(signal.SIGUSR1)
            signal.signal(signal.SIGUSR1, lambda signum, frame: (print("theirs"), ours(signum, frame)))
        time.sleep(0.05)
"""
    child = start(walk(source), **launched(4))
    child.wait_line("was replaced by __main__.<lambda>")
    child.signal(signal.SIGUSR1)
    assert child.code() == 138
    assert child.seen.count("theirs") == 1


def test_a_wakeup_descriptor_of_asyncio_gets_its_signals_all_the_same(start, walk, launched):
    source = """
import asyncio, os, signal
async def main():
    loop = asyncio.get_running_loop()
    got = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR2, got.set)
    with hpc_resume.Run() as run:
        os.kill(os.getpid(), signal.SIGUSR2)
        await asyncio.wait_for(got.wait(), 5)
        print("asyncio heard")
        for step in run.steps(100000):
            await asyncio.sleep(0.01)
            print("step", step)
asyncio.run(main())
"""
    child = start(walk(source), **launched(30))
    child.wait_line("asyncio heard")
    child.wait_line("step 1")
    child.signal(signal.SIGUSR1)
    assert child.code() == 138
    assert "received" in names(launched.attempt)


def test_an_exit_that_hangs_in_atexit_does_not_outlast_the_deadline(start, walk, launched):
    source = """
import atexit
atexit.register(time.sleep, 60)
""" + LOOP.format(stuck="")
    child = start(walk(source), **launched(3))
    child.wait_line("back")
    began = time.monotonic()
    child.signal(signal.SIGUSR1)
    assert child.code() == 138
    assert time.monotonic() - began < 3.2
    assert json.loads((launched.attempt / "outcome.json").read_text())["step"] > 2


def test_a_forked_child_does_not_ring_its_parents_bell(start, walk, launched):
    """The wake-up descriptor is inherited by fork: a child's own signal must not be taken for the parent's."""
    source = """
import os, signal
with hpc_resume.Run() as run:
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGUSR1, lambda *_: None)
        print("child", os.getpid(), flush=True)
        time.sleep(60)
        os._exit(0)
    for step in run.steps(100000):
        time.sleep(0.01)
        print("step", step)
"""
    child = start(walk(source), **launched(2))
    inner = int(child.wait_line("child").split()[1])
    child.wait_line("step 1")
    os.kill(inner, signal.SIGUSR1)
    for _ in range(20):
        child.wait_line("step")
    assert "received" not in names(launched.attempt)
    os.kill(inner, signal.SIGKILL)
    child.signal(signal.SIGUSR1)
    assert child.code() == 138
