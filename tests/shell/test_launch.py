"""One attempt: true exit codes, records, sourcing, the run directory; real bash, real signals."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import RUNTIME, Job, poll


@pytest.mark.parametrize("code", [0, 1, 3, 75, 78, 127, 137, 255])
def test_the_script_ends_with_the_trainings_own_code(job: Job, code: int) -> None:
    job.write(HR_COMMAND=["bash", "-c", f"exit {code}"])
    assert job.run().returncode == code
    assert job.json("job-local-1/attempts/0001/exit.json")["code"] == code


@pytest.mark.parametrize("code", [0, 3, 127, 138])
def test_any_number_of_signals_does_not_change_the_code(job: Job, training: list[str], code: int) -> None:
    """`wait` ends with 138 whenever a trap runs; the code must be the child's, also when it looks like `wait`'s own."""
    job.write(HR_COMMAND=training)
    process = job.start(env={"CODE": str(code), "LINGER": "0.4"})
    job.file("*/attempts/0001/pids/*.0.json")
    for _ in range(200):
        process.send_signal(signal.SIGUSR1)
    poll(lambda: (job.directory / "got").exists())
    for _ in range(200):
        process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == code
    assert (job.directory / "got").read_text() == str(int(signal.SIGUSR1))


def test_a_storm_on_a_plain_program_does_not_change_its_code(job: Job) -> None:
    """bash itself forgets a child's code in such a storm (one time in ten); nothing else knows it here."""
    job.write(HR_COMMAND=["bash", "-c", "trap '' USR1 TERM; touch up; sleep 0.5; exit 3"])
    for number in range(1, 6):
        process = job.start()
        poll(lambda: (job.directory / "up").exists())
        for _ in range(200):  # 50 at a time for as long as it runs, and for no longer than a slow machine can bear
            for _ in range(50):
                process.send_signal(signal.SIGUSR1)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.01)
        assert process.wait(60) == 3
        assert job.json(f"job-local-1/attempts/{number:04d}/exit.json")["code"] == 3
        (job.directory / "up").unlink()


def test_the_code_survives_a_kill_of_the_shell_in_between(job: Job, training: list[str]) -> None:
    """Without the one that knows the code the training is still waited for, and nothing is taken for finished."""
    job.write(HR_COMMAND=training)
    process = job.start(env={"LINGER": "0.3"})
    record = json.loads(job.file("*/attempts/0001/pids/*.0.json").read_text())
    keeper = int(Path(f"/proc/{record['pid']}/stat").read_text().rpartition(")")[2].split()[1])
    assert keeper != process.pid
    os.kill(keeper, signal.SIGKILL)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == 137
    assert (job.directory / "got").read_text() == str(int(signal.SIGUSR1)), "it had its time to end"


def test_a_shell_in_between_that_is_killed_before_it_says_a_word_is_no_finish(job: Job) -> None:
    job.write(tail='hr::keep() { kill -KILL "$BASHPID"; }\nhr::main')
    assert job.run().returncode == 137
    assert job.json("*/attempts/0001/exit.json")["decision"] != "finish"


def test_a_shell_in_between_that_ends_between_two_looks_is_heard(job: Job) -> None:
    """The first look finds nothing yet, the second nobody: what was said in between is read."""
    tail = """
    eval "heard() $(declare -f hr::hear_keeper | sed 1d)"
    hr::hear_keeper() { if ((HR_LATE++)); then heard; else sleep 1 && return 1; fi; }
    hr::main
    """
    job.write(tail=tail, HR_COMMAND=["bash", "-c", "exit 9"])
    assert job.run().returncode == 9


def test_the_callers_own_trap_is_not_taken_for_the_end(job: Job) -> None:
    tail = "trap 'echo hup' HUP\nhr::launch bash -c 'sleep 1; exit 5'\necho code=$?"
    job.write(tail)
    process = job.start()
    job.file("*/attempts/0001/pids/*.child.json")
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate(timeout=90)
    assert out == "hup\ncode=5\n"


def test_a_finished_run_is_not_started_again_and_a_new_one_begins(job: Job) -> None:
    """Under plain bash every script start after a finished run is a new run; the same key again does nothing."""
    job.write(HR_COMMAND=["bash", "-c", "echo ran"])
    assert job.run().stdout == "ran\n"
    assert job.run().stdout == "ran\n"
    assert sorted(p.name for p in (job.directory / "runs").iterdir()) == ["job-local-1", "job-local-2"]
    job.write(HR_COMMAND=["bash", "-c", "echo ran"], HR_RUN_KEY="job-local-1")
    again = job.run()
    assert (again.stdout, again.returncode) == ("", 0)
    assert "finished" in again.stderr


def test_an_unfinished_run_is_continued_under_plain_bash(job: Job) -> None:
    job.write(HR_COMMAND=["bash", "-c", "exit 1"])
    job.run()
    job.run()
    assert job.json("job-local-1/attempts/0002/attempt.json")["attempt"] == 2


def test_a_second_plain_start_does_not_join_a_run_at_work(job: Job) -> None:
    job.write(HR_COMMAND=["bash", "-c", "sleep 20"])
    first = job.start()
    job.file("job-local-1/attempts/0001/pids/*.child.json")
    job.start()
    job.file("job-local-2/attempts/0001/pids/*.child.json")
    first.send_signal(signal.SIGUSR1)


def test_the_environment_reaches_the_training_and_nothing_else_leaks(job: Job) -> None:
    job.write(HR_COMMAND=["bash", "-c", "env -0 > seen"], HR_ENV=["A=it's $(no)\nsecond", "B=*"], HR_SAVE_STEPS=7)
    job.run(env={"HPC_RESUME_RUN_KEY": "outer", "HPC_RESUME_SCHEDULER": "", "SLURM_CPUS_PER_TASK": "4"})
    seen = dict(entry.split("=", 1) for entry in (job.directory / "seen").read_text().split("\0") if entry)
    assert seen["A"] == "it's $(no)\nsecond"
    assert seen["B"] == "*"
    assert seen["HPC_RESUME_RUN_DIR"] == str(job.directory / "runs/job-local-1")
    assert seen["HPC_RESUME_SAVE_STEPS"] == "7"
    assert seen["SRUN_CPUS_PER_TASK"] == "4"
    assert "HPC_RESUME_RUN_KEY" not in seen
    assert "HPC_RESUME_SCHEDULER" not in seen


def test_setup_runs_before_the_command_and_its_failure_starts_nothing(job: Job) -> None:
    job.write(HR_SETUP="export FROM_SETUP='a b'\nset_up() { :; }", HR_COMMAND=["bash", "-c", 'echo "$FROM_SETUP"'])
    assert job.run().stdout == "a b\n"
    job.write(HR_SETUP="module_that_is_not_there", HR_COMMAND=["echo", "ran"])
    failed = job.run()
    assert (failed.stdout, failed.returncode) == ("", 127)
    assert "setup ended with code 127" in failed.stderr


def test_sourcing_runs_nothing_and_gives_hr_launch(job: Job) -> None:
    """The caller's options, traps and IFS survive, with `set -euo pipefail` and noclobber as people use them."""
    job.write(HR_COMMAND=["echo", "must not run"])
    caller = job.directory / "mine.sh"
    caller.write_text(
        "#!/bin/bash\nset -euo pipefail -o noclobber\nIFS=,\ntrap 'echo mine' USR1\n"
        "source ./job.sbatch\nsource ./job.sbatch\necho sourced\n"
        "hr::launch bash -c 'exit 4' || echo code=$?\n"
        'echo "$-" "[$IFS]"; kill -USR1 $$; set -o | grep -E "noclobber|pipefail" | tr -d " \\t"\n'
    )
    done = job.run(argv=["bash", str(caller)])
    lines = done.stdout.splitlines()
    assert lines[:2] == ["sourced", "code=4"], done.stderr
    assert lines[2].endswith("[,]")
    assert set("eu") <= set(lines[2].split()[0])
    assert lines[3:] == ["mine", "noclobberon", "pipefailon"]


def test_a_second_launch_in_a_job_is_a_run_of_its_own_and_both_go_on(job: Job) -> None:
    """Preparation and training in one hand-written script: a requeue repeats neither what is done nor skips the rest."""
    job.write("")
    caller = job.directory / "mine.sh"
    caller.write_text(
        "source ./job.sbatch\nhr::launch bash -c 'echo prepared' || exit\n"
        "hr::launch bash -c 'echo trained; [[ -e again ]] || { touch again; exit 1; }'\n"
    )
    env = {"HPC_RESUME_SCHEDULER": "local", "HPC_RESUME_RUN_KEY": "k", "HPC_RESUME_JOB_ID": "local-1"}
    first = job.run(argv=["bash", str(caller)], env=env)
    assert (first.stdout, first.returncode) == ("prepared\ntrained\n", 1), first.stderr
    second = job.run(argv=["bash", str(caller)], env=env)
    assert (second.stdout, second.returncode) == ("trained\n", 0), second.stderr
    assert sorted(path.name for path in (job.directory / "runs").iterdir()) == ["k", "k-2"]


def test_a_launch_after_an_interrupted_one_in_the_same_shell_goes_on_with_it(job: Job) -> None:
    job.write("hr::launch bash -c 'exit 138'; hr::launch bash -c 'exit 0'")
    job.run()
    assert job.json("job-local-1/attempts/0002/exit.json")["decision"] == "finish"


def test_sourcing_in_an_interactive_shell_survives_the_launch(job: Job) -> None:
    job.write()
    done = job.run(argv=["bash", "--norc", "-ic", "source ./job.sbatch; hr::launch bash -c 'exit 9'; echo code=$?"])
    assert done.stdout == "code=9\n"
    assert not re.search(r"^\[\d+\] \d+$", done.stderr, re.MULTILINE), "bash announces no job of ours"


def test_a_script_on_standard_input_runs(job: Job) -> None:
    job.write(HR_COMMAND=["echo", "ran"])
    done = job.run(argv=["bash", "-c", "bash < job.sbatch"])
    assert done.stdout == "ran\n"


def test_an_unwritable_run_dir_is_said_and_never_requeued(job: Job) -> None:
    (job.directory / "file").write_text("")
    job.write(HR_RUN_DIR="file/runs", HR_COMMAND=["echo", "ran"])
    done = job.run()
    assert (done.returncode, done.stdout) == (78, "")
    assert "run_dir in job.yaml" in done.stderr


@pytest.mark.parametrize("name", ["runs/k", "runs/k/attempts"])
def test_a_run_directory_that_is_a_link_is_refused(job: Job, name: str) -> None:
    (job.directory / name).parent.mkdir(parents=True)
    (job.directory / "elsewhere").mkdir()
    (job.directory / name).symlink_to(job.directory / "elsewhere")
    job.write(HR_RUN_KEY="k", HR_COMMAND=["echo", "ran"])
    done = job.run()
    assert (done.returncode, done.stdout) == (78, "")
    assert list((job.directory / "elsewhere").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to somebody else")
def test_a_plain_start_passes_over_the_run_of_another_user(job: Job) -> None:
    job.write(HR_COMMAND=["true"])
    (job.directory / "runs/job-local-1").mkdir(parents=True)
    os.chown(job.directory / "runs/job-local-1", 12345, -1)
    assert job.run().returncode == 0
    assert (job.directory / "runs/job-local-2/finished.json").exists()
    assert list((job.directory / "runs/job-local-1").iterdir()) == []


def test_directories_are_private(job: Job) -> None:
    job.write()
    job.run()
    for path in (job.directory / "runs/job-local-1").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_what_a_wrapper_swallowed_is_taken_from_the_outcome(job: Job) -> None:
    """`python train.py | tee log` ends with tee's 0; the training has left its own word."""
    word = '{"version": 1, "outcome": "stopped", "step": 3, "signal": "USR1", "code": 138}'
    job.write(HR_COMMAND=["bash", "-c", f"echo '{word}' > $HPC_RESUME_ATTEMPT_DIR/outcome.json; exit 0"])
    assert job.run().returncode == 138
    assert job.json("*/attempts/0001/exit.json")["cause"] == "operator"
    assert not list(job.directory.glob("runs/*/finished.json"))


def test_the_runtime_uses_nothing_newer_than_bash_4_4() -> None:
    for word in ("wait -p", "wait -fn", "EPOCHSECONDS", "SRANDOM", "BASH_ARGV0", "@U}", "@L}", "@K}", "${ "):
        assert word not in RUNTIME, word
    assert RUNTIME.count("EPOCHREALTIME") == RUNTIME.count("${EPOCHREALTIME") + 1  # guarded; the other is the comment


def test_no_jobs_are_left_behind(job: Job) -> None:
    job.write(HR_COMMAND=[sys.executable, "-c", "print(1)"])
    process = job.start()
    process.communicate(timeout=90)
    group = [p for p in Path("/proc").glob("[0-9]*") if _group(p) == process.pid]
    assert group == []


def _group(process: Path) -> int | None:
    try:
        stat = (process / "stat").read_text()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] == "Z" else int(fields[2])


def test_names_that_json_must_escape(job: Job) -> None:
    """What is not ASCII or has quotes comes back from the record as it went in."""
    key = 'a "quoted" \\ über\tname'
    job.write(HR_RUN_KEY=key)
    assert job.run().returncode == 0
    assert job.json("*/run.json")["key"] == key
