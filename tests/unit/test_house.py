"""The house rules that a tool can check: types, style, and who may import whom."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = {
    "types": ("-m", "mypy"),
    "style": ("-m", "ruff", "check"),
    "format": ("-m", "ruff", "format", "--check"),
    # As `lint-imports`, from this interpreter and not from whatever PATH has.
    "imports": ("-c", "from importlinter.cli import lint_imports_command as main; main()"),
}


@pytest.mark.timeout(480)
@pytest.mark.parametrize("tool", TOOLS)
def test_rules(tool):
    done = subprocess.run(
        [sys.executable, *TOOLS[tool]], cwd=ROOT, capture_output=True, text=True, check=False, timeout=170
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("rule", ["launch_in_run", "yaml_in_run"])
def test_an_import_against_the_rules_is_found(tmp_path, rule):
    """The contracts bite: a copy of the package with one forbidden import does not pass."""
    for name in ("hpc_resume", "pyproject.toml"):
        subprocess.run(["cp", "-rL", ROOT / name, tmp_path / name], check=True)
    line = {"launch_in_run": "import hpc_resume.launch", "yaml_in_run": "import yaml"}[rule]
    (tmp_path / "hpc_resume" / "run" / "records.py").write_text(f"{line}\n")
    done = subprocess.run(
        [sys.executable, *TOOLS["imports"]], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=90
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "BROKEN" in done.stdout
