"""The sentinel step: what Slurm tells steps only becomes a warning for a training that the batch shell started."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from cluster import Cluster, wait_for
from test_survival import Project, await_steps, causes, executed, exit_record, preempt

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(480)]

GRACE = 12


@pytest.fixture
def project(cluster: Cluster, tmp_path: Path) -> Project:
    return Project(cluster, tmp_path)


def seconds_left(project: Project, job: str, run: Path) -> float:
    """From the start of a preemption's grace time to the end of the training it warns."""
    await_steps(run, 1)
    wait_for(lambda: not list(run.glob("attempts/0001")) or True, 1, "")
    began = time.monotonic()
    preempt(project, job)
    wait_for(lambda: causes(run)[:1] == ["preempted"], GRACE + 20, "the first attempt to end")
    return time.monotonic() - began


def test_the_start_of_a_grace_time_reaches_a_training_without_a_step_of_its_own(project: Project) -> None:
    project.cluster.set_grace("low", GRACE)
    job, run = project.submit(400)
    wait_for(lambda: list(run.glob("attempts/0001/sentinels/*.json")), 20, "the sentinel")
    assert seconds_left(project, job, run) < GRACE / 2, project.words(run)
    assert "PreemptTime" in exit_record(run / "attempts/0001")["evidence"]
    project.cluster.wait_state(job, "COMPLETED", seconds=90)
    assert json.loads((run / "final.json").read_text()) == project.reference(400)
    assert len(executed(run)) == 400


def test_without_srun_it_is_said_once_and_the_job_still_comes_back(project: Project) -> None:
    """The warning is then as late as Slurm's: this is also what the sentinel's gain is measured against."""
    project.cluster.set_grace("low", GRACE)
    hidden = 'srun() { return 127; }\ncommand() { if [[ $2 == srun ]]; then return 1; fi; builtin command "$@"; }'
    job, run = project.submit(1200, setup=hidden)
    assert seconds_left(project, job, run) > GRACE, "else the sentinel is not what the other test shows"
    assert project.words(run).count("no srun on this node") == 1
    project.cluster.wait_state(job, "COMPLETED", seconds=90)
    assert len(executed(run)) == 1200


def test_a_signal_sent_to_the_steps_only_is_a_warning(project: Project) -> None:
    """`scancel -s USR1 JOB`, without -b, which a person tries first."""
    job, run = project.submit(200)
    wait_for(lambda: list(run.glob("attempts/0001/sentinels/*.json")), 20, "the sentinel")
    await_steps(run, 1)
    project.cluster.check("scancel", "-s", "USR1", job)
    project.cluster.wait_state(job, "COMPLETED", seconds=60)
    assert causes(run) == ["operator", "finished"]


def test_the_sentinel_costs_nothing_and_leaves_nothing(project: Project) -> None:
    """Its step ends with 0, and no process of it outlives the job."""
    job, run = project.submit(60)
    record = json.loads(
        wait_for(lambda: next(iter(run.glob("attempts/0001/sentinels/*.json")), None), 20, "it").read_text()
    )
    stat = Path(f"/proc/{record['pid']}/stat").read_text()
    fields = stat[stat.rindex(")") + 2 :].split()
    assert int(fields[11]) + int(fields[12]) <= 10, "at most 0.1 s of CPU since its start"
    shown = project.cluster.wait_state(job, "COMPLETED", seconds=60)
    assert shown["ExitCode"] == "0:0"
    wait_for(lambda: not Path(f"/proc/{record['pid']}").exists(), 10, "the sentinel to be gone")
    assert (
        not list(run.glob("attempts/0001/sentinels/error")) or not (run / "attempts/0001/sentinels/error").read_text()
    ), "it has nothing to complain of"
