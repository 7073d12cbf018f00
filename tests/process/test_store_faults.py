"""Each call of a publish, a prune and their clean-up that reaches the disk fails once, in each way, or is the last."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

FAULTS = ("KILL", "EIO", "ENOSPC", "EDQUOT", "EROFS")
COMPILER = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)

DRIVER = """
import ctypes, errno, os, shutil, sys
from pathlib import Path
from hpc_resume.checkpoints.placing import ByManifest, ByRename
from hpc_resume.checkpoints.state_dict import StateComponent
from hpc_resume.checkpoints.store import Store
from hpc_resume.errors import CheckpointError

base, placing, name = Path(sys.argv[1]), {"rename": ByRename, "manifest": ByManifest}[sys.argv[2]], sys.argv[3]
adopts = sys.argv[4] == "adopt"
number = 0 if name == "KILL" else getattr(errno, name)
sticky = name in ("ENOSPC", "EDQUOT", "EROFS")  # what goes on until somebody does something
faults = ctypes.CDLL(os.environ["LD_PRELOAD"])

class State:
    def __init__(self, step): self.step = step
    def state_dict(self): return {"step": self.step, "text": "x" * self.step}
    def load_state_dict(self, state): self.step = state["step"]

def store(directory, generation):
    made = Store(directory / "checkpoints", directory / "latest", attempt=1, keep=2, generation=generation)
    made._placing = placing(directory / "checkpoints", generation)
    return made

def publish(made, step):
    return made.publish(step, {"state": StateComponent(State(step)), "more": StateComponent(State(step))})

origin = base / "origin"
origin.mkdir()
for step in (1, 2):
    publish(store(origin, 1), step)

source = publish(Store(base / "fast", None, attempt=1, keep=1), 3).published
call, lost = 0, 0
while True:
    directory = base / str(call)
    shutil.copytree(origin, directory)
    made = store(directory, 1)
    assert made.load().newest.step == 2
    if os.fork() == 0:
        faults.fault_arm(call, number, sticky)
        code = 7
        try:
            made.adopt(source) if adopts else publish(made, 3)
            code = 0
        except CheckpointError as error:
            assert "below" in str(error), error
        os._exit(code if faults.fault_count() > call else 10)
    code = os.waitstatus_to_exitcode(os.wait()[1])
    assert code in (0, 7, 10) or (code == -9 and number == 0), (call, code)
    after = store(directory, 1)
    loaded = after.load()
    assert not loaded.skipped, (call, loaded.skipped)
    assert loaded.newest.step == 3 if code in (0, 10) else loaded.newest.step in (2, 3), (call, code)
    state = State(0)
    StateComponent(state).load(loaded.newest.directory, "state", "json")
    assert state.step == loaded.newest.step
    assert {file.path for file in loaded.newest.manifest.files} == {"state.json", "more.json"}, call
    lost += loaded.newest.step == 2
    after.clear_leftovers()
    receipt = publish(after, 4)
    assert receipt.warnings == (), receipt.warnings
    names = sorted(path.name for path in (directory / "checkpoints").iterdir())
    assert names == [f"step-{loaded.newest.step:08d}", "step-00000004"], (call, names)
    assert (directory / "latest").read_text() == "step-00000004\\n"
    shutil.rmtree(directory)
    if code == 10:
        break
    call += 1
print("calls", call, "before the commit", lost)
"""

START = """
import ctypes, errno, os, shutil, sys
from pathlib import Path
from hpc_resume.checkpoints.generations import Generations
from hpc_resume.checkpoints.placing import ByManifest, ByRename
from hpc_resume.checkpoints.state_dict import StateComponent
from hpc_resume.checkpoints.store import Store
from hpc_resume.errors import HpcResumeError

base, placing, name = Path(sys.argv[1]), {"rename": ByRename, "manifest": ByManifest}[sys.argv[2]], sys.argv[3]
number = 0 if name == "KILL" else getattr(errno, name)
faults = ctypes.CDLL(os.environ["LD_PRELOAD"])

class State:
    def __init__(self, step): self.step = step
    def state_dict(self): return {"step": self.step}

def start(run):
    log = Generations(run / "lease")
    generation = log.claim({"pid": 1})
    store = Store(run / "checkpoints", run / "latest", attempt=1, keep=2, generation=generation)
    store._placing = placing(run / "checkpoints", generation)
    store.clear_leftovers()
    loaded = store.load()
    if loaded.newest is None and [skipped for skipped in loaded.skipped if not skipped.lasting]:
        raise SystemExit(7)  # as run/storage.py refuses it
    log.go_on_from(generation, loaded.newest.step if loaded.newest else 0)
    for skipped in loaded.skipped:
        store.set_aside(skipped)
    store.point_latest(loaded.newest.step)
    return store, loaded

origin = base / "origin"
origin.mkdir()
store = Store(origin / "checkpoints", origin / "latest", attempt=1, keep=3)
store._placing = placing(origin / "checkpoints", 0)
for step in (1, 2, 3):
    store.publish(step, {"state": StateComponent(State(step))})
store.begin(4)  # whoever wrote it was killed
(origin / "checkpoints" / "step-00000003" / "state.json").write_text("{}")

call = 0
while True:
    directory = base / str(call)
    shutil.copytree(origin, directory)
    if os.fork() == 0:
        faults.fault_arm(call, number, False)
        code = 7
        try:
            start(directory)
            code = 0
        except (OSError, HpcResumeError):
            pass
        finally:
            os._exit(code if faults.fault_count() > call else 10)
    code = os.waitstatus_to_exitcode(os.wait()[1])
    assert code in (0, 7, 10) or (code == -9 and number == 0), (call, code)
    store, loaded = start(directory)
    assert loaded.newest.step in (1, 2) if number else loaded.newest.step == 2, (call, code, loaded)
    if loaded.newest.step == 1:  # what could not be read while the start looked at it has been gone on without
        assert code == 0, call
    assert (directory / "latest").read_text() == f"step-{loaded.newest.step:08d}\\n"
    for step in (3, 4):
        assert store.publish(step, {"state": StateComponent(State(step))}).warnings == (), call
    steps = sorted(path.name for path in (directory / "checkpoints").iterdir() if ".broken-" not in path.name)
    assert steps == ["step-00000003", "step-00000004"], (call, steps)
    shutil.rmtree(directory)
    if code == 10:
        break
    call += 1
print("calls", call)
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> Path:
    built = tmp_path_factory.mktemp("faults") / "faults.so"
    source = Path(__file__).with_name("faults.c")
    done = subprocess.run(
        [COMPILER, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", built, source, "-ldl"],
        capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return built


@pytest.mark.timeout(480)
@pytest.mark.parametrize(
    ("what", "placing", "fault"),
    [
        *(("publish", how, fault) for how in ("rename", "manifest") for fault in FAULTS),
        *(("adopt", "rename", fault) for fault in ("KILL", "EIO", "ENOSPC")),
    ],
)
def test_no_call_of_a_publish_can_fail_so_that_a_good_checkpoint_is_lost(library, tmp_path, what, placing, fault):
    script = tmp_path / "driver.py"
    script.write_text(textwrap.dedent(DRIVER))
    done = subprocess.run(
        [sys.executable, script, tmp_path, placing, fault, what],
        env=os.environ | {"LD_PRELOAD": str(library)}, capture_output=True, text=True, timeout=450, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    calls, lost = int(done.stdout.split()[1]), int(done.stdout.split()[-1])
    assert calls > 50, "the faults did not reach the calls"
    assert 15 < lost < calls, "no call before the commit, or none after it, was hit"


@pytest.mark.timeout(480)
@pytest.mark.parametrize(("placing", "fault"), [("rename", "KILL"), ("rename", "EIO"), ("manifest", "KILL")])
def test_no_call_of_a_start_can_fail_so_that_a_good_checkpoint_is_lost(library, tmp_path, placing, fault):
    """A start that claims, clears away, finds the newest broken and goes on from the one before."""
    script = tmp_path / "driver.py"
    script.write_text(textwrap.dedent(START))
    done = subprocess.run(
        [sys.executable, script, tmp_path, placing, fault],
        env=os.environ | {"LD_PRELOAD": str(library)}, capture_output=True, text=True, timeout=450, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[1]) > 50, "the faults did not reach the calls"
