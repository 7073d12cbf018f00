"""The local scheduler at the end of a batch shell whose records are not the ordinary ones."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from hpc_resume.schedulers.local_task import LocalJob, LocalTask, TaskResult

# A shell that has begun attempt 1, and the words of a second launcher that was refused as attempt 2.
BEGUN = """
stat=$(< /proc/$$/stat); set -- ${stat##*) }
mkdir -p runs/m-local-1/attempts/0001
printf '{"version":1,"attempt":1,"scheduler":"local","host":"h","pid":%s,"start_ticks":%s}' $$ ${20} \\
    > runs/m-local-1/attempts/0001/attempt.json
"""
REFUSED = """
mkdir -p runs/m-local-1/attempts/0002
echo '{"version":1,"attempt":2,"scheduler":"local","host":"h","pid":1,"start_ticks":1}' \\
    > runs/m-local-1/attempts/0002/attempt.json
"""
EXIT = '{"version":1,"code":3,"cause":"crash","decision":"stop"}'


@pytest.fixture
def task(tmp_path: Path) -> LocalTask:
    job = LocalJob("m", "", "", tmp_path, tmp_path / "runs", signal.SIGUSR1, (None,), 1, None)
    return LocalTask(job, 1, None)


def run(task: LocalTask, script: Path, text: str) -> TaskResult | None:
    """One start of a batch shell with this text, to its end; None when it is to be started again."""
    script.write_text(text)
    task.start(script, os.environ)
    deadline = time.monotonic() + 10
    while task.running:
        assert time.monotonic() < deadline
        task.poll()
        time.sleep(0.005)
    return task.result


@pytest.mark.parametrize("code", [0, 1, 75, 138])
def test_an_end_that_could_not_be_written_is_no_kill_and_is_not_started_again(
    task: LocalTask, tmp_path: Path, capfd: pytest.CaptureFixture[str], code: int
) -> None:
    result = run(task, tmp_path / "script", f"{BEGUN}\nexit {code}")
    assert result is not None
    assert (result.code, result.decision) == (code, "")
    said = capfd.readouterr().err
    assert f"could not be written: free space in {tmp_path}/runs/m-local-1" in said
    assert "killed" not in said


@pytest.mark.parametrize("end", ["kill -KILL $$", "kill -TERM $$", "kill -HUP $$", "exit 137"])
def test_a_killed_shell_is_started_again(
    task: LocalTask, tmp_path: Path, capfd: pytest.CaptureFixture[str], end: str
) -> None:
    assert run(task, tmp_path / "script", f"{BEGUN}\n{end}") is None
    assert "the batch shell was killed" in capfd.readouterr().err


def test_the_attempt_of_a_refused_second_launcher_does_not_hide_ours(task: LocalTask, tmp_path: Path) -> None:
    text = f"{BEGUN}\n{REFUSED}\necho '{EXIT}' > runs/m-local-1/attempts/0001/exit.json; exit 3"
    result = run(task, tmp_path / "script", text)
    assert result is not None
    assert (result.code, result.decision, result.cause) == (3, "stop", "crash")
