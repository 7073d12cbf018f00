"""A @resumable function under submitit's own `local` and `debug`: the same example, the same results."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from submitit_plugin import ROOT, registered

RESULT = re.compile(r"^lr (\S+): (\S+) in (\d) attempts$", re.MULTILINE)


CHECKPOINTABLE = """
import time
import submitit

class Count(submitit.helpers.Checkpointable):
    done = starts = 0

    def __call__(self, total):
        self.starts += 1
        while self.done < total:
            time.sleep(0.02)
            self.done += 1
            print(f"attempt {self.starts}, step", self.done, flush=True)
        return self.done, self.starts

print(submitit.AutoExecutor("log", cluster="local").submit(Count(), 100).result())
"""


@pytest.fixture
def start(tmp_path):
    """start(cluster, pause): the example, in a directory of its own, with its output in `out`; or another script."""
    started = []
    plugin = registered(tmp_path / "plugin")

    def begin(cluster, pause=0.0, script=""):
        directory = tmp_path / cluster
        directory.mkdir()
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("HPC_RESUME_", "SLURM_"))}
        words = [
            str(ROOT / "examples/submitit/submit.py"),
            "--cluster",
            cluster,
            "--steps",
            "80",
            "--pause",
            str(pause),
        ]
        if script:
            words = ["own.py"]
            (directory / "own.py").write_text(script)
        with (directory / "out").open("w") as out:
            process = subprocess.Popen(
                [sys.executable, *words], cwd=directory, env=clean | plugin, stdout=out, stderr=subprocess.STDOUT
            )
        started.append(process)
        return process, directory

    yield begin
    for process in started:
        process.kill()
        process.wait()


def await_steps(directory, attempt):
    """The log of the first job, once that attempt has done five steps."""
    until = time.monotonic() + 40
    while True:
        for log in sorted((directory / "log").glob("*_0_log.out")):
            if log.read_text().count(f"attempt {attempt}, step") >= 5:
                return log
        assert time.monotonic() < until, (directory / "out").read_text()
        time.sleep(0.01)


def test_debug_and_local_give_the_same_and_local_goes_on_after_submitits_own_warning(start):
    process, directory = start("debug", 0)
    assert process.wait(40) == 0, (directory / "out").read_text()
    expected = RESULT.findall((directory / "out").read_text())
    assert [lr for lr, _, _ in expected] == ["0.1", "0.2", "0.3"]

    process, directory = start("local", 0.05)
    log = await_steps(directory, 1)
    job = log.name.partition("_")[0]  # the process that starts the attempts
    os.kill(only_child(job), signal.SIGUSR2)  # as it does itself before a time limit
    await_steps(directory, 2)
    os.kill(only_child(job), signal.SIGUSR2)
    assert process.wait(60) == 0, (directory / "out").read_text()
    results = RESULT.findall((directory / "out").read_text())
    assert [(lr, x) for lr, x, _ in results] == [(lr, x) for lr, x, _ in expected]
    assert sorted(attempts for _, _, attempts in results) == ["1", "1", "3"]
    steps = [line.partition(", ")[2] for line in log.read_text().splitlines() if line.startswith("attempt")]
    assert steps == [f"step {n}" for n in range(80)]  # none lost, none twice


def test_a_checkpointable_without_a_run_is_submitits_own_as_before(start):
    process, directory = start("local", script=CHECKPOINTABLE)
    log = await_steps(directory, 1)
    os.kill(only_child(log.name.partition("_")[0]), signal.SIGUSR2)
    assert process.wait(60) == 0, (directory / "out").read_text()
    assert (directory / "out").read_text().splitlines()[-1] == "(100, 2)"
    assert log.read_text().count("step 3\n") == 1  # it did not begin again


def only_child(pid):
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)
