"""What the training logs by itself (wandb.log) and could not send is sent by the next attempt, each row once."""

from __future__ import annotations

import subprocess
import sys

import pytest
from trainings import managed
from wandb_log import only_log

from hpc_resume.trackers.wandb_log import read_history

# `wandb.log` alone, by a run that is ours (job.yaml has `wandb:`) or all the training's own.
THEIRS = """
import sys, time
import wandb
import hpc_resume

class State:
    def state_dict(self): return {}
    def load_state_dict(self, state): pass

@hpc_resume.resumable(every=1000)
def train(run, steps):
    wandb.init(id="net-1", resume="allow", notes=f"attempt {run.attempt}")
    run.register(state=State())
    print("begun", flush=True)
    for step in run.steps(steps):
        wandb.log({"theirs": step, "deep": {"er": step}})
        print("step", step, flush=True)
        time.sleep(0.02)

train(int(sys.argv[1]))
"""
OURS = {"HPC_RESUME_WANDB": managed(), "WANDB_RUN_ID": "net-1", "WANDB_INIT_TIMEOUT": "5"}


def stopped(training, after):
    training.wait_for(f"step {after}")
    training.warn()
    assert training.code() == 138, training.output
    return int(training.output.rpartition("after step ")[2].partition(";")[0])


@pytest.mark.timeout(240)
@pytest.mark.parametrize("told", [OURS, {}], ids=["ours", "theirs"])
def test_rows_that_a_lost_server_did_not_get_are_sent_by_the_next_attempt(server, train, told):
    first = train("10000", source=THEIRS, **told)
    first.wait_for("begun")
    server.wait_for(lambda: server.run("net-1") is not None)
    server.behave("gone")
    reached = stopped(first, 20)
    assert server.run("net-1").rows == []
    seen = only_log(first.log.parent)
    assert (seen.preempting, seen.exit_code) == (True, 138)
    server.behave("up")
    server.annotate("net-1", "a person's words")
    second = train("10000", source=THEIRS, **told)
    further = stopped(second, reached + 5)
    assert f"sent W&B {reached} rows that an earlier attempt could not send" in second.output
    third = train(str(further + 5), source=THEIRS, **told)
    assert third.code() == 0, third.output
    assert "could not send" not in third.output
    seen = server.run("net-1")
    assert (seen.state, seen.notes) == ("finished", "a person's words")
    every = list(range(further + 5))
    assert seen.column("theirs") == every
    assert [row["deep"]["er"] if "deep" in row else row["deep.er"] for row in seen.rows] == every
    assert seen.column("_step") == every
    assert "global_step" not in seen.summary  # no axis that never moves where run.log() is not used


@pytest.mark.timeout(240)
def test_attempts_without_a_server_are_sent_by_the_first_that_has_one(server, train):
    server.behave("gone")
    first = stopped(train("10000", source=THEIRS, **OURS), 5)
    second = stopped(train("10000", source=THEIRS, **OURS), first + 5)
    server.behave("up")
    third = train(str(second + 5), source=THEIRS, **OURS)
    assert third.code() == 0, third.output
    seen = server.run("net-1")
    assert (seen.state, seen.column("theirs")) == ("finished", list(range(second + 5)))
    assert seen.notes == "attempt 3"  # those before never reached anybody


@pytest.mark.timeout(240)
@pytest.mark.parametrize("source", [None, THEIRS], ids=["run.log", "wandb.log"])
def test_a_server_down_for_the_whole_run_loses_nothing(server, train, source):
    """Then there is no next attempt: what the training's last words say to do sends everything."""
    more = {"source": source} if source else {"PACE": "0.02"}
    server.behave("gone")
    first = train("10000", **more, **OURS)
    reached = stopped(first, 5)
    second = train(str(reached + 5), **more, **OURS)
    assert second.code() == 0, second.output
    if source is None:
        assert "`wandb sync` beside its directory wandb/" in second.output
    server.behave("up")
    home = first.log.parent
    command = [sys.executable, "-m", "wandb", "sync", "--yes"]
    subprocess.run(command, cwd=home, env=server.environment(home), check=True, timeout=120)
    seen = server.run("net-1")
    assert (seen.state, seen.exit_code) == ("finished", 0)
    assert seen.column("theirs" if source else "global_step") == list(range(reached + 5))


@pytest.mark.timeout(120)
def test_the_reader_reads_what_the_client_has_written(server, train):
    """Rows over several blocks of the file, nested ones, and what is no number."""
    source = """
    import wandb
    run = wandb.init(id="net-1", mode="offline")
    for step in range(300):
        run.log({"a": {"b": {"c": step}}, "text": "x" * (40000 if step % 100 == 0 else 10), "bad": float("nan")})
    run.finish()
    """
    only = train(source=source)
    assert only.code() == 0, only.output
    (path,) = only.log.parent.glob("wandb/offline-run-*/run-net-1.wandb")
    rows = read_history(path)
    assert [row["_step"] for row in rows] == list(range(300))
    assert [row["a"] for row in rows] == [{"b": {"c": step}} for step in range(300)]
    assert [len(row["text"]) for row in rows[:101:50]] == [40000, 10, 40000]
    assert rows[7]["bad"] != rows[7]["bad"]
    content = path.read_bytes()
    damaged = content[:50000] + bytes([content[50000] ^ 1]) + content[50001:-5000]
    path.write_bytes(damaged)
    kept = [row["_step"] for row in read_history(path)]
    assert 100 < len(kept) < 300
    assert kept == sorted(set(kept))
