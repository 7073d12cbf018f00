"""A program that nobody can edit, under a real pseudo-terminal: asked, answered, ended, with the right code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pexpect
import pytest

PROGRAM = r"""
import os, signal, sys, time
def size(*_):
    print("size", *os.get_terminal_size(0), flush=True)
signal.signal(signal.SIGWINCH, size)
print("terminal", os.isatty(0), os.isatty(1), flush=True)
for line in sys.stdin:
    word = line.strip()
    if word == "save":
        time.sleep(float(os.environ.get("SAVING", "0")))
        open("state", "w").write("saved"); print("saved step 7", flush=True)
    elif word.isdigit(): sys.exit(int(word))
    elif word == "kill": os.kill(os.getpid(), signal.SIGKILL)
    elif word == "size": size()
    else: print("got", word, flush=True)
print("end of input", flush=True)
"""


@pytest.fixture
def watch(tmp_path: Path):
    (tmp_path / "program.py").write_text(PROGRAM)
    attempt = tmp_path / "run/attempts/0001"
    (attempt / "pids").mkdir(parents=True)
    (attempt / "events").mkdir()
    launched = {
        "HPC_RESUME_RUN_DIR": str(tmp_path / "run"),
        "HPC_RESUME_ATTEMPT_DIR": str(attempt),
        "HPC_RESUME_LEAD": "30",
    }
    started = []

    def begin(*options: str, stdin: int = subprocess.DEVNULL, **env: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "hpc_resume.watch", *options, "--", sys.executable, "program.py"],
            cwd=tmp_path,
            env=os.environ | launched | env,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        return process

    begin.directory = tmp_path
    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def events(directory: Path) -> list[str]:
    files = (directory / "run/attempts/0001/events").iterdir()
    return [json.loads(line)["event"] for file in files for line in file.read_text().splitlines()]


ASK = ("--on-warning=save\n", r"--expect=saved step \d+")


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGTERM])
def test_a_warned_program_is_asked_heard_and_ended(watch, signum):
    process = watch(*ASK, "--timeout=20s", SAVING="0.3")
    assert process.stdout.readline() == b"terminal True True\n"  # no carriage return, no echo: it is a log
    process.send_signal(signum)
    process.send_signal(signum)
    out, err = process.communicate(timeout=90)
    assert (process.returncode, out) == (128 + signum, b"saved step 7\n")
    assert b"it has answered after 0." in err
    assert (watch.directory / "state").exists()
    assert events(watch.directory) == ["ready", "received", "asked", "saved", "stopped"]


def test_the_record_names_who_is_to_be_signalled(watch):
    process = watch(*ASK)
    assert process.stdout.readline()
    record = json.loads(next((watch.directory / "run/attempts/0001/pids").iterdir()).read_text())
    assert record["pid"] == process.pid
    assert record["opened"] is False, "else three interruptions without a checkpoint of ours would hold it"


def test_without_an_answer_it_is_ended_all_the_same(watch):
    process = watch(*ASK, "--timeout=1s", SAVING="30")
    assert process.stdout.readline()
    began = time.monotonic()
    process.send_signal(signal.SIGUSR1)
    _, err = process.communicate(timeout=90)
    assert process.returncode == 138
    assert time.monotonic() - began < 15
    assert b"no answer in 1" in err


def test_a_second_signal_ends_the_wait(watch):
    process = watch(*ASK, "--timeout=20s", SAVING="30")
    assert process.stdout.readline()
    process.send_signal(signal.SIGUSR1)
    while "asked" not in events(watch.directory):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=90)
    assert process.returncode == 138


@pytest.mark.parametrize(("word", "code"), [(b"0\n", 0), (b"3\n", 3), (b"kill\n", 137), (b"", 0)])
def test_the_programs_own_end_is_its_own(watch, word, code):
    """A pipe is passed on, and its end is the end of the program's input."""
    process = watch(stdin=subprocess.PIPE)
    out, _ = process.communicate(word, timeout=90)
    assert process.returncode == code
    assert out.endswith(b"end of input\n") == (word == b"")


def test_a_program_that_is_not_there(tmp_path):
    words = [sys.executable, "-m", "hpc_resume.watch", "--", "no-such-program"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 127
    assert "no-such-program" in done.stderr
    assert "Traceback" not in done.stderr


def test_on_a_terminal_keys_and_window_size_reach_the_program(watch):
    """By way of the verb, as a person types it."""
    words = ["-m", "hpc_resume", "watch", *ASK, "--", sys.executable, "program.py"]
    terminal = pexpect.spawn(sys.executable, words, cwd=watch.directory, dimensions=(30, 100), timeout=90)
    terminal.expect_exact("terminal True True\r\n")
    terminal.send("hello\r")
    terminal.expect_exact("got hello\r\n")
    terminal.send("size\r")
    terminal.expect_exact("size 100 30\r\n")
    terminal.setwinsize(40, 120)
    terminal.expect_exact("size 120 40\r\n")
    os.kill(terminal.pid, signal.SIGUSR1)
    terminal.expect_exact("saved step 7")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 138


def test_a_rendered_job_signals_exactly_the_watch(watch):
    """`watch:` in job.yaml, the script of it under bash: the warning goes by the PID record, the answer counts."""
    job = {
        "name": "w",
        "command": [sys.executable, "program.py"],
        "watch": {"on_warning": "save\n", "expect": "saved"},
        "preemption": {"lead": "90s"},
    }
    (watch.directory / "job.yaml").write_text(json.dumps(job))
    render = [sys.executable, "-m", "hpc_resume", "render", "job.yaml", "-o", "job.sbatch"]
    subprocess.run(render, cwd=watch.directory, check=True, capture_output=True)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HPC_RESUME_", "SLURM_"))}
    clean["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), clean["PATH"]])
    process = subprocess.Popen(
        ["bash", "job.sbatch"], cwd=watch.directory, env=clean, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.stdout.readline() == b"terminal True True\n"
        process.send_signal(signal.SIGUSR1)
        out, err = process.communicate(timeout=90)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert (process.returncode, out) == (138, b"saved step 7\n"), err
    ended = json.loads(next(watch.directory.glob("runs/w-local-1/attempts/0001/exit.json")).read_text())
    assert (ended["code"], ended["cause"]) == (138, "operator")
