"""The way back into Slurm's queue, with a scontrol that answers as Slurm's does; the real ones are in tests/slurm."""

from __future__ import annotations

import json
import os

from .conftest import Job

SCONTROL = """#!/bin/bash
case $1 in
  requeue) cp runs/*/attempts/0001/exit.json seen.json && touch requeued ;;
  show) echo "JobId=7 JobName=m JobState=RUNNING Reason=None Requeue=1 Restarts=$([[ -e requeued ]]; echo $((! $?))) BatchFlag=1 " ;;
esac
"""


def test_what_an_attempt_came_to_is_on_disk_before_slurm_is_asked(job: Job) -> None:
    """Slurm answers a requeue with a TERM, and a KILL."""
    fake = job.directory / "bin" / "scontrol"
    fake.parent.mkdir()
    fake.write_text(SCONTROL)
    fake.chmod(0o755)
    fake.with_name("srun").symlink_to("/bin/false")
    job.write(HR_COMMAND=["bash", "-c", "exit 138"])
    env = {"PATH": f"{fake.parent}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "HPC_RESUME_SCHEDULER": ""}
    assert job.run(env=env).returncode == 138
    seen = json.loads((job.directory / "seen.json").read_text())
    assert (seen["code"], seen["decision"]) == (138, "requeue")
    assert seen == job.json("*/attempts/0001/exit.json")
