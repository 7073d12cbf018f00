"""W&B's tables of states, row by row: what the client alone sends, and what a run under us is in the end.

The first table is the documentation's, the second what wandb 0.31 was measured to make of each way to end a process.
"""

from __future__ import annotations

import os
import signal

import pytest
from loopback_runs import state_at_end
from trainings import managed
from wandb_log import only_log

ALONE = """
import os, signal, sys
from sys import exit as bound_before
import wandb

def interrupted(signum, frame):
    raise SystemExit(130)

run = wandb.init(id=sys.argv[1], resume="allow", settings=wandb.Settings(silent=True))
run.log({"loss": 1})
if sys.argv[2] == "marked":
    run.mark_preempting()
"""

# how it ends -> (code, state unmarked, state marked); the code is what W&B is told, None: nothing
DOCUMENTED = {
    "pass": (0, "finished", "finished"),
    "run.finish(exit_code=1)": (1, "failed", "preempted"),
    "run.finish(exit_code=138); sys.exit(138)": (138, "failed", "preempted"),
    "os.kill(os.getpid(), signal.SIGKILL)": (None, "crashed", "preempted"),
    "os.kill(os.getpid(), signal.SIGINT); signal.pause()": (255, "killed", "preempted"),
    "signal.signal(2, lambda *_: (run.finish(exit_code=130), os._exit(130))); signal.raise_signal(2)": (
        130,
        "failed",
        "preempted",
    ),
}
MEASURED = {
    "sys.exit(138)": (138, "failed", "preempted"),
    "raise SystemExit(138)": (0, "finished", "finished"),
    "bound_before(138)": (0, "finished", "finished"),
    "exit(138)": (0, "finished", "finished"),
    "run.finish(); sys.exit(138)": (0, "finished", "finished"),
    "with run: sys.exit(138)": (1, "failed", "preempted"),
    "raise RuntimeError": (1, "failed", "preempted"),
    "sys.exit('words')": (1, "failed", "preempted"),
    "os._exit(138)": (None, "crashed", "preempted"),
}
TOGETHER = 3  # clients at a time


def play(train, table, **more):
    """(way, marked) -> the training, when all have ended."""
    started, waiting = {}, []
    for number, way in enumerate(table):
        for marked in ("unmarked", "marked"):
            name = f"{marked}-{number}"
            started[way, marked] = train(name, marked, source=ALONE + way + "\n", home=name, **more)
            waiting.append(started[way, marked])
            if len(waiting) == TOGETHER:
                [training.code() for training in waiting]
                waiting.clear()
    [training.code() for training in waiting]
    return started


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "table", [DOCUMENTED, pytest.param(MEASURED, marks=pytest.mark.soak)], ids=["documented", "measured"]
)
def test_the_client_alone(server, train, table):
    server.settings.crash_after = 3.0
    ended = play(train, table)
    for number, (way, (code, *states)) in enumerate(table.items()):
        for marked, state in zip(("unmarked", "marked"), states, strict=True):
            name, output = f"{marked}-{number}", ended[way, marked].output
            server.wait_for(lambda name=name, state=state: server.run(name).state == state)
            seen = server.run(name)
            assert seen.exit_code == code, (way, marked, output)
            assert ("preempting" in seen.said) is (marked == "marked"), (way, output)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "table", [DOCUMENTED, pytest.param(MEASURED, marks=pytest.mark.soak)], ids=["documented", "measured"]
)
def test_the_client_alone_offline(server, train, table):
    """A killed process tells its log nothing: up to 32 KiB of it are in the memory of wandb-core."""
    ended = play(train, table, WANDB_MODE="offline")
    for way, (code, *states) in table.items():
        for marked, state in zip(("unmarked", "marked"), states, strict=True):
            log = only_log(ended[way, marked].log.parent)
            assert log.exit_code == code, way
            if code is not None:
                assert (log.preempting, len(log.rows)) == (marked == "marked", 1), way
                assert state_at_end(code, preempting=log.preempting) == state, way
    assert server.runs() == []


UNDER_US = """
import os, signal, sys, time
import hpc_resume

class State:
    def state_dict(self):
        if os.path.exists("kill-in-the-save"):
            os.kill(os.getpid(), signal.SIGKILL)
        return {}
    def load_state_dict(self, state): pass

@hpc_resume.resumable(every=1000)
def train(run, steps):
    run.register(state=State())
    for step in run.steps(steps):
        run.log({"loss": step})
        print("step", step, flush=True)
        time.sleep(0.02)

train(int(sys.argv[1]))
"""


@pytest.mark.timeout(200)
@pytest.mark.parametrize(("in_the_save", "state"), [(True, "preempted"), (False, "crashed")])
def test_killed_without_a_word_under_us(server, train, in_the_save, state):
    """A SIGKILL in the middle of the last save: the run is PREEMPTED all the same, since it was marked before."""
    first = train("10000", source=UNDER_US, HPC_RESUME_WANDB=managed(), WANDB_RUN_ID="net-1")
    first.wait_for("step 5")
    if in_the_save:
        (first.log.parent / "kill-in-the-save").touch()
        first.warn()
    else:
        os.kill(first.process.pid, signal.SIGKILL)
    assert first.code() == -signal.SIGKILL, first.output
    server.settings.crash_after = 3.0
    server.wait_for(lambda: server.run("net-1").state == state)
    assert server.run("net-1").exit_code is None
    assert not list((first.log.parent / "run/checkpoints").glob("step-*/manifest.json"))
