"""README is run, not believed: its first job, its job.yaml, and its tables."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()


def block(language: str, which: int = 0) -> str:
    """The text of one fenced block."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)[which]


def cli(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hpc_resume", *words], cwd=cwd, capture_output=True, text=True, check=False, timeout=90
    )


@pytest.mark.torch
@pytest.mark.timeout(480)
def test_the_first_job_runs(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(block("python").replace("10_000", "20"))
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=150
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/train/0001/latest").read_text() == "step-00000020\n"


def test_the_first_job_yaml_is_valid(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(block("yaml"))
    assert cli("check", cwd=tmp_path).returncode == 0


def test_the_script_of_ones_own_is_bash() -> None:
    script = next(text for text in re.findall(r"```bash\n(.*?)```", README, re.DOTALL) if "hr::launch" in text)
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_the_exit_codes_are_the_contracts() -> None:
    table = subprocess.run([sys.executable, "-m", "hpc_resume.contract"], check=True, capture_output=True, text=True)
    assert table.stdout in README


def test_every_verb_that_readme_names_is_there(tmp_path: Path) -> None:
    for verb in set(re.findall(r"`?hpc-resume ([a-z][a-z-]+)", README)):
        assert cli(verb, "--help", cwd=tmp_path).returncode == 0, verb


@pytest.mark.parametrize("key", ["wandb", "sweep", "slurm"])
def test_what_readme_says_to_write_in_job_yaml_is_valid(key: str, tmp_path: Path) -> None:
    said = re.search(rf"^\|[^|]*\| `({key}: {{.*?}})`", README, re.MULTILINE)
    assert said is not None
    command = "" if key == "sweep" else "command: [python, train.py]\n"
    (tmp_path / "job.yaml").write_text(f"name: a\n{command}{said[1]}\n")
    done = cli("check", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
