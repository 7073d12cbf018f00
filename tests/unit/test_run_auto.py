"""How often `auto` saves: the formula, what counts as a loss, and the bounds."""

from __future__ import annotations

import json
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_resume.run.auto import ASSUMED_SECONDS, FIRST_SECONDS, LONGEST, SHORTEST, AutoCadence, best_interval
from hpc_resume.run.cadence import NEVER
from hpc_resume.run.ledger import read_ledger
from hpc_resume.run.rundir import RunDir


@pytest.mark.parametrize(("cost", "between"), [(1.0, 3600.0), (10.0, 3600.0), (60.0, 86400.0), (300.0, 3600.0)])
def test_no_other_interval_loses_less(cost, between):
    """Against the loss itself: the time that is spent on saves and on what is lost, by Daly's complete model."""
    from math import exp, expm1

    def wasted(interval):
        return between * exp(0.0) * expm1((interval + cost) / between) / interval

    best = best_interval(cost, between)
    assert wasted(best) <= 1.002 * min(wasted(best * factor) for factor in (0.3, 0.5, 0.7, 0.9, 1.1, 1.3, 2.0, 3.0))


def test_it_is_youngs_where_a_save_is_cheap_and_never_above_the_time_between_losses():
    assert best_interval(0.01, 86400.0) == pytest.approx(sqrt(2 * 0.01 * 86400), rel=0.01)
    assert best_interval(7200.0, 3600.0) == 3600.0


def test_until_a_save_is_measured_it_is_soon():
    assert AutoCadence().seconds == FIRST_SECONDS
    assert AutoCadence().next_time(100.0) == 100.0 + FIRST_SECONDS
    assert AutoCadence().next_step(7) == NEVER
    assert AutoCadence().record()["save_seconds"] is None


@given(
    st.lists(st.floats(0, 1e5), max_size=30).map(tuple), st.integers(0, 1000), st.floats(0, 1e9, allow_subnormal=False)
)
def test_it_stays_in_its_bounds_and_says_so_in_words(saves, losses, running):
    cadence = AutoCadence(saves, losses, running)
    assert SHORTEST <= cadence.seconds <= LONGEST
    assert json.loads(json.dumps(cadence.record()))["losses"] == losses
    assert "auto: every" in cadence.words()
    assert len(cadence.measured(1.0).saves) <= max(20, 1)


def test_more_losses_and_cheaper_saves_save_more_often():
    base = AutoCadence((10.0,), 2, 86400.0)
    assert base.loss_seconds == (86400.0 + ASSUMED_SECONDS) / 3
    assert AutoCadence((10.0,), 20, 86400.0).seconds < base.seconds
    assert AutoCadence((1.0,), 2, 86400.0).seconds < base.seconds
    assert base.measured(100.0).measured(100.0).seconds > base.seconds
    assert AutoCadence((1.0, 1.0, 500.0)).save_seconds == 1.0  # one slow moment of the file system


def attempt(run, number, *, saves=(), exit_record=None, outcome=None, started=1000.0):
    path = run.path / "attempts" / f"{number:04d}"
    (path / "events").mkdir(parents=True)
    lines = [{"t": started + 10 * (i + 1), "event": "saved", "step": i, **save} for i, save in enumerate(saves)]
    (path / "events" / "h.1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (path / "attempt.json").write_text(json.dumps({"version": 1, "attempt": number, "started": started}))
    for name, record in (("exit", exit_record), ("outcome", outcome)):
        if record is not None:
            (path / f"{name}.json").write_text(json.dumps({"version": 1, **record}))


def test_the_ledger_counts_what_lost_work_and_nothing_else(tmp_path):
    run = RunDir(tmp_path / "run")
    ended = {"started": 0.0, "ended": 100.0}
    attempt(run, 1, saves=[{"seconds": 2.0}], exit_record={"cause": "preempted", "warned": True, **ended})
    attempt(run, 2, saves=[{"seconds": 4.0}], exit_record={"cause": "node_fail", "warned": False, **ended})
    attempt(run, 3, exit_record={"cause": "crash", "warned": False, **ended})
    attempt(run, 4, exit_record={"cause": "cancelled", "warned": False, **ended})
    attempt(run, 5, exit_record={"cause": "finished", "warned": False, **ended})
    assert read_ledger(run) == AutoCadence((2.0, 4.0), 2, 500.0)
    # without a launcher: no word is a loss, a stop is none
    attempt(run, 6, saves=[{"seconds": 6.0}, {"seconds": 8.0}])
    attempt(run, 7, saves=[{"seconds": 1.0}], outcome={"outcome": "stopped", "step": 1})
    assert read_ledger(run) == AutoCadence((2.0, 4.0, 6.0, 8.0, 1.0), 3, 530.0)
    assert read_ledger(run, before=3) == AutoCadence((2.0, 4.0), 1, 200.0)
