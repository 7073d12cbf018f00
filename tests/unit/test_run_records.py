"""A run directory as a reader finds it: half there, from a newer version, with keys nobody knows yet."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path

import pytest

from hpc_resume.errors import RunStateError
from hpc_resume.observe.survey import survey
from hpc_resume.observe.targets import select
from hpc_resume.run.lease import read_sign
from hpc_resume.run.process import Identity, identify, is_alive
from hpc_resume.run.rundir import AttemptDir, RunDir, find_readable_runs, find_runs
from hpc_resume.trackers.ledger import read_rows


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    for number in ("0001", "0002", "0010"):
        (tmp_path / "runs" / "net-7" / "attempts" / number / "pids").mkdir(parents=True)
    (tmp_path / "runs" / "net-7" / "attempts" / "notes").mkdir()
    return RunDir(tmp_path / "runs" / "net-7")


def test_nothing_is_there_yet(tmp_path):
    run = RunDir(tmp_path / "nowhere")
    assert run.attempts() == ()
    assert run.newest_attempt() is run.run() is run.finished() is run.latest_step() is None
    attempt = run.attempt(1)
    assert attempt.attempt() is attempt.exit() is attempt.outcome() is attempt.last_metrics() is None
    assert attempt.pids() == attempt.events() == ()
    assert find_runs(tmp_path / "nowhere") == ()


def test_attempts_are_in_the_order_of_their_numbers(run):
    assert [attempt.number for attempt in run.attempts()] == [1, 2, 10]
    assert run.newest_attempt() == run.attempt(10)
    assert AttemptDir(run.attempts_dir / "notes").number == 0


def test_records_accept_unknown_keys_and_missing_ones(run):
    run.attempt(1).exit_file.write_text('{"version": 1, "code": 138, "cause": "preempted", "colour": "blue"}\n')
    record = run.attempt(1).exit()
    assert (record.code, record.cause, record.decision, record.warned, record.ended) == (
        138,
        "preempted",
        "",
        False,
        0.0,
    )
    run.attempt(1).outcome_file.write_text('{"version": 1, "outcome": "stopped", "step": "many", "signal": null}')
    outcome = run.attempt(1).outcome()
    assert (outcome.outcome, outcome.step, outcome.signal) == ("stopped", 0, None)


def test_an_empty_file_is_a_file_that_is_being_written(run):
    run.run_file.write_text("\n")
    assert run.run() is None


@pytest.mark.parametrize(
    ("text", "words"),
    [('{"version": 2}', "format version 2"), ("[1]", "not a JSON object"), ("{", "not JSON")],
)
def test_what_this_version_cannot_read_is_refused_by_name(run, text, words):
    run.run_file.write_text(text)
    with pytest.raises(RunStateError, match=words) as caught:
        run.run()
    assert str(run.run_file) in str(caught.value)


def test_pid_records_of_ranks_and_of_the_launcher(run):
    attempt = run.attempt(1)
    mine = {"version": 1, "pid": 5, "start_ticks": 6, "boot_id": "b", "host": "n1", "rank": 0, "signal": "USR1"}
    attempt.pid_file("n1", 0).write_text(json.dumps(mine))
    attempt.pid_file("n1", "child").write_text(json.dumps(mine | {"rank": "child", "pid": 4}))
    (attempt.pids_dir / ".n1.1.json.tmp.9-1").write_text("half")
    assert sorted((record.rank, record.process) for record in attempt.pids()) == [
        (-1, Identity(4, 6, "b", "n1")),
        (0, Identity(5, 6, "b", "n1")),
    ]


def test_events_of_all_writers_by_time_without_half_written_lines(run):
    attempt = run.attempt(1)
    attempt.events_dir.mkdir()
    attempt.events_file("n1", 5).write_text('{"t": 2.5, "event": "saved", "step": 7}\n{"t": 4.0, "ev')
    attempt.events_file("n2", 6).write_text('{"t": 1.0, "event": "ready"}\n\n17\n')
    assert [(event.t, event.event, dict(event.data)) for event in attempt.events()] == [
        (1.0, "ready", {}),
        (2.5, "saved", {"step": 7}),
    ]


def test_the_newest_metrics_of_a_long_file_whose_last_line_is_half_written(run):
    lines = [json.dumps({"step": n, "t": 1.0, "text": "x" * 100}) for n in range(5000)]
    run.attempt(1).metrics_file.write_text("\n".join(lines) + '\n{"step": 5000, "t"')
    assert run.attempt(1).last_metrics().data["step"] == 4999


def test_what_attempts_have_left_is_not_read_through_a_link(run, tmp_path):
    """It would be shown, sent to W&B, or taken for an owner's sign of life."""
    (tmp_path / "outside").write_text('{"step": 3, "t": 1.0, "password": 7}\n')
    (run.path / "lease").mkdir()
    for link in (run.attempt(1).metrics_file, run.path / "lease" / "beat"):
        link.symlink_to(tmp_path / "outside")
    assert run.attempt(1).last_metrics() is None
    assert read_rows(run.attempt(1).metrics_file) == []
    assert read_sign(run.path / "lease" / "beat") is None


@pytest.mark.parametrize(
    ("text", "step"), [("step-00001200\n", 1200), ("step-123456789", 123456789), ("../x", None), ("", None)]
)
def test_latest_names_a_step_or_nothing(run, text, step):
    run.latest_file.write_text(text)
    assert run.latest_step() == step


def test_runs_of_jobs_and_of_plain_scripts_are_found(tmp_path):
    for path in ("net-7", "train/0001", "train/0002", "junk/deep/er"):
        (tmp_path / path).mkdir(parents=True)
        if path != "junk/deep/er":
            (tmp_path / path / "run.json").write_text('{"version": 1}')
    (tmp_path / "file").write_text("")
    assert [str(run.path.relative_to(tmp_path)) for run in find_runs(tmp_path)] == ["net-7", "train/0001", "train/0002"]


def test_directories_of_other_users_and_dot_names_do_not_end_the_listing():
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        parent = Path(place)
        parent.chmod(0o755)
        for name in ("net-7", "theirs-1", "theirs-2", ".local-5", ".local-0/deep"):
            (parent / name).mkdir(parents=True)
            (parent / name / "run.json").write_text('{"version": 1}')
        for name in ("theirs-1", "theirs-2", ".local-5"):
            (parent / name).chmod(0)
            stack.callback((parent / name).chmod, 0o700)
        if os.geteuid() == 0:  # whom no mode keeps out
            os.seteuid(65534)
            stack.callback(os.seteuid, 0)
        runs, closed = find_readable_runs(parent)
        assert ([run.key for run in runs], closed) == (["net-7"], 2)
        assert find_runs(parent) == runs
        selection = select([str(parent)])
        assert (selection.runs, selection.closed) == (runs, 2)
        assert "2 runs of other users are not shown" in survey([str(parent)]).notes


def test_a_process_is_told_from_another_with_its_pid():
    me = identify(os.getpid())
    assert me is not None
    assert is_alive(me) is True
    assert is_alive(Identity(me.pid, me.start_ticks + 1, me.boot_id, me.host)) is False
    assert is_alive(Identity(me.pid, me.start_ticks, "another boot", me.host)) is False
    assert is_alive(Identity(me.pid, me.start_ticks, me.boot_id, "another host")) is None


def test_a_zombie_and_a_name_with_parentheses(tmp_path):
    child = os.fork()
    if child == 0:
        try:
            Path("/proc/self/comm").write_text("a) R 1 (b")
        finally:
            os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert identify(child) is None
    os.waitpid(child, 0)
    assert identify(child) is None
