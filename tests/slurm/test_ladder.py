"""The requeue's ladder on a real cluster: every rung taken, looked at, and said; no storm, no silent end."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, wait_for
from test_survival import Project, await_steps, causes, events, executed, exit_record, lost, preempt

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(480)]


@pytest.fixture
def project(cluster: Cluster, tmp_path: Path) -> Project:
    return Project(cluster, tmp_path)


@pytest.fixture
def cancelling(cluster: Cluster) -> Iterator[str]:
    """A partition whose jobs preemption cancels."""
    words = ("Nodes=ALL", "PriorityTier=1", "PreemptMode=CANCEL", "GraceTime=0", "MaxTime=UNLIMITED", "State=UP")
    cluster.check("scontrol", "create", "PartitionName=cancelling", *words)
    yield "cancelling"
    cluster.cancel_all()
    cluster.check("scontrol", "delete", "PartitionName=cancelling")


def decision(run: Path, attempt: int) -> tuple[str, str]:
    record = exit_record(run / f"attempts/{attempt:04d}")
    return record["decision"], record["reason"]


def test_a_job_that_preemption_cancels_is_put_back(project: Project, cancelling: str) -> None:
    """PreemptMode=CANCEL looks like scancel but for PreemptTime."""
    job, run = project.submit(200, slurm={"partition": cancelling})
    await_steps(run, 1)
    preempt(project, job)
    project.cluster.wait_state(job, "COMPLETED", seconds=60)
    assert causes(run) == ["preempted", "finished"], project.words(run)
    assert len(executed(run)) == 200


def test_scancel_in_that_partition_is_still_a_cancel(project: Project, cancelling: str) -> None:
    job, run = project.submit(100_000, slurm={"partition": cancelling})
    await_steps(run, 1)
    project.cluster.check("scancel", job)
    project.cluster.wait_state(job, "CANCELLED", seconds=30)
    assert causes(run) == ["cancelled"]


def test_a_successor_inherits_the_run_where_the_job_cannot_be_requeued(project: Project) -> None:
    """JobRequeue=0 and the like: scontrol's refusal is the first rung's end, not the run's."""
    cluster = project.cluster
    project.spec(200)
    assert project.cli("render", "-o", "job.sbatch").returncode == 0
    words = ("--no-requeue", "-p", "low")  # the command line wins over the script's --requeue
    job = cluster.sbatch(*words, script=project.directory / "job.sbatch", cwd=project.directory)
    run = project.directory / "runs" / f"job-{job}"
    await_steps(run, 1)
    cluster.check("scancel", "-b", "-s", "USR1", job)
    successor = str(wait_for(lambda: exit_record(run / "attempts/0001").get("successor"), 30, "a successor"))
    cluster.wait_state(successor, "COMPLETED", seconds=60)
    assert decision(run, 1)[0] == "requeue"
    assert causes(run) == ["operator", "finished"]
    assert json.loads((run / "attempts/0002/attempt.json").read_text())["job_id"] == successor
    assert len(executed(run)) == 200
    assert successor in cluster.show(job)["Comment"]
    assert not list(project.directory.glob(f"runs/job-{successor}"))


def test_method_successor_for_one_array_task_leaves_the_others_alone(project: Project) -> None:
    cluster = project.cluster
    job, run = project.submit(200, slurm={"array": "0-1"}, requeue={"method": "successor"})
    tasks = [run.with_name(f"{run.name}_{task}") for task in range(2)]
    for task in tasks:
        await_steps(task, 1)
    cluster.check("scancel", "-b", "-s", "USR1", f"{job}_1")
    successor = str(wait_for(lambda: exit_record(tasks[1] / "attempts/0001").get("successor"), 30, "a successor"))
    cluster.wait_state(f"{successor}_1", "COMPLETED", seconds=60)
    cluster.wait_state(f"{job}_0", "COMPLETED", seconds=60)
    assert [causes(task) for task in tasks] == [["finished"], ["operator", "finished"]]
    assert cluster.show(f"{job}_0")["Restarts"] == "0"


def test_a_crash_loop_backs_off_and_ends_at_its_budget(project: Project) -> None:
    """Budget 2: three starts and no more; the third waits half a minute, the reason is in the job's comment."""
    cluster = project.cluster
    (project.directory / "train.py").write_text("raise SystemExit(9)\n")
    job, run = project.submit(1, requeue={"max": {"crash": 2, "no_progress": "unlimited"}})
    wait_for(lambda: len(causes(run)) == 2 and causes(run)[1], 60, "the second crash")
    held_back = wait_for(lambda: _start(cluster, job) > time.time() + 15 and cluster.show(job), 20, "the back-off")
    assert held_back["JobState"] == "PENDING"
    # As `status` says it. Within the second in which the last attempt ended the node would refuse the start.
    cluster.check("scontrol", "update", f"JobId={job}", "StartTime=now+2")
    state = cluster.wait_state(job, "FAILED", seconds=60)
    assert state["ExitCode"] == "9:0"
    assert causes(run) == ["crash"] * 3
    assert "requeue.max.crash is used up (2 of 2)" in state["Comment"]


def test_a_run_without_progress_is_held_with_the_reason_visible(project: Project) -> None:
    cluster = project.cluster
    (project.directory / "train.py").write_text("raise SystemExit(9)\n")
    job, run = project.submit(1, requeue={"max": {"crash": "unlimited", "no_progress": 0}})
    wait_for(lambda: "held" in cluster.show(job)["Reason"].lower(), 40, "the hold")
    wait_for(
        lambda: "no newer checkpoint in 1 attempts in a row" in cluster.show(job).get("Comment", ""), 10, "it said"
    )
    assert cluster.wait_state(job, "PENDING", seconds=20)["Restarts"] == "1"
    assert decision(run, 1)[0] == "hold"
    assert len(causes(run)) == 1


def test_slurmctld_away_while_the_requeue_is_pending(project: Project) -> None:
    cluster = project.cluster
    job, run = project.submit(200)
    await_steps(run, 1)
    cluster.check("scancel", "-b", "-s", "USR1", job)
    cluster.stop_controller()  # killed, it would have forgotten so young a job
    wait_for(lambda: (run / "latest").exists(), 20, "the save")
    cluster.start_controller()
    cluster.wait_state(job, "COMPLETED", seconds=90)
    assert causes(run)[-1] == "finished"
    assert len({step for _, step in executed(run)}) == len(executed(run)) == 200


def test_a_requeue_that_slurmctld_forgets_is_asked_for_again(project: Project) -> None:
    """Killed after its answer and before it has saved that: it comes back with a job that runs, and never was requeued.

    KillWait as it is by default: the batch shell, which is being ended, has that long to ask again.
    """
    cluster = project.cluster
    cluster.set_kill_wait(30)
    # Between the confirmed requeue and the last look: Slurm's TERM is here by then, and the shell is to be held.
    pause = "hr::take_along() { until [[ -e go ]]; do sleep 0.1; done; }"
    job, run = project.submit(2000, setup=pause)
    await_steps(run, 1)
    saved, seen = cluster.directory / "state/job_state", time.time()
    wait_for(lambda: saved.exists() and saved.stat().st_mtime > seen, 20, "slurmctld to save the running job")
    cluster.check("scancel", "-b", "-s", "USR1", job)
    wait_for(lambda: "requeued" in events(run, 1), 30, "the requeue", interval=0.01)
    cluster.kill_controller()
    (project.directory / "go").touch()
    cluster.start_controller()
    await_steps(run, 2)
    assert "forgotten" in events(run, 1)
    assert decision(run, 1)[0] == "requeue"
    assert cluster.show(job)["Restarts"] == "1"
    cluster.check("scancel", job)


def killed(project: Project, **keys: Any) -> tuple[str, Path]:
    """A job whose batch shell was killed and whose sentinel decided.

    Seen in 3 of 28 on a busy machine: Slurm ends the step's srun, and with it the sentinel, before it has. Then another.
    """
    for _ in range(5):
        job, run = project.submit(200, **keys)
        await_steps(run, 1)
        wait_for(lambda run=run: list(run.glob("attempts/0001/sentinels/*.json")), 30, "the sentinel")
        os.kill(json.loads((run / "attempts/0001/attempt.json").read_text())["pid"], signal.SIGKILL)
        project.cluster.wait_state(job, "COMPLETED", "FAILED", seconds=90)
        if exit_record(run / "attempts/0001"):
            return job, run
    raise AssertionError("five sentinels in a row were ended before they could decide")


def test_a_job_whose_batch_shell_is_killed_comes_back(project: Project) -> None:
    """Slurm calls it failed; its sentinel outlives the shell, and decides by the same table."""
    job, run = killed(project, checkpoint={"every": 20})
    project.cluster.wait_state(job, "COMPLETED", seconds=90)
    assert causes(run) == ["node_fail", "finished"], project.words(run)
    assert "the batch shell was killed" in exit_record(run / "attempts/0001")["evidence"]
    assert decision(run, 1)[0] == "requeue"
    assert len({step for _, step in executed(run)}) == 200
    assert lost(run) <= 20
    assert "its sentinel decides" in project.words(run)


def test_a_killed_batch_shell_is_not_brought_back_where_that_was_not_asked_for(project: Project) -> None:
    job, run = killed(project, requeue={"on": ["timeout"]})
    project.cluster.wait_state(job, "FAILED", seconds=60)  # whose comment Slurm no longer lets us write
    assert decision(run, 1) == ("stop", "requeue.on does not name node_fail")


def _start(cluster: Cluster, job: str) -> float:
    try:
        return time.mktime(time.strptime(cluster.show(job)["StartTime"], "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return 0.0


def test_a_node_that_ends_a_run_twice_without_a_word_is_left_out(project: Project) -> None:
    """Two attempts on one node without exit.json, as a dying node leaves them; the next requeue avoids it."""
    cluster = project.cluster
    job, run = project.submit(250)
    await_steps(run, 1)
    node = cluster.show(job)["NodeList"]
    first = json.loads((run / "attempts/0001/attempt.json").read_text())
    # Also to its sentinel, so that it does not stand in for the batch shell.
    wait_for(lambda: list(run.glob("attempts/0001/sentinels/*.json")), 30, "the sentinel")
    os.kill(json.loads(next(run.glob("attempts/0001/sentinels/*.json")).read_text())["pid"], signal.SIGKILL)
    (run / "attempts/0001").rename(run / "attempts/0003")  # the real one becomes the newest of three
    for number in (1, 2):
        (run / f"attempts/{number:04d}").mkdir()
        record = first | {"attempt": number, "host": node, "boot_id": "another"}
        (run / f"attempts/{number:04d}/attempt.json").write_text(json.dumps(record))
    cluster.check("scancel", "-s", "KILL", "-b", job)  # and the running one ends without a word too
    cluster.wait_state(job, "FAILED", "NODE_FAIL", "CANCELLED", "COMPLETED", "PENDING", seconds=40)
    again = project.cli("submit", "job.yaml", "--resume", run.name, "--json")
    assert again.returncode == 0, again.stderr
    job = str(json.loads(again.stdout)["job_id"])
    await_steps(run, 4)
    cluster.check("scancel", "-b", "-s", "USR1", job)
    wait_for(lambda: cluster.show(job)["ExcNodeList"] == node, 30, "the exclusion")
    cluster.wait_state(job, "COMPLETED", seconds=60)
    assert json.loads((run / "attempts/0005/attempt.json").read_text())["host"] != node
    assert "twice in a row without a word" in (project.directory / f"slurm-{job}.out").read_text()
