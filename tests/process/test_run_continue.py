"""Which run a start belongs to: continued, new, held, finished or refused, and always said in one line."""

from __future__ import annotations

import json
import os
import signal

import pytest

from hpc_resume.run.process import identify
from hpc_resume.run.rundir import RunDir, find_runs

TRAIN = """
@hpc_resume.resumable
def train(run, total=5):
    walk = Walk()
    run.register(walk=walk)
    for step in run.steps(total):
        walk.advance(step)
        print("step", step)
        if "slow" in sys.argv:
            time.sleep(0.02)
    return walk.order

if __name__ == "__main__":
    print("end", train(100000 if "slow" in sys.argv else 5))
"""


def said(child) -> list[str]:
    return [line.removeprefix("hpc_resume: ") for line in child.seen if line.startswith("hpc_resume: ")]


def test_plain_python_continues_an_unfinished_run_and_begins_anew_after_a_finished_one(start, walk, tmp_path):
    first = start(walk(TRAIN), "slow")
    first.wait_line("step 2")
    first.signal(signal.SIGKILL)
    assert first.code() == -9
    second = start(walk(TRAIN))
    assert second.code() == 0
    assert said(second) == [
        "runs/train/0001 was begun with other arguments; it goes on with the present ones",
        "continuing runs/train/0001 at step 0 (attempt 2)",
    ]
    third = start(walk(TRAIN))
    assert third.code() == 0
    assert said(third) == ["new run runs/train/0002"]
    assert third.seen[-1] == second.seen[-1]
    assert [run.path.name for run in find_runs(tmp_path / "runs")] == ["0001", "0002"]
    assert RunDir(tmp_path / "runs/train/0001").finished().step == 5
    assert RunDir(tmp_path / "runs/train/0001").run().name == "train"


def test_a_run_that_lives_is_left_alone(start, walk):
    first = start(walk(TRAIN), "slow")
    first.wait_line("step 0")
    second = start(walk(TRAIN))
    assert second.code() == 0
    host = os.uname().nodename
    assert said(second) == [
        f"runs/train/0001 is in use by pid {first.pid} on {host} (attempt 1)",
        "new run runs/train/0002",
    ]
    first.signal(signal.SIGTERM)
    assert first.code() == 143
    third = start(walk(TRAIN), "slow")
    third.wait_line("continuing runs/train/0001 at step")


def test_a_run_asked_for_by_name_and_held_is_exit_75(start, walk, tmp_path):
    where = str(tmp_path / "mine")
    first = start(walk(TRAIN), "slow", HPC_RESUME_RUN_DIR=where)
    first.wait_line("step 0")
    second = start(walk(TRAIN), HPC_RESUME_RUN_DIR=where)
    assert second.code() == 75
    assert f"{where} is being continued by pid {first.pid} on" in second.output
    assert "Traceback" not in second.output
    assert len(RunDir(tmp_path / "mine").attempts()) == 1


def test_processes_that_start_together_get_a_run_each(start, walk, tmp_path):
    children = [start(walk(TRAIN), "slow") for _ in range(5)]
    for child in children:
        child.wait_line("step 0")
    lines = sorted(said(child)[-1] for child in children)
    assert lines == [f"new run runs/train/{n:04d}" for n in range(1, 6)]


def test_a_finished_run_is_not_trained_again(start, walk, tmp_path):
    where = str(tmp_path / "mine")
    assert start(walk(TRAIN), HPC_RESUME_RUN_DIR=where).code() == 0
    again = start(walk(TRAIN), HPC_RESUME_RUN_DIR=where)
    assert again.code() == 0
    assert said(again) == ["mine is finished, nothing to do; for a new run set HPC_RESUME_RUN_DIR to a new directory"]
    assert not [line for line in again.seen if line.startswith(("step", "end"))]


def test_under_a_launcher_only_the_trainings_own_files_are_written(start, walk, tmp_path):
    run = RunDir(tmp_path / "job-7")
    attempt = run.attempt(3)
    attempt.path.mkdir(parents=True)
    env = {
        "HPC_RESUME_RUN_DIR": str(run.path),
        "HPC_RESUME_ATTEMPT": "3",
        "HPC_RESUME_ATTEMPT_DIR": str(attempt.path),
        "HPC_RESUME_CAUSE": "preempted",
        "HPC_RESUME_END_TIME": "1800000000",
    }
    source = TRAIN.replace("walk = Walk()", "walk = Walk(); print(run.attempt, run.cause, run.deadline, run.resumed)")
    child = start(walk(source), **env)
    assert child.code() == 0
    assert "3 preempted 1800000000.0 False" in child.seen
    assert sorted(path.name for path in run.path.iterdir()) == [
        "attempts",
        "checkpoints",
        "latest",
        "lease",
        "run.lock",
    ]
    assert sorted(path.name for path in attempt.path.iterdir()) == ["events", "metrics.jsonl", "outcome.json", "pids"]
    modes = {path.stat().st_mode & 0o077 for path in [run.path / "latest", *run.checkpoints_dir.rglob("*")]}
    assert modes == {0}


def test_the_holder_that_is_named_is_neither_ourselves_nor_a_dead_one(start, walk, tmp_path):
    run = RunDir(tmp_path / "job-7")
    me = identify(os.getpid())

    def env(number: int, pid: int, ticks: int) -> dict[str, str]:
        record = {"version": 1, "attempt": number, "job_id": f"{number}0", "pid": pid, "start_ticks": ticks}
        run.attempt(number).path.mkdir(parents=True)
        run.attempt(number).attempt_file.write_text(json.dumps(record | {"host": me.host, "boot_id": me.boot_id}))
        attempt = {"HPC_RESUME_ATTEMPT": str(number), "HPC_RESUME_ATTEMPT_DIR": str(run.attempt(number).path)}
        return {"HPC_RESUME_RUN_DIR": str(run.path), **attempt}

    holder = start(walk(TRAIN), "slow", **env(1, me.pid, me.start_ticks))
    holder.wait_line("step 1")
    env(2, me.pid, me.start_ticks + 1)  # dead
    refused = start(walk(TRAIN), **env(3, me.pid, me.start_ticks))
    assert refused.code() == 75
    assert f"continued by pid {me.pid} on {me.host} (attempt 1, job 10)" in refused.output


def test_other_ranks_announce_themselves_and_write_nothing_else(start, walk, tmp_path):
    run = RunDir(tmp_path / "job-7")
    attempt = run.attempt(1)
    attempt.path.mkdir(parents=True)
    env = {"HPC_RESUME_RUN_DIR": str(run.path), "HPC_RESUME_ATTEMPT_DIR": str(attempt.path), "SLURM_PROCID": "1"}
    child = start(walk(TRAIN), "slow", **env)
    child.wait_line("step 1")
    child.signal(signal.SIGUSR1)
    assert child.code() == 138
    assert [record.rank for record in attempt.pids()] == [1]
    assert [path.name for path in run.path.iterdir()] == ["attempts"]
    assert sorted(path.name for path in attempt.path.iterdir()) == ["events", "pids"]


def test_another_rank_without_a_directory_is_told_to_set_one(start, walk):
    child = start(walk(TRAIN), RANK="2")
    assert child.code() == 78
    assert "rank 2 does not know the run directory: set HPC_RESUME_RUN_DIR" in child.output


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (
            {"HPC_RESUME_RUN_DIR": "/dev/null/run"},
            "run directory /dev/null/run: Not a directory; set HPC_RESUME_RUN_DIR",
        ),
        ({"HPC_RESUME_KEEP": "two"}, "HPC_RESUME_KEEP=two: not a whole number"),
        ({"HPC_RESUME_SIGNAL": "KILL"}, "HPC_RESUME_SIGNAL=KILL: no signal that a process can be warned with"),
        ({"HPC_RESUME_ATTEMPT_DIR": "/tmp/x"}, "HPC_RESUME_ATTEMPT_DIR is set and HPC_RESUME_RUN_DIR is not"),
    ],
)
def test_what_cannot_work_is_exit_78_in_one_line(start, walk, variables, words):
    child = start(walk(TRAIN), **variables)
    assert child.code() == 78
    assert len(child.seen) == 1
    assert words in child.seen[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to somebody else")
def test_somebody_elses_run_directory_is_refused(start, walk, tmp_path):
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 12345, -1)
    child = start(walk(TRAIN), HPC_RESUME_RUN_DIR=str(tmp_path / "theirs"))
    assert child.code() == 78
    assert "theirs belongs to user id 12345" in child.output
    assert list((tmp_path / "theirs").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("run.register(walk=walk)", "run.register(walk=walk, more=Walk())"), "'more' is registered but not in the"),
        (("run.register(walk=walk)", "pass"), "nothing is registered as walk (checkpoint: walk; registered: nothing)"),
        (("run.register(walk=walk)", "run.register_io(save=print, load=print, name='walk')"), "by backend 'json'"),
        (('self.order = state["order"]', 'self.order = state["other"]'), "walk.json does not fit what is registered"),
    ],
)
def test_a_checkpoint_that_does_not_fit_the_code_is_named_and_untouched(start, walk, tmp_path, change, words):
    first = start(walk(TRAIN), "slow")
    first.wait_line("step 3")
    first.signal(signal.SIGUSR1)
    assert first.code() == 138
    run = RunDir(tmp_path / "runs/train/0001")
    before = {path: path.read_bytes() for path in run.checkpoints_dir.rglob("*") if path.is_file()}
    child = start(walk(TRAIN).replace(*change), "slow")
    assert child.code() == 78
    assert words in child.output
    assert "Traceback" not in child.output
    assert "train.py:" in child.seen[-1]
    assert {path: path.read_bytes() for path in run.checkpoints_dir.rglob("*") if path.is_file()} == before
    assert run.attempt(2).outcome().outcome == "crashed"


def test_a_broken_checkpoint_is_passed_over_with_words_and_kept(start, walk, tmp_path):
    first = start(walk(TRAIN), "slow", HPC_RESUME_SAVE_STEPS="5")
    first.wait_line("step 12")
    first.signal(signal.SIGKILL)
    assert first.code() == -9
    run = RunDir(tmp_path / "runs/train/0001")
    file = run.checkpoint_dir(10) / "walk.json"
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    second = start(walk(TRAIN), "slow", HPC_RESUME_SAVE_STEPS="5")
    second.wait_line("continuing runs/train/0001 at step 5")
    second.wait_line("step 11")
    second.signal(signal.SIGUSR1)
    assert second.code() == 138
    assert "step-00000010 is broken (walk.json: checksum" in second.output
    assert "step 5 is used instead" in second.output
    assert (run.checkpoints_dir / "step-00000010.broken-1" / "walk.json").read_bytes() == bytes(data)
    skipped = [event.data for event in run.attempt(2).events() if event.event == "skipped"]
    assert [data["checkpoint"] for data in skipped] == ["step-00000010"]


def test_the_ten_lines_of_the_example_end_the_same(start, tmp_path):
    from pathlib import Path

    source = (Path(__file__).parents[2] / "examples/minimal/train.py").read_text()
    fast = {"TOTAL_STEPS": "25", "STEP_SECONDS": "0.01"}
    alone = start(source, HPC_RESUME_RUN_DIR=str(tmp_path / "alone"), **fast)
    assert alone.code() == 0
    stopped = start(source, **fast)
    stopped.wait_line("step 3")
    stopped.signal(signal.SIGUSR1)
    assert stopped.code() == 138
    resumed = start(source, **fast)
    assert resumed.code() == 0
    assert resumed.seen[-1] == alone.seen[-1]
    assert resumed.seen[-1].startswith("final state ")
    logged = [
        json.loads(line)["step"]
        for n in (1, 2)
        for line in RunDir(tmp_path / "runs/train/0001").attempt(n).metrics_file.read_text().splitlines()
    ]
    assert logged == list(range(25))
