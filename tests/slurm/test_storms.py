"""Too much at once, on a real cluster: signals, crashes, and three jobs while nobody answers at slurmctld."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from cluster import Cluster, wait_for
from test_survival import Project, await_steps, causes, executed, exit_record, lost

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(480)]

STORM = 1000  # signals, in about a second


@pytest.fixture
def project(cluster: Cluster, tmp_path: Path) -> Project:
    return Project(cluster, tmp_path)


def pid_of(run: Path, record: str) -> int:
    return int(json.loads(next(run.glob(f"attempts/0001/{record}")).read_text())["pid"])


def storm(pids: list[int]) -> None:
    """USR1, every hundredth a TERM, to all of them in turn, until the last is gone or STORM have been sent to each."""
    descriptors = [os.pidfd_open(pid) for pid in pids]
    try:
        for number in range(STORM):
            for descriptor in descriptors:
                try:
                    signal.pidfd_send_signal(descriptor, signal.SIGTERM if number % 100 == 99 else signal.SIGUSR1)
                except ProcessLookupError:
                    continue
            time.sleep(0.001)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def test_a_storm_of_signals_is_one_warning(project: Project) -> None:
    """At the batch shell and at the training at once: one attempt ends, one begins, no step is lost or done twice."""
    cluster, steps = project.cluster, 300
    job, run = project.submit(steps)
    await_steps(run, 1)
    storm([pid_of(run, "attempt.json"), pid_of(run, "pids/*.0.json")])
    cluster.wait_state(job, "COMPLETED", seconds=90)
    assert causes(run) == ["operator", "finished"], project.words(run)
    assert exit_record(run / "attempts/0001")["code"] in (128 + signal.SIGUSR1, 128 + signal.SIGTERM)
    assert lost(run) == 0
    assert {step for _, step in executed(run)} == set(range(steps))
    assert cluster.show(job)["Restarts"] == "1"
    assert json.loads((run / "final.json").read_text()) == project.reference(steps)


def test_a_crash_loop_starts_at_most_one_more_time_than_its_budget(project: Project) -> None:
    """It trains a little, publishes, and crashes: every attempt has progress to show, and still the budget ends it."""
    cluster = project.cluster
    code = (project.directory / "train.py").read_text()
    crash = "        if step == run.start_step + 12:\n            raise RuntimeError('again')\n        time.sleep(seconds)\n"
    assert "        time.sleep(seconds)\n" in code
    (project.directory / "train.py").write_text(code.replace("        time.sleep(seconds)\n", crash))
    job, run = project.submit(10_000, requeue={"max": {"crash": 2}}, checkpoint={"every": 5})
    wait_for(lambda: len(list(run.glob("attempts/*/exit.json"))) == 3, 150, "three attempts")
    decided = exit_record(run / "attempts/0003")
    assert decided["decision"] in ("hold", "stop", "give_up"), project.words(run)
    assert "crash" in decided["reason"]
    # Whatever state Slurm shows it in, nothing starts it again: longer than a requeued job of this cluster waits.
    began = time.monotonic()
    wait_for(lambda: time.monotonic() - began > 9 or list(run.glob("attempts/0004")), 20, "time to pass")
    assert sorted(path.name for path in run.glob("attempts/*")) == ["0001", "0002", "0003"]
    assert causes(run) == ["crash"] * 3
    assert cluster.show(job)["JobState"] in ("FAILED", "PENDING", "REQUEUE_HOLD")


def test_three_jobs_warned_while_slurmctld_is_down_all_come_back(project: Project) -> None:
    cluster, steps = project.cluster, 1000
    submitted = [project.submit(steps) for _ in range(3)]
    for _, run in submitted:
        await_steps(run, 1)
    shells = [pid_of(run, "attempt.json") for _, run in submitted]
    cluster.stop_controller()
    down_since = time.monotonic()
    for shell in shells:
        os.kill(shell, signal.SIGUSR1)  # as slurmstepd does it; scancel has nobody to ask
    wait_for(lambda: time.monotonic() - down_since >= 10, 15, "ten seconds")
    cluster.start_controller()
    want = None
    for job, run in submitted:
        cluster.wait_state(job, "COMPLETED", seconds=120)
        # Where slurmctld came back only after the cause had been looked for, nobody could say it.
        assert causes(run) in (["operator", "finished"], ["unknown", "finished"]), project.words(run)
        assert lost(run) <= 1
        want = want or project.reference(steps)
        assert json.loads((run / "final.json").read_text()) == want
        assert cluster.show(job)["Restarts"] == "1"
