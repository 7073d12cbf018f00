"""The local scheduler at the end of a batch shell whose records are not the ordinary ones."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hpc_resume.observe.progress import glance, parts
from hpc_resume.schedulers.batch_shell import BatchShell
from hpc_resume.schedulers.local_start import words_at_end
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
    deadline = time.monotonic() + 60
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


def test_a_shell_that_ends_at_once_is_known_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(subprocess.Popen[bytes]):
        def __init__(self, *words: Any, **more: Any) -> None:
            super().__init__(*words, **more)
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)  # we come to look when it is a zombie already

    (tmp_path / "script").write_text("exit 3")
    monkeypatch.setattr(subprocess, "Popen", Slow)
    shell = BatchShell(tmp_path / "script", cwd=tmp_path, env=dict(os.environ), stdout=None)
    assert shell.identity is not None
    assert (shell.identity.pid, shell.identity.start_ticks > 0) == (shell.pid, True)
    assert shell.poll() == 3


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


def test_cancel_of_a_run_that_finishes_meanwhile_says_finished(tmp_path: Path) -> None:
    command = "trap 'exit 0' USR1 TERM; touch up; while :; do sleep 0.05; done"
    (tmp_path / "job.yaml").write_text(json.dumps({"name": "m", "command": ["bash", "-c", command]}))
    words = [sys.executable, "-m", "hpc_resume"]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "HPC_RESUME"))}
    with subprocess.Popen([*words, "run"], cwd=tmp_path, env=env, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 20
            while not (tmp_path / "up").exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            cancel = [*words, "cancel", "m-local-1"]
            done = subprocess.run(cancel, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, "finished before it could be cancelled: m-local-1 unsaved\n")
            again = subprocess.run(cancel, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
            assert (again.returncode, again.stderr) == (1, "m-local-1 is finished: nothing to cancel\n")
        finally:
            process.terminate()


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("job.yaml", "with: hpc-resume run"),
        ("my exp/$job.yaml", "with: hpc-resume run 'my exp/$job.yaml'"),
        ("-", "with: hpc-resume run FILE, with the job that came on standard input in FILE"),
    ],
)
def test_the_advice_at_the_end_is_a_command_that_works(file: str, command: str) -> None:
    (words,) = words_at_end([TaskResult("m-local-1", 1, 138, "stop", "operator", 5)], Path(file))
    assert words == f"m-local-1 stopped at step 5; continue it {command}"


def test_the_live_line_tells_the_step_of_now_beside_the_saved_one(tmp_path: Path, task: LocalTask) -> None:
    attempt = task.run_dir.attempt(1)
    attempt.path.mkdir(parents=True)
    task.run_dir.latest_file.write_text("step-00000040\n")
    assert "step 57" not in [words for _, words in parts([glance(task)], 0)]
    attempt.metrics_file.write_text('{"t": 1, "step": 57, "loss": 0.5}\n')
    words = [words for _, words in parts([glance(task)], 0)]
    assert words == ["m-local-1", "attempt 1", "step 57", "saved step 40", "loss 0.5", "0:00"]
