from __future__ import annotations

import pytest

from hpc_resume.errors import SpecError
from hpc_resume.launch import env_rules
from hpc_resume.launch.validate import job_of
from hpc_resume.launch.yaml_source import parse


@pytest.mark.parametrize(
    "name",
    [
        "WANDB_API_KEY",
        "OPENAI_API_KEY",
        "API_KEY",
        "HF_TOKEN",
        "token",
        "GITHUB_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "CLIENT_SECRET",
        "DB_PASSWORD",
        "PASSWORD_FILE_TEXT",
        "PGPASSWORD",
        "SSH_PRIVATE_KEY",
    ],
)
def test_a_secret_is_refused_with_the_way_to_do_it(name):
    message = env_rules.name_problem(name)
    assert message
    assert f"Export {name} in the shell before submitting" in message


@pytest.mark.parametrize(
    "name", ["TOKENIZERS_PARALLELISM", "MAX_TOKENS", "KEY", "OMP_NUM_THREADS", "WANDB_PROJECT", "_x1"]
)
def test_an_ordinary_variable_is_not_taken_for_a_secret(name):
    assert env_rules.name_problem(name) is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("HPC_RESUME_RUN_DIR", "set by hpc_resume itself"),
        ("HR_COMMAND", "set by hpc_resume itself"),
        ("SLURM_JOB_ID", "set by Slurm"),
        ("BASH_ENV", "how bash itself works"),
        ("IFS", "how bash itself works"),
        ("BASH_FUNC_ls%%", "not a variable name"),
        ("UID", "read-only"),
        ("1A", "not a variable name"),
        ("A B", "not a variable name"),
        ("", "not a variable name"),
        ("A\n", "not a variable name"),
        ("<<", "merge keys"),
    ],
)
def test_a_variable_that_is_not_the_persons_to_set_is_refused_with_the_reason(name, reason):
    assert reason in (env_rules.name_problem(name) or "")


@pytest.mark.parametrize(
    "text",
    [
        "export WANDB_API_KEY=abc123",
        "HF_TOKEN='x' python train.py",
        'DB_PASSWORD="x"',
        "ALL,WANDB_API_KEY=abc",
        "env AWS_SECRET_ACCESS_KEY=zzz python",
        "python train.py --api-key=abc",
        "python train.py --api-key abc --lr 1",
        "python train.py --wandb_api_key 'abc'",
        "python train.py --db_password=abc",
    ],
)
def test_a_secret_written_out_in_a_text_is_found(text):
    assert "a secret does not belong in a script" in (env_rules.secret_in(text) or "")


@pytest.mark.parametrize(
    "text",
    [
        "export WANDB_API_KEY=$(cat ~/.key)",
        'export WANDB_API_KEY="$(<~/.key)"',
        "HF_TOKEN=$OTHER python",
        "HF_TOKEN= python",
        "python --eos_token=</s>",
        "python --api-key=$KEY",
        'python --api-key "$KEY"',
        "python --password --lr 1",
        "python --eos-token x --max-tokens 5 --token-dim 3",
        "A=1",
    ],
)
def test_a_secret_that_the_shell_finds_out_is_left_alone(text):
    assert env_rules.secret_in(text) is None


def test_no_place_of_a_job_yaml_takes_a_secret():
    text = """\
name: a
command: [env, HF_TOKEN=x, python, --api-key, x]
setup: export WANDB_API_KEY=x
env: {GITHUB_TOKEN: x}
slurm: {export: "ALL,MY_SECRET=x"}
"""
    with pytest.raises(SpecError) as error:
        job_of(parse(text.encode(), "job.yaml"))
    assert [problem.key for problem in error.value.problems] == [
        "command[1]",
        "command[4]",
        "setup",
        "env.GITHUB_TOKEN",
        "slurm.export",
    ]
    assert "=x" not in str(error.value)
