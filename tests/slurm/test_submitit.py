"""`submitit.AutoExecutor(cluster="hpc_resume")` on a real cluster: what was submitted comes back through requeues."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from cluster import wait_for
from submitit_plugin import registered

SUBMISSION = '''
import hashlib, json, sys, time
import hpc_resume, submitit
from submitit.helpers import Checkpointable, DelayedSubmission

class Walk:
    order = ""
    def advance(self, step):
        self.order = hashlib.sha256(f"{self.order}{step}".encode()).hexdigest()
    def state_dict(self):
        return {"order": self.order}
    def load_state_dict(self, state):
        self.order = state["order"]

@hpc_resume.resumable
def train(run, total, pause=0.05):
    walk = Walk()
    run.register(walk=walk)
    for step in run.steps(total):
        walk.advance(step)
        print("step", step, flush=True)
        time.sleep(pause)
    return {"order": walk.order, "attempts": run.attempt}

class Count(Checkpointable):
    """As submitit's users write it: what is done is in the object."""
    def __init__(self):
        self.done = 0
        self.starts = 0
    def __call__(self, total):
        self.starts += 1
        while self.done < total:
            time.sleep(0.02)
            self.done += 1
            print("done", self.done, flush=True)
        return {"done": self.done, "starts": self.starts}

def plain(x):
    return x * x

def wrong(x):
    raise ValueError(f"no {x}")

def order(total):
    walk = Walk()
    for step in range(total):
        walk.advance(step)
    return walk.order

executor = submitit.AutoExecutor("log", cluster="hpc_resume")
executor.update_parameters(timeout_min=10, mem_gb=0.1, slurm_partition="low")
'''


@pytest.fixture
def submission(cluster, tmp_path):
    """submission(source): a process that submits, and prints one line of JSON at its end."""
    started = []
    (tmp_path / "jobs").mkdir()

    def start(source):
        script = tmp_path / "jobs" / "submission.py"
        script.write_text(SUBMISSION + textwrap.dedent(source))
        process = subprocess.Popen(
            [sys.executable, str(script)],
            cwd=script.parent,
            env=cluster.env | registered(tmp_path / "plugin"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def answer(process, seconds=50):
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def first_job(cluster):
    return wait_for(lambda: next(iter(sorted(cluster.queue())), ""), 30, "a job in the queue")


def await_log(directory: Path, job: str, words: str):
    log = directory / "jobs" / "log" / f"{job}_0_log.out"
    wait_for(lambda: log.exists() and words in log.read_text(), 30, f"{words!r} in {log}")


def records(directory: Path, job: str):
    run = next((directory / "jobs/log/runs").glob(f"*-{job}"))
    return [json.loads(path.read_text()) for path in sorted(run.glob("attempts/*/exit.json"))]


def test_a_resumable_function_as_it_is_comes_back_after_two_warnings(cluster, submission, tmp_path):
    process = submission("print(json.dumps([executor.submit(train, 60).result(), order(60)]))")
    job = first_job(cluster)
    for step in ("step 5\n", "step 25\n"):
        await_log(tmp_path, job, step)
        cluster.check("scancel", "--batch", "--signal=USR1", job)
    result, expected = answer(process)
    assert result == {"order": expected, "attempts": 3}
    log = (tmp_path / "jobs/log" / f"{job}_0_log.out").read_text()
    assert [line for line in log.splitlines() if line.startswith("step")] == [f"step {n}" for n in range(60)]
    assert [(end["code"], end["decision"]) for end in records(tmp_path, job)] == [
        (138, "requeue"),
        (138, "requeue"),
        (0, "finish"),
    ]


def test_an_array_gives_each_its_result_and_the_warned_one_goes_on(cluster, submission, tmp_path):
    process = submission("""
        executor.update_parameters(slurm_array_parallelism=2)
        jobs = executor.map_array(train, [30, 60])
        print(json.dumps([job.result() for job in jobs] + [order(30), order(60)]))
    """)
    job = first_job(cluster).partition("_")[0]
    await_log(tmp_path, f"{job}_1", "step 8\n")
    cluster.check("scancel", "--batch", "--signal=USR1", f"{job}_1")
    *results, short, long = answer(process)
    assert results == [{"order": short, "attempts": 1}, {"order": long, "attempts": 2}]


def test_a_checkpointable_object_keeps_what_it_has_done(cluster, submission, tmp_path):
    process = submission("print(json.dumps(executor.submit(Count(), 100).result()))")
    job = first_job(cluster)
    await_log(tmp_path, job, "done 10\n")
    cluster.check("scancel", "--batch", "--signal=USR1", job)
    assert answer(process) == {"done": 100, "starts": 2}
    log = (tmp_path / "jobs/log" / f"{job}_0_log.out").read_text()
    done = [int(line.split()[1]) for line in log.splitlines() if line.startswith("done ")]
    assert len(done) <= 101, done  # a turn that the handler interrupted is done again, no more
    assert [end["code"] for end in records(tmp_path, job)] == [138, 0]


def test_what_cannot_be_requeued_goes_on_in_a_successor_and_the_result_comes_to_the_first_job(
    cluster, submission, tmp_path
):
    process = submission("""
        executor.update_parameters(hpc_resume_requeue={"method": "successor"})
        job = executor.submit(train, 60)
        print(json.dumps([job.result(), job.job_id, order(60)]))
    """)
    job = first_job(cluster)
    await_log(tmp_path, job, "step 8\n")
    cluster.check("scancel", "--batch", "--signal=USR1", job)
    result, named, expected = answer(process)
    assert (result, named) == ({"order": expected, "attempts": 2}, job)
    first, second = records(tmp_path, job)
    assert first["successor"] == int(job) + 1
    assert second["decision"] == "finish"


def test_other_functions_run_and_their_errors_and_ends_are_told(cluster, submission, tmp_path):
    process = submission("""
        from submitit.core.utils import FailedJobError, UncompletedJobError
        with executor.batch():
            jobs = [executor.submit(plain, 3), executor.submit(wrong, 3)]
        said = [jobs[0].result(), str(jobs[1].exception())]
        executor.update_parameters(slurm_additional_parameters={"hold": True})
        held = executor.submit(plain, 4)
        print(held.state, flush=True)
        held.cancel()
        held._results_timeout_s = 1
        try:
            held.result()
        except UncompletedJobError as error:
            said.append(str(error))
        killed = submitit.AutoExecutor("log", cluster="hpc_resume")
        killed.update_parameters(timeout_min=10, mem_gb=0.1)
        try:
            killed.submit(sys.exit, 3).result()
        except UncompletedJobError as error:
            said.append(str(error))
        print(json.dumps(said))
    """)
    nine, error, cancelled, left = answer(process)
    assert nine == 9
    assert "ValueError: no 3" in error
    assert "has not produced any output (state: CANCELLED)" in cancelled
    assert "ended without a result: crash" in left
    assert "exit code 3; stop: " in left
    assert "hpc-resume explain" in left
