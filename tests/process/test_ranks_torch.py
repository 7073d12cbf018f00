"""DDP and FSDP under torchrun, warned through one rank: the same weights on every rank, bit for bit, as uninterrupted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.timeout(400)]

EXAMPLES = Path(__file__).parents[2] / "examples"
STEPS = 40
DEADLINE = 180.0


class Job:
    """The job of a directory, run without Slurm."""

    def __init__(self, name: str, directory: Path) -> None:
        foreign = ("SLURM", "HPC_RESUME", "RANK", "WORLD_SIZE", "MASTER_")
        env = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
        self.run = directory / "runs" / f"{name}-local-1"
        self.log = (directory / "log").open("w+b")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hpc_resume", "run", "job.yaml"],
            cwd=directory,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )

    @property
    def words(self) -> str:
        return Path(self.log.name).read_text()

    def finish(self) -> None:
        assert self.process.wait(DEADLINE) == 0, self.words

    def warn_one(self, rank: int, step: int) -> None:
        """Signal one worker, once it is past `step`."""
        metrics, until = self.run / "attempts/0001/metrics.jsonl", time.monotonic() + DEADLINE
        while not metrics.exists() or len(metrics.read_text().splitlines()) <= step:
            assert time.monotonic() < until, self.words
            assert self.process.poll() is None, self.words
            time.sleep(0.02)
        (record,) = (json.loads(path.read_text()) for path in self.run.glob(f"attempts/0001/pids/*.{rank}.json"))
        os.kill(record["pid"], signal.SIGUSR1)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self.log.close()


@pytest.fixture
def jobs(tmp_path) -> Iterator:
    started: list[Job] = []

    def start(name: str, where: str, launcher: str = "torchrun") -> Job:
        """One of the examples, shorter than it says; or what is in `where` already."""
        directory = tmp_path / where
        if not directory.exists():
            shutil.copytree(EXAMPLES / name, directory, ignore=shutil.ignore_patterns("runs", "__pycache__"))
            spec = directory / "job.yaml"
            text = spec.read_text().replace("--steps, 120", f"--steps, {STEPS}")
            spec.write_text(text.replace("launcher: torchrun", f"launcher: {launcher}"))
        started.append(Job(name, directory))
        return started[-1]

    yield start
    for job in started:
        job.end()


def interrupted(jobs, name: str, launcher: str = "torchrun") -> Job:
    """A job whose rank 1 was warned in the middle."""
    job = jobs(name, "interrupted", launcher)
    job.warn_one(rank=1, step=4)
    job.finish()
    exits = [json.loads(path.read_text()) for path in sorted(job.run.glob("attempts/*/exit.json"))]
    assert [record["code"] for record in exits] == [138, 0], job.words
    assert 4 < exits[0]["step_after"] < STEPS
    lines = [
        line for path in sorted(job.run.glob("attempts/*/metrics.jsonl")) for line in path.read_text().splitlines()
    ]
    assert [json.loads(line)["step"] for line in lines] == list(range(STEPS)), "no step was lost, and none done twice"
    return job


def uninterrupted(jobs, name: str) -> Job:
    job = jobs(name, "calm")
    job.finish()
    return job


def test_ddp_goes_on_bit_for_bit_in_the_middle_of_an_epoch(jobs):
    job, calm = interrupted(jobs, "ddp"), uninterrupted(jobs, "ddp")
    for rank in (0, 1):
        assert (job.run / f"final.{rank}").read_text() == (calm.run / f"final.{rank}").read_text()
    saved = job.run / "checkpoints" / f"step-{STEPS:08d}"
    assert sorted(path.name for path in saved.iterdir()) == [
        "manifest.json", "model.pt", "optimizer.pt", "rank-00000", "rank-00001", "schedule.json"
    ], "what is the same everywhere is there once"  # fmt: skip


@pytest.mark.frameworks
def test_accelerate_starts_both_ranks_and_its_agent_survives_the_warning(jobs):
    """Without a GPU in sight accelerate would start one process, without a word."""
    assert (interrupted(jobs, "ddp", "accelerate").run / "final.1").exists()


def test_fsdp_saves_its_shards_and_goes_on(jobs):
    """To what one process that is never interrupted comes to with the same batches, but for the order of sums."""
    import torch
    from torch import nn

    job = interrupted(jobs, "fsdp")
    written = {path.name[:3] for path in job.run.glob("checkpoints/*/model.dcp/*.distcp")}
    assert written == {"__0", "__1"}, "each rank has written its part"
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(STEPS):
        batch = torch.randn(16, 16, generator=torch.Generator().manual_seed(step))
        loss = nn.functional.mse_loss(model(batch), batch.square().sum(dim=1, keepdim=True).sqrt())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = torch.load(job.run / "final.pt", weights_only=True)
    for ours, theirs in zip(found, model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.soak
def test_fsdp_goes_on_bit_for_bit(jobs):
    import torch

    job, calm = interrupted(jobs, "fsdp"), uninterrupted(jobs, "fsdp")
    before, after = (torch.load(one.run / "final.pt", weights_only=True) for one in (calm, job))
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


ELASTIC = """\
name: elastic
command: [python, train.py, "120", "0.02", "5"]
launcher: torchrun
slurm: {ntasks_per_node: 2}
env: {PET_MAX_RESTARTS: 1}
"""


def test_torchrun_starts_its_workers_again_and_they_go_on_within_the_attempt_and_are_warned_there(jobs, tmp_path):
    """A worker is killed: torchrun's agent ends the other and starts both anew, once."""
    directory = tmp_path / "elastic"
    directory.mkdir()
    (directory / "job.yaml").write_text(ELASTIC)
    shutil.copy(Path(__file__).parents[1] / "slurm" / "ranks_train.py", directory / "train.py")
    job = jobs("elastic", "elastic")

    def steps(rank: int) -> list[int]:
        log = job.run / f"executed.{rank}"
        return [int(line.split()[1]) for line in log.read_text().splitlines()] if log.exists() else []

    def signal_rank_1(signum: int, after: int) -> int:
        until = time.monotonic() + DEADLINE
        while len(steps(1)) <= after:
            assert time.monotonic() < until, job.words
            assert job.process.poll() is None, job.words
            time.sleep(0.02)
        (record,) = (json.loads(path.read_text()) for path in job.run.glob("attempts/0001/pids/*.1.json"))
        os.kill(record["pid"], signum)
        return len(steps(1))

    killed_after = signal_rank_1(signal.SIGKILL, 12)
    signal_rank_1(signal.SIGUSR1, killed_after + 10)
    job.finish()
    exits = [json.loads(path.read_text()) for path in sorted(job.run.glob("attempts/*/exit.json"))]
    assert [(record["code"], record["cause"]) for record in exits] == [(138, "operator"), (0, "finished")], job.words
    assert exits[0]["step_after"] > killed_after - 5, "they went on before the warning"
    for rank in (0, 1):
        done = steps(rank)
        assert set(done) == set(range(120))
        assert len(done) - 120 <= 6, "what was since the last checkpoint when the worker was killed, and no more"
