"""The test server itself, with the real client: what it stores, how it fails, how it hands out a sweep's runs."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import urllib.error
import urllib.request

import pytest
from loopback import PROJECT
from loopback_runs import state_at_end, state_when_silent

LIMIT = 120.0  # seconds for one client; it takes two on an idle machine


def client(server, home, source, **more):
    """Run `source` with the real client to its end; its exit code."""
    home.mkdir(exist_ok=True)
    command = [sys.executable, "-c", textwrap.dedent(source)]
    return subprocess.run(
        command, check=False, cwd=home, env=server.environment(home, **more), timeout=LIMIT
    ).returncode


def test_the_state_table_of_the_documentation():
    assert [state_at_end(code, preempting=False) for code in (0, 1, 138, 255)] == [
        "finished",
        "failed",
        "failed",
        "killed",
    ]
    assert [state_at_end(code, preempting=True) for code in (0, 1, 138, 255)] == [
        "finished",
        "preempted",
        "preempted",
        "preempted",
    ]
    assert [state_when_silent(preempting=marked) for marked in (False, True)] == ["crashed", "preempted"]


def test_what_the_real_client_logs_is_there_and_is_resumed(server, tmp_path):
    source = """
        import sys, wandb
        run = wandb.init(id="abc", resume="allow", config={"lr": 0.5}, notes="by hand")
        print(run.starting_step)
        for step in range(3):
            run.log({"loss": step + run.starting_step})
        open("weights.txt", "w").write("12")
        run.save("weights.txt", policy="now")
        run.mark_preempting()
        run.finish(exit_code=138)
        """
    assert client(server, tmp_path, source) == 0
    first = server.run("abc")
    assert (first.state, first.exit_code, first.starts, first.notes) == ("preempted", 138, 1, "by hand")
    assert first.column("loss") == [0, 1, 2]
    assert first.config["lr"] == 0.5
    assert first.files["weights.txt"] == b"12"
    assert client(server, tmp_path, source) == 0
    second = server.run("abc")
    assert (second.state, second.starts) == ("preempted", 2)
    assert second.column("loss") == [0, 1, 2, 3, 4, 5]
    assert server.unhandled() == []


def test_a_killed_client_is_crashed_when_its_heartbeat_ends(server, tmp_path):
    server.settings.crash_after = 2.0
    source = "import os, signal, wandb; wandb.init(id='gone'); os.kill(os.getpid(), signal.SIGKILL)"
    assert client(server, tmp_path, source) == -9
    server.wait_for(lambda: server.run("gone").state == "crashed")


def test_every_way_to_fail_can_be_switched_on_and_off(server):
    def asked(seconds=5.0):
        body = b'{"operationName": "ServerFeaturesQuery", "query": ""}'
        request = urllib.request.Request(f"{server.base_url}/graphql", body)
        try:
            with urllib.request.urlopen(request, timeout=seconds) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError as error:
            return type(getattr(error, "reason", error)).__name__

    assert asked() == 200
    for mode, told in (("500", 500), ("404", 404), ("gone", "ConnectionRefusedError"), ("up", 200)):
        server.behave(mode)
        assert asked() == told
    server.behave("hanging", only="/files")
    assert asked() == 200
    server.behave("hanging")
    assert asked(0.3) == "TimeoutError"
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(asked(60.0)))
    waiting.start()
    server.behave("up")
    waiting.join(60)
    assert answers == [200]  # who waited is served when it is up again


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("hand_out", "twice"), [("atomic", False), ("until_init", True)])
def test_a_sweep_with_the_real_agent(server, tmp_path, hand_out, twice):
    server.settings.habits.hand_out = hand_out
    config = "{program: train.py, method: grid, parameters: {lr: {values: [1, 2]}}}"
    path = server.create_sweep(config, PROJECT)
    (tmp_path / "train.py").write_text(
        "import wandb\nrun = wandb.init()\nrun.log({'lr': run.config.lr})\nrun.finish()\n", encoding="utf-8"
    )
    command = [sys.executable, "-m", "wandb", "agent", path]
    environment = server.environment(tmp_path, PATH=f"{sys.prefix}/bin:/usr/bin:/bin")
    subprocess.run(command, cwd=tmp_path, env=environment, timeout=170, check=True)
    assert sorted((run.state, run.column("lr")) for run in server.runs()) == [("finished", [1]), ("finished", [2])]
    assert server.sweep_state(path) == "FINISHED"
    # One that was preempted is handed out again: once, or to all who ask until it has begun.
    name = server.runs()[0].name
    backend = server.backend
    with backend.lock:
        sweep = backend.sweeps.find(path.rpartition("/")[2])
        backend.sweeps.set_state(sweep, "RUNNING")
        backend.sweeps.enqueue(backend.runs.find("lab", PROJECT, name))
        agents = [backend.sweeps.add_agent(sweep, "here") for _ in range(2)]
        told = [backend.sweeps.heartbeat(agent, {}) for agent in agents]
    assert told[0][0]["run_id"] == name
    assert bool(told[1][0].get("run_id") == name) is twice
