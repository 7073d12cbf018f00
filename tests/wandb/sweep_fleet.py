"""A fleet of sweep agents on a real Slurm cluster with the real W&B client, preempted at random until it is done.

Every run waits for its first interruption, and the first of these waits for two runs, so that each has one and two have
it at the same moment however slow the machine is; what is left afterwards is looked at, not assumed.
"""

from __future__ import annotations

import json
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from cluster import Cluster, ClusterError
from loopback import Loopback, SeenRun

from hpc_resume.run.rundir import RunDir

STEPS = 30
HOLD = 120  # seconds a run waits for its first interruption
GRACE = 30  # seconds; a save takes less than one, on a machine with a core for every agent

TRAIN = f"""
import argparse, os, time
import hpc_resume

parser = argparse.ArgumentParser()
parser.add_argument("--lr")
parser.parse_known_args()  # a requeued run's command line may carry an argument of W&B's own

class State:
    done = 0
    def state_dict(self):
        return {{"done": self.done}}
    def load_state_dict(self, state):
        self.done = state["done"]

with hpc_resume.Run() as run:
    state = State()
    run.register(state=state)
    log = os.open(run.directory / "executed.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for step in run.steps({STEPS}):
        os.write(log, f"{{run.attempt}} {{step}}\\n".encode())
        state.done += 1
        held = time.monotonic() + {HOLD}
        while run.attempt == 1 and step == 8 and not run.should_stop() and time.monotonic() < held:
            time.sleep(0.05)
        run.log({{"done": state.done}})
"""


@dataclass
class Fleet:
    """What was started, and what was done to it."""

    cluster: Cluster
    server: Loopback
    directory: Path
    sweep: str
    chance: random.Random
    more: int = 4  # interruptions at any moment, besides the first of each run
    job: str = ""
    interruptions: list[str] = field(default_factory=list)
    interrupted: set[str] = field(default_factory=set)
    at_once: int = 0  # the most that were interrupted at the same moment

    @property
    def runs(self) -> Path:
        return self.directory / "runs"

    def tasks(self) -> dict[str, str]:
        """Array tasks that run, and the node of each."""
        lines = self.cluster.check("squeue", "-h", "-r", "-j", self.job, "-t", "RUNNING", "-o", "%i %N").splitlines()
        return dict(line.split() for line in lines if " " in line)

    def submit(self, script: str) -> None:
        (self.directory / "train.py").write_text(TRAIN)
        environment = self.server.environment(
            self.directory, PATH=f"{Path(sys.prefix) / 'bin'}:{self.cluster.env['PATH']}"
        )
        before = dict(self.cluster.env)
        self.cluster.env |= environment | {"SLURM_CONF": str(self.cluster.conf), "HPC_RESUME_LOCKS": "log"}
        self.job = self.cluster.sbatch(script=script, cwd=self.directory)
        self.cluster.env = before

    def in_hand(self, task: str) -> str:
        """The W&B run of an array task, empty when it has none."""
        newest = RunDir(self.runs / f"fleet-{task}").newest_attempt()
        try:
            return json.loads((newest.path / "hand.json").read_text())["run"] if newest else ""
        except (OSError, ValueError):
            return ""

    def interrupt(self) -> None:
        """One task, or several at the same moment."""
        tasks = self.tasks()
        fresh = [task for task in tasks if (run := self.in_hand(task)) and len(RunDir(self.runs / run).attempts()) == 1]
        begun = [task for task in fresh if self.steps_done(self.in_hand(task)) > 2]
        begun = [task for task in begun if self.in_hand(task) not in self.interrupted]
        if self.at_once < 2 and len(begun) == 1:
            return  # it waits, and the next to begin is interrupted together with it
        at_random = self.more > 0 and self.chance.random() < 0.2
        self.more -= at_random
        chosen = begun or (list(tasks) if at_random else [])
        fewest = 1 if self.at_once > 1 else 2
        taken = self.chance.sample(chosen, min(len(chosen), self.chance.randint(fewest, 3)))
        self.at_once = max(self.at_once, sum(bool(self.in_hand(task)) for task in taken))
        for task in taken:
            how = self.chance.choice(("preempt", "signal", "preempt"))
            run = self.in_hand(task)
            if run and RunDir(self.runs / run).attempts():  # else its first attempt is still to come, and waits for one
                self.interrupted.add(run)
            self.interruptions.append(f"{how} {task} {run}")
            if how == "signal":
                self.cluster._run("scancel", "--batch", "--signal=USR1", task)
            else:
                words = ["-p", "high", f"--nodelist={tasks[task]}", "--exclusive", "-o", "/dev/null", "-J", "winner"]
                self.cluster.sbatch(*words, script="#!/bin/bash\nsleep 1\n", cwd=self.directory)

    def steps_done(self, run: str) -> int:
        try:
            return len((self.runs / run / "executed.log").read_text().splitlines())
        except OSError:
            return 0

    def play(self, seconds: float) -> None:
        """Until no task is left."""
        deadline = time.monotonic() + seconds
        while any(True for _ in self.left()):
            if time.monotonic() > deadline:
                raise AssertionError(f"not over in {seconds:g} s: {self.state()}")
            self.interrupt()
            time.sleep(self.chance.uniform(0.2, 1.0))

    def left(self) -> list[str]:
        try:
            return self.cluster.check("squeue", "-h", "-r", "-j", self.job, "-o", "%i %T").splitlines()
        except ClusterError:
            return []

    def state(self) -> str:
        runs = {run.name: (run.state, run.transitions, len(run.rows)) for run in self.server.runs()}
        logs = "\n".join(path.read_text()[-1500:] for path in self.directory.glob("*.out"))
        return f"{self.left()} {self.server.sweep_state(self.sweep)} {runs} {self.interruptions}\n{logs}"


def orphans(directory: Path) -> list[str]:
    """Processes that were started below `directory` and live."""
    found = []
    mark = f"WANDB_DIR={directory}".encode()
    for process in Path("/proc").iterdir():
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                state = (process / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z":
                    found.append((process / "cmdline").read_text().replace("\0", " "))
        except (OSError, ValueError):
            continue
    return found


def faults(fleet: Fleet, run: SeenRun) -> list[str]:
    """What is wrong with one run, in words."""
    wrong = []
    if run.state != "finished" or run.transitions.count("finished") != 1:
        wrong.append(f"states {run.transitions}")
    logged = [row["global_step"] for row in run.rows if "done" in row]
    if logged != list(range(STEPS)) or run.column("done") != list(range(1, STEPS + 1)):
        wrong.append(f"logged {list(zip(logged, run.column('done'), strict=False))}")
    local = RunDir(fleet.runs / run.name)
    executed = [int(line.split()[1]) for line in (local.path / "executed.log").read_text().splitlines()]
    attempts = len(local.attempts())
    if set(executed) != set(range(STEPS)) or max(executed.count(step) for step in set(executed)) > attempts:
        wrong.append(f"executed {executed}")
    if len(executed) > STEPS + attempts - 1:
        wrong.append(f"{len(executed) - STEPS} steps executed twice in {attempts} attempts")
    if attempts < 2:
        wrong.append("was never interrupted")
    return [f"{run.name}: {what}" for what in wrong]
