"""A request of `hpc-resume poke` at the batch shell: served for the attempt that it names, ignored by the next one."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from .conftest import Job, poll

LISTENER = """
import json, os, pathlib, signal, sys, time
attempt = pathlib.Path(os.environ["HPC_RESUME_ATTEMPT_DIR"])
stat = pathlib.Path("/proc/self/stat").read_text()
host = pathlib.Path("/proc/sys/kernel/hostname").read_text().strip()
record = {"version": 1, "pid": os.getpid(), "start_ticks": int(stat[stat.rindex(")") + 2:].split()[19]),
          "boot_id": pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip(), "host": host, "rank": 0}
got = []
for number in (signal.SIGUSR1, signal.SIGURG):
    signal.signal(number, lambda number, frame: got.append(number))
(attempt / "pids" / f"{host}.0.json").write_text(json.dumps(record))
pathlib.Path("up").touch()
while signal.SIGUSR1 not in got: time.sleep(0.005)
pathlib.Path("got").write_text(" ".join(map(str, got)))
sys.exit(138)
"""


@pytest.fixture
def listening(job: Job):
    """A job whose training notes USR1 and URG; the pid of its batch shell is in attempt.json."""
    import sys

    (job.directory / "listen.py").write_text(LISTENER)
    job.write(HR_COMMAND=["env", sys.executable, "listen.py"], HR_RUN_KEY="k")
    job.start(env={"HPC_RESUME_SCHEDULER": "local", "HPC_RESUME_RUN_KEY": "k"})
    poll((job.directory / "up").exists)
    return job


def ask(job: Job, request: str, attempt: int = 1, t: float | None = None) -> None:
    record = {"version": 1, "request": request, "by": "test", "t": t or time.time(), "attempt": attempt}
    directory = job.directory / f"runs/k/attempts/{attempt:04d}"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "control.json").write_text(json.dumps(record) + "\n")


def test_a_save_request_reaches_the_training_and_is_no_warning(listening: Job) -> None:
    shell = listening.json("k/attempts/0001/attempt.json")["pid"]
    ask(listening, "save")
    os.kill(shell, signal.SIGURG)
    poll(lambda: any(e["event"] == "sent" for e in listening.events()))
    assert [e["event"] for e in listening.events()] == ["started", "save_requested", "sent"]
    os.kill(shell, signal.SIGUSR1)
    ended = listening.json("k/attempts/0001/exit.json")
    assert (ended["cause"], ended["decision"], ended["warned"]) == ("operator", "requeue", True)
    assert "poke" not in ended["evidence"]  # what was asked for is served: this end has another cause
    assert [e["asked"] for e in listening.events() if e["event"] == "received"] == [False]
    got = (listening.directory / "got").read_text().split()
    assert got.count(str(int(signal.SIGURG))) == 1


def test_a_save_signal_that_nobody_asked_for_means_nothing(listening: Job) -> None:
    shell = listening.json("k/attempts/0001/attempt.json")["pid"]
    os.kill(shell, signal.SIGURG)
    os.kill(shell, signal.SIGUSR1)
    assert listening.json("k/attempts/0001/exit.json")["cause"] == "operator"
    assert "save_requested" not in [e["event"] for e in listening.events()]
    assert (listening.directory / "got").read_text().split() == [str(int(signal.SIGUSR1))]


@pytest.mark.parametrize(
    ("request_", "cause", "decision"), [("stop", "cancelled", "stop"), ("requeue", "operator", "requeue")]
)
def test_stop_and_requeue_are_the_warning_with_a_reason(
    listening: Job, request_: str, cause: str, decision: str
) -> None:
    ask(listening, request_)
    os.kill(listening.json("k/attempts/0001/attempt.json")["pid"], signal.SIGUSR1)
    ended = listening.json("k/attempts/0001/exit.json")
    assert (ended["cause"], ended["decision"]) == (cause, decision)
    received = next(e for e in listening.events() if e["event"] == "received")
    assert received["asked"] is True


STRAY = """
hr::reset; HR_SCHEDULER=slurm HR_DIRECTORY=runs/k HR_PREVIOUS=0001 HR_ATTEMPT_DIR=runs/k/attempts/0002
HR_STARTED=$(date +%s)
mkdir -p "$HR_ATTEMPT_DIR/events"
{before}
HR_CAUGHT+=(USR1); hr::note; HR_CAUGHT+=(USR1); hr::note
echo "$HR_SIGNALS"
"""


@pytest.mark.parametrize(
    ("request_", "age", "before", "counted"),
    [
        ("requeue", 5, "", 1),  # the first is the attempt's before us, the second is ours
        ("stop", 5, "", 1),
        ("requeue", 90, "", 2),  # Slurm does not try that long
        ("save", 5, "", 2),  # that one is no warning
        ("requeue", 5, "HR_SCHEDULER=local", 2),  # nobody tries again there
        ("requeue", 5, "HR_STARTED=0", 2),  # asked after our start: not of the attempt before us
        ("requeue", 5, """echo '{"request":"requeue"}' > runs/k/attempts/0002/control.json""", 2),
        (
            "requeue",
            5,
            """mkdir runs/k/attempts/0001/events; echo '"asked":true' > runs/k/attempts/0001/events/n.1.jsonl""",
            2,
        ),
    ],
)
def test_a_signal_that_was_meant_for_the_attempt_before_is_ignored_once(
    job: Job, request_: str, age: float, before: str, counted: int
) -> None:
    ask(job, request_, t=time.time() - age)
    job.write(STRAY.replace("{before}", before))
    done = job.run()
    assert done.stdout == f"{counted}\n", done.stderr
    strays = [event for event in job.events(2) if event["event"] == "stray"]
    assert len(strays) == 2 - counted
