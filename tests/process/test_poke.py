"""poke and explain over the local scheduler: the real command line, the real runtime, a training that is really asked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from .project import Project


@pytest.fixture
def project(project: Project) -> Project:
    """A training that ends only when it is asked to, and saves only then."""
    project.env["TOTAL_STEPS"] = "100000"
    project.write(checkpoint={"every": "1h"})
    return project


def begin(project: Project) -> subprocess.Popen[str]:
    """`hpc-resume run`, at its steps."""
    process = project.begin(sys.executable, "-m", "hpc_resume", "run")
    project.await_steps(1)
    return process


def test_save_saves_at_the_next_step_and_the_training_goes_on(project: Project) -> None:
    process = begin(project)
    told = project.answer("poke", "m-local-1", "save")
    assert (told["done"], told["attempt"], told["signal"]) == (True, 1, "URG")
    assert told["step"] > 0
    again = project.answer("poke", "m-local-1", "save")
    assert again["step"] > told["step"]
    events = project.events(1)
    assert [e["trigger"] for e in events if e["event"] == "saved"] == ["poke", "poke"]
    assert not [e for e in events if e["event"] in ("received", "stopped", "stray")]
    assert process.poll() is None
    state = project.answer("status", "m-local-1")["runs"][0]
    assert (state["state"], state["why"], state["attempts"]) == ("running", "", 1)
    found = project.answer("explain", "m-local-1")
    assert (found["state"], found["cause_words"]) == ("running", "nothing has stopped it yet")
    assert found["checkpoint_step"] == again["step"]


def test_requeue_saves_and_the_scheduler_starts_it_again(project: Project) -> None:
    begin(project)
    told = project.answer("poke", "local-1", "requeue")
    assert told["done"] is True
    assert told["words"].startswith("requeue: within the budgets")
    project.await_steps(2)
    found = project.answer("explain", "m-local-1")
    assert (found["state"], found["attempt"], found["cause"]) == ("running", 1, "operator")
    assert "asked for by hpc-resume poke requeue" in found["evidence"][0]
    assert found["next"]["decision"] == "requeue"
    assert [b["used"] for b in found["budgets"] if b["name"] in ("preempted", "total")] == [1, 1]
    stages = [moment["what"] for moment in found["warning"]]
    assert (stages[0], stages[-1]) == ("received", "gone")
    assert {"sent", "heard"} < set(stages)  # whose order is by who is first to write it down
    assert found["warning"][0]["ms"] == 0
    assert found["warning"][-1]["ms"] > 0
    assert found["checkpoint_step"] == told["step"]
    assert (project.directory / "runs/m-local-1" / found["files"][0]).name == "exit.json"


def test_stop_ends_it_for_good_and_explain_says_by_whom(project: Project) -> None:
    process = begin(project)
    told = project.answer("poke", "m-local-1", "stop")
    assert (told["done"], told["words"]) == (True, "cancelled; stop: cancelled by its owner")
    assert process.wait(60) == 138
    assert project.answer("status", "m-local-1")["runs"][0]["state"] == "cancelled"
    text = project.call("explain").stdout
    for words in (
        "m-local-1: cancelled, job local-1",
        "why           cancelled: its owner ended it (attempt 1)",
        "code          138: stopped for that signal",
        "decision      stop: cancelled by its owner",
        "do            `hpc-resume run --resume m-local-1`",
        f"goes on from  step {told['step']}",
        "its owner asked for: stop (control.json)",
        "total: 0 of 1000 used, 1000 left",
    ):
        assert words in text
    again = project.call("poke", "m-local-1", "save")
    assert (again.returncode, "attempt 1 has ended" in again.stderr) == (1, True)


def test_a_run_without_a_scheduler_saves_and_stops_and_is_not_requeued(project: Project) -> None:
    process = project.begin(sys.executable, "train.py")
    project.await_steps(1, "train/0001")
    target = "runs/train/0001"
    assert project.answer("poke", target, "save")["done"] is True
    refused = project.call("poke", target, "requeue")
    assert (refused.returncode, "nobody would start it again" in refused.stderr) == (1, True)
    told = project.answer("poke", target, "stop")
    assert (told["done"], "stopped, code 138" in told["words"]) == (True, True)
    assert process.wait(60) == 138


def test_a_save_that_the_disk_refuses_is_said_and_the_training_lives(project: Project) -> None:
    process = begin(project)
    first = project.answer("poke", "m-local-1", "save")
    checkpoints = project.directory / "runs/m-local-1/checkpoints"
    checkpoints.rename(checkpoints.with_name("elsewhere"))
    checkpoints.write_text("in the way")
    told = project.answer("poke", "m-local-1", "save", code=1)
    assert (told["done"], told["step"]) == (False, first["step"])
    assert "could not be saved" in told["words"]
    checkpoints.unlink()
    checkpoints.with_name("elsewhere").rename(checkpoints)
    assert project.answer("poke", "m-local-1", "save")["done"] is True
    assert process.poll() is None


def test_an_end_that_was_asked_for_is_not_forgotten_for_a_save(project: Project) -> None:
    """The training stands still, so that the first wish is still to be served."""
    process = begin(project)
    record = json.loads(next(project.attempt(1).glob("pids/*.0.json")).read_text())
    os.kill(record["pid"], signal.SIGSTOP)
    try:
        assert project.answer("poke", "m-local-1", "stop", "--no-wait")["done"] is None
        for weaker in ("save", "requeue"):
            done = project.call("poke", "m-local-1", weaker)
            assert (done.returncode, "has been asked to stop already" in done.stderr) == (1, True)
    finally:
        os.kill(record["pid"], signal.SIGCONT)
    assert process.wait(60) == 138
    assert project.answer("explain")["cause"] == "cancelled"


def test_no_wait_asks_and_leaves(project: Project) -> None:
    begin(project)
    told = project.answer("poke", "m-local-1", "save", "--no-wait")
    assert (told["done"], told["words"]) == (None, "")
    control = json.loads((project.attempt(1) / "control.json").read_text())
    assert (control["request"], control["attempt"], control["t"]) == ("save", 1, told["asked"])


@pytest.mark.parametrize("words", [("nothing-1", "save"), ("m-local-1", "dance"), ("99", "stop")])
def test_what_cannot_be_poked_is_refused_in_words(project: Project, words: tuple[str, str]) -> None:
    done = project.call("poke", *words)
    assert done.returncode in {1, 2}
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_a_crash_is_explained_with_its_own_words(project: Project) -> None:
    (project.directory / "train.py").write_text(
        "import hpc_resume\nwith hpc_resume.Run() as run:\n    raise ValueError('too hot')\n"
    )
    assert project.call("run").returncode == 1
    found = project.answer("explain")
    assert (found["state"], found["cause"]) == ("crashed", "crash")
    assert "ValueError: too hot" in found["cause_words"]
    assert found["next"]["decision"] == "stop"
    assert found["next"]["reason"] == "requeue.max.crash is used up (0 of 0)"
    assert {b["name"]: b["most"] for b in found["budgets"]} == {
        "timeout": None,
        "preempted": None,
        "crash": 0,
        "no_progress": 2,
        "total": 1000,
    }
    assert found["checkpoint"] == ""
