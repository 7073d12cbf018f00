"""Saves that go on behind the training, and a fast tier: what is not durable yet is never called durable."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path

import pytest

from hpc_resume.run.rundir import RunDir

# A slow disk: publishing on the shared file system takes as long as the file "slow" says.
TRAIN = """
import os, sys, time
from pathlib import Path
import hpc_resume
from hpc_resume.checkpoints import manifest

describe = manifest.describe
def slow(directory, known, *, sync=True, **more):
    if sync and Path("slow").exists():
        time.sleep(float(Path("slow").read_text()))
    return describe(directory, known, sync=sync, **more)
manifest.describe = slow

class State:
    def __init__(self): self.step, self.rows = 0, []
    def state_dict(self): return {"step": self.step, "rows": self.rows}
    def load_state_dict(self, state): self.step, self.rows = state["step"], state["rows"]

with hpc_resume.Run("run", every=int(sys.argv[2])) as run:
    state = State()
    run.register(state=state)
    assert (state.step, state.rows) == (run.start_step, list(range(run.start_step)))
    print(f"start {run.start_step}\\n", end="")
    for step in run.steps(int(sys.argv[1])):
        state.step = step + 1
        state.rows.append(step)  # in place, while the save before is being written
        print(f"step {step + 1}\\n", end="")
        time.sleep(0.002)
"""
ASYNC = {"HPC_RESUME_SAVE_ASYNC": "1"}


@pytest.fixture
def run(tmp_path) -> RunDir:
    return RunDir(tmp_path / "run")


def told(run: RunDir, attempt: int, event: str) -> list[dict]:
    return [dict(found.data) for found in run.attempt(attempt).events() if found.event == event]


def rows(run: RunDir, step: int) -> list[int]:
    return json.loads((run.checkpoint_dir(step) / "state.json").read_text())["rows"]


def test_the_training_goes_on_while_a_save_is_written_and_what_is_written_is_of_its_step(start, tmp_path, run):
    (tmp_path / "slow").write_text("0.3")
    child = start(TRAIN, "400", "20", **ASYNC)
    assert child.code() == 0, child.output
    saves = told(run, 1, "saved")
    assert [save["trigger"] for save in saves][-1] == "end"
    behind = [save for save in saves if save["trigger"] == "steps"]
    assert behind
    assert all(save["blocked"] < save["seconds"] - 0.25 for save in behind)
    for step in (path.name for path in run.checkpoints_dir.iterdir()):
        number = int(step.removeprefix("step-"))
        assert rows(run, number) == list(range(number)), "the training's later changes got into the file"


def test_at_most_one_is_in_flight_and_the_next_is_taken_when_it_has_landed(start, tmp_path, run):
    (tmp_path / "slow").write_text("0.1")
    child = start(TRAIN, "200", "1", **ASYNC)
    assert child.code() == 0, child.output
    steps = [save["step"] for save in told(run, 1, "saved")]
    assert steps == sorted(set(steps))
    assert 2 < len(steps) < 60, "every step was saved, or hardly one"


def test_a_warning_waits_for_the_save_in_flight_and_then_saves_its_own_step(start, tmp_path, run):
    (tmp_path / "slow").write_text("0.4")
    child = start(TRAIN, "100000", "50", **ASYNC)
    child.wait_line("step 55")
    child.signal(signal.SIGUSR1)
    assert child.code() == 138, child.output
    saves = told(run, 1, "saved")
    assert saves[0]["step"] == 50
    assert saves[-1]["trigger"] == "warning"
    last = run.attempt(1).outcome().step
    assert last == saves[-1]["step"] == run.latest_step() > 50
    (tmp_path / "slow").unlink()
    again = start(TRAIN, str(last + 3), "50", **ASYNC)
    again.wait_line(f"start {last}")
    assert again.code() == 0, again.output


def test_a_warning_at_the_step_that_is_in_flight_saves_nothing_more(start, tmp_path, run):
    (tmp_path / "slow").write_text("0.4")
    source = TRAIN.replace("time.sleep(0.002)", "os.kill(os.getpid(), 10) if step + 1 == 21 else None").replace(
        "run.steps(int(sys.argv[1])):", "run.steps(int(sys.argv[1])):\n        if step == 20: run.checkpoint_point(20)"
    )
    source = source.replace("if step + 1 == 21 else None", "if step + 1 == 20 else None")
    child = start(source, "1000", "20", **ASYNC)
    assert child.code() == 138, child.output
    assert [save["step"] for save in told(run, 1, "saved")] == [20]


def test_kill_while_a_save_is_in_flight_leaves_the_one_before(start, tmp_path, run):
    child = start(TRAIN, "100000", "20", **ASYNC)
    child.wait_line("step 30")
    (tmp_path / "slow").write_text("30")
    child.wait_line("step 75")
    child.signal(signal.SIGKILL)
    child.code()
    (tmp_path / "slow").unlink()
    durable = run.latest_step()
    assert durable >= 20
    assert told(run, 1, "saved")[-1]["step"] == durable
    again = start(TRAIN, "100", "20", **ASYNC)
    again.wait_line(f"start {durable}")
    assert again.code() == 0, again.output
    assert not [path for path in run.checkpoints_dir.iterdir() if ".tmp." in path.name]


def test_a_disk_that_refuses_behind_is_said_and_the_training_goes_on(start, tmp_path, run):
    source = TRAIN.replace("describe = manifest", "broken = Path('broken')\ndescribe = manifest").replace(
        "    return describe(",
        "    if sync and broken.exists(): raise OSError(28, 'No space left on device')\n    return describe(",
    )
    child = start(source, "100000", "10", **ASYNC)
    child.wait_line("step 15")
    (tmp_path / "broken").write_text("")
    child.wait_line("could not be saved: No space left on device below")
    (tmp_path / "broken").unlink()
    child.signal(signal.SIGUSR1)
    assert child.code() == 138, child.output
    assert run.latest_step() == run.attempt(1).outcome().step > 15


# --- the fast tier -------------------------------------------------------------------------------------------------


def fast_steps(fast: Path) -> list[str]:
    """The whole ones: not what is being written, or removed, at this moment."""
    names = (path.name for path in fast.glob("hpc_resume-*/checkpoints/*"))
    return sorted(name for name in names if re.fullmatch(r"step-\d+", name))


def fast_ahead(fast: Path, run: RunDir) -> bool:
    return fast_steps(fast)[-1:] > [f"step-{run.latest_step():08d}"]


@pytest.mark.parametrize("more", [{}, ASYNC], ids=["sync", "async"])
def test_on_the_same_node_the_fast_copy_is_used_and_on_another_the_shared_one(start, tmp_path, run, eventually, more):
    fast = {"HPC_RESUME_FAST_DIR": str(tmp_path / "fast")} | more
    child = start(TRAIN, "100000", "10", **fast)
    eventually(run.latest_step, "a first save on the shared file system")
    (tmp_path / "slow").write_text("60")  # the shared file system takes for ever from now on
    for _ in range(60):
        child.wait_line("step")

    def stopped_ahead() -> bool:
        """Between two saves: not where one is whole and its line still to be written."""
        child.signal(signal.SIGSTOP)
        said = f"step-{told(run, 1, 'saved_fast')[-1]['step']:08d}"
        if fast_ahead(tmp_path / "fast", run) and fast_steps(tmp_path / "fast")[-1] == said:
            return True
        child.signal(signal.SIGCONT)
        return False

    eventually(stopped_ahead, "a newer one in the fast tier")
    child.signal(signal.SIGKILL)
    child.code()
    durable, kept = run.latest_step(), fast_steps(tmp_path / "fast")
    newest = int(kept[-1].removeprefix("step-"))
    assert newest > durable >= 10
    assert told(run, 1, "saved")[-1]["step"] == durable, "what only this node has was called saved"
    assert told(run, 1, "saved_fast")[-1]["step"] == newest
    (tmp_path / "slow").unlink()

    shutil.copytree(tmp_path / "run", tmp_path / "elsewhere" / "run")
    other = start(TRAIN, "100000", "10", HPC_RESUME_RUN_DIR=str(tmp_path / "elsewhere" / "run"), **fast)
    other.wait_line(f"start {durable}")
    other.signal(signal.SIGUSR1)
    assert other.code() == 138

    again = start(TRAIN, str(newest + 50), "1000", **fast)
    again.wait_line(f"start {newest}")
    assert again.code() == 0, again.output
    assert told(run, 2, "saved")[0] | {"seconds": 0} == {
        "step": newest, "seconds": 0, "trigger": "fast_dir", "blocked": 0.0,
    }  # fmt: skip
    assert run.latest_step() == newest + 50
    assert list((tmp_path / "fast").glob(f"hpc_resume-*-run-*/checkpoints/step-{newest + 50:08d}")) == []


def test_a_fast_copy_that_does_not_verify_or_is_of_another_boot_is_passed_over(start, tmp_path, run, eventually):
    fast = {"HPC_RESUME_FAST_DIR": str(tmp_path / "fast")}
    for spoil in ("flip", "boot"):
        child = start(TRAIN, "100000", "10", **fast)
        begun = int(child.wait_line("start").split()[1])
        eventually(lambda begun=begun: (run.latest_step() or 0) > begun, "a first save on the shared file system")
        (tmp_path / "slow").write_text("60")
        eventually(lambda: fast_ahead(tmp_path / "fast", run), "a newer one in the fast tier")
        child.signal(signal.SIGKILL)
        child.code()
        (tmp_path / "slow").unlink()
        own = next((tmp_path / "fast").iterdir())
        if spoil == "flip":
            for step in fast_steps(tmp_path / "fast"):  # two, when the kill came between a save and the next removal
                state = own / "checkpoints" / step / "state.json"
                data = bytearray(state.read_bytes())
                data[-9] ^= 1
                state.write_bytes(data)
        else:
            owner = json.loads((own / "owner.json").read_text()) | {"boot_id": "before"}
            (own / "owner.json").write_text(json.dumps(owner))
        durable = run.latest_step()
        again = start(TRAIN, "100000", "10", **fast)
        again.wait_line(f"start {durable}")
        again.signal(signal.SIGUSR1)
        assert again.code() == 138, again.output


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("$NOWHERE_SET/fast", "fast_dir $NOWHERE_SET/fast: $NOWHERE_SET is not set on this node"),
        ("${EMPTY}/fast", "fast_dir ${EMPTY}/fast: $EMPTY is not set on this node"),
        ("fast", "fast_dir fast: it must be absolute"),
    ],
)
def test_a_fast_dir_that_names_no_directory_of_the_node_is_done_without(start, tmp_path, run, asked, words):
    child = start(TRAIN, "20", "5", HPC_RESUME_FAST_DIR=asked, EMPTY="")
    assert child.code() == 0, child.output
    assert words in child.output
    assert "saves go to the shared file system alone" in child.output
    assert run.latest_step() == 20
    assert not [path for path in tmp_path.iterdir() if path.name == "fast" or "$" in path.name]


def test_a_fast_dir_of_the_node_may_be_named_by_its_variable(start, tmp_path, run, eventually):
    child = start(TRAIN, "100000", "5", HPC_RESUME_FAST_DIR="${NODE_TMP}/fast", NODE_TMP=str(tmp_path / "node"))
    eventually(lambda: fast_steps(tmp_path / "node" / "fast"), "a save there")
    child.signal(signal.SIGUSR1)
    assert child.code() == 138, child.output
    assert run.latest_step() > 0


def test_a_fast_dir_of_somebody_else_is_refused_and_one_that_is_not_there_is_done_without(start, tmp_path, run):
    child = start(TRAIN, "20", "5", HPC_RESUME_FAST_DIR="/proc/nowhere")
    assert child.code() == 0, child.output
    assert "saves go to the shared file system alone" in child.output
    (tmp_path / "fast").mkdir()
    shutil.rmtree(tmp_path / "run")
    first = start(TRAIN, "100000", "5", HPC_RESUME_FAST_DIR=str(tmp_path / "fast"))
    first.wait_line("step 12")
    first.signal(signal.SIGKILL)
    first.code()
    own = next((tmp_path / "fast").iterdir())
    own.rename(tmp_path / "moved")
    own.symlink_to(tmp_path / "moved")
    again = start(TRAIN, "100000", "5", HPC_RESUME_FAST_DIR=str(tmp_path / "fast"))
    assert again.code() == 78
    assert "is a link or belongs to somebody else" in again.output


@pytest.mark.parametrize("more", [{}, ASYNC], ids=["sync", "async"])
@pytest.mark.parametrize("files", [False, True], ids=["states", "files"])
def test_a_full_fast_tier_is_said_once_and_done_without(start, tmp_path, run, more, files):
    source = TRAIN.replace(
        "    return describe(", "    if not sync: raise OSError(28, 'No space left on device')\n    return describe("
    )
    if files:  # which cannot be copied in memory first: what was written at the boundary goes with the fast tier
        source = source.replace(
            "    assert (", "    run.register_io(save=lambda to: None, load=lambda of: None)\n    assert ("
        )
    child = start(source, "60", "10", HPC_RESUME_FAST_DIR=str(tmp_path / "fast"), **more)
    assert child.code() == 0, child.output
    assert child.output.count("the fast tier is full or broken") == 1
    saved = [save["step"] for save in told(run, 1, "saved")]
    assert saved[-1] == 60
    assert saved[0] >= 20 if more and files else saved[0] == 10
    assert more or saved == [10, 20, 30, 40, 50, 60]
    assert list((tmp_path / "fast").iterdir()) == []
