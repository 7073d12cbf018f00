"""Cause and decision of the batch shell, as tables: what Slurm was measured to say, and what follows from it."""

from __future__ import annotations

import json
import time

import pytest

from .conftest import Job

# What `scontrol show job -o` showed from inside a TERM trap, Slurm 22.05.8; the rest of the line is left out.
CANCELLED = "JobId=3 JobState=COMPLETING Reason=None Restarts=0 EndTime=2026-11-21T07:02:43 PreemptTime=None"
TIMED_OUT = "JobId=5 JobState=COMPLETING Reason=TimeLimit Restarts=0 EndTime=2026-11-21T07:03:44 PreemptTime=None"
REQUEUED = "JobId=6 JobState=COMPLETING Reason=None Restarts=1 EndTime=Unknown"
GRACE = "JobId=7 JobState=RUNNING Reason=None Restarts=0 EndTime=2999-01-01T00:00:00 PreemptTime=2026-11-21T07:00:00"
RUNNING = "JobId=8 JobState=RUNNING Reason=None Restarts=0 EndTime=2999-01-01T00:00:00 PreemptTime=None"
FAILING = "JobId=9 JobState=COMPLETING Reason=JobLaunchFailure Restarts=0 EndTime=2026-11-21T07:02:43 PreemptTime=None"
LAST_MINUTE = "JobId=9 JobState=RUNNING Reason=None Restarts=0 EndTime=2001-01-01T00:00:00 PreemptTime=None"


@pytest.mark.parametrize(
    ("line", "code", "signals", "outcome", "cause"),
    [
        (CANCELLED, 138, 1, "stopped", "cancelled"),
        (CANCELLED, 143, 1, "", "cancelled"),
        ("JobState=CANCELLED Reason=None Restarts=0", 138, 1, "stopped", "cancelled"),
        (TIMED_OUT, 138, 1, "stopped", "timeout"),
        ("JobState=TIMEOUT Reason=TimeLimit Restarts=0", 143, 1, "", "timeout"),
        (REQUEUED, 138, 1, "stopped", "preempted"),
        ("JobState=PREEMPTED Reason=None Restarts=0", 138, 1, "stopped", "preempted"),
        (GRACE, 138, 0, "stopped", "preempted"),  # SIGTERM in the step's task, nothing at the batch shell
        (GRACE, 143, 0, "", "preempted"),
        (RUNNING, 138, 1, "stopped", "operator"),
        (RUNNING, 1, 1, "", "operator"),  # a plain program that leaves its own way, warned
        (LAST_MINUTE, 138, 1, "stopped", "timeout"),
        ("", 138, 1, "stopped", "unknown"),  # slurmctld does not answer
        ("", 1, 0, "", "crash"),
        (RUNNING, 1, 0, "", "crash"),
        (RUNNING, 1, 1, "crashed", "crash"),
        (FAILING, 137, 0, "", "crash"),  # what a killed batch shell's sentinel sees
        (RUNNING, 137, 0, "", "crash"),  # the out-of-memory killer is not a preemption
        (RUNNING, 139, 0, "", "crash"),
        (RUNNING, 78, 0, "", "config"),
        (RUNNING, 75, 0, "", "no_work"),
        (CANCELLED, 0, 1, "finished", "finished"),
    ],
)
def test_cause(job: Job, line: str, code: int, signals: int, outcome: str, cause: str) -> None:
    script = (
        f"hr::show_job() {{ echo '{line}'; }}\nhr::reset; HR_SCHEDULER=slurm HR_RESTARTS=0 HR_ENDED=$(date +%s)\n"
        f"HR_CODE={code} HR_SIGNALS={signals} HR_OUTCOME={outcome} HR_FIRST_SIGNAL=USR1\n"
        "hr::find_cause; echo $HR_CAUSE"
    )
    job.write(script)
    assert job.run().stdout == f"{cause}\n"


def decide(job: Job, cause: str, *, state: str = "", **variables: int | list[str]) -> tuple[str, str]:
    counts = "HR_COUNT_TIMEOUT=0 HR_COUNT_PREEMPTED=0 HR_COUNT_CRASH=0 HR_COUNT_NO_PROGRESS=0 HR_ATTEMPT=1"
    job.write(
        f"hr::reset; HR_SLURM_REQUEUED=0 {counts}\n{state}\nHR_CAUSE={cause}; hr::decide\n"
        'echo "$HR_DECISION|$HR_REASON"',
        **variables,
    )
    decision, reason = job.run().stdout.strip().split("|")
    return decision, reason


@pytest.mark.parametrize(
    ("cause", "decision"),
    [
        ("finished", "finish"),
        ("timeout", "requeue"),
        ("preempted", "requeue"),
        ("operator", "requeue"),
        ("unknown", "requeue"),
        ("no_work", "requeue"),
        ("cancelled", "stop"),
        ("config", "stop"),
        ("crash", "stop"),
    ],
)
def test_decision_with_the_default_budgets(job: Job, cause: str, decision: str) -> None:
    assert decide(job, cause)[0] == decision


def test_budgets_are_separate_and_named_when_they_end(job: Job) -> None:
    spent = "HR_COUNT_TIMEOUT=3 HR_COUNT_PREEMPTED=3 HR_COUNT_CRASH=2"
    assert decide(job, "timeout", state=spent, HR_MAX_TIMEOUT=3) == (
        "stop",
        "requeue.max.timeout is used up (3 of 3)",
    )
    assert decide(job, "preempted", state=spent, HR_MAX_TIMEOUT=3)[0] == "requeue"
    assert decide(job, "crash", state=spent, HR_MAX_CRASH=3)[0] == "requeue"
    assert decide(job, "crash", state=spent, HR_MAX_CRASH=2)[0] == "stop"


def test_causes_that_requeue_on_does_not_name(job: Job) -> None:
    assert decide(job, "timeout", HR_REQUEUE_ON=["preempted"])[0] == "stop"
    assert decide(job, "preempted", HR_REQUEUE_ON=["timeout"])[0] == "stop"
    assert decide(job, "operator", HR_REQUEUE_ON=["timeout"])[0] == "requeue"  # a person asked for it


def test_no_progress_and_total_stop_a_storm(job: Job) -> None:
    decision, reason = decide(job, "timeout", state="HR_COUNT_NO_PROGRESS=3")
    assert decision == "hold"
    assert "requeue.max.no_progress" in reason
    assert decide(job, "timeout", state="HR_COUNT_NO_PROGRESS=2")[0] == "requeue"
    assert decide(job, "timeout", state="HR_ATTEMPT=6", HR_MAX_TOTAL=5)[0] == "stop"
    assert decide(job, "timeout", state="HR_ATTEMPT=5", HR_MAX_TOTAL=5)[0] == "requeue"


def test_what_slurm_has_requeued_is_left_to_slurm(job: Job) -> None:
    assert decide(job, "preempted", state="HR_SLURM_REQUEUED=1")[0] == "slurm"


def test_attempts_are_counted_from_disk(job: Job) -> None:
    """Three causes, a stretch without progress that progress ends, and one attempt too short to be held against it."""
    steps = [
        ("timeout", 0, 10, 500),
        ("timeout", 10, 10, 500),
        ("preempted", 10, 20, 500),
        ("operator", 20, 20, 5),
        ("crash", 20, 20, 500),
        ("crash", 20, 20, 5),
    ]
    for number, (cause, before, after, seconds) in enumerate(steps, 1):
        directory = job.directory / f"runs/k/attempts/{number:04d}"
        directory.mkdir(parents=True)
        exit_record = {"version": 1, "cause": cause, "step_before": before, "step_after": after}
        exit_record |= {"started": 1000, "ended": 1000 + seconds}
        (directory / "exit.json").write_text(json.dumps(exit_record))
    job.write(
        "hr::reset; HR_DIRECTORY=runs/k HR_CAUSE=timeout HR_STARTED=0 HR_ENDED=500 HR_STEP_BEFORE=20 HR_STEP_AFTER=20\n"
        "hr::count_attempts; echo $HR_COUNT_TIMEOUT $HR_COUNT_PREEMPTED $HR_COUNT_CRASH $HR_COUNT_NO_PROGRESS"
    )
    assert job.run().stdout == "2 2 2 3\n"


def test_a_training_that_never_publishes_its_first_checkpoint_makes_no_progress(job: Job) -> None:
    """Time limit after time limit without one save; a plain program, which never publishes, is not judged by that."""
    for announced, stalled in (("true", 3), ("false", 0)):
        for number in (1, 2, 3):
            directory = job.directory / f"runs/{announced}/attempts/{number:04d}"
            (directory / "pids").mkdir(parents=True)
            record = {"version": 1, "cause": "timeout", "step_before": None, "step_after": None, "announced": True}
            record |= {"announced": announced == "true", "started": 1000, "ended": 4600}
            (directory / "exit.json").write_text(json.dumps(record))
        job.write(
            f"hr::reset; HR_DIRECTORY=runs/{announced} HR_CAUSE=operator HR_STARTED=0 HR_ENDED=5 HR_STEP_BEFORE= "
            "HR_STEP_AFTER=\nhr::count_attempts; echo $HR_COUNT_NO_PROGRESS"
        )
        assert job.run().stdout == f"{stalled}\n"


def test_a_crash_loop_starts_at_most_budget_plus_one_times(job: Job) -> None:
    """The decision of every attempt is on disk: a scheduler that obeys it stops by itself."""
    job.write(HR_COMMAND=["bash", "-c", "exit 1"], HR_MAX_CRASH=2, HR_RUN_KEY="k", HR_MAX_NO_PROGRESS=-1)
    env = {"HPC_RESUME_SCHEDULER": "local", "HPC_RESUME_RUN_KEY": "k", "HPC_RESUME_JOB_ID": "local-1"}
    decisions = []
    for number in range(1, 5):
        job.run(env=env)
        decisions.append(job.json(f"k/attempts/{number:04d}/exit.json")["decision"])
    assert decisions == ["requeue", "requeue", "stop", "stop"]


def test_a_slurm_requeue_past_the_total_is_not_started(job: Job) -> None:
    job.write(HR_COMMAND=["bash", "-c", "echo ran; exit 1"], HR_MAX_TOTAL=0, HR_RUN_KEY="k")
    env = {"HPC_RESUME_SCHEDULER": "local", "HPC_RESUME_RUN_KEY": "k", "HPC_RESUME_RESTART_COUNT": "1"}
    assert job.run(env=env).stdout == "ran\n"
    refused = job.run(env=env)
    assert (refused.returncode, refused.stdout) == (75, "")
    assert "requeue.max.total" in refused.stderr


def test_a_node_failure_is_continued_only_where_asked_for(job: Job) -> None:
    (job.directory / "runs/k/attempts/0001").mkdir(parents=True)  # begun, and ended without a word
    env = {"HPC_RESUME_SCHEDULER": "local", "HPC_RESUME_RUN_KEY": "k", "HPC_RESUME_RESTART_COUNT": "1"}
    job.write(HR_COMMAND=["bash", "-c", "echo $HPC_RESUME_CAUSE"], HR_REQUEUE_ON=["timeout"])
    assert job.run(env=env).returncode == 75
    (job.directory / "runs/k/attempts/0003").mkdir(parents=True)
    job.write(HR_COMMAND=["bash", "-c", "echo $HPC_RESUME_CAUSE"])
    assert job.run(env=env).stdout == "node_fail\n"


@pytest.mark.parametrize(
    ("hours", "hosts", "left_out"), [(1, "aa", "a"), (25, "aa", ""), (1, "aba", ""), (1, "abb", "b")]
)
def test_a_node_is_left_out_after_two_silent_ends_in_a_row_and_for_a_day(
    job: Job, hours: int, hosts: str, left_out: str
) -> None:
    for number, host in enumerate(hosts, 1):
        directory = job.directory / f"runs/k/attempts/{number:04d}"
        directory.mkdir(parents=True)
        record = {"version": 1, "host": host, "started": time.time() - hours * 3600}
        (directory / "attempt.json").write_text(json.dumps(record))
    job.write("hr::reset; HR_DIRECTORY=runs/k HR_ATTEMPT_DIR=runs/k/attempts/0009\nhr::failed_nodes; echo $REPLY")
    assert job.run().stdout == f"{left_out}\n"
