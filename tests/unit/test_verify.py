"""What verify-resume compares and whom it suspects: the rules, without a training."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hpc_resume.errors import CommandLineError
from hpc_resume.verify.compare import Parting, metrics_to_compare, partings, same, state_differences
from hpc_resume.verify.report import in_words, plot, write_report
from hpc_resume.verify.suspects import suspect
from hpc_resume.verify.trace import Trace
from hpc_resume.verify.trial import choose_steps
from hpc_resume.verify.verdict import Settings, Verdict

ALL = {"model": "model", "optimizer": "optimizer", "rng": "rng", "batches": "data", "schedule": "scheduler"}


def trace(losses, batches=None, stops=(), kinds=None, **more):
    metrics = {
        step: {"loss": loss} | {name: values[step] for name, values in more.items()} for step, loss in enumerate(losses)
    }
    return Trace(metrics, dict(enumerate(batches or ())), stops, kinds or ALL, len(losses), Path())


def suspected(reference, resumed):
    names = metrics_to_compare((reference, resumed), ())
    parted = list(partings(reference, resumed, names, 0.0))
    return suspect(parted, (), resumed.stops, resumed.kinds, reference.batches.get(0)).suspect


def without(kind):
    return {name: found for name, found in ALL.items() if found != kind}


LOSSES = [5.0, 4.0, 3.0, 2.0, 1.0]
BATCHES = [[0], [1], [2], [3], [4]]


@pytest.mark.parametrize(
    ("losses", "batches", "kinds", "expected"),
    [
        ([5.0, 4.0, 9.0, 9.0, 9.0], [[0], [1], [0], [1], [2]], without("data"), "data"),
        ([5.0, 4.0, 9.0, 9.0, 9.0], [[0], [1], [0], [1], [2]], ALL, "data"),
        ([5.0, 4.0, 3.0, 9.0, 9.0], [[0], [1], [2], [9], [9]], without("rng"), "rng"),  # the shuffle of the next epoch
        ([5.0, 4.0, 9.0, 9.0, 9.0], BATCHES, without("rng"), "rng"),
        ([5.0, 4.0, 9.0, 9.0, 9.0], BATCHES, without("model"), "model"),
        ([5.0, 4.0, 9.0, 9.0, 9.0], BATCHES, ALL, "unknown"),
        ([5.0, 4.0, 9.0, 9.0, 9.0], None, without("data"), "data"),
        ([5.0, 4.0, 3.0, 9.0, 9.0], BATCHES, without("optimizer"), "optimizer"),
        ([5.0, 4.0, 3.0, 9.0, 9.0], BATCHES, ALL, "optimizer"),
        ([5.0, 9.0, 9.0, 9.0, 9.0], BATCHES, ALL, "unknown"),  # before any interruption
        ([5.0, 4.0, 3.0, 9.0, 9.0], None, without("optimizer"), "optimizer"),
    ],
)
def test_the_first_step_after_a_resume_tells_what_was_not_saved(losses, batches, kinds, expected):
    reference = trace(LOSSES, BATCHES if batches else None)
    assert suspected(reference, trace(losses, batches, (2,), kinds)) == expected


def test_a_scheduler_shows_in_the_learning_rate():
    reference = trace(LOSSES, BATCHES, lr_loss=[1.0] * 5)
    resumed = trace([5.0, 4.0, 3.0, 9.0, 9.0], BATCHES, (2,), without("scheduler"), lr_loss=[1.0, 1.0, 1.0, 0.5, 0.5])
    assert suspected(reference, resumed) == "scheduler"


def test_metrics_about_time_are_not_compared_unless_asked_for():
    one = Trace({0: {"loss": 1.0, "val/loss": 2.0, "seconds": 3.0}}, {}, (), {}, 1, Path())
    assert metrics_to_compare((one, one), ()) == ("loss", "val/loss")
    assert metrics_to_compare((one, one), ("seconds",)) == ("seconds",)
    other = Trace({0: {"reward": 1.0, "samples_per_s": 2.0, "step_time": 3.0}}, {}, (), {}, 1, Path())
    assert metrics_to_compare((other, other), ()) == ("reward",)


def test_bits_decide_and_a_tolerance_is_relative_only_above_one():
    nan = float("nan")
    assert same(nan, nan, 0.0)
    assert not same(0.0, -0.0, 0.0)
    assert not same(1, 1.0, 0.0)
    assert not same([1.0, 2.0], [1.0], 0.0)
    assert same(1000.0, 1000.5, 1e-3)
    assert not same(0.001, 0.0025, 1e-3)
    assert same({"a": [1.0]}, {"a": [1.0 + 1e-9]}, 1e-6)
    assert not same(float("inf"), 2.0, 0.5)
    assert not same(nan, 2.0, 0.5)


def test_a_step_that_only_one_run_has_is_a_difference():
    assert [p.step for p in partings(trace(LOSSES), trace(LOSSES[:4]), ("loss",), 0.0)] == [4]


def test_the_state_is_named_by_its_place_with_the_largest_difference():
    import numpy as np

    left = {"state": {0: {"exp_avg": np.array([1.0, 2.0, 3.0]), "step": 4}}, "groups": [{"lr": 0.1}], "gone": 1}
    right = {"state": {0: {"exp_avg": np.array([1.0, 2.5, 2.0]), "step": 4}}, "groups": [{"lr": 0.2}], "new": 1}
    found = {d.place: (d.words, d.difference) for d in state_differences("optimizer", left, right, 0.0)}
    assert found == {
        "state.0.exp_avg": ("2 of 3 values differ", 1.0),
        "groups[0].lr": ("0.1 and 0.2", pytest.approx(0.1)),
        "gone": ("not in the interrupted run", 0.0),
        "new": ("not in the uninterrupted run", 0.0),
    }
    assert not list(state_differences("optimizer", left, left, 0.0))
    shapes = list(state_differences("m", {"w": np.ones(2)}, {"w": np.ones(3, dtype="f4")}, 0.0))
    assert "float64 (2,) and float32 (3,)" in shapes[0].words


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
def test_tensors_are_compared_bit_for_bit_whatever_their_type():
    import torch

    for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.float64, torch.complex64):
        left, right = torch.ones(4).to(dtype), torch.ones(4).to(dtype)
        assert not list(state_differences("m", {"w": left.T}, {"w": right}, 0.0))
        right[2] = 0
        assert [d.words for d in state_differences("m", {"w": left}, {"w": right}, 0.0)] == ["1 of 4 values differ"]
    scalar = list(state_differences("m", {"w": torch.tensor(1.0)}, {"w": torch.tensor(1.5)}, 0.0))
    assert scalar[0].difference == 0.5
    assert not list(state_differences("m", {"w": torch.tensor(1.0)}, {"w": torch.tensor(1.5)}, 0.6))


def test_the_steps_are_the_seeds_and_inside_the_training():
    assert choose_steps(100, 5, 3) == choose_steps(100, 5, 3) != choose_steps(100, 5, 4)
    assert choose_steps(3, 2, 0) == (1, 2)
    for total in (1, 2):
        with pytest.raises(CommandLineError, match="cannot be interrupted"):
            choose_steps(total, 2, 0)


@pytest.mark.parametrize(
    ("left", "right", "tolerance", "count"),
    [
        ([1.0, float("nan")], [1.0, float("nan")], 0.0, 0),
        ([1.0, float("nan")], [2.0, float("nan")], 0.0, 1),
        ([1.0, float("nan")], [1.0, 2.0], 0.0, 1),
        ([1.0, float("nan")], [1.0, 2.0], 0.5, 1),
        ([1.0, float("inf")], [1.0, 2.0], 0.5, 1),
        ([1.0, float("inf")], [1.1, float("inf")], 0.5, 0),
        ([0.0], [-0.0], 0.0, 1),
        ([0.0], [-0.0], 1e-9, 0),
        ([1e6, 1e-6], [1e6 + 1, 1e-6 + 1], 1e-3, 1),
    ],
)
def test_not_a_number_and_infinity_are_not_within_a_tolerance(left, right, tolerance, count):
    import numpy as np

    from hpc_resume.verify.arrays import array_difference

    assert array_difference(np.array(left), np.array(right), tolerance)[0] == count


def test_arrays_that_are_no_numbers_are_compared_too():
    import numpy as np

    from hpc_resume.verify.arrays import array_difference

    assert array_difference(np.array(["a", "b"]), np.array(["a", "c"]), 0.0) == (1, 2, 0.0)
    pairs = [np.array([(1, n)], dtype=[("a", "i4"), ("b", "f8")]) for n in (1.0, 2.0)]
    assert array_difference(*pairs, 0.0)[0] == 1
    assert array_difference(np.array([1 + 1j]), np.array([1 + 3j]), 0.0) == (1, 1, 2.0)


def test_a_curve_that_falls_far_is_drawn_by_its_logarithm_and_needs_no_style_sheet(tmp_path):
    settings = Settings("job.yaml", "d", "python train.py", 1, 0, 0.0, (), one_of_many=True)
    curve = ((0, 100.0), (50, 1.0), (99, 0.01))
    verdict = Verdict(settings, 100, (50,), ("loss",), 0, (), (), (), None, (curve, curve), {}, 1.0)
    drawn = plot(verdict)
    assert drawn["name"] == "loss (logarithmic scale)"
    assert drawn["reference"] == "34.0,34.0 363.3,110.0 686.0,186.0"
    write_report(verdict, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "one process of a job of many ranks" in page
    assert [line for line in page.splitlines() if "<polyline" in line and 'fill="none" stroke="#' not in line] == []
    assert page.count("<polyline") == 2
    assert "which says nothing of the others" in in_words(verdict)


def test_the_report_draws_a_metric_at_its_steps_and_no_value_breaks_its_tables(tmp_path):
    settings = Settings("job.yaml", "d", "python train.py | tee log", 1, 0, 0.0, ("loss",))
    curve = ((0, 1.0), (50, float("inf")), (99, 0.0))  # logged now and then
    parting = Parting("a|b", 3, "x|y", None, 0.0, 1)
    versions = {"python": "3.12"}
    verdict = Verdict(settings, 100, (50,), ("loss",), 0, (), (parting,), (), None, (curve, curve), versions, 1.0)
    drawn = plot(verdict)
    assert drawn["reference"] == drawn["resumed"] == "34.0,34.0 686.0,186.0"
    for name in ("r.md", "r.html"):
        write_report(verdict, tmp_path / name)
        assert "--seed 0 --metric loss" in (tmp_path / name).read_text()
    text = (tmp_path / "r.md").read_text()
    assert r"python train.py \| tee log" in text
    (row,) = [line for line in text.splitlines() if "x" in line and "y" in line and line.startswith("| a")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 7
