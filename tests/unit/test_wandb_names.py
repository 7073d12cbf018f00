"""Ids that W&B takes, wishes from job.yaml and W&B's own variables, and the ledger of rows: pure, without wandb."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_resume.errors import ConfigError
from hpc_resume.trackers.ledger import Row, merge, read_rows, repeats
from hpc_resume.trackers.wandb_names import RunFile, as_run_id, own_run_id, read_wishes

ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@given(st.text(min_size=1, max_size=100), st.text(min_size=1, max_size=100))
def test_every_text_becomes_an_id_and_no_two_the_same(one, other):
    assert ID.fullmatch(as_run_id(one))
    assert (as_run_id(one) == as_run_id(other)) is (one == other)


def test_what_is_an_id_stays_as_it_is():
    assert as_run_id("resnet-50_a") == "resnet-50_a"
    assert as_run_id("a" * 64) == "a" * 64
    assert as_run_id("a.b") != as_run_id("a-b") == "a-b"


def test_an_own_id_is_the_same_on_an_empty_disk_and_another_elsewhere():
    slurm = {"SLURM_JOB_ID": "7", "SLURM_CLUSTER_NAME": "one"}
    here = own_run_id("net-7", Path("/runs/net-7"), "1.5", slurm)
    assert here == own_run_id("net-7", Path("/runs/net-7"), "2.5", slurm)
    assert here.startswith("net-7-")
    others = [
        own_run_id("net-7", Path("/runs/net-7"), "1.5", slurm | {"SLURM_CLUSTER_NAME": "two"}),
        own_run_id("net-7", Path("/else/net-7"), "1.5", slurm),
        own_run_id("net-7", Path("/runs/net-7"), "1.5", {}),
        own_run_id("net-7", Path("/runs/net-7"), "2.5", {}),  # a directory that was deleted: another run
    ]
    assert len({here, *others}) == 5
    assert ID.fullmatch(own_run_id("x" * 200, Path("/r"), "1", {}))


def test_wishes_are_job_yamls_and_wandbs_own_variables_go_before():
    told = {"HPC_RESUME_WANDB": json.dumps({"project": "p", "resume": "must", "tags": ["a"]})}
    wishes = read_wishes(told)
    assert (wishes.project, wishes.resume, wishes.tags, wishes.step_metric) == ("p", "must", ("a",), "global_step")
    wishes = read_wishes(told | {"WANDB_PROJECT": "q", "WANDB_RESUME": "never", "WANDB_RUN_ID": "abc"})
    assert (wishes.project, wishes.resume, wishes.run_id) == ("q", "never", "abc")
    assert read_wishes({}) is None
    assert read_wishes(told | {"HPC_RESUME_DRILL": "0"}) is None  # the metrics of a drill are nobody's


@pytest.mark.parametrize("wrong", [{"WANDB_RESUME": "true"}, {"HPC_RESUME_WANDB": "{"}])
def test_what_wandb_would_refuse_is_refused_before(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        read_wishes({"HPC_RESUME_WANDB": "{}"} | wrong)


def test_run_json_keeps_what_others_wrote(tmp_path):
    path = tmp_path / "run.json"
    RunFile(path).note(id="x")
    assert not path.exists()  # the launcher's to write
    path.write_text('{"version": 1, "key": "net-7", "later": [1]}')
    RunFile(path).note(id="abc", started=False)
    RunFile(path).note(started=True)
    assert json.loads(path.read_text()) == {
        "version": 1,
        "key": "net-7",
        "later": [1],
        "wandb": {"id": "abc", "started": True},
    }


def rows(*steps):
    return [Row(step, 0.0, {"n": index}) for index, step in enumerate(steps)]


def test_a_row_that_comes_again_counts_once():
    merged = merge([rows(0, 1, 1, 2), rows(1, 1, 2, 2, 3)])
    assert [row.step for row in merged] == [0, 1, 1, 2, 2, 3]
    assert merged[3].metrics == {"n": 3}  # the first one was sent already
    assert repeats(merged, 2) == {2: 2, 3: 1}


@given(st.lists(st.integers(0, 20), min_size=1, max_size=6), st.integers(1, 3))
def test_any_interruptions_leave_each_row_once(stops, each):
    """An attempt goes on from any earlier step, and logs `each` rows a step."""
    attempts = [[Row(step, 0.0, {}) for step in range(min(at), at[1] + 1) for _ in range(each)] for at in _spans(stops)]
    merged = [row.step for row in merge(attempts)]
    assert merged == [step for step in range(max(stops) + 1) for _ in range(each)]


def _spans(stops):
    """(first, last) step of each attempt: it begins where an earlier one has been."""
    reached = -1
    for stop in stops:
        yield min(stop, reached + 1), stop
        reached = max(reached, stop)


def test_a_torn_line_and_what_is_no_number_are_borne(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "t": 2.5, "loss": "nan", "name": "a"}\n[1]\n{"step": "x", "t": 1}\n{"step": 2, "t"')
    (row,) = read_rows(path)
    assert (row.step, row.t, row.metrics["name"]) == (1, 2.5, "a")
    assert row.metrics["loss"] != row.metrics["loss"]
    assert read_rows(tmp_path / "absent") == []
