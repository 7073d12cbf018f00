"""The warning that a training sends itself for a drill: to the launcher of this very attempt, or to nobody."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest

from hpc_resume.errors import CheckpointError
from hpc_resume.run.drill import interrupt
from hpc_resume.run.process import identify
from hpc_resume.run.rundir import AttemptDir
from hpc_resume.run.signals import Recorder


@pytest.fixture
def stranger():
    """A process that has got the pid which the launcher had."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait(45)


def test_a_launcher_whose_pid_is_somebody_elses_by_now_is_not_signalled(tmp_path, stranger):
    me = identify(stranger.pid)
    record = {"version": 1, "pid": me.pid, "start_ticks": me.start_ticks - 1, "boot_id": me.boot_id, "host": me.host}
    (tmp_path / "attempt.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=f"pid {me.pid}.*nobody can be warned"):
        interrupt(Recorder(), signal.SIGUSR1, AttemptDir(tmp_path), launched=True)
    assert stranger.poll() is None
