"""The same small model under each contender's own way and under ours, interrupted alike: `make side-by-side`.

    python benchmarks/side_by_side.py [--only REGEX]

On a real Slurm cluster; writes benchmarks/side_by_side.md. --only plays the cells whose name matches, writes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "slurm"))

import survival_evidence as evidence  # noqa: E402 - the tests' own, here and below
from cluster import Cluster, ClusterError, wait_for  # noqa: E402
from submitit_plugin import registered  # noqa: E402
from survival_interruptions import Board  # noqa: E402

TRAINING = HERE / "side_by_side_training.py"
STEPS, WARNED_AFTER, GRACE = 300, 60, 15
PATIENCE = 240.0  # seconds for everything after an interruption

# What is played, and the signal that it asks of Slurm: to the batch shell, or to the tasks of its steps.
CONTENDERS = {
    "Lightning's own auto-requeue": ("lightning", "USR1", False),
    "hpc_resume, Lightning callback": ("lightning-ours", "USR1", True),
    "submitit's own Checkpointable": ("submitit", "USR2", False),
    "hpc_resume, submitit function": ("submitit-ours", "USR1", True),
}
INTERRUPTIONS = ("the warning before a time limit", f"preempted, {GRACE} s of grace", "preempted at once")

OWN_SCRIPT = """#!/bin/bash
#SBATCH --job-name=cell --time=30 --ntasks=1 --exclusive --partition={partition}
#SBATCH --signal=SIGUSR1@120 --requeue --open-mode=append --output=log.out
srun {python} {training} lightning {directory}
"""


@dataclass(frozen=True, slots=True)
class Cell:
    contender: str
    interruption: str

    @property
    def name(self) -> str:
        return f"{self.contender} / {self.interruption}"

    @property
    def partition(self) -> str:
        return "patient" if "grace" in self.interruption else "low"


@dataclass(frozen=True, slots=True)
class Result:
    cell: Cell
    lost: int  # steps executed again
    gone: float | None  # seconds from the warning until no process of that attempt was left
    drained: int  # nodes
    end: str  # the job's state, and whether its final state is right

    def row(self) -> str:
        gone = "never" if self.gone is None else f"{self.gone:.1f}"
        return (
            f"| {self.cell.interruption} | {self.cell.contender} | {self.lost} | {gone} | {self.drained} | {self.end} |"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="REGEX", help="the cells whose name matches")
    options = parser.parse_args()
    cells = [Cell(contender, interruption) for interruption in INTERRUPTIONS for contender in CONTENDERS]
    cells = [cell for cell in cells if re.search(options.only, cell.name)]
    with tempfile.TemporaryDirectory(prefix="side-by-side-") as name:
        directory = Path(name)
        env = {"OMP_NUM_THREADS": "1", **registered(directory / "plugin")}
        os.environ |= env
        right = {mode: alone(mode, directory / mode) for mode in ("lightning-alone", "alone")}
        with Cluster(nodes=len(cells), patience=GRACE) as cluster, Board(cluster) as board:
            slurm = cluster.shape.version
            play = Play(cluster, board, right, directory)
            with ThreadPoolExecutor(len(CONTENDERS)) as pool:  # more would measure this machine
                results = list(pool.map(play.cell, cells))
    if not options.only:
        (HERE / "side_by_side.md").write_text(markdown(results, slurm))
    return 0


def alone(mode: str, directory: Path) -> str:
    """The final state of the uninterrupted run."""
    directory.mkdir()
    subprocess.run([sys.executable, TRAINING, mode, directory], check=True, capture_output=True)
    return (directory / "final").read_text()


class Play:
    """One cluster, on which every cell has a node for itself."""

    def __init__(self, cluster: Cluster, board: Board, right: dict[str, str], directory: Path) -> None:
        self.cluster, self.board, self.right, self.directory = cluster, board, right, directory
        self.submitting = threading.Lock()  # one at a time: an import of PyTorch each

    def cell(self, cell: Cell) -> Result:
        mode, signal, to_shell = CONTENDERS[cell.contender]
        directory = self.directory / re.sub(r"\W+", "-", cell.name)
        directory.mkdir()
        with self.submitting:
            job = self.submit(mode, directory, cell.partition)
        log = directory / "executed.log"
        wait_for(lambda: log.exists() and len(log.read_text().split()) > WARNED_AFTER, 300, cell.name, interval=0.1)
        node = self.cluster.show(job)["NodeList"]
        before = set(evidence.processes((f"SLURM_JOB_ID={job}\0".encode(),)))
        began = self.interrupt(cell, job, node, signal, to_shell=to_shell)
        gone = None
        with suppress(AssertionError):
            wait_for(lambda: not any(evidence.start_ticks(pid) for pid in before), PATIENCE, "", interval=0.05)
            gone = time.monotonic() - began
        with suppress(AssertionError):
            wait_for(lambda: self.board.is_over(job), PATIENCE, "", interval=0.2)
        result = self.result(cell, mode, directory, job, node, gone)
        print(result.row(), flush=True)
        return result

    def submit(self, mode: str, directory: Path, partition: str) -> str:
        if mode == "lightning":
            words = {"partition": partition, "python": sys.executable, "training": TRAINING, "directory": directory}
            return self.cluster.sbatch(script=OWN_SCRIPT.format(**words), cwd=directory)
        if mode == "lightning-ours":
            spec = {
                "name": "cell",
                "command": [sys.executable, str(TRAINING), mode, str(directory)],
                "slurm": {"time": "30", "partition": partition, "exclusive": True, "output": "log.out"},
            }
            (directory / "job.yaml").write_text(json.dumps(spec))
            return self.cluster.check(sys.executable, "-m", "hpc_resume", "submit", cwd=directory).strip()
        words = (str(TRAINING), mode, str(directory), partition)
        return self.cluster.check(sys.executable, *words, cwd=directory).split()[-1]

    def interrupt(self, cell: Cell, job: str, node: str, signal: str, *, to_shell: bool) -> float:
        """When it was, time.monotonic(): of a grace time, when Slurm shows it, which the board sees within 0.4 s."""
        began = time.monotonic()
        if cell.interruption == INTERRUPTIONS[0]:
            self.cluster.check("scancel", *(["--batch"] if to_shell else []), f"--signal={signal}", job)
            return began
        words = ("-p", "high", "-w", node, "--exclusive", "-o", "/dev/null")
        self.cluster.sbatch(*words, script="#!/bin/bash\nsleep 0.3\n", cwd=self.directory)
        if cell.interruption == INTERRUPTIONS[1]:
            with suppress(AssertionError):
                wait_for(lambda: self.board.job(job).get("PreemptTime", "None") != "None", 10, "")
                began = time.monotonic()
        return began

    def result(self, cell: Cell, mode: str, directory: Path, job: str, node: str, gone: float | None) -> Result:
        steps = [int(step) for step in (directory / "executed.log").read_text().split()]
        lost = sum(count - 1 for count in Counter(steps).values())
        drained = 0
        with suppress(ClusterError):
            drained = len(
                self.cluster.check("sinfo", "-h", "-N", "-n", node, "-t", "drain,drained", "-o", "%N").split()
            )
        state = self.board.job(job).get("JobState", "unknown")
        right = self.right["lightning-alone" if mode.startswith("lightning") else "alone"]
        final = directory / "final"
        if not final.exists():
            end = f"{state}, not finished: {len(set(steps))} of {STEPS} steps"
        else:
            end = "equal" if final.read_text() == right and len(set(steps)) == STEPS else "finished, **another state**"
        return Result(cell, lost, gone, drained, end)


def markdown(results: list[Result], slurm: str) -> str:
    machine = f"Slurm {slurm}, {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    machine += f", load {os.getloadavg()[2]:.0f}"  # of the last 15 minutes: others may be at work
    peers = ", ".join(f"{name} {version(name)}" for name in ("lightning", "submitit", "torch"))
    rows = "\n".join(result.row() for result in results)
    return f"""# Side by side, in one run of `make side-by-side`

{machine}; {peers}. A small network, {STEPS} steps of 50 ms, no random numbers after its start; interrupted once, after
{WARNED_AFTER} steps. Lost: steps executed again. Gone: seconds from the signal, from the beginning of the grace time,
or from the submission of the job that preempts at once, until no process of that attempt was left, batch shell and all;
{GRACE} s of grace and KillWait (5 s here) are the most. Much of it is Python's own end: with PyTorch loaded it takes 1
to 3 s on this machine, whoever saves.

Final state: against the uninterrupted run of the same training, bit for bit. Every contender is used as its
documentation says: for submitit the state is in the callable; Lightning has `SLURMEnvironment(auto_requeue=True)` and
is started by srun. None saves but at the warning: ours every 15 minutes, which is later than the end here.

| interruption | | steps lost | seconds to gone | nodes drained | final state |
|---|---|---|---|---|---|
{rows}
"""


if __name__ == "__main__":
    sys.exit(main())
