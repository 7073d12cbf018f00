"""What this machine cannot run is said at the end of pytest's output, and is a failure in CI."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
TESTS = """
import pytest
@pytest.fixture
def cluster(): raise AssertionError("no cluster can be had here")
def test_on_a_cluster(cluster): pass
@pytest.mark.torch
def test_with_torch(): raise AssertionError
def test_plain(): pass
"""


def run_pytest(directory: Path, *, present: bool, ci: str) -> subprocess.CompletedProcess[str]:
    absent = "import dataclasses\nNEEDS = tuple(dataclasses.replace(need, present={}) for need in NEEDS)\n"
    (directory / "conftest.py").write_text(CONFTEST.read_text() + absent.format(present))
    (directory / "test_it.py").write_text(TESTS)
    (directory / "pytest.ini").write_text("[pytest]\nmarkers =\n  slurm: x\n  compiler: x\n  torch: x\n  soak: x\n")
    environment = {**os.environ, "CI": ci}
    environment.pop("PYTEST_ADDOPTS", None)
    command = [sys.executable, "-m", "pytest", "-n", "1", "-p", "no:cacheprovider", str(directory)]
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False, timeout=90
    )


def test_skipped_tests_are_named_last_with_the_way_to_run_them(tmp_path):
    done = run_pytest(tmp_path, present=False, ci="")
    assert done.returncode == 0, done.stdout
    end = done.stdout[done.stdout.index("1 TESTS DID NOT RUN: no Slurm here") :]
    assert "test_it.py::test_on_a_cluster" in end
    assert "apt-get install slurm-wlm munge" in end
    assert "test_it.py::test_with_torch" in end


@pytest.mark.parametrize("ci", ["true", "1"])
def test_in_ci_a_missing_need_is_a_failure(tmp_path, ci):
    done = run_pytest(tmp_path, present=False, ci=ci)
    assert done.returncode == 1, done.stdout
    assert "CI is set: this is a failure." in done.stdout


def test_with_everything_there_nothing_is_skipped(tmp_path):
    done = run_pytest(tmp_path, present=True, ci="true")
    assert "DID NOT RUN" not in done.stdout
    assert "1 failed, 1 passed, 1 error" in done.stdout
