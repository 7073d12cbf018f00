"""When a warned process must be gone: from what the job says."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from hpc_resume.run.ancestry import chain
from hpc_resume.run.deadline import assumed, fits, read_told, times
from hpc_resume.run.environment import read_environment


@pytest.mark.parametrize(("span", "leave", "hard"), [(120, 110, 115), (30, 27, 28.5), (5, 3.5, 4.25), (1, 0, 0.25)])
def test_what_is_left_after_leaving_is_enough_for_the_launcher(span, leave, hard):
    end = times(1000.0, 1000.0 + span)
    assert (end.leave_at, end.hard_at) == (1000.0 + leave, 1000.0 + hard)


def test_a_deadline_that_has_passed_means_now():
    assert times(1000.0, 900.0).hard_at == 1000.0


@pytest.mark.parametrize(("seconds", "left", "fit"), [(None, 1, True), (5, None, True), (5, 5, True), (5, 4.9, False)])
def test_a_save_is_begun_only_when_it_can_end(seconds, left, fit):
    assert fits(seconds, left) is fit


@pytest.mark.parametrize(
    ("signum", "more", "seconds"),
    [
        (signal.SIGUSR1, {}, 120),
        (signal.SIGTERM, {}, 30),
        (signal.SIGUSR1, {"HPC_RESUME_END_TIME": "1010"}, 10),
        (signal.SIGUSR1, {"HPC_RESUME_END_TIME": "900"}, 120),
        (signal.SIGTERM, {"HPC_RESUME_LEAD": "7"}, 7),
    ],
)
def test_without_the_launchers_word_the_lead_or_the_end_time_holds(signum, more, seconds):
    told = {"HPC_RESUME_RUN_DIR": "/r", "HPC_RESUME_ATTEMPT_DIR": "/r/a", "HPC_RESUME_LEAD": "120"} | more
    assert assumed(signum, 1000.0, read_environment(told)) == 1000.0 + seconds


def test_without_a_launcher_nobody_kills_and_there_is_no_deadline():
    assert assumed(signal.SIGUSR1, 1000.0, read_environment({})) is None


@pytest.mark.parametrize("text", ["", "{", '{"version": 99, "deadline": 5}', '{"deadline": 0}', "[]"])
def test_a_word_that_cannot_be_read_is_no_word(tmp_path: Path, text):
    (tmp_path / "warning.json").write_text(text)
    assert read_told(tmp_path / "warning.json") is None


def test_the_chain_ends_at_the_launcher_or_where_sight_ends(monkeypatch):
    tree = {5: ("python", 4), 4: ("uv", 3), 3: ("bash", 2), 2: ("slurmstepd", 1)}
    monkeypatch.setattr("os.getpid", lambda: 5)
    assert chain(3, tree.get) == ("bash", "uv", "python")
    assert chain(0, tree.get) == ("slurmstepd", "bash", "uv", "python")
    assert chain(None, tree.get) == ("python",)
    assert chain(3, {5: ("python", 4)}.get) == ("python",)
    keeper = {5: ("python", 4), 4: ("bash", 3), 3: ("bash", 2)}
    assert chain(3, keeper.get) == ("bash", "python")
