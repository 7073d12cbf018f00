"""What a launcher's own code is worth: srun's 0 for a node given up, torchrun's 1 for a rank signalled after its end."""

from __future__ import annotations

import signal

import pytest

from .conftest import Job, poll

SRUN = 'srun() { echo "{}" >"$HR_ATTEMPT_DIR/pids/n1.0.json"; %s return 0; }'
FINISHED = """echo '{"version":1,"outcome":"finished","step":1,"code":0}' >"$HR_ATTEMPT_DIR/outcome.json";"""


@pytest.mark.parametrize(("says", "code", "cause"), [("", 1, "crash"), (FINISHED, 0, "finished")])
def test_zero_of_srun_counts_only_when_the_training_says_that_it_has_finished(
    job: Job, says: str, code: int, cause: str
) -> None:
    job.write(HR_SETUP=SRUN % says, HR_LAUNCHER=["srun"], HR_COMMAND=["python", "train.py"])
    assert job.run().returncode == code
    assert job.json("*/attempts/0001/exit.json")["cause"] == cause
    assert bool(list(job.directory.glob("runs/*/finished.json"))) is (code == 0)


def test_zero_of_srun_is_believed_of_a_program_without_our_helper(job: Job) -> None:
    job.write(HR_SETUP="srun() { return 0; }", HR_LAUNCHER=["srun"], HR_COMMAND=["simulate"])
    assert job.run().returncode == 0
    assert list(job.directory.glob("runs/*/finished.json"))


def test_zero_of_srun_is_believed_of_a_program_that_opens_no_run(job: Job) -> None:
    """Every Python program that we start announces itself, also one that never imports us."""
    srun = """srun() { echo '{"opened": false}' >"$HR_ATTEMPT_DIR/pids/n1.0.json"; return 0; }"""
    job.write(HR_SETUP=srun, HR_LAUNCHER=["srun"], HR_COMMAND=["python", "train.py"])
    assert job.run().returncode == 0
    assert list(job.directory.glob("runs/*/finished.json"))


@pytest.mark.parametrize(("signalled", "code", "cause"), [(True, 0, "finished"), (False, 1, "crash")])
def test_an_agents_code_for_a_rank_signalled_after_its_end_is_not_the_trainings(
    job: Job, signalled: bool, code: int, cause: str
) -> None:
    """torchrun makes 1 of a worker that USR1 met in its atexit functions (seen under scancel)."""
    torchrun = f"torchrun() {{ {FINISHED} touch ended; until [[ -e met ]]; do sleep 0.02; done; return 1; }}"
    job.write(HR_SETUP=torchrun, HR_COMMAND=["torchrun", "train.py"])
    process = job.start()
    poll(lambda: (job.directory / "ended").exists())
    if signalled:
        process.send_signal(signal.SIGUSR1)
        poll(lambda: any(event["event"] == "received" for event in job.events()))
    (job.directory / "met").touch()
    process.communicate(timeout=90)
    assert process.returncode == code
    assert job.json("*/attempts/0001/exit.json")["cause"] == cause
