"""`hpc-resume status`: one row a run, for every state; records by the real runtime wherever it can write them."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpc_resume.observe.facts import Facts, collect
from hpc_resume.observe.status import STATES, Row, age, row, row_of_job
from hpc_resume.observe.table import plain
from hpc_resume.run.process import Identity
from hpc_resume.run.records import AttemptRecord, ExitRecord, OutcomeRecord
from hpc_resume.run.rundir import RunDir
from hpc_resume.schedulers import JobState

SLURM = AttemptRecord(2, "12", 1, "slurm", Identity(1, 1, "boot", "n1"), 0.0)
ENDED = ExitRecord(138, "preempted", "", "requeue", "requeue 1 after preempted", 0, 40, True, 0.0, 0.0)
RUN = Facts("job-12", "/runs/job-12", attempts=2, step=40, attempt=SLURM, alive=None, slurm_answered=True)
HELD = JobState("12", "job", "PENDING", reason="BeginTime", restarts=1, start_time=1_800_000_000.0)


def exit_record(cause: str, decision: str = "stop", reason: str = "why", code: int = 138) -> ExitRecord:
    return replace(ENDED, cause=cause, decision=decision, reason=reason, code=code)


@pytest.mark.parametrize(
    ("facts", "state", "words"),
    [
        (replace(RUN, job=JobState("12", "job", "RUNNING", nodes="n2")), "running", ""),
        (replace(RUN, job=JobState("12", "job", "COMPLETING")), "running", "completing"),
        (replace(RUN, exit=ENDED, job=HELD), "requeued", "preempted; Slurm holds a requeued job back until "),
        (replace(RUN, exit=ENDED, job=replace(HELD, reason="Priority")), "requeued", "waits in the queue: Priority"),
        (replace(RUN, exit=ENDED, job=None), "stopped", "not in the queue: `hpc-resume submit --resume job-12`"),
        (replace(RUN, exit=ENDED, job=JobState("12", "job", "CANCELLED")), "cancelled", "cancelled in the queue"),
        (replace(RUN, exit=exit_record("cancelled"), job=None), "cancelled", "cancelled by its owner"),
        (replace(RUN, exit=exit_record("timeout")), "stopped", "stopped for its time limit; why"),
        (replace(RUN, exit=exit_record("crash", code=3)), "crashed", "crashed with code 3; why"),
        (
            replace(
                RUN, exit=exit_record("crash", code=1), outcome=OutcomeRecord("crashed", 3, None, 1, "KeyError: 'x'")
            ),
            "crashed",
            "crashed with code 1 (KeyError: 'x'); why",
        ),
        (replace(RUN, exit=exit_record("config", code=78)), "crashed", "code 78"),
        (RUN, "lost", "ended without a word"),
        (replace(RUN, job=JobState("12", "job", "NODE_FAIL")), "lost", "Slurm says NODE_FAIL"),
        (replace(RUN, job=JobState("12", "job", "CANCELLED")), "cancelled", "killed"),
        (replace(RUN, slurm_answered=False), "unknown", "Slurm did not say"),
        (replace(RUN, slurm_answered=False, exit=ENDED), "requeued", "preempted"),
        (replace(RUN, slurm_answered=False, exit=exit_record("timeout")), "stopped", "time limit"),
        (replace(RUN, finished=True), "finished", ""),
        (replace(RUN, attempt=None, attempts=0), "pending", "no attempt has begun"),
        (replace(RUN, attempt=None, beginning=True), "running", "attempt 2 is beginning"),
        (replace(RUN, attempt=None), "unknown", "attempt 2 left no record of who began it"),
        (replace(RUN, trouble="exit.json: not JSON"), "unknown", "exit.json: not JSON"),
    ],
)
def test_the_state_of_a_slurm_run(facts: Facts, state: str, words: str) -> None:
    found = row(facts)
    assert found.state == state
    assert found.state in STATES
    assert words in found.why


def test_a_job_held_back_after_a_requeue_says_until_when_and_how_to_start_it() -> None:
    clock = time.strftime("%H:%M:%S", time.localtime(1_800_000_000))
    why = row(replace(RUN, exit=ENDED, job=HELD)).why
    assert f"until {clock}; `scontrol update JobId=12 StartTime=now+2` starts it now" in why


def test_a_job_that_has_not_begun_is_a_row_too() -> None:
    found = row_of_job(JobState("12_3", "job", "PENDING", reason="Resources"))
    assert (found.run, found.state) == ("job-12_3", "pending")
    assert found.why == "waits in the queue: Resources (it is next, and waits for nodes to become free)"


@pytest.mark.parametrize(
    ("seconds", "words"), [(-3, "0 s"), (119, "119 s"), (121, "2 min"), (7300, "2 h"), (200_000, "2 d")]
)
def test_age(seconds: float, words: str) -> None:
    assert age(seconds) == words


def test_columns_are_aligned_and_one_line_a_run() -> None:
    rows = [
        Row("a", "finished", 1, 5, 100.0, "", "", "", "", "", ""),
        Row("longer-12_3", "lost", 12, None, None, "12_3", "n1", "it is gone", "", "", ""),
    ]
    lines = plain(rows, 130.0).splitlines()
    assert lines == [
        "run          state     attempts  step  saved     job   host  why",
        "a            finished         1     5  30 s ago  -     -",
        "longer-12_3  lost            12     -  -         12_3  n1    it is gone",
    ]


class Place:
    """A directory with jobs in it, and `hpc-resume` without any Slurm on PATH."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "bin").mkdir()
        for program in ("bash", "env", "sleep", "mkdir", "mv", "rm", "sync", "date", "timeout", "touch", "cat"):
            found = next(Path(p, program) for p in ("/usr/bin", "/bin") if Path(p, program).exists())
            (directory / "bin" / program).symlink_to(found)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "HPC_RESUME"))}
        self.env = clean | {"PATH": str(directory / "bin"), "TERM": "xterm"}
        self.started: list[subprocess.Popen[bytes]] = []

    def write(self, command: str, file: str = "job.yaml", **keys: Any) -> None:
        (self.directory / file).write_text(json.dumps({"name": "m", "command": command} | keys))

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "hpc_resume", *words],
            cwd=self.directory,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def start(self, *argv: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            argv, cwd=self.directory, env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.started.append(process)
        return process

    def rows(self, *targets: str) -> list[dict[str, Any]]:
        done = self.cli("status", "--json", *targets)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["runs"]

    def wait_for(self, pattern: str) -> Path:
        deadline = time.monotonic() + 60
        while not (found := sorted(self.directory.glob(pattern))):
            assert time.monotonic() < deadline, pattern
            time.sleep(0.01)
        return found[0]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    for process in place.started:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        process.wait(60)


def test_a_local_run_from_running_to_requeued_to_crashed_to_finished(place: Place) -> None:
    place.write("touch up; sleep 60", requeue={"max": {"crash": 9, "no_progress": 9}})
    process = place.start(sys.executable, "-m", "hpc_resume", "run")
    place.wait_for("runs/m-local-1/attempts/0001/pids/*.child.json")
    running = place.rows()[0]
    assert (running["run"], running["state"], running["attempts"]) == ("m-local-1", "running", 1)
    assert (running["job_id"], running["scheduler"], running["why"]) == ("local-1", "local", "")
    assert running["host"] == Path("/proc/sys/kernel/hostname").read_text().strip()
    child = json.loads(place.wait_for("runs/m-local-1/attempts/0001/pids/*.child.json").read_text())["pid"]
    os.kill(child, signal.SIGKILL)  # a crash: the next attempt begins after a pause
    second = json.loads(place.wait_for("runs/m-local-1/attempts/0002/pids/*.child.json").read_text())["pid"]
    os.kill(second, signal.SIGKILL)
    place.wait_for("runs/m-local-1/attempts/0002/exit.json")
    process.send_signal(signal.SIGSTOP)  # else the next attempt may begin while we ask
    waiting = place.rows("m-local-1")[0]
    assert (waiting["state"], waiting["cause"]) == ("requeued", "crash")
    process.kill()
    process.wait()
    left = place.rows("local-1")[0]
    assert left["state"] == "stopped"
    assert "its scheduler is gone" in left["why"]
    place.write("exit 3")
    assert place.cli("run").returncode == 3
    crashed = place.rows(str(place.directory / "runs"))[0]
    assert (crashed["state"], crashed["attempts"]) == ("crashed", 3)
    assert "crashed with code 3; requeue.max.crash is used up" in crashed["why"]
    place.write("true")
    assert place.cli("run").returncode == 0
    assert place.rows("job.yaml")[0]["state"] == "finished"


def test_a_cancelled_run_and_one_that_ended_without_a_word(place: Place) -> None:
    place.write("sleep 60")
    process = place.start(sys.executable, "-m", "hpc_resume", "run")
    place.wait_for("runs/m-local-1/attempts/0001/pids/*.child.json")
    process.send_signal(signal.SIGINT)
    place.wait_for("runs/m-local-1/attempts/0001/control.json")
    assert place.rows()[0]["why"] == "asked to save and stop"
    process.send_signal(signal.SIGINT)
    process.wait(60)
    assert place.rows()[0]["state"] == "cancelled"
    attempt = json.loads((place.directory / "runs/m-local-1/attempts/0001/attempt.json").read_text())
    (place.directory / "runs/m-local-1/attempts/0001/exit.json").unlink()
    lost = place.rows()[0]
    assert (lost["state"], "without a word" in lost["why"]) == ("lost", True)
    elsewhere = attempt | {"host": "another-host"}
    (place.directory / "runs/m-local-1/attempts/0001/attempt.json").write_text(json.dumps(elsewhere))
    unseen = place.rows()[0]
    assert (unseen["state"], "cannot be asked from here" in unseen["why"]) == ("unknown", True)


def test_a_plain_python_run_is_shown_beside_the_jobs(place: Place) -> None:
    script = (
        "import hpc_resume, sys\n"
        "with hpc_resume.Run() as run:\n"
        "    for step in run.steps(3):\n"
        "        if step == 2 and len(sys.argv) > 1: raise ValueError('too hot')\n"
    )
    (place.directory / "walk.py").write_text(script)
    assert place.start(sys.executable, "walk.py", "x").wait(60) == 1
    crashed = place.rows("runs")[0]
    assert (crashed["run"], crashed["state"], crashed["scheduler"]) == ("walk/0001", "crashed", "none")
    assert "ValueError: too hot" in crashed["why"]
    assert place.start(sys.executable, "walk.py").wait(60) == 0
    place.write("true")
    assert place.cli("run").returncode == 0
    assert {row["run"]: row["state"] for row in place.rows()} == {"m-local-1": "finished", "walk/0001": "finished"}


def test_without_squeue_a_slurm_run_is_unknown_and_status_does_not_fail(place: Place) -> None:
    attempt = place.directory / "runs/job-12/attempts/0001"
    attempt.mkdir(parents=True)
    (place.directory / "runs/job-12/run.json").write_text('{"version": 1, "key": "job-12", "name": "job"}')
    record = {"version": 1, "attempt": 1, "job_id": "12", "scheduler": "slurm", "host": "n1", "pid": 1}
    (attempt / "attempt.json").write_text(json.dumps(record))
    done = place.cli("status", "runs", "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["runs"][0]["state"]) == (0, "unknown")
    assert "no squeue on PATH" in answer["notes"][0]
    assert "no squeue on PATH" in done.stderr


def test_a_squeue_that_fails_is_said_and_status_does_not_fail(place: Place) -> None:
    test_without_squeue_a_slurm_run_is_unknown_and_status_does_not_fail(place)
    squeue = place.directory / "bin/squeue"
    squeue.write_text("#!/bin/bash\necho 'slurm_load_jobs error: Unable to contact slurm controller' >&2\nexit 1\n")
    squeue.chmod(0o755)
    done = place.cli("status", "12", "--json")
    assert (done.returncode, json.loads(done.stdout)["runs"][0]["state"]) == (0, "unknown")
    assert "Unable to contact slurm controller" in done.stderr


def test_a_run_that_is_not_there_is_told_in_the_same_words_everywhere(place: Place) -> None:
    place.write("true")
    assert place.cli("run").returncode == 0
    squeue = place.directory / "bin/squeue"  # as on a machine with Slurm's programs and no cluster
    squeue.write_text(
        "#!/bin/bash\n"
        "echo 'squeue: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host' >&2\n"
        "echo 'squeue: error: fetch_config: DNS SRV lookup failed' >&2\n"
        "echo 'squeue: fatal: Could not establish a configuration source' >&2; exit 1\n"
    )
    squeue.chmod(0o755)
    for words in (("status", "nosuch"), ("cancel", "nosuch"), ("submit", "--resume", "nosuch"), ("status", "nosuch-7")):
        done = place.cli(*words)
        assert done.returncode == 1
        assert f"no run {words[-1]}: there are m-local-1 in {place.directory}/runs" in done.stderr
        assert "dns_srv" not in done.stderr
        assert "DNS SRV" not in done.stderr
    assert "no Slurm cluster answers here" in place.cli("cancel", "nosuch").stderr
    assert "no Slurm cluster answers here" in place.cli("cancel", "12").stderr


def test_an_attempt_without_a_record_is_beginning_and_only_later_a_trouble(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    (tmp_path / "run.json").write_text('{"version": 1, "key": "m-1", "name": "m"}')
    run.attempt(1).path.mkdir(parents=True)
    (new,) = collect([run])
    assert row(new).state == "running"
    os.utime(run.attempt(1).path, (time.time() - 60, time.time() - 60))
    (old,) = collect([run])
    assert row(old).state == "unknown"
    assert "left no record" in row(old).why


def test_one_unreadable_run_does_not_hide_the_others(place: Place) -> None:
    place.write("true")
    assert place.cli("run").returncode == 0
    assert place.cli("run").returncode == 0
    (place.directory / "runs/m-local-1/finished.json").write_text('{"version": 99}')
    rows = place.rows()
    assert [row["state"] for row in rows] == ["unknown", "finished"]
    assert "format version 99" in rows[0]["why"]


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ((), "no runs of this directory's job.yaml yet"),
        (("m-local-9",), "no run m-local-9: there are no runs in "),
        (("bin",), "no runs in bin"),
        (("12_3",), "no run 12_3: there are no runs in "),
        (("other.yaml",), "no such file"),
    ],
)
def test_what_is_not_there_is_said(place: Place, targets: tuple[str, ...], words: str) -> None:
    place.write("true")
    done = place.cli("status", *targets)
    assert done.returncode in {1, 78}
    assert done.stdout == ""
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_on_a_terminal_the_reason_has_a_line_of_its_own(place: Place) -> None:
    place.write("exit 3")
    assert place.cli("run").returncode == 3
    master, slave = pty.openpty()
    subprocess.run([sys.executable, "-m", "hpc_resume", "status"], cwd=place.directory, env=place.env, stdout=slave, check=True)  # fmt: skip
    os.close(slave)
    text = b""
    with contextlib.suppress(OSError):  # EIO: everything has been read
        while part := os.read(master, 4096):
            text += part
    os.close(master)
    assert b"\x1b[1;31mcrashed\x1b[0m" in text
    assert b"\n  \x1b[2mcrashed with code 3;" in text


def test_on_a_narrow_terminal_a_run_is_folded_into_lines(place: Place) -> None:
    place.write("exit 3")
    assert place.cli("run").returncode == 3
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 60))
    env = {name: value for name, value in place.env.items() if name not in ("COLUMNS", "LINES")}  # xdist sets them
    subprocess.run(
        [sys.executable, "-m", "hpc_resume", "status"], cwd=place.directory, env=env, stdout=slave, check=True
    )
    os.close(slave)
    text = b""
    with contextlib.suppress(OSError):
        while part := os.read(master, 4096):
            text += part
    os.close(master)
    lines = text.decode().splitlines()
    assert lines[:4] == ["run: m-local-1", "state: crashed", "attempts: 1", "job: local-1"]
    assert lines[-1].startswith("why: crashed with code 3; ")
