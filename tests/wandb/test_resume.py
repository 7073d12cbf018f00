"""The resume table of W&B's documentation row by row, and what a resume leaves alone: notes, config, earlier rows."""

from __future__ import annotations

import json

import pytest
from trainings import TRAIN, managed

# (resume, whether the run exists) -> exit code, and how often the run was started in the end
TABLE = {
    ("allow", True): (0, 2),
    ("allow", False): (0, 1),
    ("must", True): (0, 2),
    ("must", False): (78, None),
    ("never", True): (78, 1),
    ("never", False): (0, 1),
    ("auto", True): (0, 2),
    ("auto", False): (0, 1),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("source", ["job.yaml", pytest.param("WANDB_RESUME", marks=pytest.mark.soak)])
def test_the_resume_table(server, train, source):
    started = {}
    for resume, exists in TABLE:
        name = f"{resume}-{exists}"
        told = {"HPC_RESUME_WANDB": managed(resume=resume if source == "job.yaml" else "allow")}
        if source == "WANDB_RESUME":
            told["WANDB_RESUME"] = resume
        if exists:
            seen_before(server, name)
        started[resume, exists] = train("2", home=name, HPC_RESUME_RUN_DIR="run", WANDB_RUN_ID=name, **told)
        if len(started) % 3 == 0:
            [training.code() for training in started.values()]
    for key, (code, starts) in TABLE.items():
        training = started[key]
        assert training.code() == code, (key, training.output)
        seen = server.run(f"{key[0]}-{key[1]}")
        assert (seen.starts if seen else None) == starts, key
        if code == 78:
            assert f"resume={key[0]}" in training.output
            assert "Traceback" not in training.output


def seen_before(server, name):
    """A run that somebody else has logged one row to."""
    from loopback import PROJECT
    from loopback_runs import StoredRun

    with server.backend.lock:
        run = server.backend.runs.add(StoredRun("lab", PROJECT, name))
        server.backend.runs.start(run)
        run.receive("wandb-history.jsonl", 0, ['{"_step": 0, "before": 1}'])
        server.backend.runs.set_state(run, "failed")


@pytest.mark.timeout(200)
def test_a_run_that_was_never_to_exist_is_resumed_all_the_same_once_it_is_ours(server, train):
    """And its id is its own: in run.json before the first init, the same in every attempt."""
    told = {"HPC_RESUME_WANDB": managed(resume="never", notes="first", tags=["a"], group="g")}
    first = train("10000", PACE="0.02", **told)
    first.wait_for("step 3")
    first.warn()
    assert first.code() == 138, first.output
    record = json.loads((first.log.parent / "run/run.json").read_text())
    name = record["wandb"]["id"]
    assert name.startswith("run-")
    server.annotate(name, "a person's words")
    second = train("40", PACE="0.01", **told)
    assert second.code() == 0, second.output
    (seen,) = server.runs()
    assert (seen.name, seen.state, seen.starts, seen.tags) == (name, "finished", 2, ["a"])
    assert seen.notes == "a person's words"
    assert seen.column("global_step") == list(range(max(40, len(seen.rows))))


OWN_INIT = TRAIN.replace("import hpc_resume\n", "import hpc_resume, wandb\n", 1).replace(
    "    state = State()",
    '    metrics = wandb.init(config={"lr": float(os.environ["LR"])}, notes="from the code", name="mine")\n'
    "    state = State()",
)


@pytest.mark.timeout(200)
def test_the_trainings_own_init_is_resumed_with_its_config_and_without_its_notes(server, train):
    told = {"HPC_RESUME_WANDB": managed(project="other"), "WANDB_RUN_ID": "net.1", "WANDB_PROJECT": ""}
    first = train("10000", source=OWN_INIT, PACE="0.02", LR="0.5", **told)
    first.wait_for("step 3")
    first.warn()
    assert first.code() == 138, first.output
    name = json.loads((first.log.parent / "run/run.json").read_text())["wandb"]["id"]
    assert name.startswith("net-1-")  # W&B takes no dot
    with server.backend.lock:
        server.backend.runs.find("lab", "other", name).notes = "a person's words"
    second = train("40", source=OWN_INIT, PACE="0.01", LR="0.25", **told)
    assert second.code() == 0, second.output
    assert "the configuration has changed: lr 0.5 -> 0.25" in second.output
    seen = server.run(name, project="other")
    assert (seen.notes, seen.config["lr"], seen.state) == ("a person's words", 0.25, "finished")
    assert seen.column("global_step") == list(range(len(seen.rows)))


@pytest.mark.timeout(200)
@pytest.mark.parametrize("able", [True, False], ids=["it-can", "it-cannot"])
def test_what_was_logged_after_the_checkpoint_is_taken_back_where_the_server_can(server, train, able):
    server.settings.rewind = able
    told = {"HPC_RESUME_WANDB": managed(rewind=True), "WANDB_RUN_ID": "net-1", "EVERY": "10"}
    first = train("30", CRASH_AT="17", **told)
    assert first.code() == 1, first.output
    second = train("30", **told)
    assert second.code() == 0, second.output
    seen = server.run("net-1")
    assert seen.column("global_step") == list(range(30)), second.output
    assert seen.column("_step") == list(range(30))
    assert ("rewind 9" in seen.said) is able
    assert ("W&B cannot rewind" in second.output) is not able


@pytest.mark.timeout(200)
def test_rows_of_the_trainings_own_go_into_the_same_run(server, train):
    both = TRAIN.replace('        run.log({"loss"', '        wandb.log({"theirs": step})\n        run.log({"loss"')
    both = both.replace("import hpc_resume\n", "import hpc_resume, wandb\n", 1)
    told = {"HPC_RESUME_WANDB": managed(), "WANDB_RUN_ID": "net-1"}
    first = train("10000", source=both, PACE="0.03", **told)
    first.wait_for("step 5")
    first.warn()
    assert first.code() == 138, first.output
    second = train("60", source=both, **told)
    assert second.code() == 0, second.output
    seen = server.run("net-1")
    assert [row["global_step"] for row in seen.rows if "loss" in row] == list(range(60))
    assert seen.column("theirs") == list(range(60))
    assert seen.column("_step") == sorted(set(seen.column("_step")))


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("imported", "begun", "name"),
    [
        ("from wandb import init", "init()", "net-1"),  # bound before we could hear of it
        ("import wandb", "wandb.init(id='my-own', resume='allow')", "my-own"),
        ("import wandb", "wandb.init().config.update({'lr': run.attempt})", "net-1"),
    ],
    ids=["bound-before", "an-id-of-its-own", "a-config-of-its-own"],
)
def test_however_the_training_begins_it_no_row_is_lost(server, train, imported, begun, name):
    source = TRAIN.replace("import hpc_resume\n", f"import hpc_resume\n{imported}\n", 1)
    source = source.replace("    state = State()", f"    {begun}\n    state = State()", 1)
    told = {"HPC_RESUME_WANDB": managed(), "WANDB_RUN_ID": "net-1" if name == "net-1" else ""}
    first = train("10000", source=source, PACE="0.02", **told)
    first.wait_for("step 8")
    first.warn()
    assert first.code() == 138, first.output
    second = train("40", source=source, **told)
    assert second.code() == 0, second.output
    (seen,) = server.runs()
    assert (seen.name, seen.state, seen.starts) == (name, "finished", 2)
    assert seen.column("global_step") == list(range(len(seen.rows))) == seen.column("loss")
    if "config" in begun:
        assert seen.config["lr"] == 2
        assert second.output.count("the configuration has changed: lr 1 -> 2") == 1


def test_a_run_that_wandb_is_told_to_leave_out_says_nothing(server, train):
    told = {"HPC_RESUME_WANDB": managed(), "WANDB_MODE": "disabled"}
    first = train("20", CRASH_AT="15", EVERY="10", **told)
    assert first.code() == 1, first.output
    second = train("20", **told)
    assert second.code() == 0, second.output
    assert "W&B" not in second.output
    assert server.runs() == []
