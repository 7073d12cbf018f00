"""Wheel, sdist and editable install carry the same files, and each renders the same script as the tree."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
JOB = ROOT / "examples" / "minimal" / "job.yaml"
TEMPLATES = {path.name for path in (ROOT / "templates").iterdir() if path.is_file()}

RENDER = """
import sys
from pathlib import Path
import hpc_resume
from hpc_resume.launch.job_file import read_job
from hpc_resume.launch.plan import decide
from hpc_resume.launch.render import render
sys.stderr.write(str(Path(hpc_resume.__file__).resolve()))
sys.stdout.write(render(decide(read_job(Path(sys.argv[1])).job)))
"""


def run(*command, cwd, **environment) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    return done


def rendered(path_entry: Path, cwd: Path) -> tuple[Path, str]:
    """Where the package was imported from, and the script it made; the venv gives its dependencies only."""
    done = run("-c", RENDER, JOB, cwd=cwd, PYTHONPATH=str(path_entry), PYTHONDONTWRITEBYTECODE="1")
    return Path(done.stderr), done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The sdist, and the wheel that is built from it."""
    directory = tmp_path_factory.mktemp("built")
    run("-m", "build", "--no-isolation", "--outdir", directory, ROOT, cwd=directory)
    return directory


@pytest.fixture(scope="module")
def wheel(built) -> Path:
    return next(built.glob("*.whl"))


def packaged(names) -> set[str]:
    return {name for name in names if name.startswith("hpc_resume/") and not name.endswith("/")}


def test_the_wheel_holds_real_templates_and_renders_like_the_tree(wheel, tmp_path):
    target = tmp_path / "installed"
    run("-m", "pip", "install", "-qq", "--no-deps", "--no-index", "--target", target, wheel, cwd=tmp_path)
    templates = target / "hpc_resume" / "templates"
    assert {path.name for path in templates.iterdir()} == TEMPLATES
    assert not templates.is_symlink()
    origin, script = rendered(target, tmp_path)
    assert origin.is_relative_to(target)
    assert script == rendered(ROOT, tmp_path)[1]


def test_the_wheel_from_the_sdist_is_the_wheel_from_the_tree(wheel, tmp_path):
    run("-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    direct = next(tmp_path.glob("*.whl"))
    assert zipfile.ZipFile(direct).namelist() == zipfile.ZipFile(wheel).namelist()
    assert direct.read_bytes() == wheel.read_bytes()


def test_the_wheel_holds_every_module_and_nothing_else(wheel):
    names = {str(path.relative_to(ROOT)) for path in (ROOT / "hpc_resume").rglob("*.py")}
    names |= {f"hpc_resume/templates/{name}" for name in TEMPLATES} | {"hpc_resume/py.typed"}
    assert packaged(zipfile.ZipFile(wheel).namelist()) == names
    assert b"hpc-resume = hpc_resume.cli:main" in zipfile.ZipFile(wheel).read(
        next(name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("entry_points.txt"))
    )


def test_the_sdist_holds_all_that_the_repository_does(built, wheel):
    """Who builds from it can also run `make test` there, and follow every link of README."""
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        assert [member.name for member in sdist if member.issym() or member.islnk()] == []
        names = {member.name.partition("/")[2] for member in sdist}
    assert packaged(zipfile.ZipFile(wheel).namelist()) <= names
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    wanted = {name for name in tracked.split("\0")[:-1] if (ROOT / name).exists()} - {"hpc_resume/templates"}
    assert wanted - names == set()
    assert {"README.md", "Makefile", "tests/conftest.py", "templates/runtime.sh", "benchmarks/bench.py"} <= names


def test_an_editable_install_reads_the_templates_of_the_tree(tmp_path):
    hook = "import sys, hatchling.build as b; print(b.build_editable(sys.argv[1]))"
    name = run("-c", hook, tmp_path, cwd=ROOT).stdout.split()[-1]
    zipfile.ZipFile(tmp_path / name).extractall(tmp_path / "site")
    path_file = next((tmp_path / "site").glob("*.pth"))
    origin, script = rendered(Path(path_file.read_text().strip()), tmp_path)
    assert origin == ROOT / "hpc_resume" / "__init__.py"
    assert script == rendered(ROOT, tmp_path)[1]
