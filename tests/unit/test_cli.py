"""The frame of the command line: exit codes, help, errors, and what it may not import."""

from __future__ import annotations

import ast
import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import hpc_resume.cli
from hpc_resume.cli.verbs import VERBS
from hpc_resume.contract import VERSION

ROOT = Path(hpc_resume.cli.__file__).parent


def test_the_version_is_the_packages(cli):
    assert cli("--version").out == f"hpc-resume {VERSION}\n"


def test_help_lists_every_verb_on_stdout(cli):
    done = cli("--help")
    assert (done.code, done.err) == (0, "")
    for verb, line in VERBS.items():
        assert f"  {verb} " in done.out
        assert line[:30] in done.out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example_and_a_file_of_at_most_60_lines(verb, cli):
    done = cli(verb, "--help")
    assert done.code == 0
    assert f"  hpc-resume {verb}" in done.out
    assert "Example" in done.out
    source = (ROOT / f"{verb.replace('-', '_')}.py").read_text()
    assert len(source.splitlines()) <= 60
    assert callable(importlib.import_module(f"hpc_resume.cli.{verb.replace('-', '_')}").command)


def test_every_file_of_a_verb_is_in_the_registry():
    frame = {"__init__", "verbs", "console"}
    files = {path.stem for path in ROOT.glob("*.py") if "def command(" in path.read_text()}
    assert files - frame == {verb.replace("-", "_") for verb in VERBS}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Start with:"),
        (("rendr",), "No such command 'rendr'. Did you mean 'render'?"),
        (("xyz",), "No such command 'xyz'."),
        (("render", "--otput", "x"), "No such option: --otput (Possible options: --output)"),
        (("render", "a", "b"), "Got unexpected extra argument"),
        (("render", "-o"), "requires an argument"),
        (("render", "--explain", "--json"), "only one of"),
        (("--nothing",), "No such option"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_words_on_stderr(words, message, cli):
    done = cli(*words)
    assert done.code == 2
    assert message.lower() in done.err.lower()
    assert done.out == ""


def test_help_imports_no_verb_and_nothing_of_the_launch_side():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "hpc_resume", "--help"], capture_output=True, text=True, check=True
    )
    loaded = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "hpc_resume.cli.verbs" in loaded
    assert not loaded & {f"hpc_resume.cli.{verb}" for verb in VERBS}
    assert not {name for name in loaded if name.startswith(("hpc_resume.launch", "yaml", "jinja2", "rich"))}


def test_a_verb_imports_its_work_when_it_is_called_and_not_before():
    for verb in VERBS:
        tree = ast.parse((ROOT / f"{verb.replace('-', '_')}.py").read_text())
        imported = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = [getattr(node, "module", None) or node.names[0].name for node in imported]
        assert not [name for name in names if name.startswith("hpc_resume")], verb


def test_a_reader_that_leaves_early_makes_no_noise(tmp_path, cli):
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m hpc_resume render | head -c 10; exit ${{PIPESTATUS[0]}}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "#!/bin/bas"
    assert done.stderr == ""
    assert done.returncode in (0, 141)  # 0: the pipe took it all before the reader was gone


def test_a_pipe_that_is_closed_already_ends_with_its_code(tmp_path, cli):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "hpc_resume", "render"], cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_stdout_is_one_line(tmp_path, cli):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "hpc_resume", "render"],
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "No space left on device\n"


def test_a_closed_stdout_is_one_line(tmp_path, cli):
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m hpc_resume render >&-"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


def test_completion_knows_the_verbs(cli):
    done = cli(env={"_HPC_RESUME_COMPLETE": "complete_bash", "COMP_WORDS": "hpc-resume re", "COMP_CWORD": "1"})
    assert done.out.split() == [verb for verb in VERBS if verb.startswith("re")]


def test_an_interrupt_at_the_terminal_ends_with_130_and_no_traceback(tmp_path):
    os.mkfifo(tmp_path / "job.yaml")
    with (
        subprocess.Popen(
            [sys.executable, "-m", "hpc_resume", "check"], cwd=tmp_path, stderr=subprocess.PIPE
        ) as process,
        (tmp_path / "job.yaml").open("wb"),  # opens when the other side does: it is in the middle of its work
    ):
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=90)
    assert process.returncode == 130
    assert stderr == b""
