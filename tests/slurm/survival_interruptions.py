"""The interruptions of the survival matrix, done to a real cluster. Each returns when it has been done."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import survival_evidence as evidence
from cluster import Cluster, ClusterError, wait_for

ACTIVE: Final = ("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "COMPLETING", "REQUEUED", "REQUEUE_HOLD", "STOPPED")
LOOK_SECONDS: Final = 0.4
# A job that is being requeued shows an end for a moment; after a lost node NODE_FAIL until its last process is gone.
SURE_SECONDS: Final = 2.0
UNSURE_SECONDS: Final = 30.0
FINAL: Final = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")


class Board:
    """What Slurm says of every job, asked once for all cells; the last answer stands while slurmctld is away."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._jobs: dict[str, dict[str, str]] = {}
        self._over: dict[str, float] = {}  # since when
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(LOOK_SECONDS):
            with suppress(ClusterError, subprocess.TimeoutExpired):
                lines = self._cluster.check("scontrol", "show", "job", "-o").splitlines()
                jobs = [dict(word.partition("=")[::2] for word in line.split()) for line in lines]
                self._jobs = {job["JobId"]: job for job in jobs if "JobId" in job}
                now, over = time.monotonic(), [name for name, job in self._jobs.items() if _is_over(job)]
                self._over = {name: self._over.get(name, now) for name in over}

    def job(self, job: str) -> dict[str, str]:
        """The fields of `scontrol show job`, empty before Slurm has been asked once after the submission."""
        return self._jobs.get(job, {})

    def restarts(self, job: str) -> int:
        return int(self.job(job).get("Restarts", 0))

    def is_over(self, job: str) -> bool:
        """Ended, or held: nothing will happen to it by itself any more."""
        sure = SURE_SECONDS if self.job(job).get("JobState") in FINAL else UNSURE_SECONDS
        return time.monotonic() - self._over.get(job, math.inf) > sure


def _is_over(job: dict[str, str]) -> bool:
    held = job["JobState"] == "PENDING" and "eld" in job.get("Reason", "")  # JobHeldUser, launch failed requeued held
    return held or job["JobState"] not in ACTIVE


@dataclass(frozen=True, slots=True)
class Scene:
    """A job in its phase, and what there is to interrupt it with."""

    cluster: Cluster
    board: Board
    controller: ControllerOutage
    directory: Path
    job: str
    run: Path
    training: int  # pid

    def release(self) -> None:
        """Let the training go on."""
        (self.directory / "release").touch()

    @property
    def shell(self) -> int:
        """The PID of the batch shell."""
        return int(evidence.read(self.run / "attempts/0001/attempt.json")["pid"])

    @property
    def node(self) -> str:
        return self.cluster.show(self.job)["NodeList"]


class ControllerOutage:
    """One outage of slurmctld for all cells that want one: it begins when all are in their phases and warned."""

    def __init__(self, cluster: Cluster, cells: int, seconds: float = 10.0) -> None:
        self._cluster = cluster
        self._seconds = seconds
        self._scenes: list[Scene] = []
        self._barrier = threading.Barrier(cells, self._play) if cells else None

    def join(self, scene: Scene) -> None:
        """Wait for the others; returns when slurmctld is back."""
        assert self._barrier is not None
        self._scenes.append(scene)
        self._barrier.wait(timeout=300)

    def leave(self) -> None:
        """A cell that never got into its phase does not keep the others waiting: they fail at once."""
        if self._barrier is not None:
            self._barrier.abort()

    def _play(self) -> None:
        """All are warned, and slurmctld goes with the first decision: some requeues it has confirmed by then and forgets.

        Such a job comes back if slurmctld does within KillWait, which is Slurm's default here.
        """
        self._cluster.set_kill_wait(30)
        self._cluster.check("scancel", "-b", "-s", "USR1", *(scene.job for scene in self._scenes))
        for scene in self._scenes:
            scene.release()

        def decided() -> bool:
            return any((scene.run / "attempts/0001/exit.json").exists() for scene in self._scenes)

        with suppress(AssertionError):
            wait_for(decided, 5, "the first decision", interval=0.01)
        self._cluster.kill_controller()
        time.sleep(self._seconds)
        self._cluster.start_controller()


def time_limit(scene: Scene) -> None:
    wait_for(lambda: evidence.warned_at(scene.run), 130, "the warning before the time limit", interval=0.2)
    scene.release()


def preempt(scene: Scene) -> None:
    """The whole node is asked for by a job that may preempt."""
    words = ("-p", "high", "-w", scene.node, "--exclusive", "-o", "/dev/null")
    scene.cluster.sbatch(*words, script="#!/bin/bash\nsleep 0.3\n", cwd=scene.directory)
    wait_for(lambda: evidence.warned_at(scene.run) or scene.board.restarts(scene.job), 30, "the preemption")
    scene.release()


def cancel(*options: str) -> Callable[[Scene], None]:
    def interrupt(scene: Scene) -> None:
        scene.cluster.check("scancel", *options, scene.job)
        scene.release()

    return interrupt


def node_down(scene: Scene) -> None:
    """The node is drained too, and comes back after the job's end.

    With ReturnToService=2 it would be back at once. Slurm then starts the job beside its old self, while KillWait lasts,
    holds it ("launch failed requeued held") and drains the node: an operator's work, which no job can do.
    """
    node = scene.node
    for state in ("DOWN", "DRAIN"):
        scene.cluster.check("scontrol", "update", f"NodeName={node}", f"State={state}", "Reason=matrix")
    scene.release()
    try:
        wait_for(lambda: scene.board.restarts(scene.job), 30, "Slurm's requeue")
        wait_for(lambda: scene.board.is_over(scene.job), 180, "the job's end on another node", interval=0.2)
    finally:
        with suppress(ClusterError):  # refused where the node has come back by itself
            scene.cluster.check("scontrol", "update", f"NodeName={node}", "State=RESUME")


def kill_training(scene: Scene) -> None:
    os.kill(scene.training, signal.SIGKILL)
    scene.release()


def kill_shell(scene: Scene) -> None:
    os.kill(scene.shell, signal.SIGKILL)
    scene.release()


def kill_slurmd(scene: Scene) -> None:
    """The old processes live on while the job starts elsewhere: released only when the second attempt has begun."""
    node = scene.node
    scene.cluster.kill_node(node)
    try:
        wait_for(lambda: scene.board.restarts(scene.job), 90, "Slurm to give the node up", interval=0.2)
        with suppress(AssertionError):
            wait_for(lambda: (scene.run / "attempts/0002/exit.json").exists(), 30, "a second attempt", interval=0.2)
        scene.release()
        wait_for(lambda: scene.board.is_over(scene.job), 90, "the job's end", interval=0.2)
    finally:
        scene.release()
        scene.cluster.start_node(node)
        with suppress(ClusterError):
            scene.cluster.check("scontrol", "update", f"NodeName={node}", "State=RESUME")


def kill_slurmctld(scene: Scene) -> None:
    scene.controller.join(scene)


BY_NAME: Final[dict[str, Callable[[Scene], None]]] = {
    "time limit": time_limit,
    "preempted": preempt,
    "preempted, grace": preempt,
    "scancel": cancel(),
    "scancel -s": cancel("-s", "USR1"),
    "scancel -b -s": cancel("-b", "-s", "USR1"),
    "node down": node_down,
    "kill training": kill_training,
    "kill shell": kill_shell,
    "kill slurmd": kill_slurmd,
    "kill slurmctld": kill_slurmctld,
}
