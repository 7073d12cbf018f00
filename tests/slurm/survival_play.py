"""Plays cells of the survival matrix on one real cluster, many at a time: from the submission to the verdict."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import survival_evidence as evidence
import survival_jobs as jobs
from cluster import Cluster, ClusterError, wait_for
from survival_cells import Cell, Facts, Verdict, expected, judge
from survival_interruptions import BY_NAME, Board, ControllerOutage, Scene

PHASE_SECONDS: Final = 120.0  # to reach the phase, on a machine that starts dozens of them
END_SECONDS: Final = 240.0
SLOW: Final = ("time limit", "kill slurmd")
SPARE_NODES: Final = 6  # a job that is requeued may need another node while its own is down
SUBMISSIONS: Final = 3  # at a time; each is a second of CPU


@dataclass(frozen=True, slots=True)
class Played:
    """One cell with what came of it; no facts: it could not be played here, and the verdict says why."""

    cell: Cell
    facts: Facts | None
    verdict: Verdict


class Stage:
    """The cluster, its directory and the limits that all cells share."""

    def __init__(self, cluster: Cluster, directory: Path, cells: Sequence[Cell]) -> None:
        self.cluster = cluster
        self.directory = directory
        self.board = Board(cluster)
        self.controller = ControllerOutage(cluster, sum(cell.interruption == "kill slurmctld" for cell in cells))
        self.reference = reference(directory / "reference")
        self._submitting = threading.Semaphore(SUBMISSIONS)

    def submit(self, directory: Path, *words: str) -> tuple[str, Path]:
        """`hpc-resume submit`: the job's id and the run's directory."""
        with self._submitting:
            done = subprocess.run(
                [sys.executable, "-m", "hpc_resume", "submit", "job.yaml", "--json", *words],
                cwd=directory,
                env=self.cluster.env,
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )
        if done.returncode:
            raise ClusterError(f"submit: exit {done.returncode}: {done.stderr.strip()}")
        answer = json.loads(done.stdout)
        return str(answer["job_id"]), directory / "runs" / answer["run"]


def reference(directory: Path) -> str:
    """The final state of the same training, uninterrupted and without Slurm."""
    directory.mkdir(parents=True)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "HPC_RESUME"))}
    env["HPC_RESUME_RUN_DIR"] = str(directory / "run")
    subprocess.run(
        [sys.executable, jobs.TRAINING, "none"], check=True, cwd=directory, env=env, timeout=90, capture_output=True
    )
    return (directory / "run" / "final.json").read_text()


def play(
    cluster: Cluster, directory: Path, cells: Sequence[Cell], told: Callable[[Played], None] = lambda _: None
) -> list[Played]:
    """Every cell, in the order of `cells`; `told` hears of each when it is done.

    Those that end slurmctld for everybody are played alone, after the others.
    """
    together = [cell for cell in cells if cell.interruption != "kill slurmctld"]
    alone = [cell for cell in cells if cell.interruption == "kill slurmctld" and not jobs.missing(cell.launcher)]
    done: dict[Cell, Played] = {}
    places = len(cluster.nodes) - SPARE_NODES
    # All cells of one outage run at the same time.
    outages = [(f"outage-{start}", alone[start : start + places]) for start in range(0, len(alone), places)]
    for name, chosen in (("together", together), *outages):
        # The slow ones first, so that the end is not one long cell; the launchers mixed, as torchrun is a heavy one.
        ordered = sorted(chosen, key=lambda cell: (cell.interruption not in SLOW, cell.interruption, cell.phase))
        stage = Stage(cluster, directory / name, ordered)
        with stage.board, ThreadPoolExecutor(places) as pool:
            try:
                for future in as_completed([pool.submit(_play_one, stage, cell) for cell in ordered]):
                    played = future.result()
                    done[played.cell] = played
                    told(played)
            except BaseException:  # Ctrl-C: else the pool would play all that is left before it lets go
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    lacking = {
        cell: Played(cell, None, Verdict(False, f"not run: {why}"))
        for cell in cells
        if (why := jobs.missing(cell.launcher))
    }
    return [(done | lacking)[cell] for cell in cells]


def _play_one(stage: Stage, cell: Cell) -> Played:
    if why := jobs.missing(cell.launcher):
        return Played(cell, None, Verdict(False, f"not run: {why}"))
    directory = stage.directory / re.sub(r"[ ,/]+", "_", cell.name)
    jobs.write(cell, directory)
    try:
        facts = _facts(stage, cell, directory)
    except (
        AssertionError,
        ClusterError,
        OSError,
        KeyError,
        subprocess.TimeoutExpired,
        threading.BrokenBarrierError,
    ) as error:
        if cell.interruption == "kill slurmctld":
            stage.controller.leave()
        facts = Facts("", 0, (), False, 0, 0, (), None, False, trouble=f"{type(error).__name__} {error}"[:200])
    (directory / "facts").write_text(repr(facts))
    return Played(cell, facts, judge(expected(cell), facts))


def _facts(stage: Stage, cell: Cell, directory: Path) -> Facts:
    job, run = stage.submit(directory)
    jobs_of_cell = [job]
    try:
        wait_for(lambda: (directory / "reached").exists(), PHASE_SECONDS, f"the phase {cell.phase}", interval=0.1)
        training = int((directory / "reached").read_text())
        sentinels = run / "attempts/0001/sentinels"
        with suppress(AssertionError):  # where there is none the run must live without
            wait_for(lambda: list(sentinels.glob("*.json")), 10, "the sentinel", interval=0.1)
        unpublished = len(evidence.executed(run)) - evidence.published(run)
        with _end_of(training) as ended:
            began = time.time()
            BY_NAME[cell.interruption](
                Scene(stage.cluster, stage.board, stage.controller, directory, job, run, training)
            )
            wait_for(lambda: stage.board.is_over(job), END_SECONDS, f"the end of job {job}", interval=0.2)
            warned = evidence.warned_at(run)
            if warned and ended and warned <= ended[0]:  # else it is Slurm's TERM after the requeue
                began = warned
        by_hand = not (run / "finished.json").exists()
        if by_hand:
            again, _ = stage.submit(directory, "--resume", run.name)
            jobs_of_cell.append(again)
            wait_for(lambda: stage.board.is_over(again), END_SECONDS, f"the end of job {again}", interval=0.2)
        marks = (f"HPC_RESUME_RUN_DIR={run}\0", *(f"SLURM_JOB_ID={number}\0" for number in jobs_of_cell))
        return Facts(
            state=stage.board.job(job)["JobState"],
            attempts=len(evidence.attempts(run)),
            causes=evidence.causes(run),
            final_equal=evidence.is_final(run, stage.reference),
            lost=evidence.lost(run),
            unpublished=unpublished,
            # An old attempt that met its own successor has half of the lead to find that out.
            left=evidence.left(tuple(mark.encode() for mark in marks), 25 if cell.interruption == "kill slurmd" else 5),
            seconds=max(0.0, ended[0] - began) if ended else None,
            by_hand=by_hand,
        )
    finally:
        (directory / "release").touch()
        with suppress(ClusterError):
            stage.cluster.check("scancel", *jobs_of_cell)


@contextmanager
def _end_of(pid: int) -> Iterator[list[float]]:
    """Watches a process beside whatever else happens; the list holds the time of its end once that has been seen."""
    ended: list[float] = []
    over = threading.Event()
    ticks = evidence.start_ticks(pid)

    def look() -> None:
        while not ended and not over.wait(0.05):
            if evidence.start_ticks(pid) != ticks:
                ended.append(time.time())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield ended
    finally:
        over.set()
        thread.join()
