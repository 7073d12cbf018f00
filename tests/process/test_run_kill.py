"""kill -9 costs at most the steps since the last published checkpoint, and a broken one is never loaded."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from hpc_resume.checkpoints.json_state import decode
from hpc_resume.checkpoints.store import Store
from hpc_resume.run.rundir import RunDir

# Saves at every step and says so afterwards; two components, one with files of its own.
TRAIN = """
import hashlib, sys
import hpc_resume

class State:
    def __init__(self): self.step, self.text = 0, "x" * 3000
    def state_dict(self): return {"step": self.step, "text": self.text}
    def load_state_dict(self, state): self.step, self.text = state["step"], state["text"]

def save(directory):
    for name in "abc":
        (directory / name).write_text(f"{state.step} " * 500)
def load(directory):
    assert {(directory / name).read_text() for name in "abc"} == {f"{run.start_step} " * 500}

with hpc_resume.Run(every=1, keep=2) as run:
    state = State()
    run.register(state=state)
    run.register_io(save=save, load=load)
    assert state.step == run.start_step
    print(f"published {run.start_step}\\n", end="", flush=True)
    step = run.start_step
    while True:
        step += 1
        state.step = step
        run.checkpoint_point(step)
        print(f"published {step}\\n", end="", flush=True)
"""


def load(run: RunDir):
    loaded = Store(run.checkpoints_dir, run.latest_file, attempt=0, keep=2).load()
    assert loaded.skipped == (), "a kill left something that looks like a checkpoint and is none"
    return loaded.newest


def kill_one(start, run: RunDir, rng: random.Random) -> int:
    """Start, let it publish a while, kill it at a random moment; the last step that it had called published."""
    child = start(TRAIN, HPC_RESUME_RUN_DIR=str(run.path))
    for _ in range(rng.randint(1, 4)):
        child.wait_line("published")
    time.sleep(rng.uniform(0.0, 0.012))  # a publish takes about 4 ms here: any moment of it
    child.signal(signal.SIGKILL)
    assert child.code() == -9, child.output
    return max(int(line.split()[1]) for line in child.seen if line.startswith("published"))


def check_kills(start, tmp_path: Path, trials: int, seed: int) -> None:
    rng, run, published = random.Random(seed), RunDir(tmp_path / "run"), 0
    for _ in range(trials):
        published = max(published, kill_one(start, run, rng))
        newest = load(run)
        if published:
            assert newest.step >= published
            assert decode((newest.directory / "state.json").read_bytes())["step"] == newest.step
    last = start(TRAIN, HPC_RESUME_RUN_DIR=str(run.path))
    for _ in range(3):
        last.wait_line("published")
    last.signal(signal.SIGTERM)
    assert last.code() == 143
    newest = load(run).step
    names = sorted(path.name for path in run.checkpoints_dir.iterdir())
    assert names == [f"step-{step:08d}" for step in (newest - 1, newest)], "what the killed ones left is gone"


def test_kill_at_random_moments_loses_nothing_that_was_published(start, tmp_path):
    check_kills(start, tmp_path, trials=30, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_kill_at_a_thousand_random_moments(start, tmp_path):
    check_kills(start, tmp_path, trials=1000, seed=int(os.environ.get("SEED", "2")))


# Forks a publisher for every audited file-system call of one publish (and prune) and kills it right before that call.
EVERY_CALL = """
import os, shutil, signal, sys
from pathlib import Path
from hpc_resume.checkpoints import layout, manifest
from hpc_resume.checkpoints.state_dict import StateComponent
from hpc_resume.checkpoints.store import Store

class State:
    def __init__(self, step): self.step = step
    def state_dict(self): return {"step": self.step}
    def load_state_dict(self, state): self.step = state["step"]

base = Path(sys.argv[1])

def store(directory):
    return Store(directory / "checkpoints", directory / "latest", attempt=1, keep=2)

def publish(directory, step):
    store(directory).publish(step, {"state": StateComponent(State(step)), "more": StateComponent(State(step))})

left = None
def hook(event, arguments):
    global left
    if left is None or not (event == "open" or event.startswith(("os.", "shutil."))):
        return
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
sys.addaudithook(hook)

origin = base / "origin"
origin.mkdir()
for step in (1, 2):
    publish(origin, step)

call, newest = 0, []
while True:
    directory = base / str(call)
    shutil.copytree(origin, directory)
    child = os.fork()
    if child == 0:
        left = call
        publish(directory, 3)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    loaded = store(directory).load()
    assert not loaded.skipped, (call, loaded.skipped)
    for path in (directory / "checkpoints").iterdir():
        if layout.parse_step(path.name) is not None:  # older ones too, half removed perhaps
            manifest.verify(path, manifest.read(path))
    state = State(0)
    StateComponent(state).load(loaded.newest.directory, "state", "json")
    assert state.step == loaded.newest.step >= 2, (call, state.step)
    newest.append(loaded.newest.step)
    store(directory).clear_leftovers()
    publish(directory, 4)
    names = sorted(path.name for path in (directory / "checkpoints").iterdir())
    assert names == [f"step-{loaded.newest.step:08d}", "step-00000004"], (call, names)
    if code == 0:
        break
    call += 1
assert newest == sorted(newest) and newest[0] == 2 and newest[-1] == 3
print("calls", call)
"""


def test_kill_before_every_file_system_call_of_a_publish(tmp_path):
    script = tmp_path / "every_call.py"
    script.write_text(textwrap.dedent(EVERY_CALL))
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, timeout=220, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) > 20
