"""Exactly the recorded process: over pid reuse, namespaces and wrappers; acknowledged, or sent again, and not for ever."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from .conftest import RUNTIME, Job, poll

USR1, TERM = int(signal.SIGUSR1), int(signal.SIGTERM)
REPOSITORY = Path(__file__).parents[2]

TRAIN = """
import sys, time
import hpc_resume
class Count:
    n = 0
    def state_dict(self): return {"n": self.n}
    def load_state_dict(self, state): self.n = state["n"]
with hpc_resume.Run() as run:
    count = Count()
    run.register(count=count)
    for step in run.steps(10**6):
        count.n += 1
        run.log({"n": count.n})
        time.sleep(0.01)
"""


def may_unshare() -> bool:
    words = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    return (
        shutil.which("unshare") is not None and subprocess.run(words, capture_output=True, check=False).returncode == 0
    )


def has_own_pid_max() -> bool:
    """Whether each PID namespace has its own (Linux 6.14)."""
    version = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return version is not None and (int(version[1]), int(version[2])) >= (6, 14)


needs_namespaces = pytest.mark.skipif(not may_unshare(), reason="this machine lends no PID namespaces")


def train(job: Job, *before: str, environment: dict[str, str] | None = None, **variables) -> subprocess.Popen[str]:
    """A real training behind the words `before`, past its first steps."""
    (job.directory / "train.py").write_text(TRAIN)
    job.write(HR_COMMAND=[*before, sys.executable, "train.py"], **variables)
    process = job.start(env={"PYTHONPATH": str(REPOSITORY)} | (environment or {}))
    metrics = job.file("*/attempts/0001/metrics.jsonl")  # made before the first step, and written in it
    poll(lambda: metrics.stat().st_size)
    return process


def names(job: Job) -> list[str]:
    return [event["event"] for event in job.events()]


def test_each_stage_of_a_warning_has_its_time(job: Job) -> None:
    """sent by the launcher, received and saved by the training, gone by the launcher: in this order, on one clock."""
    process = train(job)
    process.send_signal(USR1)
    assert process.wait(25) == 138
    stages = [event for event in job.events() if event["event"] in {"sent", "received", "saved", "gone"}]
    assert [event["event"] for event in stages if event.get("count") != 1] == ["sent", "received", "saved", "gone"]
    assert stages[-1]["t"] - stages[0]["t"] < 20


def test_the_deadline_is_told_before_the_signal(job: Job) -> None:
    process = train(job, HR_LEAD=77)
    process.send_signal(USR1)
    assert process.wait(25) == 138
    told = job.json("*/attempts/0001/warning.json")
    sent = next(event["t"] for event in job.events() if event["event"] == "sent")
    assert told["t"] <= sent
    assert 75 <= told["deadline"] - told["t"] <= 78


def test_one_that_does_not_acknowledge_is_asked_three_times_and_killed_at_the_end(job: Job) -> None:
    """C code that keeps the GIL: nothing of ours can run in it. What it has published is gone on from."""
    (job.directory / "stuck.py").write_text(
        "import ctypes, hpc_resume\n"
        "with hpc_resume.Run() as run:\n    for step in run.steps(9):\n"
        "        open('stuck', 'w').close()\n        ctypes.PyDLL(None).poll(None, 0, -1) if step else None\n"
        "        mutex = ctypes.create_string_buffer(64); lock = ctypes.PyDLL(None).pthread_mutex_lock\n"
        "        lock(mutex); lock(mutex)\n"
    )
    job.write(HR_COMMAND=[sys.executable, "stuck.py"], HR_LEAD=7)
    process = job.start(env={"PYTHONPATH": str(REPOSITORY)})
    poll(lambda: (job.directory / "stuck").exists())
    began = time.monotonic()
    process.send_signal(USR1)
    assert process.wait(25) == 137
    assert 5 < time.monotonic() - began < 20
    found = names(job)
    sent = [event["signal"] for event in job.events() if event["event"] == "sent"]
    assert sent[:4] == ["USR1", "USR1", "USR1", "KILL"]
    assert found.count("unacknowledged") == found.count("killed") == 1
    assert job.json("*/attempts/0001/exit.json")["cause"] == "operator"


def test_a_program_without_our_helper_is_warned_once_and_not_held_for_its_checkpoints(job: Job) -> None:
    """Its own handler saves for longer than we wait for an answer; it never publishes a checkpoint of ours."""
    (job.directory / "train.py").write_text(
        "import signal, sys, time\nheard = []\nsignal.signal(signal.SIGUSR1, lambda *_: heard.append(time.monotonic()))\n"
        "open('ready', 'w').close()\nwhile not heard or time.monotonic() < heard[0] + 4: time.sleep(0.02)\n"
        "print(len(heard), flush=True)\nsys.exit(138)\n"
    )
    job.write(HR_COMMAND=[sys.executable, "train.py"], HR_LEAD=6, HR_MAX_NO_PROGRESS=0, HR_RUN_KEY="k")
    env = {"HPC_RESUME_SCHEDULER": "local", "HPC_RESUME_RUN_KEY": "k", "HPC_RESUME_JOB_ID": "local-1"}
    process = job.start(env=env | {"PYTHONPATH": str(REPOSITORY)})
    poll(lambda: (job.directory / "ready").exists())
    began = time.monotonic()
    poll(lambda: time.monotonic() - began > 6)  # from there on an attempt without progress would count
    process.send_signal(USR1)
    assert process.communicate(timeout=25)[0] == "1\n"
    assert process.returncode == 138
    record = job.json("k/attempts/0001/exit.json")
    assert (record["decision"], record["announced"]) == ("requeue", False)
    assert [event["signal"] for event in job.events() if event["event"] == "sent"] == ["USR1"]


@needs_namespaces
def test_a_training_in_a_pid_namespace_is_found_from_outside(job: Job) -> None:
    """As in a container: its own number names somebody else out here, or nobody."""
    process = train(job, "unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    record = job.json("*/attempts/0001/pids/*.0.json")
    attempt = job.json("*/attempts/0001/attempt.json")
    assert record["pid"] < 10
    assert record["pid_ns"] != attempt["pid_ns"] > 0
    process.send_signal(USR1)
    assert process.wait(25) == 138
    sent = next(event for event in job.events() if event["event"] == "sent")
    assert sent["pid"] > 10
    assert job.json("*/attempts/0001/outcome.json")["outcome"] == "stopped"


@needs_namespaces
def test_python_finds_it_from_outside_as_well(job: Job) -> None:
    from hpc_resume.run.delivery import send_signal
    from hpc_resume.run.process import is_alive
    from hpc_resume.run.rundir import AttemptDir

    process = train(job, "unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    attempt = AttemptDir(job.file("*/attempts/0001"))
    record = next(record for record in attempt.pids() if record.rank == 0)
    assert is_alive(record.process) is True
    assert send_signal(record.process, USR1)
    assert process.wait(25) == 138
    assert not send_signal(record.process, USR1)


@needs_namespaces
def test_a_launcher_that_cannot_see_the_training_is_heard_all_the_same(job: Job) -> None:
    """The other way round: the launcher in the container, the training outside. It finds the word by itself."""
    process = train(job)
    attempt = job.file("*/attempts/0001")
    record, pids = attempt / "attempt.json", next((attempt / "pids").glob("*.0.json"))
    elsewhere = json.loads(record.read_text()) | {"pid_ns": 1}
    pid = json.loads(pids.read_text())["pid"]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    os.kill(pid, signal.SIGKILL)
    # A second training, told by attempt.json that its launcher lives in another namespace.
    record.write_text(json.dumps(elsewhere))
    environment = {
        "HPC_RESUME_RUN_DIR": str(attempt.parent.parent),
        "HPC_RESUME_ATTEMPT_DIR": str(attempt),
        "HPC_RESUME_LEAD": "60",
        "PYTHONPATH": str(REPOSITORY),
    }
    pids.unlink()
    poll(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2])
    second = job.start(argv=[sys.executable, "train.py"], env=environment)
    poll(lambda: list((attempt / "pids").glob("*.0.json")))
    told = {"version": 1, "t": time.time() + 0.01, "signal": "USR1", "deadline": time.time() + 60, "source": "test"}
    (attempt / "warning.json").write_text(json.dumps(told))
    assert second.wait(25) == 138


REUSE = r"""
import json, os, signal, subprocess, sys, time
from pathlib import Path
from hpc_resume.run.delivery import send_signal
from hpc_resume.run.process import identify, is_alive
while True:  # numbers below 300 are given once and never again (the kernel's RESERVED_PIDS)
    gone = subprocess.Popen(["sleep", "60"])
    if gone.pid > 310: break
    gone.kill(); gone.wait()
recorded = identify(gone.pid)
gone.kill(); gone.wait()
victim = None
began = time.monotonic()
while time.monotonic() - began < 0.05: pass  # another clock tick: within one no number comes round by itself
for _ in range(3000):  # until the number comes round again
    if sys.argv[1:] == ["named"]: Path("/proc/sys/kernel/ns_last_pid").write_text(str(recorded.pid - 1))
    candidate = subprocess.Popen(["sleep", "60"])
    if candidate.pid == recorded.pid: victim = candidate; break
    candidate.kill(); candidate.wait()
assert victim is not None, "the pid did not come round"
record = {"version": 1, "pid": recorded.pid, "start_ticks": recorded.start_ticks, "boot_id": recorded.boot_id,
    "host": recorded.host, "pid_ns": recorded.pid_ns}
Path("record.json").write_text(json.dumps(record))
assert is_alive(recorded) is False
assert not send_signal(recorded, signal.SIGKILL)
shell = subprocess.run(["bash", "job.sbatch"], capture_output=True, text=True)
assert shell.stdout == "1\n", shell
assert victim.poll() is None, "the wrong process was signalled"
now = identify(victim.pid)
Path("record.json").write_text(json.dumps(record | {"start_ticks": now.start_ticks}))
assert subprocess.run(["bash", "job.sbatch"], capture_output=True, text=True).stdout == "0\n"
assert victim.wait() == -signal.SIGUSR1
print("nobody was hit")
"""


@needs_namespaces
def test_a_pid_that_is_given_again_hits_nobody(job: Job) -> None:
    """A namespace of 400 pids, so that the kernel must give the number to another process.

    Kernels before 6.14 have one pid_max for the whole machine, which is not ours to change: there it is told the number.
    """
    (job.directory / "reuse.py").write_text(REUSE)
    job.write("hr::reset; hr::signal_record record.json USR1; echo $?")
    small = 'echo 400 > /proc/sys/kernel/pid_max && exec "$0" reuse.py'
    words = small if has_own_pid_max() else 'exec "$0" reuse.py named'
    done = job.run(
        argv=["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "bash", "-c", words, sys.executable],
        env={"PYTHONPATH": str(REPOSITORY)},
    )
    assert done.stdout == "nobody was hit\n", done.stderr


# --- wrappers: what is in between neither gets the signal nor keeps it from the training --------------------------

SWALLOWS = "trap '' TERM; trap ':' USR1; \"$@\" & child=$!; wait $child; wait $child; exit $?"
NICE = {
    "sh -c": (["sh", "-c", '"$@"; exit $?', "sh"], ["bash", "sh", "python"]),
    "a wrapper that swallows signals": (["bash", "-c", SWALLOWS, "conda"], ["bash", "bash", "python"]),
    "time": (["/usr/bin/time", "-o", "/dev/null"], ["bash", "time", "python"]),
    "nice": (["nice", "-n", "1"], ["bash", "python"]),
    "setsid": (["setsid", "--wait"], ["bash", "python"]),
    "uv run": (["uv", "run", "--no-project", "--offline", "--"], ["bash", "uv", "python"]),
}


@pytest.mark.parametrize("name", NICE)
def test_the_training_behind_a_wrapper_is_signalled_and_the_chain_is_recorded(job: Job, name: str) -> None:
    words, chain = NICE[name]
    found = shutil.which(words[0], path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if found is None:
        pytest.skip(f"this machine has no {words[0]}")
    process = train(job, found, *words[1:])
    record = job.json("*/attempts/0001/pids/*.0.json")
    assert [link.rstrip("0123456789.") for link in record["chain"]] == chain
    shown = subprocess.run(
        [sys.executable, "-m", "hpc_resume", "status", "runs"],
        cwd=job.directory,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert (" → ".join(record["chain"]) in shown) == (len(chain) > 2)
    process.send_signal(USR1)
    assert process.wait(25) == 138
    outcome = job.json("*/attempts/0001/outcome.json")
    assert (outcome["outcome"], outcome["signal"]) == ("stopped", "USR1")
    assert "orphans" not in names(job)


@pytest.mark.torch
def test_torchrun_hands_its_worker_nothing_and_the_worker_is_warned(job: Job) -> None:
    """torchrun dies of USR1 and calls a worker's 138 a failure; we signal the worker, and believe its outcome."""
    (job.directory / "train.py").write_text(TRAIN)
    job.write(
        HR_COMMAND=[str(Path(sys.executable).parent / "torchrun"), "--standalone", "--nproc-per-node=1", "train.py"]
    )
    process = job.start(env={"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"})
    poll(lambda: list(job.directory.glob("runs/*/attempts/0001/metrics.jsonl")), 50)
    process.send_signal(USR1)
    assert process.wait(25) == 138
    assert job.json("*/attempts/0001/outcome.json")["outcome"] == "stopped"


# --- the start-up window in a rendered script ------------------------------------------------------------------------


def test_a_warning_during_an_import_under_the_runtime_leaves_at_once_and_can_be_resumed(job: Job) -> None:
    (job.directory / "train.py").write_text("import time\nopen('up', 'w').close()\ntime.sleep(30)\nimport hpc_resume\n")
    job.write(HR_COMMAND=[sys.executable, "train.py"], HR_LEAD=60)
    process = job.start(env={"PYTHONPATH": str(REPOSITORY)})
    poll(lambda: (job.directory / "up").exists())
    began = time.monotonic()
    process.send_signal(USR1)
    assert process.wait(25) == 138
    assert time.monotonic() - began < 15
    assert job.json("*/attempts/0001/exit.json")["cause"] == "operator"


def test_a_python_without_us_is_started_as_it_was(job: Job) -> None:
    """A python that cannot import hpc_resume: nothing of ours is in its arguments."""
    lone = job.directory / "bin" / "python3"
    lone.parent.mkdir()
    lone.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    lone.chmod(0o755)
    (job.directory / "train.py").write_text("import sys; print(sys.argv)")
    job.write(HR_COMMAND=[str(lone), "train.py", "a b"])
    assert job.run().stdout == "['train.py', 'a b']\n"


def test_the_runtime_and_the_run_side_have_one_boot_text() -> None:
    from hpc_resume.run.startup import BOOT

    assert textwrap.dedent(BOOT) in RUNTIME


# --- nothing is left behind ------------------------------------------------------------------------------------------


def test_what_the_training_left_behind_is_ended_and_named(job: Job) -> None:
    """Daemonised: another session, another parent; one of them ignores TERM."""
    source = "setsid sleep 61.25 & setsid bash -c \"trap '' TERM; touch up; while :; do sleep 1; done\" & until [[ -e up ]]; do sleep 0.05; done"
    job.write(HR_COMMAND=["bash", "-c", source])
    done = job.run()
    assert done.returncode == 0
    assert "ends what the training has left behind: " in done.stderr
    assert "sleep (" in done.stderr
    assert [e["count"] >= 2 for e in job.events() if e["event"] == "orphans"] == [True]
    mark = f"HPC_RESUME_ATTEMPT_DIR={job.directory}/".encode()
    assert [p for p in Path("/proc").glob("[0-9]*") if _carries(p, mark)] == []


def test_a_process_of_another_attempt_or_job_is_left_alone(job: Job) -> None:
    directory = job.directory / "runs/job-local-1/attempts"
    others = [
        {"HPC_RESUME_ATTEMPT_DIR": f"{directory}/0002"},
        {"HPC_RESUME_ATTEMPT_DIR": f"{directory}/00011"},
        {"OTHER": f"HPC_RESUME_ATTEMPT_DIR={directory}/0001"},
    ]
    victims = [subprocess.Popen(["sleep", "60"], env=os.environ | other) for other in others]
    try:
        job.write(HR_COMMAND=["true"])
        assert job.run().returncode == 0
        assert [victim.poll() for victim in victims] == [None] * 3
        assert "orphans" not in names(job)
    finally:
        for victim in victims:
            victim.kill()
            victim.wait()


def _carries(process: Path, mark: bytes) -> bool:
    try:
        return mark in (process / "environ").read_bytes()
    except OSError:
        return False
