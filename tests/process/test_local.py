"""The local scheduler, as a person uses it: the real command line, the real runtime, real signals and terminals."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap

import pexpect
import pytest

from .project import Project, alive, poll

STUBBORN = ["bash", "-c", "trap '' USR1 TERM; touch up; while :; do sleep 0.05; done"]


def steps(output: str) -> list[int]:
    """The steps that were executed, in order."""
    return [int(number) for number in re.findall(r"^step (\d+) ", output, re.MULTILINE)]


def test_three_interruptions_in_three_ways_cost_nothing(project: Project) -> None:
    reference = project.reference()
    process = project.start("run", "--json")
    project.training(1)
    process.send_signal(signal.SIGUSR1)  # passed on to the batch shell, as scancel -b -s USR1
    project.training(2)
    os.kill(project.launcher(2), signal.SIGTERM)  # the end of a grace time
    os.kill(project.training(3), signal.SIGTERM)  # the start of one
    out, err = process.communicate(timeout=90)
    assert json.loads(out) == {"run": "m-local-1", "attempts": 4, "code": 0, "decision": "finish", "step": 60}, err
    assert steps(err) == list(range(60))
    assert reference in err
    assert [project.record(n, "exit.json")["cause"] for n in (1, 2, 3)] == ["operator"] * 3
    assert not list(project.directory.glob("runs/.local-*/m-*"))


def test_ctrl_c_saves_and_stops_and_run_continues_and_finishes(project: Project) -> None:
    terminal = project.terminal("run")
    terminal.expect("beginning m-local-1")
    terminal.expect("step 3 ")
    terminal.sendintr()
    terminal.expect("asked to save and stop")
    terminal.expect(r"m-local-1 stopped at step (\d+); continue it with: hpc-resume run\r")
    step = int(terminal.match[1])
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 128 + signal.SIGUSR1
    assert step > 3
    ended = project.record(1, "exit.json")
    assert (ended["cause"], ended["decision"], ended["step_after"]) == ("cancelled", "stop", step)
    again = project.call("run")
    assert f"continuing m-local-1 at step {step}, attempt 2" in again.stderr
    assert (again.returncode, steps(again.stdout)[0]) == (0, step)
    assert again.stdout.splitlines()[-1] == project.reference()


def test_the_live_line_is_on_the_last_row_and_leaves_the_terminal_as_it_was(project: Project) -> None:
    terminal = project.terminal("run")
    terminal.expect_exact("\x1b[1;23r")  # the rows above are the training's
    terminal.expect(r"\x1b\[24;1H\x1b\[2K.*m-local-1.*attempt 1.* step \d+ .*loss")
    terminal.expect_exact("\x1b[r\x1b[24;1H\x1b[2K")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0


def test_the_live_line_follows_the_size_of_the_terminal(project: Project) -> None:
    terminal = project.terminal("run")
    terminal.expect(r"\x1b\[24;1H\x1b\[2K.*m-local-1")
    terminal.setwinsize(12, 60)
    terminal.expect_exact("\x1b[1;11r\x1b[11;1H\r\n")  # and the cursor is off our row
    terminal.expect(r"\x1b\[12;1H\x1b\[2K.*m-local-1")
    terminal.expect(pexpect.EOF)
    terminal.close()


def test_a_second_ctrl_c_stops_hard_what_ignores_the_first(project: Project) -> None:
    project.write(command=STUBBORN)
    terminal = project.terminal("run")
    poll(lambda: (project.directory / "up").exists())
    child = project.record(1, "pids/*.child.json")["pid"]
    terminal.sendintr()
    terminal.expect("asked to save and stop")
    terminal.sendintr()
    terminal.expect("ended now")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 128 + signal.SIGKILL
    assert not alive(child)
    assert project.record(1, "exit.json")["decision"] == "stop"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_end_of_the_scheduler_is_the_same_as_one_ctrl_c(project: Project, number: signal.Signals) -> None:
    process = project.start("run")
    project.training(1)
    process.send_signal(number)
    process.send_signal(number)  # a terminal that closes sends two HUPs: it is no second Ctrl-C
    out, err = process.communicate(timeout=90)
    assert process.returncode == 128 + signal.SIGUSR1
    assert f"stopped at step {steps(out)[-1] + 1};" in err
    assert project.record(1, "exit.json")["cause"] == "cancelled"


def test_a_killed_scheduler_leaves_nothing_running_and_a_state_to_go_on_from(project: Project) -> None:
    project.env["TOTAL_STEPS"] = "150"
    process = project.start("run")
    launcher, training = project.launcher(1), project.training(1)
    process.kill()
    out, _ = process.communicate(timeout=90)
    poll(lambda: not alive(launcher) and not alive(training))
    saved = project.record(1, "exit.json")["step_after"]
    assert saved == steps(out)[-1] + 1
    again = project.call("run")
    assert (again.returncode, steps(again.stdout)[0]) == (0, saved)


def test_run_waits_for_the_last_save_of_a_killed_scheduler(project: Project) -> None:
    program = """
        import os, signal, time
        def save(*_):
            while not os.path.exists("saved"):
                time.sleep(0.01)
            os._exit(138)
        signal.signal(signal.SIGUSR1, save)
        open("up", "w").close()
        time.sleep(200)
    """
    project.write(command=[sys.executable, "-c", textwrap.dedent(program)])
    process = project.start("run")
    poll(lambda: (project.directory / "up").exists())
    process.kill()
    process.wait()
    (project.directory / "up").unlink()
    second = project.start("run")
    assert second.stderr is not None
    assert "waiting for the last attempt of m-local-1" in second.stderr.readline()
    assert not project.attempt(2).exists()
    (project.directory / "saved").touch()
    poll(lambda: (project.directory / "up").exists())
    assert project.attempt(2).exists()
    assert not project.attempt(1, "m-local-2").exists()
    second.send_signal(signal.SIGTERM)
    second.communicate(timeout=90)


def test_a_killed_batch_shell_takes_its_training_along_and_is_started_again(project: Project) -> None:
    """As after a node failure; the new attempt must not meet the old one's processes."""
    process = project.start("run")
    training = project.training(1)
    os.kill(project.launcher(1), signal.SIGKILL)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    assert not alive(training)
    assert not (project.attempt(1) / "exit.json").exists()
    assert steps(out) == list(range(60))


def test_a_crash_at_import_does_not_loop(project: Project) -> None:
    project.write(command=[sys.executable, "-c", "import no_such_module"])
    done = project.call("run")
    assert done.returncode == 1
    assert done.stderr.count("No module named") == 1
    assert "correct it, then continue with: hpc-resume run" in done.stderr
    assert "Traceback" not in done.stderr.split("no_such_module")[-1]


def test_a_crash_within_its_budget_is_started_again_after_a_pause(project: Project) -> None:
    project.write(command="echo ran; exit 3", requeue={"max": {"crash": 1}})
    done = project.call("run", "--json")
    assert json.loads(done.stdout)["attempts"] == 2
    assert (done.returncode, done.stderr.count("ran\n")) == (3, 2)
    assert "starts in 1 s" in done.stderr


def test_a_stop_during_the_pause_ends_at_once(project: Project) -> None:
    project.write(command="exit 3", requeue={"max": {"crash": 9, "no_progress": 9}})
    process = project.start("run")
    poll(lambda: (project.attempt(3) / "exit.json").exists())
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 3
    assert len(list((project.directory / "runs/m-local-1/attempts").iterdir())) == 3


def test_a_finished_run_is_not_continued_and_new_begins_another(project: Project) -> None:
    project.write(command="exit 3")
    assert project.call("run").returncode == 3
    assert "beginning m-local-2" in project.call("run", "--new").stderr
    project.write(command="true")
    assert "continuing m-local-2, attempt 2" in project.call("run").stderr
    assert "continuing m-local-1, attempt 2" in project.call("run").stderr  # the newest that is unfinished
    assert "beginning m-local-3" in project.call("run").stderr
    chosen = project.call("run", "--resume", "m-local-2")
    assert (chosen.returncode, "finished: nothing to do" in chosen.stderr) == (0, True)
    missing = project.call("run", "--resume", "m-local-9")
    assert missing.returncode == 1
    assert "there are m-local-1, m-local-2, m-local-3" in missing.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to somebody else")
def test_in_a_shared_run_dir_the_runs_of_another_user_are_passed_over(project: Project) -> None:
    """Theirs are closed to us, unfinished ones too: the number is taken, and nothing of them is touched."""
    project.write(command="exit 3")
    project.call("run")
    shutil.copytree(project.directory / "runs/m-local-1", project.directory / "runs/m-local-2")
    os.chown(project.directory / "runs/m-local-2", 12345, -1)
    assert "continuing m-local-1, attempt 2" in project.call("run").stderr
    assert "beginning m-local-3" in project.call("run", "--new").stderr
    assert not (project.directory / "runs/m-local-2/attempts/0002").exists()
    named = project.call("run", "--resume", "m-local-2")
    assert (named.returncode, "no local run m-local-2; there are m-local-1, m-local-3" in named.stderr) == (1, True)


def test_two_that_start_together_get_two_runs(project: Project) -> None:
    project.write(command="sleep 1")
    first, second = project.start("run"), project.start("run")
    words = "".join(process.communicate(timeout=90)[1] for process in (first, second))
    assert (first.returncode, second.returncode) == (0, 0)
    assert "beginning m-local-1" in words
    assert "beginning m-local-2" in words


def test_under_nohup_the_end_of_the_terminal_ends_nothing(project: Project) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what nohup does, and a child inherits
    try:
        process = project.start("run", "--json")
    finally:
        signal.signal(signal.SIGHUP, before)
    project.training(1)
    process.send_signal(signal.SIGHUP)
    out, err = process.communicate(timeout=90)
    assert json.loads(out)["attempts"] == 1, err
    assert json.loads(out)["decision"] == "finish", err


def test_a_run_at_work_is_not_joined(project: Project) -> None:
    project.write(command="sleep 30")
    first = project.start("run")
    project.record(1, "pids/*.child.json")
    held = project.call("run", "--resume", "m-local-1")
    assert held.returncode == 75
    assert "is at work" in held.stderr
    first.send_signal(signal.SIGTERM)


def test_an_array_runs_its_tasks_side_by_side_and_interrupts_only_one(project: Project) -> None:
    project.write(slurm={"array": "0-4:2%2"})
    process = project.start("run", "--json")
    training = project.training(1, "m-local-1_2")
    assert not project.attempt(1, "m-local-1_4").exists()  # %2: the third waits
    os.kill(training, signal.SIGTERM)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    tasks = {task["run"]: task["attempts"] for task in json.loads(out)["tasks"]}
    assert tasks == {"m-local-1_0": 1, "m-local-1_2": 2, "m-local-1_4": 1}
    assert project.record(1, "attempt.json", "m-local-1_4")["job_id"] == "local-1_4"


def test_an_array_tells_each_task_who_it_is_and_ends_with_the_first_code(project: Project) -> None:
    told = "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_MIN/$SLURM_ARRAY_TASK_MAX/$SLURM_ARRAY_TASK_STEP/$SLURM_ARRAY_TASK_COUNT"
    project.write(command=f"echo {told}; exit $SLURM_ARRAY_TASK_ID", slurm={"array": "0,3,6"})
    project.env |= {"SLURM_JOB_ID": "99", "SLURM_ARRAY_TASK_ID": "77", "HPC_RESUME_RUN_DIR": "/elsewhere"}
    done = project.call("run")
    assert sorted(done.stdout.split()) == ["0/0/6/3/3", "3/0/6/3/3", "6/0/6/3/3"]
    assert done.returncode == 3
    again = project.call("run")
    assert "continuing m-local-1: 2 of its tasks" in again.stderr
    assert sorted(again.stdout.split()) == ["3/0/6/3/3", "6/0/6/3/3"]


def test_what_a_training_left_behind_is_ended_with_it(project: Project) -> None:
    project.write(command="sleep 300 & echo $! > left; exit 0")
    assert project.call("run").returncode == 0
    assert not alive(int((project.directory / "left").read_text()))


def test_cancel_saves_and_ends_for_good_and_says_so(project: Project) -> None:
    project.env["TOTAL_STEPS"] = "1000"
    process = project.start("run")
    training = project.training(1)
    done = project.call("cancel", "m-local-1")
    assert done.returncode == 0, done.stderr
    assert not alive(training)
    assert process.wait(60) == 128 + signal.SIGUSR1
    ended = project.record(1, "exit.json")
    assert f"cancelled: m-local-1 at step {ended['step_after']}\n" in done.stderr
    assert (ended["cause"], ended["decision"]) == ("cancelled", "stop")
    again = project.call("cancel", "m-local-1")
    assert (again.returncode, "not running" in again.stderr) == (1, True)


def test_cancel_between_two_attempts_ends_the_scheduler(project: Project) -> None:
    project.write(command="exit 3", requeue={"max": {"crash": 9, "no_progress": 9}})
    process = project.start("run")
    poll(lambda: (project.attempt(4) / "exit.json").exists())
    assert project.call("cancel", "runs/m-local-1").returncode == 0
    assert process.wait(60) == 3


def test_cancel_of_an_array_ends_the_tasks_that_have_not_begun_too(project: Project) -> None:
    project.write(slurm={"array": "0-3%1"})
    process = project.start("run", "--json")
    project.training(1, "m-local-1_0")
    assert project.call("cancel", "m-local-1").returncode == 0
    out, _ = process.communicate(timeout=90)
    assert [task["run"] for task in json.loads(out)["tasks"]] == ["m-local-1_0"]
    assert process.returncode == 128 + signal.SIGUSR1
    assert not list(project.directory.glob("runs/m-local-1_[123]"))


def test_a_cancel_reaches_nobody_but_the_recorded_process(project: Project) -> None:
    """The pid of a killed launcher may be somebody else's by now."""
    project.env["TOTAL_STEPS"] = "1000"
    process = project.start("run")
    project.training(1)
    path = project.attempt(1) / "attempt.json"
    record = json.loads(path.read_text())
    process.kill()
    poll(lambda: not alive(record["pid"]))
    (project.attempt(1) / "exit.json").unlink()
    with subprocess.Popen(["sleep", "30"]) as stranger:
        path.write_text(json.dumps(record | {"pid": stranger.pid}))
        done = project.call("cancel", "m-local-1")
        assert (done.returncode, "not running" in done.stderr) == (1, True)
        assert stranger.poll() is None
        stranger.kill()


def test_a_claims_directory_that_is_a_link_is_refused(project: Project) -> None:
    """In a run_dir that others can write to, the script would be theirs."""
    (project.directory / "elsewhere").mkdir()
    (project.directory / "runs").mkdir()
    (project.directory / f"runs/.local-{os.geteuid()}").symlink_to("../elsewhere")
    done = project.call("run")
    assert (done.returncode, "refused" in done.stderr) == (78, True)
    assert list((project.directory / "elsewhere").iterdir()) == []


def test_an_unusable_run_dir_is_said_in_words(project: Project) -> None:
    (project.directory / "file").write_text("")
    project.write(run_dir="file/runs")
    done = project.call("run")
    assert (done.returncode, done.stdout) == (78, "")
    assert "run_dir in job.yaml" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_secret_of_the_environment_is_written_down_or_shown_and_all_is_the_owners_alone(project: Project) -> None:
    secret = "0123456789abcdef0123456789abcdef01234567"
    project.env |= {"WANDB_API_KEY": secret, "ANYTHING": secret}
    before = os.umask(0)
    try:
        process = project.start("run")
    finally:
        os.umask(before)
    project.training(1)
    process.send_signal(signal.SIGUSR1)
    shown = [*process.communicate(timeout=90)]
    for words in (("status", "--json"), ("explain", "m-local-1", "--json"), ("checkpoints", "m-local-1"), ("render",)):
        done = project.call(*words)
        assert done.returncode == 0, done.stderr
        shown += [done.stdout, done.stderr]
    run = project.directory / "runs" / "m-local-1"
    written = [path for path in run.rglob("*") if path.is_file()]
    assert {path.name for path in written} >= {"run.json", "exit.json", "attempt.json", "finished.json"}
    assert [path for path in written if secret.encode() in path.read_bytes()] == []
    assert [text for text in shown if secret in text] == []
    assert [path for path in (run, *run.rglob("*")) if path.stat().st_mode & 0o077] == []
