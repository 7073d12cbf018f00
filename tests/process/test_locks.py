"""`hpc-resume locks`: what a directory is worth, who has which run, and taking one away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpc_resume.errors import RunHeldError
from hpc_resume.run import filesystem
from hpc_resume.run import lease as leases
from hpc_resume.run.rundir import RunDir

SHM = Path("/dev/shm")


def locks(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("hpc-resume")), "locks", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | more, timeout=60)


@pytest.fixture
def held(tmp_path, monkeypatch):
    """A run that this process has, where no kernel's locks are trusted."""
    monkeypatch.setenv("HPC_RESUME_LOCKS", "log")
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS", raising=False)
    run = RunDir(tmp_path / "runs" / "net-12")
    run.path.mkdir(parents=True)
    run.run_file.write_text('{"version": 1, "key": "net-12", "name": "net", "spec_digest": "x", "created": 1}\n')
    lease = leases.take(run, leases.Claimant("12"))
    yield run, lease
    lease.release()


@pytest.mark.usefixtures("held")
def test_it_names_the_file_system_what_was_tried_the_mechanism_and_the_owners(tmp_path):
    told = json.loads(locks(str(tmp_path / "runs"), "--json").stdout)
    assert told["mechanism"] == "log"
    assert {probe["name"]: probe["good"] for probe in told["probes"] if probe["needed"]} == {
        "hard links": True,
        "O_EXCL": True,
        "rename": True,
        "fsync": True,
    }
    (one,) = told["leases"]
    assert (one["run"], one["generation"], one["state"]) == ("net-12", 1, "alive")
    assert one["owner"] == f"pid {os.getpid()} on {Path('/proc/sys/kernel/hostname').read_text().strip()} (job 12)"
    words = locks(str(tmp_path / "runs")).stdout
    assert "a log of generations, claimed by link(2), and heartbeats" in words
    assert "net-12  pid " in words
    assert not [path for path in (tmp_path / "runs").iterdir() if path.name.startswith(".locks")]


def test_a_run_is_taken_away_only_after_a_word(held, tmp_path):
    _run, lease = held
    refused = locks(str(tmp_path / "runs"), "--break", "net-12")
    assert refused.returncode != 0
    lease.check()
    done = locks(str(tmp_path / "runs"), "--break", "net-12", "--yes")
    assert done.returncode == 0, done.stderr
    assert "net-12 is free (generation 2)" in done.stderr
    with pytest.raises(RunHeldError, match="has taken this run over"):
        lease.check()


@pytest.mark.skipif(not os.access(SHM, os.W_OK), reason="no /dev/shm")
def test_memory_of_one_node_is_refused():
    done = locks(str(SHM))
    assert done.returncode == 78
    assert "REFUSED     tmpfs is a node's own memory" in done.stdout


def test_a_disk_of_this_machine_alone_is_refused_unless_it_is_said_to_be_shared(tmp_path):
    kind = filesystem.kind(tmp_path)
    if not filesystem.is_node_local(kind) or kind in filesystem.VOLATILE:
        pytest.skip(f"temporary files are on {kind}")
    done = locks(str(tmp_path), HPC_RESUME_LOCKS="")
    assert done.returncode == 78, done.stdout
    assert f"REFUSED     {kind} is a disk of this machine alone" in done.stdout
    assert "good for jobs that never leave this machine" in done.stdout
    shared = locks(str(tmp_path), HPC_RESUME_LOCKS="log")
    assert (shared.returncode, "REFUSED" in shared.stdout) == (0, False), shared.stdout


def test_what_is_not_there_is_said(tmp_path):
    done = locks(str(tmp_path / "nowhere"))
    assert done.returncode == 78
    assert done.stderr == f"{tmp_path}/nowhere: no such directory; name the run_dir of your job.yaml\n"
    assert "no run x below" in locks(str(tmp_path), "--break", "x", "--yes").stderr
