"""A warning costs nothing that was done: saved at the next boundary, once, and out with the signal's code."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from hpc_resume.run.rundir import RunDir

TRAIN = """
@hpc_resume.resumable
def train(run, total):
    walk = Walk()
    run.register(walk=walk)
    for step in run.steps(total):
        print("step", step)
        time.sleep(0.02)
        walk.advance(step)
    return walk.order

print("end", train(int(sys.argv[1])))
"""


def only_run(directory: Path) -> RunDir:
    return RunDir(directory / "runs" / "train" / "0001")


def events(run: RunDir, attempt: int) -> list[str]:
    """What this file is about: which components there are is another matter."""
    return [event.event for event in run.attempt(attempt).events() if event.event != "registered"]


def test_three_interruptions_end_where_none_would_have_and_no_step_runs_twice(start, walk, tmp_path, monkeypatch):
    alone = start(walk(TRAIN), "30", HPC_RESUME_RUN_DIR=str(tmp_path / "alone"))
    assert alone.code() == 0
    executed = []
    for signum in (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1):
        child = start(walk(TRAIN), "30")
        for _ in range(4):
            child.wait_line("step")
        child.signal(signum)
        assert child.code() == 128 + signum
        executed += [line for line in child.seen if line.startswith("step")]
    last = start(walk(TRAIN), "30")
    assert last.code() == 0
    executed += [line for line in last.seen if line.startswith("step")]
    assert executed == [f"step {n}" for n in range(30)]
    assert last.seen[-1] == alone.seen[-1]


@pytest.mark.parametrize(("name", "signum"), [("USR1", 10), ("TERM", 15), ("USR2", 12)])
def test_each_warning_is_saved_and_told(start, walk, tmp_path, name, signum):
    child = start(walk(TRAIN), "1000", HPC_RESUME_SIGNAL="USR2" if name == "USR2" else "")
    child.wait_line("step 2")
    child.signal(signum)
    assert child.code() == 128 + signum
    run = only_run(tmp_path)
    outcome = run.attempt(1).outcome()
    assert (outcome.outcome, outcome.signal, outcome.code) == ("stopped", name, 128 + signum)
    assert outcome.step == run.latest_step() >= 3
    assert events(run, 1) == ["ready", "received", "saved", "stopped"]
    assert (
        child.seen[-1]
        == f"hpc_resume: stopped by SIG{name} after step {outcome.step}; step {outcome.step} is where it goes on"
    )


def test_a_warning_before_the_first_step_leaves_at_once_with_nothing_saved(start, walk, tmp_path):
    source = """
    with hpc_resume.Run() as run:
        run.register(walk=Walk())
        print("ready")
        while not run.should_stop():
            time.sleep(0.001)
        for step in run.steps(10):
            print("step", step)
    """
    child = start(walk(source))
    child.wait_line("ready")
    child.signal(signal.SIGUSR1)
    assert child.code() == 138
    assert "step 0" not in child.seen
    assert events(only_run(tmp_path), 1) == ["ready", "received", "stopped"]
    assert only_run(tmp_path).latest_step() is None


def test_evaluation_after_a_periodic_save_does_not_save_the_same_step_again(start, walk, tmp_path):
    source = """
    with hpc_resume.Run(every=1) as run:
        walk = Walk()
        run.register(walk=walk)
        for step in run.steps(10):
            walk.advance(step)
            run.checkpoint_point(step + 1)
            print("evaluating")
            while not run.should_stop():
                time.sleep(0.001)
            run.checkpoint_point(step + 1)
    """
    child = start(walk(source))
    child.wait_line("evaluating")
    child.signal(signal.SIGTERM)
    assert child.code() == 143
    assert events(only_run(tmp_path), 1) == ["ready", "saved", "received", "stopped"]
    assert only_run(tmp_path).latest_step() == 1


def test_a_loop_of_ones_own_goes_on_where_it_stopped(start, walk, tmp_path):
    source = """
    with hpc_resume.Run() as run:
        walk = Walk()
        run.register(walk=walk)
        step = run.start_step
        while step < 12:
            walk.advance(step)
            print("step", step, "resumed", run.resumed, "attempt", run.attempt, "cause", run.cause)
            step += 1
            if step == 5 and not run.resumed:
                import os, signal
                os.kill(os.getpid(), signal.SIGUSR1)
            run.checkpoint_point(step)
        print("end", walk.order)
    """
    first = start(walk(source))
    assert first.code() == 138
    second = start(walk(source))
    assert second.code() == 0
    assert "step 5 resumed True attempt 2 cause operator" in second.seen
    alone = start(walk(source.replace("step == 5", "step == 99")), HPC_RESUME_RUN_DIR=str(tmp_path / "alone"))
    assert alone.code() == 0
    assert second.seen[-1] == alone.seen[-1]


def test_a_training_that_swallows_the_exit_is_stopped_at_the_next_boundary(start, walk, tmp_path):
    source = """
    @hpc_resume.resumable
    def train(run):
        walk = Walk()
        run.register(walk=walk)
        step = run.start_step
        while step < 1000:
            time.sleep(0.01)
            walk.advance(step)
            step += 1
            try:
                run.checkpoint_point(step)
            except Exception:
                print("an exception")
            except SystemExit:
                print("swallowed")
                step += 1
                try:
                    run.checkpoint_point(step)
                except SystemExit:
                    print("swallowed again")
                    return
            print("step", step)
    train()
    print("train returned")
    """
    child = start(walk(source))
    child.wait_line("step 2")
    child.signal(signal.SIGUSR1)
    assert child.code() == 138
    assert [line for line in child.seen if line.startswith("swallowed")] == ["swallowed", "swallowed again"]
    assert "train returned" not in child.seen
    assert events(only_run(tmp_path), 1) == ["ready", "received", "saved", "stopped"]


def test_sys_exit_replaced_by_wandb_learns_the_code(start, walk):
    source = """
    original = sys.exit
    def patched(code=None):
        print("sys.exit got", code)
        original(code)
    with hpc_resume.Run() as run:
        sys.exit = patched
        for step in run.steps(1000):
            print("step", step)
            time.sleep(0.01)
    """
    child = start(walk(source))
    child.wait_line("step")
    child.signal(signal.SIGUSR1)
    assert child.code() == 138
    assert "sys.exit got 138" in child.seen


def test_a_storm_of_warnings_neither_kills_nor_saves_twice(start, walk, tmp_path):
    child = start(walk(TRAIN.replace("time.sleep(0.02)", "time.sleep(0.5)")), "1000")
    child.wait_line("step 1")
    for turn in range(1000):
        if child.process.poll() is not None:
            break
        child.signal(signal.SIGTERM if turn % 10 == 9 else signal.SIGUSR1)
        time.sleep(0.0005)  # a second for all of them: sent at once the kernel would merge them into one
    assert child.code() == 138
    run = only_run(tmp_path)
    assert events(run, 1) == ["ready", "received", "received", "saved", "stopped"]
    told = [event.data for event in run.attempt(1).events() if event.event == "received"]
    assert [data["signal"] for data in told] == ["USR1", "TERM"]
    assert run.attempt(1).events()[-1].data["count"] > 10


def test_a_late_duplicate_does_not_kill_a_process_that_is_leaving(start, walk, tmp_path):
    source = """
    import atexit
    @atexit.register
    def late():
        print("leaving")
        deadline = time.monotonic() + 0.3
        while time.monotonic() < deadline:
            time.sleep(0.01)
        print("left")
    """
    child = start(walk(source + TRAIN), "1000")
    child.wait_line("step")
    child.signal(signal.SIGUSR1)
    child.wait_line("leaving")
    child.signal(signal.SIGUSR1)
    child.signal(signal.SIGTERM)
    assert child.code() == 138
    assert child.seen[-1] == "left"


def test_the_mask_of_a_wrapper_does_not_keep_the_warning_out(start, walk):
    def block() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM])

    child = start(walk(TRAIN), "1000", preexec=block)
    child.wait_line("step")
    child.signal(signal.SIGUSR1)
    assert child.code() == 138


def test_a_tracker_that_hangs_or_fails_holds_up_nothing(start, walk, tmp_path):
    (tmp_path / "awkward.py").write_text(
        "import threading\n"
        "class Awkward:\n"
        "    def begin(self): pass\n"
        "    def log(self, metrics, step): raise RuntimeError('no server')\n"
        "    def mark_preempting(self): threading.Event().wait()\n"
        "    def finish(self, exit_code): raise BaseException('gone')\n"
        "def open(facts): return Awkward()\n"
    )
    source = """
    import hpc_resume.trackers
    hpc_resume.trackers.TRACKERS["awkward"] = "awkward"
    """
    child = start(walk(source) + TRAIN.replace('print("step", step)', 'print("step", step); run.log({"a": 1})'), "1000")
    child.wait_line("step 1")
    child.signal(signal.SIGUSR1)
    assert child.code() == 138
    complaints = [line for line in child.seen if "tracker awkward" in line]
    assert complaints == ["hpc_resume: tracker awkward: RuntimeError: no server; metrics are being lost"]
    assert only_run(tmp_path).latest_step() >= 2
    assert only_run(tmp_path).attempt(1).last_metrics().data["a"] == 1


def test_ctrl_c_belongs_to_the_person(start, walk, tmp_path):
    child = start(walk(TRAIN.replace("run.steps(total)", "run.steps(total)")), "1000", HPC_RESUME_SAVE_STEPS="2")
    child.wait_line("step 3")
    child.signal(signal.SIGINT)
    assert child.code() in (130, -signal.SIGINT)
    assert "KeyboardInterrupt" in child.output
    run = only_run(tmp_path)
    outcome = run.attempt(1).outcome()
    assert (outcome.outcome, outcome.signal, outcome.code) == ("stopped", "INT", 130)
    assert outcome.step % 2 == 0
    assert f"the next start goes on from step {outcome.step}" in child.output
    assert "saved" not in events(run, 1)[-1]


def test_a_crash_keeps_its_traceback_and_its_secrets(start, walk, tmp_path):
    source = """
    import os
    @hpc_resume.resumable(every=1)
    def train(run):
        for step in run.steps(10):
            if step == 2:
                raise ValueError("bad key " + os.environ["WANDB_API_KEY"])
    train()
    """
    child = start(walk(source), WANDB_API_KEY="0123456789abcdef")
    assert child.code() == 1
    assert 'raise ValueError("bad key "' in child.output
    outcome = only_run(tmp_path).attempt(1).outcome()
    assert (outcome.outcome, outcome.step, outcome.code, outcome.error) == ("crashed", 2, 1, "ValueError: bad key ***")
    assert "crashed after step 2; the next start goes on from step 2" in child.output


def test_a_bug_in_a_state_dict_does_not_turn_a_stop_into_a_crash(start, walk, tmp_path):
    source = """
    class Fragile(Walk):
        def state_dict(self):
            if len(self.order) > 0:
                raise ValueError("not now")
            return super().state_dict()
    with hpc_resume.Run() as run:
        fragile = Fragile()
        run.register(fragile=fragile)
        for step in run.steps(1000):
            fragile.advance(step)
            print("step", step)
            time.sleep(0.01)
    """
    child = start(walk(source))
    child.wait_line("step 2")
    child.signal(signal.SIGUSR1)
    assert child.code() == 138
    assert "could not be saved: ValueError: not now; step 0 is what will be resumed" in child.output
    assert [path.name for path in only_run(tmp_path).checkpoints_dir.iterdir()] == []


def test_outside_the_main_thread_it_says_what_to_do(start, walk, tmp_path):
    source = """
    import threading
    codes = []
    def work():
        try:
            with hpc_resume.Run():
                print("inside")
        except SystemExit as error:
            codes.append(error.code)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    sys.exit(codes[0])
    """
    child = start(walk(source))
    assert child.code() == 78
    assert "wandb.agent(function=...)" in child.output
    assert "main thread" in child.output
    assert not (tmp_path / "runs").exists()


def test_the_handlers_before_ours_are_called_too_and_come_back(start, walk):
    source = """
    import os, signal
    def mine(signum, frame):
        print("mine", signum)
    signal.signal(signal.SIGUSR1, mine)
    before = signal.getsignal(signal.SIGTERM)
    with hpc_resume.Run() as run:
        assert signal.getsignal(signal.SIGUSR1) is not mine
        os.kill(os.getpid(), signal.SIGUSR1)
        print("should stop", run.should_stop())
    print(signal.getsignal(signal.SIGUSR1) is mine, signal.getsignal(signal.SIGTERM) is before)
    """
    child = start(walk(source))
    assert child.code() == 0
    assert [line for line in child.seen if not line.startswith("hpc_resume")] == [
        "mine 10",
        "should stop True",
        "True True",
    ]


@pytest.mark.parametrize("how", ["multiprocessing", "thread"])
def test_a_forked_child_does_not_act_on_the_warning(start, walk, tmp_path, how):
    source = """
    import multiprocessing, os, threading
    forking = multiprocessing.get_context("fork")
    def work():
        print(f"worker {os.getpid()}\\n", end="")
        time.sleep(60)
    @hpc_resume.resumable
    def train(run):
        walk = Walk()
        run.register(walk=walk)
        workers = [forking.Process(target=work) for _ in range(2)]
        begin = lambda: [worker.start() for worker in workers]
        if sys.argv[1] == "thread":
            thread = threading.Thread(target=begin)
            thread.start()
            thread.join()
        else:
            begin()
        for step in run.steps(100000):
            walk.advance(step)
            time.sleep(0.01)
            if workers and not any(worker.is_alive() for worker in workers):
                print(f"codes {sorted(worker.exitcode for worker in workers)}"); workers = []
    train()
    """
    child = start(walk(source), how)
    workers = [int(child.wait_line("worker").split()[1]) for _ in range(2)]
    os.kill(workers[0], signal.SIGUSR1)
    os.kill(workers[1], signal.SIGTERM)
    child.wait_line("codes [-15, -10]")
    assert child.process.poll() is None
    child.signal(signal.SIGUSR1)
    assert child.code() == 138
    assert events(only_run(tmp_path), 1) == ["ready", "received", "saved", "stopped"]


def test_a_forked_child_that_unwinds_our_stack_writes_nothing(start, walk, tmp_path):
    source = """
    import os
    with hpc_resume.Run() as run:
        for step in run.steps(3):
            if step == 1:
                child = os.fork()
                if child == 0:
                    sys.exit(7)
                print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        print("held", (run.directory / "finished.json").exists())
    """
    child = start(walk(source))
    assert child.code() == 0
    assert [line for line in child.seen if not line.startswith("hpc_resume")] == ["child 7", "held False"]
    assert events(only_run(tmp_path), 1) == ["ready", "saved", "finished"]


def test_the_pid_record_is_there_only_when_the_handlers_are(start, walk, tmp_path, eventually):
    """Signalled in the very moment its record appears: the signal must never kill it."""
    pids = tmp_path / "run" / "attempts" / "0001" / "pids"
    child = start(walk(TRAIN), "1000", HPC_RESUME_RUN_DIR=str(tmp_path / "run"), HPC_RESUME_JOB_ID="7_1")
    eventually(lambda: pids.is_dir() and list(pids.glob("[!.]*.json")), "a PID record")
    child.signal(signal.SIGUSR1)
    record = json.loads(next(pids.glob("[!.]*.json")).read_text())
    stat = Path(f"/proc/{child.pid}/stat").read_text()
    assert child.code() == 138
    assert record["start_ticks"] == int(stat[stat.rindex(")") + 2 :].split()[19])
    assert record["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert (record["pid"], record["rank"], record["job_id"], record["signal"]) == (child.pid, 0, "7_1", "USR1")
