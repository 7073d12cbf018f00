"""One run at W&B over its attempts: the same id, marked and PREEMPTED on a warning, every row logged once."""

from __future__ import annotations

from trainings import managed

RUN = {"WANDB_RUN_ID": "net-1", "HPC_RESUME_WANDB": managed()}


def warned(training, after="step 5"):
    training.wait_for(after)
    training.warn()
    return training.code()


def test_a_warned_run_is_preempted_and_the_next_attempt_finishes_it(server, train):
    first = train("60", PACE="0.03", **RUN)
    assert warned(first) == 138, first.output
    seen = server.run("net-1")
    assert (seen.state, seen.exit_code) == ("preempted", 138)
    assert seen.said[:1] == ["preempting"]  # before the save
    second = train("60", **RUN)
    assert second.code() == 0, second.output
    seen = server.run("net-1")
    assert (seen.state, seen.starts, seen.exit_code) == ("finished", 2, 0)
    assert seen.column("global_step") == list(range(60))
    assert seen.column("loss") == [float(step) for step in range(60)]
    assert seen.column("_step") == list(range(60))
    assert server.unhandled() == []


def test_steps_after_the_last_checkpoint_are_not_logged_twice(server, train):
    first = train("40", EVERY="10", CRASH_AT="17", **RUN)
    assert first.code() == 1, first.output
    assert server.run("net-1").state == "failed"
    second = train("40", EVERY="10", **RUN)
    assert second.code() == 0, second.output
    seen = server.run("net-1")
    assert seen.column("global_step") == list(range(40))
    assert seen.column("_step") == list(range(40))
    assert seen.state == "finished"


def test_of_many_ranks_the_first_alone_tells_wandb(server, train):
    """Warned through the other one: the run is marked by the first, once, and both leave with the warning's code."""
    told = RUN | {"WORLD_SIZE": "2", "PACE": "0.03"}
    ranks = [train("10000", home=f"rank-{rank}", RANK=str(rank), **told) for rank in range(2)]
    ranks[0].wait_for("step 5")
    assert ranks[1].services() == []
    ranks[1].warn()
    assert [rank.code() for rank in ranks] == [138, 138], [rank.output for rank in ranks]
    (seen,) = server.runs()
    assert (seen.state, seen.exit_code, seen.said) == ("preempted", 138, ["preempting", "complete 138"])
    assert seen.column("global_step") == list(range(len(seen.rows)))
    assert not list((ranks[1].log.parent).glob("wandb*"))
