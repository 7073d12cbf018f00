"""Every problem of a job.yaml, as a person reads it."""

from __future__ import annotations

import textwrap

import pytest

from hpc_resume.errors import SpecError
from hpc_resume.launch.checks import notes
from hpc_resume.launch.spec import Job, json_schema
from hpc_resume.launch.validate import job_of
from hpc_resume.launch.yaml_source import parse

VALID = "name: a\ncommand: [python, train.py]\n"


def job(text: str) -> Job:
    return job_of(parse(textwrap.dedent(text).encode(), "job.yaml"))


def refusal(text: str) -> list[str]:
    with pytest.raises(SpecError) as error:
        job(text)
    return str(error.value).splitlines()


def test_a_minimal_job_has_the_documented_defaults():
    found = job(VALID)
    assert found.launcher == "auto"
    assert found.run_dir == "runs"
    assert (found.preemption.signal, found.preemption.lead) == ("USR1", "120s")
    assert found.requeue.on == ("preempted", "timeout", "node_fail")
    budgets = found.requeue.max
    assert (budgets.timeout, budgets.preempted) == ("unlimited", "unlimited")
    assert (budgets.crash, budgets.no_progress, budgets.total) == (0, 2, 1000)
    assert (found.checkpoint.every, found.checkpoint.keep) == ("15min", 2)
    assert found.stagger is None
    assert found.env == {}


def test_everything_that_is_documented_is_accepted():
    found = job(
        """\
        name: resnet
        command: [python, train.py, --lr, 1e-3, --flag, true]
        slurm:
          partition: low
          time: 1-00:00:00
          nodes: 1
          ntasks_per_node: 1
          gpus_per_node: 1
          cpus_per_task: 4
          mem: 16G
          array: 0-9%4
          output: logs/%x-%A_%a.out
          extra: {constraint: a100}
        launcher: srun
        setup: |
          module load cuda
        env: {OMP_NUM_THREADS: 4}
        run_dir: runs
        preemption: {signal: USR2, lead: 90}
        requeue:
          on: [timeout]
          max: {timeout: unlimited, preempted: 3, crash: 1, no_progress: 0, total: unlimited}
          method: scontrol
        checkpoint: {every: 500, keep: 3}
        stagger: {interval: 5s, jitter: 2}
        """
    )
    assert found.command == ("python", "train.py", "--lr", "1e-3", "--flag", "true")
    assert found.env == {"OMP_NUM_THREADS": "4"}


def test_all_problems_are_told_in_one_pass_in_the_order_of_the_file():
    assert refusal(
        """\
        nmae: a
        command: []
        slurm:
          partiton: low
          time: 1 day
        env: {A-B: 1, WANDB_API_KEY: x}
        requeue: {on: [preemptd], max: {crash: -1}}
        checkpoint: {keep: 1, evry: 3}
        wandb: {project: a/b, resume: yes, step_metric: _step}
        """
    ) == [
        "job.yaml:1:1: name: this key is required and missing",
        "job.yaml:1:1: nmae: unknown key; did you mean name?",
        "job.yaml:2:10: command: must name a program, as [python, train.py]",
        "job.yaml:4:3: slurm.partiton: unknown key; did you mean partition?",
        "job.yaml:5:9: slurm.time: '1 day': must be a Slurm time: minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS or UNLIMITED",
        "job.yaml:6:7: env.A-B: is not a variable name: letters, digits and _, not a digit first",
        "job.yaml:6:15: env.WANDB_API_KEY: a secret does not belong in a script. Export WANDB_API_KEY in the shell before submitting: sbatch hands the environment on. Or run `wandb login` once, which keeps the key in ~/.netrc",
        "job.yaml:7:16: requeue.on[0]: preemptd: must be preempted or timeout or node_fail",
        "job.yaml:7:40: requeue.max.crash: must be a whole number, 0 or more, or `unlimited`",
        "job.yaml:8:20: checkpoint.keep: 1: must be at least 2",
        "job.yaml:8:23: checkpoint.evry: unknown key; did you mean every?",
        "job.yaml:9:18: wandb.project: 'a/b': W&B's names have none of / \\ # ? % : in them",
        "job.yaml:9:31: wandb.resume: yes: must be allow or must or never or auto",
        "job.yaml:9:49: wandb.step_metric: '_step': a metric's name; those that begin with _ are W&B's own",
    ]


def test_a_sweep_is_an_array_of_agents_with_a_command_of_ours():
    fleet = job("name: a\nsweep: {id: me/nets/abc123, agents: 8}\nslurm: {partition: low}")
    assert fleet.command[:2] == ("hpc-resume", "agent")
    assert fleet.slurm == {"partition": "low", "array": "0-7"}
    assert job("name: a\nsweep: {id: me/nets/abc123}").slurm == {"array": "0-0"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sweep: {id: abc123}", "sweep.id: 'abc123': must be entity/project/id"),
        ("sweep: {id: a/b/c, agents: 0}", "sweep.agents: 0: must be at least 1"),
        ("sweep: {id: a/b/c, agent: 3}", "sweep.agent: unknown key; did you mean agents?"),
        ("sweep: {id: a/b/c}\ncommand: [x]", "command: the command of a sweep's runs is in the sweep's own"),
        ("sweep: {id: a/b/c}\nslurm: {array: 0-3}", "slurm.array: the agents are an array already"),
        ("sweep: {id: a/b/c}\nlauncher: srun", "launcher: an agent is one process of the batch shell"),
        ("sweep: {id: a/b/c}\nrequeue: {max: {no_progress: 3}}", "requeue.max.no_progress: counts checkpoints"),
        ("sweep: {id: a/b/c}\nwatch: {on_warning: s}", "watch: a sweep's runs are started by W&B's agent"),
        ("command: [x]\nstagger: {interval: 1s, burst: 2}", "stagger.burst: is for the agents of a `sweep:`"),
    ],
)
def test_what_a_sweep_cannot_stand_beside_is_refused(text, words):
    problems = refusal(f"name: a\n{text}")
    assert len(problems) == 1, problems
    assert words in problems[0]


@pytest.mark.parametrize(("key", "value"), [("nodes", "2"), ("ntasks", "2"), ("ntasks_per_node", "8")])
def test_many_tasks_that_nothing_would_start_are_refused(key, value):
    refused = refusal(f"{VALID}launcher: direct\nslurm: {{{key}: {value}}}")
    assert refused == [
        (
            f"job.yaml:3:11: launcher: direct starts one process on one node; use `launcher: srun`, or auto: slurm.{key}"
            f" asks for {value}"
        )
    ]


@pytest.mark.parametrize(
    "command", ["[torchrun, --standalone, train.py]", "srun -n 2 ./a", "[python, -m, torch.distributed.run, a]"]
)
def test_a_launcher_in_a_launcher_is_refused(command):
    problems = refusal(f"name: a\ncommand: {command}\nlauncher: srun\nslurm: {{ntasks: 2}}")
    assert "starts ranks itself; use direct" in problems[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("partition: low", "partition: unknown key; `partition` belongs under `slurm:`"),
        ("every: 10", "every: unknown key; `every` belongs under `checkpoint:`"),
        ("cpus-per-task: 3", "cpus-per-task: unknown key; `cpus-per-task` belongs under `slurm:`"),
        ("retries: true", "retries: unknown key; the keys here are name, command, slurm"),
        (
            "slurm: {time: 24h}",
            "'24h': must be a Slurm time: minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS or UNLIMITED; did you mean 1-00:00:00?",
        ),
        ("<<: {name: b}", "merge keys (<<) are YAML 1.1"),
        ("checkpoint: {fast_dir: scratch}", "checkpoint.fast_dir: must be an absolute path on the node"),
        ("requeue: preempted", "requeue: must be a mapping: lines of `key: value`, not the text 'preempted'"),
        ("requeue: {on: preempted}", "requeue.on: must be a list, as [preempted, timeout, node_fail]"),
        ("requeue: {on: [crash]}", "crash has a budget of its own: `requeue: {max: {crash: 3}}`"),
        ("requeue: {on: [timeout, timeout]}", "names a cause twice"),
        ("requeue: {max: {total: 1.5}}", "must be a whole number, 0 or more, or `unlimited`"),
        ("requeue: {max: {total: true}}", "must be a whole number, 0 or more, or `unlimited`"),
        ("preemption: {signal: SIGUSR1}", "SIGUSR1: must be USR1 or USR2; did you mean USR1?"),
        ("preemption: {signal: TERM}", "TERM: must be USR1 or USR2"),
        ("preemption: {lead: 0}", "must be whole seconds, from 1s to 65535s"),
        ("preemption: {lead: 1500ms}", "must be whole seconds"),
        ("preemption: {lead: 1d}", "from 1s to 65535s"),
        ("preemption: {lead: 2m}", "did you mean 2min?"),
        ("checkpoint: {every: 0}", "0: must be at least 1 step"),
        ("checkpoint: {every: -5}", "-5: must be at least 1 step"),
        ("checkpoint: {every: 10m}", "did you mean 10min?"),
        ("checkpoint: {every: soon}", "as 120s, 15min, 2h or 1d; or a number of steps, or auto"),
        ("checkpoint: {every: 1.5}", "must be a number of steps, or a time with its unit"),
        ("checkpoint: {every: true}", "must be a number of steps, or a time with its unit"),
        ("checkpoint: {keep: two}", "checkpoint.keep: must be a whole number, not the text 'two'"),
        ("stagger: {}", "stagger.interval: this key is required and missing"),
        ("stagger: {interval: -1}", "from 0 to 999999999"),
        ("run_dir: ''", "run_dir: must not be empty"),
        ("env: [A=1]", "env: must be a mapping: lines of `key: value`, not a list"),
        ("env: {A: [1]}", "env.A: must be text, not a list"),
        ("setup: [module load x]", "setup: must be text, not a list"),
        ("slurm: [a]", "slurm: must be a mapping: lines of `key: value`, not a list"),
        ("launcher: prun", "prun: must be auto or direct or srun"),
        ("checkpoint: {every: 15min}\nname2: x", "name2: unknown key; did you mean name?"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_wanted(text, words):
    problems = refusal(VALID + text)
    assert len(problems) == 1, problems
    assert words in problems[0]
    assert problems[0].startswith(f"job.yaml:{VALID.count(chr(10)) + text.count(chr(10)) + 1}:")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("command: ''", "must name a program"),
        ("command:", "must be a list of words"),
        ("command: ['']", "must name a program"),
        ("command: {a: b}", "must be a list of words"),
        ("command: [python, {--lr: 3}]", "word 2 is a list or a mapping"),
    ],
)
def test_a_command_that_names_no_program_is_refused(line, words):
    assert words in refusal(f"name: a\n{line}")[0]


@pytest.mark.parametrize("name", ["a", "7", "2026", "a.b_c-d", "x" * 64])
def test_a_name_of_plain_characters_is_kept_as_written(name):
    assert job(f"name: {name}\ncommand: a").name == name


@pytest.mark.parametrize("name", [".", "..", "-a", "a/b", "a b", "ä", "x" * 65, '"a\\n"', "''"])
def test_a_name_that_is_no_directory_name_is_refused(name):
    assert "name: " in refusal(f"name: {name}\ncommand: a")[0]


def test_a_lead_as_long_as_the_time_limit_is_refused_with_both_figures():
    default = refusal(f"{VALID}slurm: {{time: 2:00}}")
    assert default == [
        "job.yaml:3:15: slurm.time: the lead (120s, the default) must be shorter than slurm.time (2:00, which is 00:02:00)"
    ]
    given = refusal(f"{VALID}slurm: {{time: 1:00:00, time_min: 10}}\npreemption: {{lead: 30min}}")
    assert given == [
        "job.yaml:4:20: preemption.lead: the lead (30min) must be shorter than slurm.time_min (10, which is 00:10:00)"
    ]
    job(f"{VALID}slurm: {{time: UNLIMITED}}\npreemption: {{lead: 10h}}")
    job(f"{VALID}slurm: {{time: 2:01}}")


def test_a_section_with_every_line_commented_out_is_an_absent_one():
    found = job(f"{VALID}slurm:\n  # partition: low\nenv:\nrequeue:\ncheckpoint:\npreemption:\nstagger:\nsetup:\n")
    assert found == job(VALID)


def test_text_that_looks_as_if_it_would_be_expanded_is_pointed_out():
    source = parse(
        b"name: a\ncommand: [a, $SLURM_ARRAY_TASK_ID, 5$, ~/x]\nenv: {P: $HOME/x}\nrun_dir: ~/runs\n", "job.yaml"
    )
    assert [note.key for note in notes(source)] == ["command[1]", "command[3]", "env.P", "run_dir"]
    assert not list(notes(parse(b"name: a\ncommand: python $X\nrun_dir: a~b\n", "job.yaml")))


def test_the_schema_knows_every_key_and_default_of_the_models():
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(schema["properties"]) == set(Job.model_fields)
    assert schema["required"] == ["name"]
    assert schema["oneOf"] == [{"required": ["command"]}, {"required": ["sweep"]}]
    assert schema["additionalProperties"] is False
    assert "partition" in schema["properties"]["slurm"]["properties"]
    assert schema["$defs"]["Preemption"]["properties"]["lead"]["default"] == "120s"
    sections = {**schema["$defs"], "Job": schema}
    for section in sections.values():
        assert section["description"]
        assert all("description" in field or "$ref" in field for field in section["properties"].values())
    assert "auto" in str(schema["$defs"]["Checkpoint"]["properties"]["every"])
