"""`hpc-resume checkpoints`: lists what there is, finds what is broken, removes nothing that is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

TRAIN = """
@hpc_resume.resumable(every=10, keep=5)
def train(run):
    walk = Walk()
    run.register(walk=walk)
    for step in run.steps(int(sys.argv[1])):
        walk.advance(step)
        if step == int(sys.argv[2]):
            print("waiting", flush=True)
            time.sleep(60)
train()
"""


@pytest.fixture
def call(tmp_path):
    def run(*words, code=0, verb="checkpoints"):
        env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "HPC_RESUME", "RANK"))}
        argv = [sys.executable, "-m", "hpc_resume", verb, *words]
        done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_flipped_bit_is_found_by_verify_and_pruning_keeps_what_is_whole(start, walk, call, tmp_path):
    assert start(walk(TRAIN), "50", "-1").code() == 0
    run = "runs/train/0001"
    shelf = tmp_path / run / "checkpoints"
    rows = json.loads(call(run, "--json").stdout)["checkpoints"]
    assert [(row["step"], row["state"], row["latest"]) for row in rows] == [
        (50, "whole", True),
        *((step, "whole", False) for step in (40, 30, 20, 10)),
    ]
    assert all(row["size"] > 0 and row["backends"] == ["json"] and row["created"] for row in rows)
    flip(shelf / "step-00000040" / "walk.json")
    (shelf / "step-00000030" / "walk.json").unlink()
    text = call(run, "--verify", code=1).stdout
    assert "verified, latest" in text
    assert "broken: walk.json: checksum" in text
    rows = {row["step"]: row for row in json.loads(call(run, "--verify", "--json", code=1).stdout)["checkpoints"]}
    assert {step: row["state"] for step, row in rows.items()} == {
        50: "verified",
        40: "broken",
        30: "broken",
        20: "verified",
        10: "verified",
    }
    assert "reading" not in call(run, "--verify", code=1).stderr, "progress is for a terminal"
    pruned = json.loads(call(run, "--prune", "2", "--json", "--verify").stdout)
    assert [row["step"] for row in pruned["removed"]] == [40, 30, 10]
    assert [(row["step"], row["state"]) for row in pruned["checkpoints"]] == [(50, "verified"), (20, "verified")]
    assert sorted(path.name for path in shelf.iterdir()) == ["step-00000020", "step-00000050"]
    for few in ("1", "0", "-1"):
        assert "at least 2" in call(run, "--prune", few, code=2).stderr
    assert "nothing was removed; there are no more than 2, and none is broken" in call(run, "--prune", "2").stderr
    for name in ("step-00000020", "step-00000050"):
        (shelf / name / "manifest.json").write_text('{"version": 1, "st')
    done = call(run, "--prune", "2")
    assert "broken: manifest.json: not JSON, or half of it" in done.stdout
    assert "nothing was removed; no checkpoint verifies" in done.stderr


def test_pruning_touches_nothing_while_a_process_is_at_work(start, walk, call, tmp_path):
    child = start(walk(TRAIN), "50", "45")
    child.wait_line("waiting")
    run = "runs/train/0001"
    before = sorted(path.name for path in (tmp_path / run / "checkpoints").iterdir())
    assert "is at work" in call(run, "--prune", "2", code=75).stderr
    assert sorted(path.name for path in (tmp_path / run / "checkpoints").iterdir()) == before
    assert "40" in call(run).stdout


def test_auto_shows_what_it_comes_from(start, walk, call):
    source = TRAIN.replace("every=10", 'every="auto"')
    assert start(walk(source), "5", "-1").code() == 0
    text = call("runs/train/0001").stdout
    assert "saved auto: every" in text
    assert "0 interruptions without warning" in text
    auto = json.loads(call("runs/train/0001", "--json").stdout)["auto"]
    assert auto["saves"] == 1
    assert auto["every"] >= 5


def test_status_shows_it_too_while_the_run_is_at_work(start, walk, call):
    child = start(walk(TRAIN.replace("every=10", 'every="auto"')), "50", "5")
    child.wait_line("waiting")
    text = call("runs/train/0001", verb="status").stdout
    assert "saved auto: every 60 s until a save is measured (0 interruptions without warning in" in text
    (row,) = json.loads(call("runs/train/0001", "--json", verb="status").stdout)["runs"]
    assert (row["state"], row["auto"]["every"], row["auto"]["saves"]) == ("running", 60.0, 0)


def test_a_run_without_checkpoints_and_one_that_is_not_there(start, call):
    assert start("import hpc_resume\nwith hpc_resume.Run() as run: pass").code() == 0
    assert "has no checkpoint yet" in call("runs/train/0001").stdout
    assert json.loads(call("runs/train/0001", "--json").stdout)["checkpoints"] == []
    call("nonesuch", code=1)


JOB = """
import os, signal
@hpc_resume.resumable
def train(run):
    walk = Walk()
    run.register(walk=walk)
    for step in run.steps(40):
        walk.advance(step)
        run.log({"a": 1})
        if step == 20 and run.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
train()
"""


def test_a_job_says_how_often_and_in_which_format_and_the_ledger_knows_the_loss(walk, call, tmp_path):
    (tmp_path / "train.py").write_text(walk(JOB))
    checkpoint = {"every": "auto", "backend": "numpy"}
    job = {"name": "m", "command": [sys.executable, "train.py"], "checkpoint": checkpoint}
    job["requeue"] = {"max": {"crash": 1}}
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "HPC_RESUME", "RANK"))}
    argv = [sys.executable, "-m", "hpc_resume", "run"]
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(call("runs/m-local-1", "--verify", "--json").stdout)
    assert [(row["step"], row["state"], row["backends"]) for row in found["checkpoints"]] == [
        (40, "verified", ["numpy"])
    ]
    assert found["auto"]["losses"] == 1
    assert found["auto"]["saves"] == 1
    assert "1 interruption without warning" in call("job.yaml").stdout
