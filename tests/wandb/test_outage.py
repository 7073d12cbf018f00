"""A W&B server that is slow, hangs, fails or is gone: neither the save nor the exit waits, and nothing is lost."""

from __future__ import annotations

import textwrap
import time

import pytest
from trainings import TRAIN, managed
from wandb_log import only_log

RUN = {"WANDB_RUN_ID": "net-1", "HPC_RESUME_WANDB": managed(), "WANDB_INIT_TIMEOUT": "5"}
LONG = pytest.mark.soak
FAILURES = ("gone", "hanging", *(pytest.param(mode, marks=LONG) for mode in ("slow", "500", "404")))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("mode", FAILURES)
def test_a_server_lost_while_training_costs_no_row_and_no_time(server, train, mode):
    first = train("10000", PACE="0.03", **RUN)
    first.wait_for("step 20")
    server.wait_for(lambda: server.run("net-1").state == "running")
    server.behave(mode, delay=3.0)
    first.wait_for("step 40")
    first.warn()
    began = time.monotonic()
    assert first.code() == 138, first.output
    assert time.monotonic() - began < 40  # 7 s on an idle machine; wandb's own finish() is without end here
    server.behave("up")
    second = train("120", **RUN)
    assert second.code() == 0, second.output
    seen = server.run("net-1")
    assert seen.state == "finished"
    assert seen.column("global_step") == list(range(max(120, len(seen.rows))))
    assert seen.column("_step") == list(range(len(seen.rows)))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("mode", ["gone", *(pytest.param(mode, marks=LONG) for mode in ("hanging", "404"))])
def test_a_server_down_for_the_whole_attempt(server, train, mode):
    server.behave(mode)
    first = train("10000", PACE="0.01", **RUN)
    first.wait_for("step 10")
    first.warn()
    assert first.code() == 138, first.output
    assert "W&B is out of reach" in first.output
    stopped = int(first.output.rpartition("after step ")[2].split(";")[0])
    server.behave("up")
    second = train(str(stopped + 10), **RUN)
    assert second.code() == 0, second.output
    seen = server.run("net-1")
    assert seen.state == "finished"
    assert seen.column("global_step") == list(range(stopped + 10))


@pytest.mark.timeout(240)
def test_a_server_down_for_all_attempts_lets_the_training_finish(server, train):
    server.behave("gone")
    first = train("10000", PACE="0.01", **RUN)
    first.wait_for("step 5")
    first.warn()
    assert first.code() == 138, first.output
    stopped = int(first.output.rpartition("after step ")[2].split(";")[0])
    second = train(str(stopped + 5), **RUN)
    assert second.code() == 0, second.output
    assert "wandb sync" in second.output


@pytest.mark.timeout(240)
def test_a_server_lost_between_the_look_and_the_init(server, train):
    """It answers, and every run is refused: init's own time-out, then offline."""
    refuse = """
    import hpc_resume.trackers.wandb_managed as tracker
    tracker.is_reachable = lambda *more: True
    """
    server.behave("500")
    first = train("30", source=textwrap.dedent(refuse) + TRAIN, **RUN)
    assert first.code() == 0, first.output
    assert "W&B does not answer" in first.output
    assert only_log(first.log.parent).exit_code == 0
