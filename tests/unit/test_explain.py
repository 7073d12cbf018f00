"""What explain says, as pure functions over recorded facts: waiting jobs, exit codes, the timeline, the next start."""

from __future__ import annotations

import re
import signal
import subprocess
from dataclasses import replace

import pytest

from hpc_resume.contract import CAUSES
from hpc_resume.observe.budgets import Past
from hpc_resume.observe.exit_codes import explain_code, in_words, parse_code
from hpc_resume.observe.explain import CAUSE_WORDS, Evidence, explain, refusal
from hpc_resume.observe.facts import Facts, slurm_job
from hpc_resume.observe.status import row
from hpc_resume.observe.telling import told
from hpc_resume.observe.timeline import timeline
from hpc_resume.observe.waiting import _KINDS, explain_reason, launch_limit, launches
from hpc_resume.observe.waiting import in_words as waiting_words
from hpc_resume.run.process import Identity
from hpc_resume.run.records import AttemptRecord, Event, ExitRecord, Limits
from hpc_resume.schedulers import JobState

JOB = JobState("12", "job", "PENDING", batch_flag=1)
LIMITS = Limits(120, ("timeout",), {"timeout": -1, "preempted": 3, "crash": 0, "no_progress": 2, "total": 5})
ATTEMPT = AttemptRecord(2, "12", 1, "slurm", Identity(1, 1, "boot", "n1"), 0.0, LIMITS)
ENDED = ExitRecord(138, "timeout", "EndTime=x", "requeue", "why", 0, 40, True, 0.0, 9.0, "timeout no yes yes yes yes")
FACTS = Facts("job-12", "/r/job-12", attempts=2, step=40, attempt=ATTEMPT, exit=ENDED, slurm_answered=True)
FOUND = Evidence(FACTS, 2, ATTEMPT, ENDED, history=[Past("timeout", 500, 0, 40)], limits=LIMITS, checkpoint="/r/c")


@pytest.mark.parametrize(
    ("reason", "words", "command", "held"),
    [
        ("JobHeldUser", "held by its owner", "scontrol release 12", True),
        ("JobHeldAdmin", "held by an administrator", "scontrol show job 12", True),
        ("job requeued in held state", "requeued and held", "scontrol release 12", True),
        ("job_requeued_in_held_state", "requeued and held", "scontrol release 12", True),
        ("launch failed requeued held", "its launch failed and Slurm holds it", "scontrol release 12", True),
        ("launch_failed_requeued_held", "its launch failed and Slurm holds it", "scontrol release 12", True),
        ("JobHoldMaxRequeue", "too many failed launches", "scontrol release 12", True),
        ("BeginTime", "it may not begin before", "scontrol update JobId=12 StartTime=now+2", False),
        ("Dependency", "waits for another job", "scontrol update JobId=12 Dependency=", False),
        ("DependencyNeverSatisfied", "never starts", "scontrol update JobId=12 Dependency=", True),
        ("ReqNodeNotAvail, UnavailableNodes:n2", "down, drained or reserved (UnavailableNodes:n2)", "sinfo -R", False),
        ("Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions", "down", "sinfo -R", False),
        ("Resources", "waits for nodes", "", False),
        ("Priority", "higher priority", "sprio -j 12", False),
        ("QOSMaxJobsPerUserLimit", "a limit of its QOS", "sacctmgr show qos", False),
        ("QOSGrpCpuLimit", "a limit of its QOS", "sacctmgr show qos", False),
        ("QOSNotAllowed", "may not be used", "scontrol show partition", True),
        ("AssocGrpGRES", "a limit of your account", "sacctmgr show associations user=$USER", False),
        ("AssociationJobLimit", "a limit of your account", "sacctmgr show associations user=$USER", False),
        ("MaxMemPerLimit", "a limit of the site", "scontrol show job 12", False),
        ("JobArrayTaskLimit", "%N", "", False),
        ("SomethingNew", "", "scontrol show job 12", False),
    ],
)  # fmt: skip
def test_why_a_job_waits_and_what_to_do(reason: str, words: str, command: str, held: bool) -> None:
    found = explain_reason(replace(JOB, reason=reason))
    assert words in found.words
    assert (found.command, found.held, found.reason) == (command, held, reason)
    assert "{" not in found.words + found.command


def test_a_dependency_is_named() -> None:
    job = replace(JOB, reason="Dependency", dependency="afterany:5(unfulfilled)")
    assert explain_reason(job).words == "waits for afterany:5(unfulfilled)"


def test_every_kind_has_words_and_keys_that_can_be_found() -> None:
    for key, kind in _KINDS.items():
        assert kind.words
        assert re.fullmatch(r"[a-z]+", key), key


@pytest.mark.parametrize(
    ("flag", "limit", "words"),
    [
        (0, None, ""),
        (1, 5, ""),
        (4, 8, "3 of 8 failed launches: then Slurm holds it (`scontrol release 12`)"),
        (4, None, "3 of 5 failed launches, Slurm's default: then"),
    ],
)
def test_failed_launches_are_counted_before_slurm_holds_the_job(flag: int, limit: int | None, words: str) -> None:
    job = replace(JOB, batch_flag=flag, reason="Resources")
    assert launches(job, limit).startswith(words)
    assert bool(words) == bool(launches(job, limit))
    assert words in waiting_words(job, limit)
    seen = row(replace(FACTS, job=job, launch_limit=limit))
    assert words in seen.why
    assert words in explain(replace(FOUND, facts=replace(FACTS, job=job, launch_limit=limit))).next.words


def test_the_limit_of_launches_is_read_where_slurm_says() -> None:
    text = "SchedulerPort = 7\nSchedulerParameters     = bf_interval=1,{}defer\nSchedulerTimeSlice      = 30 sec\n"
    assert launch_limit(text.format("max_batch_requeue=9,")) == 9
    assert launch_limit(text.format("MaxBatchRequeue=7,")) == 7
    assert launch_limit(text.format("")) is None
    assert launch_limit("") is None


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        ("0", 0, "finished"),
        ("2", 2, "command line"),
        ("75", 75, "did no work"),
        ("78", 78, "never requeues"),
        ("126", 126, "cannot be executed"),
        ("127", 127, "not found"),
        ("137", 137, "out of memory"),
        ("0:9", 137, "out of memory"),
        ("1:0", 1, "exception"),
        ("138", 138, "resumable (SIGUSR1"),
        ("143", 143, "resumable (SIGTERM"),
        ("USR2", 140, "resumable (SIGUSR2"),
        ("sigsegv", 139, "segmentation fault"),
        ("42", 42, "the program's own code 42"),
        ("255", 255, "ssh and srun"),
    ],
)
def test_what_a_code_means(given: str, code: int, words: str) -> None:
    assert parse_code(given) == code
    found = explain_code(code)
    assert words in in_words(found)
    assert found.warning == (found.signal in ("USR1", "USR2", "TERM"))


@pytest.mark.parametrize("given", ["256", "-1", "", "x", "1:2:3", "NOSUCH", "0:999"])
def test_what_is_no_code_is_refused(given: str) -> None:
    assert parse_code(given) is None


def test_every_code_has_words_and_every_signal_its_name() -> None:
    for code in range(256):
        assert explain_code(code).meaning
        assert explain_code(code).follows
    for number in (signal.SIGKILL, signal.SIGUSR1, signal.SIGRTMIN + 3):
        killed = subprocess.run(["bash", "-c", f"kill -{int(number)} $$"], check=False).returncode
        assert explain_code(128 - killed).signal


EVENTS = (
    Event(9.0, "ready", {"pid": 5}),
    Event(10.0, "received", {"signal": "USR1", "count": 1}),
    Event(10.004, "sent", {"signal": "USR1", "pid": 5}),
    Event(10.0055, "received", {"signal": "USR1"}),
    Event(10.2, "saved", {"step": 40, "seconds": 0.1, "trigger": "warning"}),
    Event(10.3, "stopped", {"step": 40}),
    Event(10.4, "gone", {"code": 138}),
)


def test_the_warning_from_received_to_gone_in_milliseconds() -> None:
    found = timeline(EVENTS)
    assert [(moment.what, moment.ms) for moment in found] == [
        ("received", 0.0),
        ("sent", 4.0),
        ("heard", 5.5),
        ("saved", 200.0),
        ("gone", 400.0),
    ]
    assert [moment.words for moment in found] == ["SIGUSR1", "SIGUSR1 to process 5", "SIGUSR1 by the training", "step 40", "code 138"]  # fmt: skip


@pytest.mark.parametrize(
    ("events", "stages"),
    [
        ((), []),
        ((Event(1.0, "saved", {"trigger": "time"}), Event(2.0, "gone", {"code": 0})), []),
        ((Event(1.0, "received", {"signal": "TERM"}), Event(2.0, "gone", {"code": 143})), ["heard", "gone"]),
        ((Event(1.0, "sent", {"signal": "URG"}), *EVENTS[1:2], Event(11.0, "sent", {"signal": "URG"})), ["received"]),
        ((EVENTS[1], Event(10.1, "saved", {"step": 3, "trigger": "steps"}), EVENTS[6]), ["received", "gone"]),
        ((EVENTS[1], Event(10.1, "not_saved", {"step": 3}), EVENTS[6]), ["received", "not saved", "gone"]),
    ],
)
def test_what_is_no_part_of_the_warning_is_not_told_as_such(events: tuple[Event, ...], stages: list[str]) -> None:
    assert [moment.what for moment in timeline(events)] == stages


@pytest.mark.parametrize(
    ("cause", "attempts", "requeued", "words"),
    [
        ("preempted", 2, True, "requeue.on does not name preempted"),
        ("node_fail", 2, True, "requeue.on does not name node_fail"),
        ("preempted", 2, False, ""),
        ("timeout", 2, True, ""),
        ("crash", 2, True, ""),
        ("timeout", 5, True, ""),
        ("timeout", 6, True, "requeue.max.total is used up (5)"),
    ],
)
def test_a_refused_start_is_foreseen(cause: str, attempts: int, requeued: bool, words: str) -> None:
    assert refusal(cause, attempts, LIMITS, requeued=requeued) == words


@pytest.mark.parametrize(
    ("facts", "words", "command"),
    [
        (replace(FACTS, job=replace(JOB, reason="JobHeldUser")), "held: held by its owner", "scontrol release 12"),
        (replace(FACTS, job=replace(JOB, state="RUNNING", nodes="n3")), "attempt 2 is at work on n3", ""),
        (replace(FACTS, job=replace(JOB, reason="Priority")), "in the queue: jobs with a higher", "sprio -j 12"),
        (FACTS, "not in the queue any more", "hpc-resume submit --resume job-12"),
        (replace(FACTS, slurm_answered=False), "Slurm could not be asked", ""),
        (replace(FACTS, finished=True), "the run is finished", ""),
        (replace(FACTS, exit=replace(ENDED, decision="stop")), "does not come back", "hpc-resume submit --resume job-12"),
    ],
)  # fmt: skip
def test_what_happens_next(facts: Facts, words: str, command: str) -> None:
    found = explain(replace(FOUND, facts=facts, exit=facts.exit))
    assert words in found.next.words
    assert found.next.command == command


def test_a_run_that_ended_without_a_word_is_said_to() -> None:
    facts = replace(FACTS, exit=None, job=replace(JOB, reason="BeginTime", restarts=1))
    found = explain(replace(FOUND, facts=facts, exit=None))
    assert (found.cause, found.code) == ("node_fail", None)
    assert "no exit.json" in found.evidence[0]
    assert "its next start is refused: requeue.on does not name node_fail" in found.next.words


def test_the_paper_has_everything_and_names_the_files() -> None:
    facts = replace(FACTS, job=replace(JOB, reason="Resources"), excluded="n7")
    text = told(
        explain(replace(FOUND, facts=facts, events=EVENTS, files=["attempts/0002/exit.json"], request="requeue"))
    )
    for words in (
        "job-12: requeued, job 12",
        "timeout: the time limit had come, or its warning (attempt 2)",
        "138: stopped for that signal",
        "requeue: why",
        "step 40, /r/c",
        "node n7",
        "timeout: 1 used, unlimited",
        "total: 1 of 5 used, 4 left",
        "+     5.5 ms  heard (SIGUSR1 by the training)",
        "EndTime=x",
        "its owner asked for: requeue",
        "Slurm: job 12 is PENDING, reason Resources",
        "/r/job-12/attempts/0002/exit.json",
    ):
        assert words in text
    assert max(map(len, text.splitlines())) < 160


@pytest.mark.parametrize(("job_id", "asked"), [("12", "45"), ("12_3", "45_3")])
def test_the_successors_place_in_the_queue_is_the_runs(job_id: str, asked: str) -> None:
    facts = replace(FACTS, attempt=replace(ATTEMPT, job_id=job_id), exit=replace(ENDED, successor=45))
    assert slurm_job(facts) == asked
    assert slurm_job(replace(facts, finished=True)) == ""
    assert slurm_job(replace(facts, exit=ENDED)) == job_id
    waiting = JobState(asked, "job", "PENDING", reason="Dependency", dependency="afterany:12(unfulfilled)")
    assert "waits for afterany:12" in row(replace(facts, job=waiting)).why


def test_every_cause_has_words() -> None:
    assert set(CAUSE_WORDS) == set(CAUSES)


def test_excluded_nodes_are_said_in_status() -> None:
    pending = replace(FACTS, job=replace(JOB, reason="Resources"), excluded="n7")
    assert "without n7, which ended it twice without a word" in row(pending).why
    assert "n7" not in row(replace(pending, excluded="")).why
