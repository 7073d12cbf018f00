"""`watch:` in job.yaml, and when a question is over."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hpc_resume.errors import SpecError
from hpc_resume.launch.job_file import read_job
from hpc_resume.launch.plan import decide
from hpc_resume.watch.asking import Settings, ask


def job(tmp_path: Path, watch: str) -> tuple[str, ...]:
    path = tmp_path / "job.yaml"
    path.write_text(f"name: w\ncommand: [./solve, input]\nwatch: {watch}\n")
    plan = decide(read_job(path).job)
    return next(variable.value for variable in plan.variables if variable.name == "HR_COMMAND")


def test_a_watched_command_is_wrapped(tmp_path):
    words = job(tmp_path, '{on_warning: "save\\n", expect: "saved .*", timeout: 30s}')
    assert words == (
        *("hpc-resume", "watch", "--on-warning=save\n", "--timeout=30s", "--expect=saved .*", "--"),
        *("./solve", "input"),
    )


@pytest.mark.parametrize(
    ("watch", "said"),
    [
        ("{expect: x}", "watch.on_warning"),
        ('{on_warning: ""}', "must not be empty"),
        ("{on_warning: s, expect: '('}", "regular expression"),
        ("{on_warning: s, timeout: 5min}", "shorter than preemption.lead (120s)"),
        ("{on_warning: s, timeout: 0s}", "at least 1s"),
        ("{on_warning: s, expects: x}", "expect"),
    ],
)
def test_a_watch_that_cannot_work_is_refused_with_its_place(tmp_path, watch, said):
    with pytest.raises(SpecError, match=re.escape(said)) as refused:
        job(tmp_path, watch)
    assert "job.yaml:3" in str(refused.value)


def test_an_answer_in_pieces_is_one_and_ends_with_its_line():
    question = ask(Settings(b"s", re.compile(rb"saved \d"), 60.0), 0.0, None)
    question.hear(b"sav", 1.0)
    assert not question.is_over(1.0)
    question.hear(b"ed 7", 1.0)
    assert question.answered
    assert not question.is_over(1.0), "it may be in the middle of what it says"
    question.hear(b" of 9\n", 1.2)
    assert question.is_over(1.2)


def test_an_answer_that_ends_no_line_is_one_after_a_moment():
    question = ask(Settings(b"s", re.compile(rb"saved"), 60.0), 0.0, None)
    question.hear(b"saved> ", 1.0)
    assert [question.is_over(t) for t in (1.4, 1.5)] == [False, True]


@pytest.mark.parametrize("expect", [rb"saved", rb"saved.*", rb"saved 7\r?\n", rb"(?s)saved.*"])
def test_a_whole_line_is_an_answer_at_once(expect):
    question = ask(Settings(b"s", re.compile(expect), 60.0), 0.0, None)
    question.hear(b"got s\nsaved 7\n", 1.0)
    assert question.is_over(1.0)


def test_the_wait_ends_with_the_timeout_or_before_the_job_does():
    settings = Settings(b"s", None, 60.0)
    assert [ask(settings, 0.0, None).is_over(t) for t in (59.0, 60.0)] == [False, True]
    assert [ask(settings, 0.0, 20.0).is_over(t) for t in (14.0, 15.0)] == [False, True]
