"""`hpc-resume submit` and `cancel` on a real cluster: what gets into the queue, what is refused, and in which words."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from cluster import wait_for


@pytest.fixture
def cli(cluster, tmp_path):
    """`hpc-resume` from another directory than the job's, as (exit code, stdout, stderr)."""

    def call(*words, env=None, cwd=tmp_path):
        done = subprocess.run(
            [sys.executable, "-m", "hpc_resume", *map(str, words)],
            cwd=cwd,
            env=cluster.env | (env or {}),
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr

    return call


@pytest.fixture
def job_yaml(tmp_path):
    def write(command="exec sleep 300", *, slurm=None, **keys):
        project = tmp_path / "my project"
        project.mkdir(exist_ok=True)
        spec = {"name": "job", "command": command, "slurm": {"mem": "100M", "time": "10"} | (slurm or {})} | keys
        path = project / "job.yaml"
        path.write_text(json.dumps(spec))
        return path

    return write


def submit(cli, path, *words):
    code, out, err = cli("submit", path, *words, "--json")
    assert code == 0, err
    answer = json.loads(out)
    return answer["job_id"], path.parent / "runs" / answer["run"]


def await_attempt(run, number=1):
    wait_for((run / f"attempts/{number:04d}/attempt.json").exists, 20, f"attempt {number} of {run.name}")


def test_the_answer_is_the_job_id_and_it_runs_in_its_own_directory(cli, cluster, job_yaml):
    path = job_yaml("pwd", slurm={"output": "logs/%x.out", "error": "logs/errors/%j.err"})
    code, out, err = cli("submit", path)
    assert (code, out.strip().isdigit()) == (0, True), err
    job = out.strip()
    assert f"job {job} works on job-{job}" in err
    shown = cluster.wait_state(job, "COMPLETED", seconds=20)
    assert shown["WorkDir"] == str(path.parent)
    assert str(path.parent) in (path.parent / "logs" / "job.out").read_text().splitlines()
    assert (path.parent / "logs" / "errors" / f"{job}.err").exists()
    assert (path.parent / "runs" / f"job-{job}" / "finished.json").exists()


def test_a_variable_of_the_shell_does_not_change_what_job_yaml_says(cli, cluster, job_yaml):
    path = job_yaml(slurm={"partition": "low"})
    taste = {"SBATCH_PARTITION": "high", "SBATCH_NO_REQUEUE": "1", "HPC_RESUME_RUN_KEY": "other", "SBATCH_WAIT": "1"}
    code, out, err = cli("submit", path, env=taste)
    assert code == 0, err
    shown = cluster.show(out.strip())
    assert (shown["Partition"], shown["Requeue"]) == ("low", "1")
    await_attempt(path.parent / "runs" / f"job-{out.strip()}")


def test_dry_run_asks_slurm_and_queues_nothing(cli, cluster, job_yaml):
    path = job_yaml(slurm={"output": "logs/x"})
    code, out, _ = cli("submit", path, "--dry-run", "--json")
    assert (code, json.loads(out)["dry_run"], "to start at" in json.loads(out)["words"]) == (0, True, True)
    code, out, err = cli("submit", path, "--dry-run")
    assert (code, "to start at" in out) == (0, True), err
    assert cluster.queue() == []
    assert [entry.name for entry in path.parent.iterdir()] == ["job.yaml"]
    code, out, err = cli("submit", job_yaml(slurm={"ntasks": 1, "mem": "9T"}), "--dry-run")
    assert (code, out) == (1, "")
    assert "sbatch would refuse the job: " in err


def test_what_slurm_refuses_is_said_in_its_words(cli, cluster, job_yaml):
    code, out, err = cli("submit", job_yaml(slurm={"partition": "nope"}))
    assert (code, out) == (1, "")
    assert err.startswith("sbatch refused the job: invalid partition specified: nope")
    assert cluster.queue() == []


def test_a_run_dir_that_cannot_be_is_refused_before_the_queue(cli, cluster, job_yaml):
    path = job_yaml(run_dir="job.yaml/runs")
    code, out, err = cli("submit", path)
    assert (code, out) == (78, "")
    assert "job.yaml is not a directory; set run_dir" in err
    code, _, err = cli("submit", job_yaml(slurm={"output": "job.yaml/logs/%j"}))
    assert code == 78
    assert "slurm.output job.yaml/logs/%j: the directory" in err
    assert cluster.queue() == []


def test_no_slurm_here_says_what_to_do(cli, job_yaml, tmp_path):
    (tmp_path / "bash").symlink_to("/bin/bash")
    for words, name in ((("submit", job_yaml()), "sbatch"), (("cancel", "12"), "squeue")):
        code, out, err = cli(*words, env={"PATH": str(tmp_path)})
        assert (code, out) == (1, "")
        assert err.startswith(f"no {name} on PATH: ")


def test_a_run_goes_on_in_a_new_job_and_only_once(cli, cluster, job_yaml):
    cluster.set_kill_wait(12)  # a busy machine has time to write the last word
    path = job_yaml()
    job, run = submit(cli, path)
    await_attempt(run)
    code, _, err = cli("submit", path, "--resume", run.name)
    assert code == 75
    assert f"{run.name} is still in the queue: job {job}, RUNNING" in err
    assert cli("cancel", job)[0] == 0
    cluster.wait_state(job, "CANCELLED", seconds=20)

    again, same = submit(cli, path, "--resume", run)  # by its directory
    assert (same.name, again != job) == (run.name, True)
    await_attempt(run, 2)
    code, _, err = cli("submit", path, "--resume", run.name)
    assert (code, f"job {again}, RUNNING" in err) == (75, True)
    # The run is named after its first job; the one at work is ended.
    code, _, err = cli("cancel", run.name, cwd=path.parent)
    assert (code, err.strip()) == (0, f"{run.name}: cancelled job {again}")
    cluster.wait_state(again, "CANCELLED", seconds=20)
    wait_for((run / "attempts/0002/exit.json").exists, 30, "the last word")
    assert json.loads((run / "attempts/0002/exit.json").read_text())["cause"] == "cancelled"


def test_one_task_of_an_array_goes_on_alone(cli, cluster, job_yaml):
    path = job_yaml(slurm={"array": "0-2"})
    job, run = submit(cli, path)
    tasks = [run.with_name(f"{run.name}_{task}") for task in range(3)]
    for task in tasks:
        await_attempt(task)
    code, _, err = cli("cancel", tasks[1].name, "--run-dir", run.parent)
    assert (code, err.strip()) == (0, f"{tasks[1].name}: cancelled job {job}_1")
    cluster.wait_state(f"{job}_1", "CANCELLED", seconds=20)
    assert cluster.state(f"{job}_0") == cluster.state(f"{job}_2") == "RUNNING"
    code, _, err = cli("submit", path, "--resume", run.name)
    assert (code, "is an array: name one task of it" in err) == (1, True)

    again, same = submit(cli, path, "--resume", tasks[1].name)
    assert same == tasks[1]
    await_attempt(tasks[1], 2)
    assert sorted(cluster.queue()) == sorted([f"{job}_0", f"{job}_2", f"{again}_1"])
    code, _, err = cli("cancel", run, cwd=path.parent)
    assert (code, err.strip()) == (0, f"{run.name}: cancelled job {job}")
    wait_for(lambda: cluster.queue() == [f"{again}_1"], 20, "the array's end")


@pytest.mark.parametrize(
    ("resume", "code", "words"),
    [
        ("job-99", 1, "no run job-99: there are job-{job} in "),
        ("runs/job-99", 1, "no run runs/job-99: there are "),
    ],
)
def test_a_run_that_is_not_there_is_not_begun(cli, cluster, job_yaml, resume, code, words):
    path = job_yaml("true")
    job, run = submit(cli, path)
    cluster.wait_state(job, "COMPLETED", seconds=20)
    got, out, err = cli("submit", "job.yaml", "--resume", resume, cwd=path.parent)
    assert (got, out) == (code, "")
    assert words.format(job=job) in err
    got, out, err = cli("submit", path, "--resume", run.name)
    assert (got, out) == (78, "")
    assert "is finished: nothing is left to do" in err
    path.write_text(path.read_text().replace('"name": "job"', '"name": "other"'))
    got, out, err = cli("submit", path, "--resume", run.name)
    assert (got, "is a run of job, and this job is other" in err) == (78, True)


def test_a_job_that_waits_is_cancelled_by_its_key(cli, cluster, job_yaml):
    path = job_yaml(slurm={"hold": True})
    job, run = submit(cli, path)
    assert cli("cancel", run.name, cwd=path.parent)[0] == 0
    assert cluster.state(job) == "CANCELLED"
    code, _, err = cli("cancel", job, run.name, "99", cwd=path.parent)
    assert code == 1
    first, second, third = err.strip().splitlines()
    assert first == f"job {job} has ended already: CANCELLED"
    assert second.startswith(f"no run {run.name}: ")
    assert third == "Slurm knows no job 99: look with `squeue --me`"
