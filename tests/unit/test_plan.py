from __future__ import annotations

import pytest

from hpc_resume.contract import SCRIPT_VARIABLES
from hpc_resume.launch.plan import Plan, decide
from hpc_resume.launch.validate import job_of
from hpc_resume.launch.yaml_source import parse


def plan(text: str = "", **overrides: str) -> Plan:
    return decide(job_of(parse(f"name: a\ncommand: [python, train.py]\n{text}".encode(), "job.yaml")), **overrides)


def variables(text: str = "", **overrides: str) -> dict[str, object]:
    return {variable.name: variable.value for variable in plan(text, **overrides).variables}


def directives(text: str = "", **overrides: str) -> dict[str, str | None]:
    return {directive.option: directive.value for directive in plan(text, **overrides).directives}


def test_the_variables_are_those_of_the_contract_in_its_order():
    assert [variable.name for variable in plan().variables] == [name for name, _ in SCRIPT_VARIABLES]


def test_every_variable_has_the_kind_that_the_contract_says():
    for variable, (_, meaning) in zip(plan().variables, SCRIPT_VARIABLES, strict=True):
        assert isinstance(variable.value, tuple) == meaning.startswith("array"), variable.name


def test_the_defaults_of_a_minimal_job():
    assert variables() == {
        **variables(),
        "HR_LAUNCHER": (),
        "HR_RANKS": 0,
        "HR_COMMAND": ("python", "train.py"),
        "HR_RUN_DIR": "runs",
        "HR_RUN_KEY": "",
        "HR_SIGNAL": "USR1",
        "HR_LEAD": 120,
        "HR_REQUEUE_ON": ("preempted", "timeout", "node_fail"),
        "HR_MAX_TIMEOUT": -1,
        "HR_MAX_PREEMPTED": -1,
        "HR_MAX_CRASH": 0,
        "HR_MAX_NO_PROGRESS": 2,
        "HR_MAX_TOTAL": 1000,
        "HR_SAVE_STEPS": 0,
        "HR_SAVE_SECONDS": 900,
        "HR_KEEP": 2,
        "HR_KEEP_EVERY": 0,
        "HR_SAVE_ASYNC": "",
        "HR_FAST_DIR": "",
        "HR_RESHARD": 0,
        "HR_CHECKSUMS": 1,
        "HR_WANDB": "",
        "HR_MIRROR": "",
        "HR_STAGGER_MS": 0,
        "HR_STAGGER_JITTER_MS": 0,
        "HR_STAGGER_WIDTH": 0,
    }
    assert directives() == {"job-name": "a", "open-mode": "append", "signal": "B:USR1@120", "requeue": None}


def test_a_command_of_one_string_fails_with_the_training_in_a_pipe():
    job = job_of(parse(b"name: a\ncommand: python train.py | tee log\n", "job.yaml"))
    words = next(variable.value for variable in decide(job).variables if variable.name == "HR_COMMAND")
    assert words == ("bash", "-o", "pipefail", "-c", "python train.py | tee log")


def test_the_signal_and_the_lead_drive_the_directive_and_the_variables_alike():
    text = "preemption: {signal: USR2, lead: 5min}"
    assert directives(text)["signal"] == "B:USR2@300"
    assert (variables(text)["HR_SIGNAL"], variables(text)["HR_LEAD"]) == ("USR2", 300)


def test_steps_and_times_of_the_periodic_save_exclude_each_other():
    steps = variables("checkpoint: {every: 500}")
    assert (steps["HR_SAVE_STEPS"], steps["HR_SAVE_SECONDS"]) == (500, 0)
    time = variables("checkpoint: {every: 90s}")
    assert (time["HR_SAVE_STEPS"], time["HR_SAVE_SECONDS"]) == (0, 90)


def test_async_is_three_words_since_the_code_may_ask_for_it_too():
    said = [variables(f"checkpoint: {text}")["HR_SAVE_ASYNC"] for text in ("{}", "{async: false}", "{async: true}")]
    assert said == ["", "0", "1"]
    found = variables("checkpoint: {keep_every: 50, fast_dir: $TMPDIR, checksums: false}")
    assert (found["HR_KEEP_EVERY"], found["HR_FAST_DIR"], found["HR_CHECKSUMS"]) == (50, "$TMPDIR", 0)


def test_the_stagger_is_in_milliseconds_and_as_wide_as_the_array_runs_at_once():
    text = "slurm: {array: 0-9%4}\nstagger: {interval: 1.5s, jitter: 2}"
    found = variables(text)
    assert (found["HR_STAGGER_MS"], found["HR_STAGGER_JITTER_MS"], found["HR_STAGGER_WIDTH"]) == (1500, 2000, 4)
    assert variables(text, array="3")["HR_STAGGER_WIDTH"] == 0


def test_the_agents_of_a_sweep_share_a_token_bucket_and_publish_nothing_themselves():
    text = "name: a\nsweep: {id: me/nets/abc, agents: 4}\nstagger: {interval: 1.5s, jitter: 2s, burst: 3}"
    fleet = decide(job_of(parse(text.encode(), "job.yaml")))
    found = {variable.name: variable.value for variable in fleet.variables}
    options = ("--interval=1.5", "--jitter=2", "--burst=3")
    assert found["HR_COMMAND"] == ("hpc-resume", "agent", *options, "me/nets/abc")
    assert found["HR_SWEEP"] == "me/nets/abc"
    assert (found["HR_STAGGER_MS"], found["HR_MAX_NO_PROGRESS"]) == (0, -1)
    assert {directive.option: directive.value for directive in fleet.directives}["array"] == "0-3"


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("", "requeue"),
        ("requeue: {on: [preempted]}", "requeue"),
        # `scontrol requeue` of a job that was submitted with --no-requeue is refused (measured, 22.05 to 26.05).
        ("requeue: {on: [timeout]}", "requeue"),
        ("requeue: {on: [], max: {crash: 3}}", "requeue"),
        ("requeue: {on: []}", "no-requeue"),
    ],
)
def test_slurm_may_requeue_exactly_when_we_may_want_it(text, option):
    assert {"requeue", "no-requeue"} & directives(text).keys() == {option}


def test_a_run_that_is_continued_keeps_the_digest_of_its_spec():
    text = "slurm: {array: 0-3}"
    fresh, continued = plan(text), plan(text, run_key="a-7", array="2")
    assert continued.digest == fresh.digest
    assert variables(text, run_key="a-7")["HR_RUN_KEY"] == "a-7"
    assert directives(text, array="2")["array"] == "2"
    assert directives(array="2")["array"] == "2"


def test_the_digest_changes_with_what_is_asked_and_not_with_how_it_is_written():
    assert plan("preemption: {lead: 120s}").digest == plan("preemption: {lead: 2min}").digest == plan().digest
    assert plan("slurm: {mem: 1G, time: 5:00}").digest == plan("slurm: {time: 5:00, mem: 1G}").digest
    texts = ["", "env: {A: 1}", "slurm: {mem: 1G}", "setup: x", "requeue: {max: {crash: 1}}", "checkpoint: {keep: 3}"]
    assert len({plan(text).digest for text in texts}) == len(texts)
    assert len(plan().digest) == 12


def test_every_value_names_the_keys_it_comes_from():
    ours = {"HR_VERSION", "HR_SPEC_DIGEST", "HR_RUN_KEY"}
    found = plan("slurm: {mem: 1G, extra: {x: 1}}")
    assert {variable.name for variable in found.variables if not variable.sources} == ours
    assert {directive.option: directive.sources for directive in found.directives} == {
        "job-name": ("name",),
        "mem": ("slurm.mem",),
        "x": ("slurm.extra.x",),
        "open-mode": (),
        "signal": ("preemption.signal", "preemption.lead"),
        "requeue": ("requeue.on",),
    }
