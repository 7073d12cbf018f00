"""What every tracker keeps, and what a run keeps from every tracker: a new one adds its name to TRACKERS."""

from __future__ import annotations

import importlib
import json
import threading
import time

import pytest

from hpc_resume.trackers import TRACKERS, Facts, Trackers


@pytest.fixture
def facts(tmp_path):
    return Facts(
        tmp_path / "metrics.jsonl",
        "net-7",
        attempt=2,
        step=40,
        resumed=True,
        run_file=tmp_path / "run.json",
        say=lambda words: None,
    )


@pytest.fixture(params=sorted(TRACKERS))
def tracker(request, facts):
    return importlib.import_module(TRACKERS[request.param]).open(facts)


class Scalar:
    """As NumPy's and torch's: `item()` gives the number."""

    def item(self):
        return 0.25


class Many:
    def item(self):
        raise ValueError("only one element")


def test_the_whole_life_of_one(tracker):
    tracker.begin()
    tracker.log({"loss": 0.5}, 40)
    tracker.mark_preempting()
    tracker.mark_preempting()
    tracker.finish(138)


def test_values_that_trainings_log_are_no_reason_to_fail(tracker):
    odd = {"scalar": Scalar(), "many": Many(), "nan": float("nan"), "none": None, "nested": {"a": [1, (2,)]}, 3: "key"}
    tracker.log(odd, 40)
    tracker.finish(0)


def test_jsonl_is_json_line_by_line_and_goes_on_after_a_kill(facts):
    for step in (40, 41):
        tracker = importlib.import_module(TRACKERS["jsonl"]).open(facts)
        tracker.log({"loss": Scalar(), "bad": float("-inf"), "many": Many(), "grid": {"a": (1,)}}, step)
    lines = [json.loads(line) for line in facts.metrics_file.read_text().splitlines()]
    assert [line["step"] for line in lines] == [40, 41]
    assert (lines[0]["loss"], lines[0]["bad"], lines[0]["grid"]) == (0.25, "-inf", {"a": [1]})
    assert abs(lines[0]["t"] - time.time()) < 60
    assert facts.metrics_file.stat().st_mode & 0o777 == 0o600


class Awkward:
    def __init__(self):
        self.asked = []
        self.never = threading.Event()

    def begin(self):
        raise ValueError("not today")

    def log(self, metrics, step):
        raise OSError("no space")

    def mark_preempting(self):
        self.asked.append("mark")
        raise KeyboardInterrupt

    def finish(self, exit_code):
        self.asked.append(exit_code)
        self.never.wait()


def test_one_that_fails_is_named_once_and_one_that_hangs_is_left_behind():
    said: list[str] = []
    awkward = Awkward()
    trackers = Trackers({"awkward": awkward}, said.append)
    trackers.begin()
    for step in range(5):
        trackers.log({"loss": 1.0}, step)
    trackers.mark_preempting()
    began = time.monotonic()
    trackers.finish(138, 0.05)
    assert time.monotonic() - began < 5
    assert awkward.asked == ["mark", 138]
    assert said == ["tracker awkward: ValueError: not today"]
    awkward.never.set()


def test_one_that_cannot_be_opened_is_left_out(facts, monkeypatch):
    monkeypatch.setitem(TRACKERS, "absent", "hpc_resume.trackers.absent")
    said: list[str] = []
    trackers = Trackers.open(facts, said.append)
    trackers.log({"loss": 1.0}, 1)
    trackers.finish(0, 5)
    assert said == ["tracker absent: ModuleNotFoundError: No module named 'hpc_resume.trackers.absent'; it is left out"]
    assert facts.metrics_file.read_text().count("\n") == 1


def test_a_package_outside_adds_one_by_its_entry_point(facts, tmp_path, monkeypatch):
    (tmp_path / "elsewhere.py").write_text(
        "class Outside:\n"
        "    def __init__(self, facts): self.path = facts.metrics_file.with_name('outside')\n"
        "    def begin(self): pass\n"
        "    def log(self, metrics, step): self.path.write_text(f'{step} {dict(metrics)}')\n"
        "    def mark_preempting(self): pass\n"
        "    def finish(self, exit_code): pass\n"
    )
    info = tmp_path / "elsewhere-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[hpc_resume.trackers]\nelsewhere = elsewhere:Outside\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    said: list[str] = []
    trackers = Trackers.open(facts, said.append)
    trackers.log({"a": 1}, 7)
    trackers.finish(0, 5)
    assert said == []
    assert (tmp_path / "outside").read_text() == "7 {'a': 1}"
