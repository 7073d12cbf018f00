"""`hpc-resume agent` at a terminal, with the real agent: what a person does, what others do to the sweep meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pexpect
import pytest
from sweep_fleet import orphans

from hpc_resume.run.rundir import RunDir

pytestmark = pytest.mark.timeout(300)

EXAMPLE = Path(__file__).parents[2] / "examples" / "sweep"
LIMIT = 90  # seconds; the agent waits five before it asks, and a client takes two to start
SWEEP = "{program: train.py, method: grid, parameters: {lr: {values: [1, 2]}}}"
TRAIN = """
import argparse, sys, time
import hpc_resume

parser = argparse.ArgumentParser()
parser.add_argument("--lr")
parser.parse_known_args()

class State:
    done = 0
    def state_dict(self):
        return {"done": self.done}
    def load_state_dict(self, state):
        self.done = state["done"]

with hpc_resume.Run() as run:
    state = State()
    run.register(state=state)
    for step in run.steps(1000 if run.attempt == 1 else state.done + 3):
        state.done += 1
        run.log({"done": state.done})
        print(f"step {state.done} of attempt {run.attempt}", flush=True)
        time.sleep(0.1)
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    place = tmp_path / "home"
    place.mkdir()
    (place / "train.py").write_text(TRAIN)
    return place


def words(sweep: str) -> list[str]:
    return [str(Path(sys.executable).with_name("hpc-resume")), "agent", sweep]


def environment(server, home: Path) -> dict[str, str]:
    return server.environment(home, PATH=f"{Path(sys.executable).parent}:/usr/bin:/bin")


@pytest.fixture
def terminal(server, home):
    """terminal(sweep): the verb under a pseudo-terminal."""
    begun = []

    def begin(sweep: str) -> pexpect.spawn:
        child = pexpect.spawn(
            *(words(sweep)[0], words(sweep)[1:]),
            cwd=str(home),
            env=environment(server, home),
            timeout=LIMIT,
            encoding="utf-8",
        )
        begun.append(child)
        return child

    yield begin
    for child in begun:
        child.close(force=True)


def test_ctrl_c_saves_and_hands_the_run_back_and_the_next_agent_goes_on(server, home, terminal):
    sweep = server.create_sweep(SWEEP)
    first = terminal(sweep)
    first.expect(r"step 4 of attempt 1")
    first.sendintr()
    first.expect("saved and handed back; once more stops hard")
    first.expect(pexpect.EOF)
    first.wait()
    assert first.exitstatus == 130
    (run,) = server.runs()
    assert run.transitions[-2:] == ["preempting", "preempted"]
    assert server.queued(sweep) == [run.name]
    saved = RunDir(home / "runs" / run.name).latest_step()
    assert saved >= 4
    second = terminal(sweep)
    second.expect(f"continuing .*{run.name} at step {saved}")
    second.expect(f"step {saved + 3} of attempt 2")
    server.wait_for(lambda: server.run(run.name).state == "finished", LIMIT)
    assert server.run(run.name).column("done") == list(range(1, saved + 4))
    second.sendintr()
    second.expect(pexpect.EOF)
    assert orphans(home) == []


def test_a_second_ctrl_c_stops_hard_and_leaves_nobody_behind(server, home, terminal):
    (home / "train.py").write_text(TRAIN.replace("time.sleep(0.1)", "time.sleep(0.1 if step < 3 else 300)"))
    agent = terminal(server.create_sweep(SWEEP))
    agent.expect(r"step 4 of attempt 1")
    agent.sendintr()
    agent.expect("once more stops hard")
    agent.sendintr()
    agent.expect(pexpect.EOF)
    agent.wait()
    assert agent.exitstatus == 130
    assert orphans(home) == []


def test_a_warning_before_a_run_has_come_ends_the_agent_and_takes_none(server, home, terminal):
    sweep = server.create_sweep(SWEEP)
    agent = terminal(sweep)
    agent.expect("Starting wandb agent")
    agent.sendintr()
    agent.expect("no further run is taken; runs served: 0")
    agent.expect(pexpect.EOF)
    agent.wait()
    assert agent.exitstatus == 130
    assert server.assignments() == []
    assert orphans(home) == []


def test_a_killed_agent_leaves_no_orphan_and_its_run_is_handed_back(server, home, terminal):
    sweep = server.create_sweep(SWEEP)
    agent = terminal(sweep)
    agent.expect(r"step 3 of attempt 1")
    clients = subprocess.run(["pgrep", "-f", f"sweeps.client .*{sweep}"], capture_output=True, text=True, check=True)
    os.kill(int(clients.stdout.split()[0]), signal.SIGKILL)
    agent.expect("the agent is gone without its training")
    (run,) = server.runs()
    server.wait_for(lambda: "preempted" in server.run(run.name).transitions, LIMIT)
    agent.expect(f"continuing .*{run.name}")
    agent.sendintr()
    agent.expect(pexpect.EOF)
    assert orphans(home) == []


def test_a_killed_loop_takes_its_agent_and_training_along(server, home):
    sweep = server.create_sweep(SWEEP)
    loop = subprocess.Popen(words(sweep), cwd=home, env=environment(server, home), stdout=subprocess.PIPE, text=True)
    for line in loop.stdout:
        if "step 3 of attempt 1" in line:
            break
    loop.kill()
    loop.wait()
    deadline = time.monotonic() + LIMIT
    while orphans(home):
        assert time.monotonic() < deadline, orphans(home)
        time.sleep(0.1)
    loop.stdout.close()
    assert server.queued(sweep) == [server.runs()[0].name], "saved, marked and waiting for the next agent"


@pytest.mark.parametrize(
    ("option", "steps", "state"),
    [("--stop", "60", "finished"), ("--cancel", "2000", "running")],
    ids=["stop", "cancel"],
)
def test_a_sweep_that_is_ended_from_outside_ends_its_agents(server, home, option, steps, state):
    """--stop lets the run finish; --cancel kills it. Neither agent is to be requeued."""
    (home / "train.py").write_text(TRAIN.replace("1000 if run.attempt == 1 else state.done + 3", steps))
    sweep = server.create_sweep(SWEEP)
    loop = subprocess.Popen(words(sweep), cwd=home, env=environment(server, home), stdout=subprocess.PIPE, text=True)
    for line in loop.stdout:
        if "step 3 of attempt 1" in line:
            break
    wandb = [sys.executable, "-m", "wandb", "sweep", option, sweep]
    subprocess.run(wandb, cwd=home, env=environment(server, home), check=True, timeout=LIMIT, capture_output=True)
    rest = loop.stdout.read()
    loop.stdout.close()
    assert loop.wait(LIMIT) == 0, rest
    (run,) = server.runs()
    assert run.state == state, "a killed one is called crashed only when its heartbeat is missed"
    assert (f"step {steps} of" in rest) == (option == "--stop"), "the agent hears of it when it asks next"
    assert orphans(home) == []


def test_a_paused_sweep_gives_out_no_further_run_until_it_is_resumed(server, home):
    (home / "train.py").write_text(TRAIN.replace("1000 if run.attempt == 1 else state.done + 3", "30"))
    sweep = server.create_sweep(SWEEP)
    told = environment(server, home)
    loop = subprocess.Popen(words(sweep), cwd=home, env=told, stdout=subprocess.PIPE, text=True)

    def say(option: str) -> None:
        wandb = [sys.executable, "-m", "wandb", "sweep", option, sweep]
        subprocess.run(wandb, cwd=home, env=told, check=True, timeout=LIMIT, capture_output=True)

    for line in loop.stdout:
        if "step 3 of attempt 1" in line:
            break
    say("--pause")
    server.wait_for(lambda: server.runs()[0].state == "finished", LIMIT)
    asked = len(server.backend.sweeps.agents)
    server.wait_for(lambda: len(server.backend.sweeps.agents) > asked, LIMIT)  # its next agent asks, and waits
    assert loop.poll() is None
    assert len(server.runs()) == 1
    say("--resume")
    rest = loop.stdout.read()
    loop.stdout.close()
    assert loop.wait(LIMIT) == 0, rest
    assert [run.state for run in server.runs()] == ["finished", "finished"]
    assert orphans(home) == []


def test_a_function_in_a_thread_is_refused_with_the_way_out(server, home):
    source = """
    import wandb, hpc_resume, sys
    @hpc_resume.resumable
    def train(run):
        pass
    wandb.agent(sys.argv[1], function=train, count=1)
    """
    (home / "agent.py").write_text("\n".join(line[4:] for line in source.splitlines()))
    done = subprocess.run(
        [sys.executable, "agent.py", server.create_sweep(SWEEP)],
        cwd=home,
        env=environment(server, home) | {"WANDB_SILENT": "false"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert "Under wandb.agent(function=...) the function runs in a thread" in done.stderr + done.stdout
    assert "hpc-resume agent" in done.stderr + done.stdout


def test_the_example_is_swept_to_its_end(server, home):
    for file in EXAMPLE.iterdir():
        if file.is_file():
            shutil.copy(file, home)
    sweep = server.create_sweep((home / "sweep.yaml").read_text().replace("[0.3, 0.1, 0.03, 0.01]", "[0.1]"))
    told = environment(server, home) | {"STEP_SECONDS": "0", "TOTAL_STEPS": "20"}
    subprocess.run(words(sweep), cwd=home, env=told, check=True, timeout=170, capture_output=True)
    assert [run.state for run in server.runs()] == ["finished", "finished"]
    assert [len(run.column("loss")) for run in server.runs()] == [20, 20]


def test_what_is_no_sweep_is_refused_before_anything_starts(home):
    done = subprocess.run(words("abc123"), cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 78
    assert done.stderr == "abc123: not a sweep; give it as entity/project/id, as `wandb sweep` prints it\n"
