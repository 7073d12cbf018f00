"""The survival matrix is complete, its expectations have reasons, and its verdicts are of the facts."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from survival_cells import (
    CALL_SECONDS,
    INTERRUPTIONS,
    LAUNCHERS,
    PHASES,
    RULES,
    STEPS,
    Bound,
    Cell,
    Expected,
    Facts,
    Kind,
    Verdict,
    cells,
    expected,
    judge,
)
from survival_interruptions import BY_NAME
from survival_jobs import command
from survival_play import Played
from survival_report import markdown

STEP = Expected(Kind.SURVIVES, Bound.STEP)
GOOD = Facts("COMPLETED", 2, ("preempted", "finished"), True, 0, 11, (), 0.4, by_hand=False)


def test_no_cell_is_left_out():
    every = {Cell(*names) for names in itertools.product(LAUNCHERS, INTERRUPTIONS, PHASES)}
    assert set(cells()) == every
    assert len(cells()) == len(every) == 6 * 11 * 6


def test_every_cell_can_be_played_and_is_printed():
    assert set(BY_NAME) == set(INTERRUPTIONS)
    assert len({tuple(command(launcher, "step")) for launcher in set(LAUNCHERS) - {"srun"}}) == len(LAUNCHERS) - 1
    text = markdown([Played(cell, None, Verdict(True, cell.name)) for cell in cells()], "here", 1)
    assert all(f"| {cell.name} |" in text for cell in cells())
    assert "not played" not in text
    assert markdown([], "here", 1).count("not played") == len(cells())


def test_what_is_less_than_one_step_has_its_reason_and_every_rule_is_somebodys():
    for cell in cells():
        wanted = expected(cell)
        assert wanted.reason or (wanted.kind is Kind.SURVIVES and wanted.bound is Bound.STEP), cell
    used = [next(rule for rule in RULES if rule.fits(cell)) for cell in cells()]
    assert [rule for rule in RULES if rule not in used] == []


def test_the_training_is_the_one_that_the_table_speaks_of():
    import survival_jobs

    words = survival_jobs.TRAINING.read_text()
    assert f"STEPS, STEP_SECONDS, HELD_STEP, HELD_SAVE, CALL_SECONDS = {STEPS}, 0.02, 30, 40, {CALL_SECONDS}" in words
    assert all(f'"{phase}"' in words for phase in PHASES)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"final_equal": False}, "not the final state"),
        ({"lost": 2}, "2 steps again, at most 1"),
        ({"left": ("7 sleep",)}, "left behind: 7 sleep"),
        ({"by_hand": True}, "did not come back"),
        ({"trouble": "hung"}, "hung"),
    ],
)
def test_a_cell_that_is_not_as_it_must_be_is_said(change, word):
    assert judge(STEP, GOOD) == Verdict(True, "survived, 0 lost, 0.4 s")
    verdict = judge(STEP, replace(GOOD, **change))
    assert not verdict.good
    assert verdict.text.startswith("LOST: ")
    assert word in verdict.text


def test_a_refusal_that_comes_back_is_no_refusal():
    refused = Expected(Kind.REFUSED, Bound.CHECKPOINT, "on purpose")
    assert judge(refused, replace(GOOD, by_hand=True)).text == "refused: on purpose (0 lost by hand, 0.4 s)"
    assert judge(refused, replace(GOOD, by_hand=True, lost=11)).good
    assert not judge(refused, replace(GOOD, by_hand=True, lost=12)).good
    assert not judge(refused, GOOD).good
