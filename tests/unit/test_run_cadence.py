"""When a periodic save is due, and whose word counts."""

from __future__ import annotations

import pytest

from hpc_resume.errors import UsageError
from hpc_resume.run.cadence import NEVER, Cadence, combine, parse_every


@pytest.mark.parametrize(
    ("every", "cadence"),
    [
        (100, Cadence(100, 0)),
        ("90s", Cadence(0, 90)),
        ("15min", Cadence(0, 900)),
        ("1.5 h", Cadence(0, 5400)),
        ("2d", Cadence(0, 172800)),
    ],
)
def test_every_is_a_number_of_steps_or_a_duration(every, cadence):
    assert parse_every(every) == cadence


@pytest.mark.parametrize("every", [0, -5, True, "100", "15", "0s", "15m", "", "1e3s", "٣s", 1.5, None, [1]])
def test_anything_else_is_refused_with_examples(every):
    with pytest.raises(UsageError, match="15min"):
        parse_every(every)


def test_the_job_goes_before_the_code_and_another_kind_is_added():
    assert combine(None, None, None) == Cadence(0, 900)
    assert combine(100, None, None) == Cadence(100, 0)
    assert combine(100, 7, None) == Cadence(7, 0)
    assert combine(100, None, 900.0) == Cadence(100, 900)
    assert combine("5s", 7, 60.0) == Cadence(7, 60)


def test_the_same_steps_are_saved_however_often_the_run_was_interrupted():
    cadence = Cadence(100, 0)
    assert [cadence.next_step(done) for done in (0, 99, 100, 137)] == [100, 100, 200, 200]
    assert Cadence(0, 5).next_step(10) == NEVER
    assert cadence.next_time(1.0) == float("inf")
    assert Cadence(0, 5).next_time(1.0) == 6.0
