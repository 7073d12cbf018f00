"""Two nodes with four ranks each, warned through one of them: all leave at one step, and come back to the same end."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, wait_for
from test_survival import Project, causes, exit_record, preempt

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(420)]

TRAIN = Path(__file__).with_name("ranks_train.py")
NODES, PER_NODE = 2, 4
SIZE = NODES * PER_NODE


class Ranks(Project):
    """A project whose training is that of many ranks."""

    def start(self, steps: int, seconds: float, **keys: Any) -> tuple[str, Path]:
        """Submit; saves each seventh step, evaluates after each ninth."""
        (self.directory / "train.py").write_text(TRAIN.read_text())
        command = [sys.executable, "train.py", str(steps), str(seconds), "7", "9"]
        slurm = {"nodes": NODES, "ntasks_per_node": PER_NODE, "mem": "400M"} | keys.pop("slurm", {})
        return self.submit(steps, command=command, slurm=slurm, **keys)

    def uninterrupted(self, steps: int) -> list[dict]:
        """The final states of all ranks of the same training without Slurm, uninterrupted."""
        directory = self.directory / "reference"
        run = directory / "run"
        run.mkdir(parents=True)
        foreign = ("SLURM", "HPC_RESUME", "RANK", "WORLD_SIZE")
        env = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        env |= {"HPC_RESUME_RUN_DIR": str(run), "WORLD_SIZE": str(SIZE), "MASTER_PORT": "1"}
        words = [sys.executable, str(TRAIN), str(steps), "0", "0", "9"]
        ranks = [subprocess.Popen(words, cwd=directory, env=env | {"RANK": str(rank)}) for rank in range(SIZE)]
        assert [process.wait(120) for process in ranks] == [0] * SIZE
        return finals(run)


@pytest.fixture
def ranks(cluster: Cluster, tmp_path: Path) -> Ranks:
    return Ranks(cluster, tmp_path)


def finals(run: Path) -> list[dict]:
    return [json.loads((run / f"final.{rank}.json").read_text()) for rank in range(SIZE)]


def executed(run: Path, rank: int, attempt: int | None = None) -> list[int]:
    try:
        lines = (run / f"executed.{rank}").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [int(step) for number, step, _ in (line.split() for line in lines) if attempt in (None, int(number))]


def records(run: Path, attempt: int) -> dict[int, dict]:
    """The PID record of each rank that has announced itself."""
    found = {}
    for path in run.glob(f"attempts/{attempt:04d}/pids/*.json"):
        record = json.loads(path.read_text())
        if isinstance(record["rank"], int):
            found[record["rank"]] = record
    return found


def is_gone(record: dict) -> bool:
    try:
        stat = Path(f"/proc/{record['pid']}/stat").read_text()
    except OSError:
        return True
    return stat[stat.rindex(")") + 2 :].split()[19] != str(record["start_ticks"])


def interrupt(ranks: Ranks, run: Path, attempt: int, moment: str, rng: random.Random) -> None:
    """Warn one rank, at one of the moments, and wait until the batch script has ended."""
    known = wait_for(lambda: records(run, attempt), 60, f"the first rank of attempt {attempt}")
    if moment != "import":
        known = wait_for(lambda: (r := records(run, attempt)) and len(r) == SIZE and r, 60, "all ranks")
        before = 0 if moment == "first step" else rng.randrange(2, 8)
        wait_for(lambda: len(executed(run, 0, attempt)) > before, 60, f"step {before} of attempt {attempt}")
        time.sleep(rng.random() * 0.05)
    os.kill(known[rng.choice(sorted(known))]["pid"], signal.SIGUSR1)
    wait_for(lambda: exit_record(run / f"attempts/{attempt:04d}"), 60, f"the end of attempt {attempt}")


def check_attempt(run: Path, attempt: int) -> None:
    """Whoever has begun a step has come to the end of the same one, and it is the one that is published."""
    record = exit_record(run / f"attempts/{attempt:04d}")
    assert record["code"] in (138, 143), record
    last = {steps[-1] for rank in range(SIZE) if (steps := executed(run, rank, attempt))}
    assert len(last) <= 1, f"attempt {attempt} ended after different steps: {last}"
    if last:
        assert record["step_after"] == last.pop() + 1
    assert all(is_gone(one) for one in records(run, attempt).values()), "the script ended before a rank did"


def play(ranks: Ranks, steps: int, moments: list[str], seed: int) -> None:
    reference = ranks.uninterrupted(steps)
    rng = random.Random(seed)
    job, run = ranks.start(steps, 0.02)
    for attempt, moment in enumerate(moments, 1):
        interrupt(ranks, run, attempt, moment, rng)
        check_attempt(run, attempt)
    ranks.cluster.wait_state(job, "COMPLETED", seconds=120)
    assert finals(run) == reference, ranks.words(run)
    for rank in range(SIZE):
        assert executed(run, rank) == list(range(steps)), "a step was lost, or done twice"
    assert causes(run) == ["operator"] * len(moments) + ["finished"]
    assert not ranks.cluster.check("sinfo", "-h", "-N", "-t", "drain,down,fail", "-o", "%N").strip()


def test_warned_through_one_rank_all_leave_at_the_same_step_and_the_end_is_the_same(ranks: Ranks) -> None:
    play(ranks, 80, ["step", "first step", "import"], seed=1)


@pytest.mark.soak
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("seed", [2, 3])
def test_ten_times_in_a_row_at_random_moments(ranks: Ranks, seed: int) -> None:
    moments = ["import", "first step", *["step"] * 8]
    random.Random(seed).shuffle(moments)
    play(ranks, 150, moments, seed)


def test_a_preemption_stops_both_nodes_and_no_rank_is_killed_while_another_saves(ranks: Ranks) -> None:
    """Slurm tells the batch shell, or each node's step; whichever comes first is enough for all."""
    ranks.cluster.set_grace("low", 20)
    job, run = ranks.start(70, 0.02, slurm={"partition": "low"})
    wait_for(lambda: len(executed(run, 0)) > 5, 90, "the first steps")
    preempt(ranks, job)
    wait_for(lambda: exit_record(run / "attempts/0001"), 60, "the end of the first attempt")
    check_attempt(run, 1)
    ranks.cluster.wait_state(job, "COMPLETED", seconds=120)
    assert causes(run) == ["preempted", "finished"]
    assert executed(run, SIZE - 1) == list(range(70))


def test_a_rank_killed_after_the_warning_costs_no_more_than_the_last_save(ranks: Ranks) -> None:
    job, run = ranks.start(60, 0.02)
    wait_for(lambda: len(executed(run, 0)) > 10, 90, "the first steps")
    known = records(run, 1)
    os.kill(known[1]["pid"], signal.SIGSTOP)  # nothing can be agreed without it
    os.kill(known[6]["pid"], signal.SIGUSR1)
    told = run / f"attempts/0001/events/{known[0]['host']}.{known[0]['pid']}.jsonl"
    wait_for(lambda: '"event": "received"' in told.read_text(), 60, "rank 0 to know of the warning")
    os.kill(known[1]["pid"], signal.SIGKILL)
    record = wait_for(lambda: exit_record(run / "attempts/0001"), 60, "the end of the first attempt")
    assert record["step_after"] >= 7
    assert all(is_gone(one) for one in known.values())
    shown = ranks.cluster.wait_state(job, "COMPLETED", "FAILED", seconds=120)
    assert shown["JobState"] == "COMPLETED", ranks.words(run)
    assert executed(run, 3, 2)[0] == record["step_after"]


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_killed_before_the_news_of_the_warning_makes_no_crash_of_it(ranks: Ranks, victim: int) -> None:
    """What a preemption does to some ranks and not to others; rank 0 may be the one, and its connections end first."""
    job, run = ranks.start(60, 0.02)
    wait_for(lambda: len(executed(run, 0)) > 10, 90, "the first steps")
    known = records(run, 1)
    os.kill(known[victim]["pid"], signal.SIGKILL)
    os.kill(known[6]["pid"], signal.SIGUSR1)
    record = wait_for(lambda: exit_record(run / "attempts/0001"), 60, "the end of the first attempt")
    assert (record["cause"], record["decision"]) == ("operator", "requeue"), ranks.words(run)
    assert all(is_gone(one) for one in known.values())
    shown = ranks.cluster.wait_state(job, "COMPLETED", "FAILED", seconds=120)
    assert shown["JobState"] == "COMPLETED", ranks.words(run)
    assert executed(run, 3, 2)[0] == record["step_after"]
