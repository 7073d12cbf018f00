"""poke and explain on a real cluster: each request does what it says, and each kind of end is explained."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, wait_for
from test_survival import Project, await_steps, causes, events, executed, preempt

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(480)]


@pytest.fixture
def project(cluster: Cluster, tmp_path: Path) -> Project:
    return Project(cluster, tmp_path)


def answer(project: Project, *words: str, code: int = 0) -> dict[str, Any]:
    done = project.cli(*words, "--json")
    assert done.returncode == code, done.stderr + done.stdout
    return json.loads(done.stdout)


def test_save_then_requeue_then_stop_of_one_job(project: Project) -> None:
    cluster = project.cluster
    job, run = project.submit(100_000)
    await_steps(run, 1)
    saved = answer(project, "poke", job, "save")
    assert (saved["done"], saved["signal"], saved["step"] > 0) == (True, "URG", True)
    assert cluster.state(job) == "RUNNING"
    assert "received" not in events(run, 1)

    requeued = answer(project, "poke", job, "requeue")
    assert (requeued["done"], requeued["words"]) == (True, f"job {job} is back in the queue")
    waiting = answer(project, "explain", job)
    assert (waiting["cause"], waiting["next"]["decision"]) == ("operator", "requeue")
    if waiting["state"] == "requeued":  # else it runs again already
        assert waiting["next"]["command"] == f"scontrol update JobId={job} StartTime=now+2"
        assert "back until" in waiting["next"]["words"]
    await_steps(run, 2)
    assert cluster.show(job)["Restarts"] == "1"
    running = answer(project, "explain", job)
    assert (running["state"], running["attempt"], running["cause"]) == ("running", 1, "operator")
    assert next(moment["what"] for moment in running["warning"]) == "received"
    assert {"heard", "saved", "gone"} <= {moment["what"] for moment in running["warning"]}
    assert "stray" not in events(run, 2)

    stopped = answer(project, "poke", run.name, "stop")
    assert stopped["done"] is True
    cluster.wait_state(job, "FAILED", "CANCELLED", seconds=30)
    assert causes(run) == ["operator", "cancelled"]
    ended = answer(project, "explain", job)
    assert (ended["state"], ended["cause"]) == ("cancelled", "cancelled")
    assert ended["next"]["command"] == f"hpc-resume submit --resume {run.name}"
    assert ended["checkpoint_step"] == stopped["step"]
    steps = [step for _, step in executed(run)]
    assert steps == list(range(len(steps))), "no step was lost or done twice"
    assert answer_error(project, "poke", job, "save").startswith(f"{run.name}: attempt 2 has ended")


def test_a_signal_that_was_meant_for_the_attempt_before_is_ignored_once(project: Project) -> None:
    """What Slurm does by chance, done on purpose: the request finds its attempt gone, its signal hits the next one."""
    cluster = project.cluster
    job, run = project.submit(100_000)
    await_steps(run, 1)
    cluster.check("scontrol", "requeue", job)
    wait_for(lambda: causes(run) == ["preempted"], 30, "the end")
    request = {"version": 1, "request": "requeue", "by": "test", "t": time.time(), "attempt": 1}
    (run / "attempts/0001/control.json").write_text(json.dumps(request))
    await_steps(run, 2)
    cluster.check("scancel", "-b", "-s", "USR1", job)
    wait_for(lambda: "stray" in events(run, 2), 15, "the stray signal")
    await_steps(run, 2, more=len(executed(run)) + 25)
    assert causes(run) == ["preempted", ""]
    cluster.check("scancel", "-b", "-s", "USR1", job)
    wait_for(lambda: causes(run) == ["preempted", "operator"], 15, "the second to be obeyed")


def answer_error(project: Project, *words: str) -> str:
    done = project.cli(*words)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_each_kind_of_end_is_explained(project: Project) -> None:
    """Preempted, killed without a word, held by its owner, crashed, finished: one job after the other."""
    cluster = project.cluster
    job, run = project.submit(300, requeue={"max": {"crash": 1}})
    await_steps(run, 1)
    preempt(project, job)
    wait_for(lambda: causes(run)[:1] == ["preempted"], 30, "the preemption")
    found = answer(project, "explain", job)
    assert (found["cause"], found["attempt"]) == ("preempted", 1)
    assert found["next"]["decision"] in ("requeue", "slurm")
    assert any("JobState=" in line or "PreemptTime=" in line for line in found["evidence"]), found["evidence"]

    await_steps(run, 2)
    record = json.loads(next(run.glob("attempts/0002/pids/*.0.json")).read_text())
    os.kill(record["pid"], signal.SIGKILL)
    wait_for(lambda: causes(run)[1:2] == ["crash"], 30, "the crash")
    cluster.check("scontrol", "uhold", job)
    found = wait_for(lambda: _held(project, job), 20, "the hold")
    assert (found["cause"], found["code"]["signal"]) == ("crash", "KILL")
    assert "out of memory" in found["code"]["hint"]
    assert (found["next"]["words"], found["next"]["command"]) == ("held: held by its owner", f"scontrol release {job}")
    assert {"name": "crash", "used": 1, "most": 1} in found["budgets"]
    assert f"`scontrol release {job}`" in project.cli("status", job).stdout

    cluster.check("scontrol", "release", job)
    cluster.check("scontrol", "update", f"JobId={job}", "StartTime=now+2")
    cluster.wait_state(job, "COMPLETED", seconds=60)
    found = answer(project, "explain", job)
    assert (found["state"], found["cause"], found["next"]["words"]) == (
        "finished",
        "finished",
        "nothing: the run is finished",
    )


def _held(project: Project, job: str) -> dict[str, Any] | None:
    done = project.cli("explain", job, "--json")
    found = json.loads(done.stdout) if done.returncode == 0 else None  # before the job has begun there may be no run
    return found if found is not None and found["next"]["words"].startswith("held") else None


def test_a_start_that_will_be_refused_and_a_lost_batch_shell_are_explained(project: Project) -> None:
    cluster = project.cluster
    job, run = project.submit(100_000, requeue={"on": ["timeout"]})
    await_steps(run, 1)
    cluster.check("scontrol", "requeue", job)  # as Slurm does it itself after a preemption: past our budgets
    wait_for(lambda: causes(run) == ["preempted"], 30, "the end")
    found = wait_for(lambda: _waiting(project, job), 20, "it in the queue")
    assert "its next start is refused: requeue.on does not name preempted" in found["next"]["words"]
    assert found["next"]["decision"] == "stop"
    cluster.check("scancel", job)

    job, run = project.submit(100_000)
    await_steps(run, 1)
    cluster.check("scancel", "-s", "KILL", f"{job}.0")  # the sentinel, which would decide in its place
    cluster.check("scancel", "-b", "-s", "KILL", job)
    cluster.wait_state(job, "FAILED", "CANCELLED", seconds=30)
    found = answer(project, "explain", job)
    assert (found["cause"], found["state"]) == ("node_fail", "lost")
    assert "attempt 1 has no exit.json" in found["evidence"][0]
    assert found["next"]["command"] == f"hpc-resume submit --resume {run.name}"
    assert "nothing was signalled" in answer_error(project, "poke", job, "save")


def test_a_job_that_has_not_begun_and_one_that_cannot_be_launched(project: Project) -> None:
    cluster = project.cluster
    job, run = project.submit(10, slurm={"hold": True})
    found = answer(project, "explain", job)
    assert (found["run"], found["state"], found["attempt"]) == (run.name, "pending", 0)
    assert (found["next"]["words"], found["next"]["command"]) == ("held: held by its owner", f"scontrol release {job}")
    assert f"`scontrol release {job}`" in project.cli("status", job).stdout
    assert "has not begun" in answer_error(project, "poke", job, "stop")

    in_the_way = [cluster.directory / "spool" / node / f"job{job:0>5}" for node in cluster.nodes]
    for path in in_the_way:  # slurmd cannot make the directory for the script: a launch failure that is real
        path.write_text("")
    cluster.check("scontrol", "release", job)
    found = wait_for(lambda: _held(project, job), 20, "Slurm to hold it")
    assert "its launch failed and Slurm holds it" in found["next"]["words"]
    assert found["next"]["command"] == f"scontrol release {job}"
    for path in in_the_way:
        path.unlink(missing_ok=True)


def test_a_run_that_we_hold_ourselves_says_why(project: Project) -> None:
    (project.directory / "train.py").write_text("raise SystemExit(9)\n")
    job, _ = project.submit(1, requeue={"max": {"crash": "unlimited", "no_progress": 0}})
    found = wait_for(lambda: _held(project, job), 40, "the hold")
    assert (found["cause"], found["next"]["decision"]) == ("crash", "hold")
    assert "no newer checkpoint in 1 attempts in a row" in found["next"]["reason"]
    assert (found["next"]["words"][:4], found["next"]["command"]) == ("held", f"scontrol release {job}")
    assert "no newer checkpoint in 1 attempts in a row" in project.cli("status", job).stdout


def _waiting(project: Project, job: str) -> dict[str, Any] | None:
    found = answer(project, "explain", job)
    return found if found["slurm_state"] == "PENDING" else None
