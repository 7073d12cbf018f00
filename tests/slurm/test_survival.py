"""The main job on a real cluster: interrupted in every way Slurm has, it comes back by itself with the same state."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(480)]

TRAIN = Path(__file__).with_name("train.py")
STEP_SECONDS = "0.02"


class Project:
    """A user's directory: train.py, job.yaml and what comes of them."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.cluster = cluster
        self.directory = directory
        shutil.copy(TRAIN, directory / "train.py")

    def spec(self, steps: int, **keys: Any) -> Path:
        """Write job.yaml; JSON is YAML."""
        command = [sys.executable, "train.py", str(steps), STEP_SECONDS]
        spec = {"name": "job", "command": command, "checkpoint": {"every": "1h"}} | keys
        spec["slurm"] = {"partition": "low", "time": "10:00", "mem": "100M"} | keys.get("slurm", {})
        path = self.directory / "job.yaml"
        path.write_text(json.dumps(spec))
        return path

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`hpc-resume` as a user calls it."""
        return subprocess.run(
            [sys.executable, "-m", "hpc_resume", *words],
            cwd=self.directory,
            env=self.cluster.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )

    def submit(self, steps: int, **keys: Any) -> tuple[str, Path]:
        """Submit; the job id and the directory of the run."""
        self.spec(steps, **keys)
        done = self.cli("submit", "job.yaml", "--json")
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        return str(answer["job_id"]), self.directory / "runs" / answer["run"]

    def reference(self, steps: int) -> dict[str, Any]:
        """The final state of the same training, uninterrupted, without Slurm and without waiting."""
        directory = self.directory / "reference"
        directory.mkdir()
        env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "HPC_RESUME"))}
        env["HPC_RESUME_RUN_DIR"] = str(directory / "run")
        subprocess.run([sys.executable, TRAIN, str(steps), "0"], check=True, cwd=directory, env=env, timeout=90)
        return json.loads((directory / "run" / "final.json").read_text())

    def words(self, run: Path) -> str:
        """What the job printed, for an assertion's message."""
        logs = [path.read_text() for path in self.directory.glob("slurm-*.out")]
        return "\n".join([*logs, *(str(exit_record(d)) for d in sorted(run.glob("attempts/*")))])


@pytest.fixture
def project(cluster: Cluster, tmp_path: Path) -> Project:
    return Project(cluster, tmp_path)


def executed(run: Path) -> list[tuple[int, int]]:
    """(attempt, step) of every executed step, in order."""
    try:
        lines = (run / "executed.log").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [(int(a), int(s)) for a, s in (line.split() for line in lines)]


def exit_record(attempt: Path) -> dict[str, Any]:
    try:
        return json.loads((attempt / "exit.json").read_text())
    except FileNotFoundError:
        return {}


def causes(run: Path) -> list[str]:
    return [exit_record(attempt).get("cause", "") for attempt in sorted(run.glob("attempts/*"))]


def events(run: Path, attempt: int) -> list[str]:
    """The names of an attempt's events, whole lines only."""
    paths = run.glob(f"attempts/{attempt:04d}/events/*.jsonl")
    lines = [line for path in paths for line in path.read_text().split("\n")[:-1]]
    return [json.loads(line)["event"] for line in lines]


def await_steps(run: Path, attempt: int, more: int = 25) -> None:
    """Wait until an attempt has executed some steps."""
    wait_for(lambda: sum(a == attempt for a, _ in executed(run)) >= more, 60, f"attempt {attempt} at work")


def preempt(project: Project, job: str) -> None:
    """Ask for the job's whole node from the partition that may preempt."""
    node = project.cluster.show(job)["NodeList"]
    words = ("-p", "high", "-w", node, "--exclusive", "-o", "/dev/null")
    project.cluster.sbatch(*words, script="#!/bin/bash\nsleep 0.5\n", cwd=project.directory)


def lost(run: Path) -> int:
    """Steps executed more than once."""
    return sum(count - 1 for count in Counter(step for _, step in executed(run)).values())


def test_five_interruptions_each_of_another_kind(project: Project) -> None:
    cluster, steps = project.cluster, 2600
    slurm = {"time": "1"}  # --signal is checked every 30 s: the warning comes after 28 s of this minute
    job, run = project.submit(steps, slurm=slurm, preemption={"lead": "30s"})
    await_steps(run, 1)
    await_steps(run, 2)  # the time limit's warning has come and gone
    cluster.check("scontrol", "update", f"JobId={job}", "TimeLimit=30")  # from here on no warning can be a time limit's

    preempt(project, job)  # GraceTime=0: TERM to everything at once, and Slurm requeues by itself
    await_steps(run, 3)

    cluster.set_grace("low", 4)  # the batch shell hears nothing before the end of the grace time
    preempt(project, job)
    await_steps(run, 4)

    cluster.set_user_signal(True)
    preempt(project, job)
    await_steps(run, 5)

    cluster.check("scancel", "-b", "-s", "USR1", job)
    await_steps(run, 6)
    cluster.wait_state(job, "COMPLETED", seconds=90)

    assert causes(run) == ["timeout", "preempted", "preempted", "preempted", "operator", "finished"], project.words(run)
    assert lost(run) <= 5, "at most one step per interruption"
    assert [step for step, _ in Counter(s for _, s in executed(run)).items()] == list(range(steps))
    assert json.loads((run / "final.json").read_text()) == project.reference(steps)
    assert cluster.show(job)["Restarts"] == "5"


def test_sigterm_in_a_rank_at_the_start_of_a_grace_time_is_a_warning(project: Project) -> None:
    """Under srun the task gets TERM at the start of the grace time, and leaves inside it."""
    cluster, steps = project.cluster, 600
    cluster.set_grace("low", 30)
    job, run = project.submit(steps, launcher="srun")
    await_steps(run, 1)
    began = time.monotonic()
    preempt(project, job)
    wait_for(lambda: causes(run)[:1] == ["preempted"], 20, "the first attempt to leave")
    assert time.monotonic() - began < 20, "it must not wait for the end of the grace time"
    cluster.wait_state(job, "COMPLETED", seconds=90)
    assert lost(run) <= 1
    assert json.loads((run / "final.json").read_text()) == project.reference(steps)


def test_sigterm_to_the_training_alone_is_a_warning(project: Project) -> None:
    """Nothing at the batch shell: the code 143 and what the training says of itself are enough."""
    job, run = project.submit(200)
    await_steps(run, 1)
    record = json.loads(next(run.glob("attempts/0001/pids/*.0.json")).read_text())
    os.kill(record["pid"], signal.SIGTERM)
    project.cluster.wait_state(job, "COMPLETED", seconds=60)
    assert causes(run) == ["operator", "finished"]
    assert exit_record(run / "attempts/0001")["code"] == 128 + signal.SIGTERM
    assert exit_record(run / "attempts/0001")["warned"] is False
    assert lost(run) <= 1


def test_scancel_ends_it_and_it_does_not_come_back(project: Project) -> None:
    cluster = project.cluster
    job, run = project.submit(100_000)
    await_steps(run, 1)
    cluster.check("scancel", job)
    cluster.wait_state(job, "CANCELLED", seconds=30)
    assert causes(run) == ["cancelled"], project.words(run)
    assert exit_record(run / "attempts/0001")["decision"] == "stop"
    published = int((run / "latest").read_text().strip().removeprefix("step-"))
    assert published == len(executed(run)), "what was done is kept all the same"
    assert cluster.show(job)["Restarts"] == "0"


def test_a_crash_at_import_does_not_loop(project: Project) -> None:
    cluster = project.cluster
    (project.directory / "train.py").write_text("import a_module_that_is_not_there\n")
    job, run = project.submit(1)
    state = cluster.wait_state(job, "FAILED", seconds=30)
    assert state["ExitCode"] == "1:0"
    assert causes(run) == ["crash"]
    assert state["Restarts"] == "0"


def test_a_finished_job_that_is_started_again_exits_0_at_once(project: Project) -> None:
    cluster = project.cluster
    job, run = project.submit(20)
    cluster.wait_state(job, "COMPLETED", seconds=30)
    cluster.check("scontrol", "requeue", job)
    again = cluster.wait_state(job, "COMPLETED", seconds=60)
    assert again["Restarts"] == "1"
    assert len(executed(run)) == 20
    assert len(list(run.glob("attempts/*"))) == 1


def test_only_the_interrupted_array_task_is_requeued_also_when_it_is_the_last(project: Project) -> None:
    """The last-started task has the array's own job id: requeueing that would rerun all four (SLURM fact g2)."""
    cluster = project.cluster
    job, run = project.submit(250, slurm={"array": "0-3"})
    tasks = [run.with_name(f"{run.name}_{task}") for task in range(4)]
    for task in tasks:
        await_steps(task, 1)
    last = max(range(4), key=lambda task: cluster.show(f"{job}_{task}")["JobId"] == job)
    assert cluster.show(f"{job}_{last}")["JobId"] == job, "one task must share the array's id, or this shows nothing"
    cluster.check("scancel", "-b", "-s", "USR1", f"{job}_{last}")
    for task in range(4):
        cluster.wait_state(f"{job}_{task}", "COMPLETED", seconds=90)
    assert [len(list(task.glob("attempts/*"))) for task in tasks] == [2 if task == last else 1 for task in range(4)]
    assert causes(tasks[last]) == ["operator", "finished"]
    want = project.reference(250)
    for task in tasks:
        assert json.loads((task / "final.json").read_text()) == want
        assert len({step for _, step in executed(task)}) == 250


def test_kill_9_of_the_training_costs_at_most_the_steps_since_the_last_checkpoint(project: Project) -> None:
    cluster = project.cluster
    budget = {"requeue": {"max": {"crash": 2}}, "checkpoint": {"every": 20}}
    job, run = project.submit(300, **budget)
    for attempt in (1, 2):
        await_steps(run, attempt, 47)
        record = json.loads(next(run.glob(f"attempts/{attempt:04d}/pids/*.0.json")).read_text())
        os.kill(record["pid"], signal.SIGKILL)
    cluster.wait_state(job, "COMPLETED", seconds=90)
    assert causes(run) == ["crash", "crash", "finished"]
    assert lost(run) <= 2 * 20
    assert json.loads((run / "final.json").read_text()) == project.reference(300)


def test_a_plain_program_without_our_helper_gets_the_warning_and_comes_back(project: Project) -> None:
    """A program of its own, sourcing nothing and importing nothing: state in a file, 138 on USR1."""
    program = (
        "import os, pathlib, signal, sys, time\n"
        "path = pathlib.Path(os.environ['HPC_RESUME_RUN_DIR']) / 'count'\n"
        "count = int(path.read_text()) if path.exists() else 0\n"
        "stop = []\n"
        "signal.signal(signal.SIGUSR1, lambda *_: stop.append(1))\n"
        "while count < 200 and not stop:\n"
        "    time.sleep(0.02); count += 1\n"
        "path.write_text(str(count))\n"
        "sys.exit(138 if count < 200 else 0)\n"
    )
    (project.directory / "train.py").write_text(program)
    job, run = project.submit(0)
    wait_for(lambda: list(run.glob("attempts/0001/pids/*.child.json")), 20, "the start")
    time.sleep(0.5)  # the program has no sign of its own that its handler stands
    project.cluster.check("scancel", "-b", "-s", "USR1", job)
    project.cluster.wait_state(job, "COMPLETED", seconds=60)
    assert causes(run) == ["operator", "finished"]
    assert (run / "count").read_text() == "200"


def test_no_requeue_is_said_when_slurm_refuses_it(project: Project) -> None:
    """--no-requeue and a warned job: the words of scontrol are in the log, and how to continue."""
    cluster = project.cluster
    job, run = project.submit(100_000, requeue={"on": [], "method": "scontrol"})
    await_steps(run, 1)
    cluster.check("scancel", "-b", "-s", "USR1", job)
    state = cluster.wait_state(job, "FAILED", seconds=30)
    assert state["ExitCode"] == "138:0"
    said = (project.directory / f"slurm-{job}.out").read_text()
    assert f"hpc-resume submit JOB.yaml --resume {run.name}" in said
    again = project.cli("submit", "job.yaml", "--resume", run.name, "--json")
    assert again.returncode == 0, again.stderr
    await_steps(run, 2)
    steps = executed(run)
    assert len({step for _, step in steps}) == len(steps), "it goes on where it stopped"
    project.cli("cancel", run.name)


def test_slurms_own_requeue_is_not_started_where_the_job_did_not_ask_for_it(project: Project) -> None:
    """--requeue is needed for a time-out's requeue too, and Slurm then requeues after preemptions by itself."""
    job, run = project.submit(100_000, requeue={"on": ["timeout"]})
    await_steps(run, 1)
    preempt(project, job)
    state = project.cluster.wait_state(job, "FAILED", seconds=60)
    assert state["ExitCode"] == "75:0"
    assert {attempt for attempt, _ in executed(run)} == {1}
    assert (
        "Slurm has requeued it, and requeue.on does not name preempted"
        in (project.directory / f"slurm-{job}.out").read_text()
    )
