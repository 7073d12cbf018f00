"""The way of a warning through the runtime: who is signalled, when, and who never is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Job, poll

USR1, TERM = int(signal.SIGUSR1), int(signal.SIGTERM)
PLAIN_WITH_HANDLER = [
    sys.executable,
    "-c",
    (
        "import signal, sys, time, pathlib\n"
        "signal.signal(signal.SIGUSR1, lambda *_: (pathlib.Path('got').write_text('USR1'), sys.exit(138)))\n"
        "pathlib.Path('ready').write_text('')\n"
        "time.sleep(30)\n"
    ),
]


@pytest.mark.parametrize("number", [USR1, TERM])
def test_a_warning_reaches_the_announced_process_as_the_configured_signal(
    job: Job, training: list[str], number: int
) -> None:
    """TERM, which is all that the batch shell gets at the end of a grace time, becomes the warning."""
    job.write(HR_COMMAND=training)
    process = job.start()
    job.file("*/attempts/0001/pids/*.0.json")
    process.send_signal(number)
    assert process.wait(25) == 128 + USR1
    assert (job.directory / "got").read_text() == str(USR1)


def test_another_signal_than_the_first_escalates_and_the_same_again_does_not(job: Job, training: list[str]) -> None:
    job.write(HR_COMMAND=training)
    process = job.start(env={"SIGNALS": "2"})
    job.file("*/attempts/0001/pids/*.0.json")
    process.send_signal(USR1)
    poll(lambda: [e for e in job.events() if e["event"] == "sent"])
    process.send_signal(USR1)
    poll(lambda: [e for e in job.events() if e["event"] == "received" and e["count"] == 2])
    process.send_signal(TERM)
    assert process.wait(25) == 128 + USR1
    assert (job.directory / "got").read_text() == f"{USR1} {TERM}"


def test_the_wrapper_is_not_signalled_when_the_training_announced_itself(job: Job, training: list[str]) -> None:
    """A shell in between would die of USR1 and leave the training behind."""
    words = " ".join(training)
    job.write(HR_COMMAND=["bash", "-c", f"{words}; code=$?; echo wrapper saw $code; exit $code"])
    process = job.start()
    job.file("*/attempts/0001/pids/*.0.json")
    process.send_signal(USR1)
    out, _ = process.communicate(timeout=25)
    assert (out, process.returncode) == ("wrapper saw 138\n", 138)


def test_a_plain_program_with_a_handler_is_signalled_at_once_from_our_own_record(job: Job) -> None:
    job.write(HR_COMMAND=PLAIN_WITH_HANDLER, HR_LEAD=60)
    process = job.start()
    poll(lambda: (job.directory / "ready").exists())
    process.send_signal(USR1)
    assert process.wait(25) == 138
    assert (job.directory / "got").read_text() == "USR1"


def test_a_plain_program_under_a_wrapper_gets_the_signal_once_it_has_run_longer_than_the_lead(job: Job) -> None:
    job.write(HR_COMMAND=["sleep", "30"], HR_LEAD=1)
    process = job.start()
    job.file("*/attempts/0001/pids/*.child.json")
    assert poll(lambda: _uptime(job) > 1.2)
    process.send_signal(USR1)
    assert process.wait(25) == 138
    assert not [e for e in job.events() if e["event"] == "terminated"]


def test_one_that_gets_ready_late_is_warned_then(job: Job, training: list[str]) -> None:
    job.write(HR_COMMAND=[*training, "late"], HR_LEAD=30)
    process = job.start()
    job.file("*/attempts/0001/pids/*.child.json")
    process.send_signal(USR1)
    assert process.wait(25) == 138
    assert (job.directory / "got").read_text() == str(USR1)


def test_one_that_gets_ready_behind_a_wrapper_that_took_the_signal_is_warned_too(job: Job, training: list[str]) -> None:
    """`conda run` and the like catch the signal and do nothing with it; the training is ready only later."""
    words = " ".join([*training, "late"])
    job.write(HR_COMMAND=["bash", "-c", f"trap : USR1; {words} & until wait $!; do [[ -e got ]] && break; done"])
    process = job.start()
    job.file("*/attempts/0001/pids/*.child.json")
    process.send_signal(USR1)
    poll(lambda: (job.directory / "got").exists())
    assert (job.directory / "got").read_text() == str(USR1)
    process.wait(25)


def test_one_that_never_gets_ready_is_terminated_at_half_of_the_lead_with_its_children(job: Job) -> None:
    job.write(HR_COMMAND=["bash", "-c", "sleep 31.25 & echo $! > inner; sleep 30; true"], HR_LEAD=4)
    process = job.start()
    inner = int(poll(lambda: (job.directory / "inner").exists() and (job.directory / "inner").read_text()))
    process.send_signal(USR1)
    assert process.wait(25) == 128 + TERM
    poll(lambda: not _alive(inner))
    gone = next(e["t"] for e in job.events() if e["event"] == "gone")
    received = next(e["t"] for e in job.events() if e["event"] == "received")
    assert 1.0 < gone - received < 3.9


def test_what_was_terminated_is_not_taken_for_finished_behind_a_wrapper_that_ends_with_0(job: Job) -> None:
    job.write(HR_COMMAND=["bash", "-c", "trap '' TERM; touch up; (trap - TERM; exec sleep 30); exit 0"], HR_LEAD=8)
    process = job.start()
    poll(lambda: (job.directory / "up").exists())
    process.send_signal(USR1)
    assert process.wait(25) == 128 + TERM
    assert not list(job.directory.glob("runs/*/finished.json"))


def test_a_warning_before_the_start_starts_nothing_and_can_be_resumed(job: Job) -> None:
    job.write(HR_SETUP="touch in_setup; while [[ ! -e go ]]; do sleep 0.02; done", HR_COMMAND=["touch", "started"])
    process = job.start()
    poll(lambda: (job.directory / "in_setup").exists())
    process.send_signal(USR1)
    (job.directory / "go").write_text("")
    assert process.wait(25) == 138
    assert not (job.directory / "started").exists()


def test_the_stagger_ends_at_once_on_a_warning(job: Job) -> None:
    job.write(HR_STAGGER_MS=30_000, HR_COMMAND=["touch", "started"])
    env = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_MIN": "0"}
    process = job.start(env=env)
    poll(lambda: [e for e in job.events() if e["event"] == "staggered"])
    process.send_signal(USR1)
    assert process.wait(25) == 138
    assert not (job.directory / "started").exists()


@pytest.mark.parametrize(
    ("task", "width", "low", "high"), [(0, 0, 0, 200), (5, 0, 5000, 5200), (5, 4, 1000, 1200), (8, 4, 0, 200)]
)
def test_stagger_places(job: Job, task: int, width: int, low: int, high: int) -> None:
    """Tasks that the array's %N keeps apart anyway do not wait for each other's places."""
    job.write("hr::pause() { :; }\nhr::main", HR_STAGGER_MS=1000, HR_STAGGER_JITTER_MS=200, HR_STAGGER_WIDTH=width)
    job.run(env={"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_MIN": "0"})
    delay = next(e["milliseconds"] for e in job.events() if e["event"] == "staggered")
    assert low <= delay <= high


@pytest.mark.parametrize(
    "spoil", [{"start_ticks": 1}, {"boot_id": "another"}, {"host": "elsewhere"}, {"pid": 0}, {"pid": -1}]
)
def test_a_record_that_does_not_match_signals_nobody(job: Job, tmp_path: Path, spoil: dict[str, object]) -> None:
    """A reused PID, another boot, another host, a PID that kill(2) reads as a group: nobody is signalled."""
    with subprocess.Popen(["sleep", "30"]) as victim:
        stat = Path(f"/proc/{victim.pid}/stat").read_text()
        record = {
            "version": 1,
            "pid": victim.pid,
            "start_ticks": int(stat[stat.rindex(")") + 2 :].split()[19]),
            "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            "host": Path("/proc/sys/kernel/hostname").read_text().strip(),
        }
        path = tmp_path / "record.json"
        ask = f"hr::reset; hr::signal_record {path} USR1; echo $?"
        path.write_text(json.dumps(record | spoil))
        job.write(ask)
        assert job.run().stdout in {"1\n", "2\n"}
        assert victim.poll() is None
        path.write_text(json.dumps(record))  # the same record, unspoilt, does signal: the test can fail
        assert job.run().stdout == "0\n"
        assert victim.wait(25) == -USR1


def test_ctrl_c_once_saves_and_stops_and_is_a_cancel(job: Job, training: list[str]) -> None:
    job.write(HR_COMMAND=training)
    process = job.start()
    job.file("*/attempts/0001/pids/*.0.json")
    process.send_signal(signal.SIGINT)
    assert process.wait(25) == 138
    assert job.json("*/attempts/0001/exit.json")["cause"] == "cancelled"


def test_ctrl_c_twice_stops_hard(job: Job) -> None:
    job.write(HR_COMMAND=["bash", "-c", "trap '' USR1; touch up; sleep 30 & wait"], HR_LEAD=60)
    process = job.start()
    poll(lambda: (job.directory / "up").exists())
    process.send_signal(signal.SIGINT)
    poll(lambda: [e for e in job.events() if e["event"] == "received"])
    process.send_signal(signal.SIGINT)
    assert process.wait(25) == 128 + TERM


def _alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat[stat.rindex(")") + 2] != "Z"


def _uptime(job: Job) -> float:
    import time

    return time.time() - job.file("*/attempts/0001/pids/*.child.json").stat().st_mtime


def test_a_signal_to_the_whole_group_does_not_end_the_script_by_its_own_arithmetic(job: Job) -> None:
    """proctrack/pgid: Slurm's TERM also ends the `$(scontrol ...)` that asks for KillWait; nothing may depend on it."""
    fake = job.directory / "bin" / "scontrol"
    fake.parent.mkdir()
    fake.write_text("#!/bin/bash\ntouch asked.$2\n[[ $2 == config ]] && exec sleep 5\nexit 1\n")
    fake.chmod(0o755)
    fake.with_name("srun").symlink_to("/bin/false")
    job.write(HR_COMMAND=["bash", "-c", "trap '' TERM USR1; sleep 1.5; exit 0"])
    env = {"PATH": f"{fake.parent}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "HPC_RESUME_SCHEDULER": ""}
    process = job.start(env=env)
    job.file("*/attempts/0001/pids/*.child.json")
    process.send_signal(TERM)
    poll(lambda: (job.directory / "asked.config").exists())
    os.killpg(process.pid, TERM)
    process.communicate(timeout=25)
    assert job.json("*/attempts/0001/exit.json")["cause"] == "finished"
