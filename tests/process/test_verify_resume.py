"""verify-resume: finds nothing where all is saved, and the right suspect where something is not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpc_resume.verify.trial import choose_steps

TORCH = Path(__file__).parents[2] / "examples/torch/train.py"
TOY = """
import os, random
import hpc_resume

class Part:
    def __init__(self, **state):
        self.__dict__.update(state)
    def state_dict(self):
        return dict(self.__dict__)
    def load_state_dict(self, state):
        self.__dict__.update(state)

@hpc_resume.resumable
def train(run):
    random.seed(1)
    net, optimizer, batches = Part(weight=5.0), Part(speed=0.0), Part(next=0)
    run.register(net=net, optimizer=optimizer, batches=batches, rng=hpc_resume.rng())
    for step in LOOP:
        batch = [batches.next, batches.next + 1]
        batches.next = (batches.next + 2) % 14
        loss = net.weight ** 2 + batch[0] + random.gauss(0, 0.1)
        optimizer.speed = 0.9 * optimizer.speed - 0.02 * net.weight - 1e-4 * loss
        net.weight += optimizer.speed
        run.log({"loss": loss, "seconds": os.getpid()}, step, batch=batch)
        AFTER
train()
"""


def project(directory: Path, source: str, *arguments: str) -> Path:
    """A job with that training."""
    directory.mkdir(exist_ok=True)
    (directory / "train.py").write_text(source)
    job = {"name": "v", "command": [sys.executable, "train.py", *arguments], "slurm": {"array": "3-5"}}
    (directory / "job.yaml").write_text(json.dumps(job | {"requeue": {"on": []}, "preemption": {"lead": "30s"}}))
    return directory


def verify(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "HPC_RESUME", "RANK"))}
    argv = [sys.executable, "-m", "hpc_resume", "verify-resume", *words]
    env |= {"TMPDIR": str(directory)}
    return subprocess.run(argv, cwd=directory, env=env, capture_output=True, text=True, timeout=280, check=False)


def toy(loop: str = "run.steps(30)", after: str = "pass") -> str:
    return TOY.replace("LOOP", loop).replace("AFTER", after)


def test_what_is_saved_whole_is_equal_and_leaves_nothing_behind(tmp_path):
    done = verify(project(tmp_path, toy()), "--interruptions", "3", "--seed", "5", "--report", "r.html")
    assert done.returncode == 0, done.stdout + done.stderr
    stops = choose_steps(30, 3, 5)
    assert done.stdout.splitlines()[0] == "job.yaml: equal bit for bit after 3 interruptions"
    assert f"after steps {', '.join(map(str, stops))} of 30 (seed 5)" in done.stdout
    assert (
        "loss of each step, the ids of 30 batches, and the final state of batches, net, optimizer, rng" in done.stdout
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job.yaml", "r.html", "train.py"]
    page = (tmp_path / "r.html").read_text()
    assert "equal bit for bit after 3 interruptions" in page
    assert page.count('class="stop"') == 3
    assert "http" not in page.replace("http://www.w3.org/2000/svg", ""), "it fetches nothing"
    assert "src=" not in page


def test_a_loop_of_ones_own_is_verified_too(tmp_path):
    loop = "range(run.start_step, 20)"
    done = verify(project(tmp_path, toy(loop, "run.checkpoint_point(step + 1)")), "--json")
    result = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    assert (result["equal"], result["steps"], len(result["interrupted_after"])) == (True, 20, 2)
    assert result["components"] == {"net": "model", "optimizer": "optimizer", "batches": "data", "rng": "rng"}


def test_of_a_job_of_many_ranks_one_process_is_run_and_that_is_said(tmp_path):
    directory = project(tmp_path, toy("run.steps(5)"))
    job = json.loads((directory / "job.yaml").read_text())
    (directory / "job.yaml").write_text(json.dumps(job | {"slurm": {"ntasks_per_node": 4}}))
    done = verify(directory, "--interruptions", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "  note          the job has many ranks; one process of it was run here" in done.stdout


def test_a_tolerance_lets_pass_what_is_smaller_and_only_that(tmp_path):
    source = toy(after="net.weight += 1e-9 * (run.attempt > 1 and step > 27)")
    directory = project(tmp_path, source)
    strict = verify(directory, "--json", "--report", "r.md")
    result = json.loads(strict.stdout)
    assert strict.returncode == 1
    assert {(item["component"], item["place"]) for item in result["state_that_differs"]} == {
        ("net", "weight"),
        ("optimizer", "speed"),
    }
    assert all(0 < item["difference"] < 1e-6 for item in result["state_that_differs"])
    assert [(item["name"], item["step"], item["steps"]) for item in result["metrics_that_differ"]] == [("loss", 29, 1)]
    assert "both runs are kept in" in strict.stderr
    assert "NOT equal after 2 interruptions" in (tmp_path / "r.md").read_text()
    loose = verify(directory, "--tolerance", "1e-5")
    assert loose.returncode == 0, loose.stdout
    assert "equal within 1e-05" in loose.stdout


def test_what_cannot_be_verified_says_why(tmp_path):
    crash = verify(project(tmp_path / "crash", toy(after="1 / (step < 4)")))
    assert crash.returncode == 1
    assert "the uninterrupted run ended with code 1" in crash.stderr
    assert "ZeroDivisionError" in crash.stderr
    short = verify(project(tmp_path / "short", toy("run.steps(2)")))
    assert (short.returncode, short.stdout) == (2, "")
    assert "a training of 2 steps cannot be interrupted 2 times: --interruptions 1" in short.stderr
    assert not list((tmp_path / "short").glob("hpc-resume-verify-*"))
    nothing = verify(project(tmp_path / "nothing", "print('no run')"))
    assert nothing.returncode == 1
    assert "saved nothing" in nothing.stderr
    assert "what has run is kept in" in nothing.stderr
    for name, words in (("r.pdf", "must end in .html or .md"), ("no/r.html", "there is no directory no")):
        report = verify(tmp_path / "short", "--report", name)
        assert report.returncode == 2
        assert words in report.stderr
        assert "uninterrupted" not in report.stderr, "said before the training, not after it"
    metric = verify(project(tmp_path / "metric", toy("run.steps(5)")), "--metric", "los")
    assert (metric.returncode, metric.stdout) == (2, "")
    assert "--metric los: the training has logged no such metric; there are loss, seconds" in metric.stderr


def test_ctrl_c_ends_it_and_leaves_nothing(tmp_path):
    directory = project(tmp_path, toy("run.steps(10_000)", "__import__('time').sleep(0.01)"))
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "HPC_RESUME", "RANK"))}
    argv = [sys.executable, "-m", "hpc_resume", "verify-resume"]
    child = subprocess.Popen(
        argv,
        cwd=directory,
        env=env | {"TMPDIR": str(directory)},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        until = time.monotonic() + 60
        while not list(directory.glob("hpc-resume-verify-*/uninterrupted/*/attempts/0001/metrics.jsonl")):
            assert time.monotonic() < until, "the training has not begun"
            time.sleep(0.02)
        child.send_signal(signal.SIGINT)
        out, words = child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait()
    assert (child.returncode, out) == (130, ""), words
    assert "Traceback" not in words
    assert sorted(path.name for path in directory.iterdir()) == ["job.yaml", "train.py"]


BUGS = {
    "rng": (", rng=hpc_resume.rng()", "the random numbers of the forward pass"),
    "optimizer": ("optimizer=optimizer, ", "the optimizer is not saved"),
    "data": ("batches=batches, ", "the data began anew"),
    "model": ("net=net, ", "the model's weights are not saved"),
}


@pytest.mark.parametrize("bug", BUGS)
def test_each_planted_bug_is_found_and_named(bug, tmp_path):
    part, words = BUGS[bug]
    assert part in toy()
    done = verify(project(tmp_path, toy().replace(part, "")), "--interruptions", "1", "--seed", "1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"  suspect       {bug}: " in done.stdout
    assert words in done.stdout


EXAMPLE = {
    "nothing": ("", ""),
    "rng": ("    run.register(rng=hpc_resume.rng())", BUGS["rng"][1]),
    "optimizer": ("optimizer=optimizer, ", BUGS["optimizer"][1]),
    "data": (", batches=batches", BUGS["data"][1]),
}


@pytest.mark.torch
@pytest.mark.timeout(480)
@pytest.mark.parametrize(
    "bug", ["nothing", *(pytest.param(bug, marks=pytest.mark.soak) for bug in BUGS if bug in EXAMPLE)]
)
def test_the_torch_example_is_right_and_each_planted_bug_is_found(bug, tmp_path):
    part, words = EXAMPLE[bug]
    source = TORCH.read_text()
    assert part in source
    times = "1" if part else "2"
    directory = project(tmp_path, source.replace(part, "") if part else source, "--steps", "40", "--pause", "0")
    done = verify(directory, "--interruptions", times, "--seed", "1")
    assert done.returncode == int(bool(part)), done.stdout + done.stderr
    if part:
        assert f"  suspect       {bug}: " in done.stdout
        assert words in done.stdout
    else:
        assert done.stdout.startswith("job.yaml: equal bit for bit after 2 interruptions")
        assert "the ids of 40 batches" in done.stdout
        assert not list(tmp_path.glob("hpc-resume-verify-*"))
