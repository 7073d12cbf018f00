from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError

from hpc_resume.launch import templates
from hpc_resume.launch.plan import decide
from hpc_resume.launch.render import _template, render
from hpc_resume.launch.shell_text import Raw, directive, quote
from hpc_resume.launch.validate import job_of
from hpc_resume.launch.yaml_source import parse

# A runtime that gives back what it was given, each value ended by a NUL.
ECHO = r"""hr::main() {
  printf '%s\0' "$HR_RUN_DIR" "$HR_SETUP" "${#HR_COMMAND[@]}" "${HR_COMMAND[@]}"
  export "${HR_ENV[@]}"
  exec env -0
}
"""
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NASTY = st.text(st.sampled_from(list("'\"`$(){}[]\\*?~!#&|;<> \n\t\r=%-ä€🚀\x01\x7f\x85\u2028")), max_size=20)
ANY = TEXT | NASTY


def written(text: str) -> str:
    """A YAML scalar that means `text`, whatever is in it."""
    return '"' + "".join(c if c.isascii() and c.isalnum() else f"\\U{ord(c):08x}" for c in text) + '"'


def script_of(text: str, runtime: str | None = None) -> str:
    return render(decide(job_of(parse(text.encode(), "job.yaml"))), runtime)


def bash(script: str, **env: str) -> list[str]:
    done = subprocess.run(
        ["bash"], input=script.encode(), capture_output=True, check=True, env={"PATH": os.environ["PATH"], **env}
    )
    assert done.stderr == b""
    return done.stdout.decode().split("\0")


@settings(max_examples=150, deadline=None)
@given(words=st.lists(ANY, max_size=4), value=ANY, run_dir=ANY, setup=ANY, locale=st.sampled_from(["C", "C.UTF-8"]))
def test_any_text_comes_back_from_bash_byte_for_byte(words, value, run_dir, setup, locale):
    assume(run_dir.strip())
    words = ["python", *words]
    text = f"""\
name: a
command: [{", ".join(map(written, words))}]
env: {{VALUE: {written(value)}}}
run_dir: {written(run_dir)}
setup: {written(setup)}
"""
    script = script_of(text, ECHO)
    assert "\r" not in script  # sbatch takes a script with \r\n for a DOS file and refuses it
    found = bash(script, LC_ALL=locale)
    assert found[:2] == [run_dir, setup]
    count = int(found[2])
    assert found[3 : 3 + count] == words
    assert f"VALUE={value}" in found[3 + count :]


@settings(max_examples=60, deadline=None)
@given(text=ANY)
def test_a_command_of_one_string_reaches_its_bash_byte_for_byte(text):
    assume(text.strip())
    found = bash(script_of(f"name: a\ncommand: {written(text)}\n", ECHO))
    assert found[2:8] == ["5", "bash", "-o", "pipefail", "-c", text]


def test_a_value_without_a_form_in_bash_is_an_error_and_never_an_empty_text():
    for value in (None, True, 1.5, ["a"], {"a": 1}, b"a"):
        with pytest.raises(TypeError):
            quote(value)
    with pytest.raises(ValueError, match="NUL"):
        quote("a\0")


def test_a_name_that_the_plan_does_not_have_is_an_error():
    with pytest.raises(UndefinedError):
        _template().environment.from_string("{{ nothing }}").render()


def test_only_the_runtime_is_printed_as_it_is():
    template = _template().environment.from_string("{{ a }} {{ b }}")
    assert template.render(a=Raw("$x"), b="$x") == "$x '$x'"


def test_a_long_array_is_one_word_per_line():
    assert quote(("a", "b c")) == "(a 'b c')"
    assert quote(()) == "()"
    assert quote(("x" * 60, "y" * 60)).splitlines() == ["(", "    " + "x" * 60, "    " + "y" * 60, "  )"]


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("0-9%4", "#SBATCH --x=0-9%4"),
        ("logs/%x-%A_%a.out", "#SBATCH --x=logs/%x-%A_%a.out"),
        ("a b", '#SBATCH --x="a b"'),
        ("a#b", '#SBATCH --x="a#b"'),
        ('say "hi"', '#SBATCH --x="say \\"hi\\""'),
        ("it's", '#SBATCH --x="it\'s"'),
        ("a\\b", '#SBATCH --x="a\\\\b"'),
        ("", '#SBATCH --x=""'),
        (None, "#SBATCH --x"),
    ],
)
def test_a_directive_is_quoted_for_sbatch_and_not_for_bash(value, line):
    assert directive("x", value) == line


@pytest.mark.parametrize("value", ["a\nb", "a\n#SBATCH --uid=0", "\x00", "a\r", "\x1b[0m", "\x7f"])
def test_a_directive_never_holds_a_control_character(value):
    with pytest.raises(ValueError, match="cannot stand in an #SBATCH line"):
        directive("comment", value)


def test_directives_come_before_the_first_command():
    lines = script_of("name: a\ncommand: a\nslurm: {time: 5:00}\n").splitlines()
    assert lines[0] == "#!/bin/bash"
    first_command = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    last_directive = max(number for number, line in enumerate(lines) if line.startswith("#SBATCH"))
    assert last_directive < first_command


def test_the_template_holds_no_bash_that_jinja_would_read_as_its_own():
    text = templates.read_template(templates.SCRIPT_TEMPLATE)
    assert "{#" not in text
    assert "default(" not in text
    assert "{% if" not in text


def test_the_same_job_gives_the_same_bytes_in_every_process(tmp_path):
    job = tmp_path / "job.yaml"
    job.write_text(
        "name: a\ncommand: [a, ä]\nenv: {B: 1, A: 2, C: ü}\nslurm: {time: 5:00, mem: 1G, extra: {z: 1, y: 2}}\n"
    )
    other = tmp_path / "elsewhere"
    other.mkdir()
    scripts = [
        subprocess.run(
            [sys.executable, "-m", "hpc_resume", "render", job],
            cwd=cwd,
            env={"PATH": os.environ["PATH"], "PYTHONHASHSEED": seed, "LC_ALL": locale, "TZ": zone, "HOME": str(cwd)},
            capture_output=True,
            check=True,
        ).stdout
        for seed, locale, zone, cwd in [("0", "C", "UTC", tmp_path), ("1", "C.UTF-8", "Asia/Tokyo", other)]
    ]
    assert scripts[0] == scripts[1]
    assert "ü".encode() in scripts[0]
    assert str(tmp_path).encode() not in scripts[0]


RAN = 'hr::main() {\n  echo ran "$@"\n}\n'


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "job.sbatch"
    path.write_text(script_of("name: a\ncommand: a\n", RAN))
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    "way",
    [
        "bash job.sbatch x",
        "./job.sbatch x",
        "bash -eu job.sbatch x",
        "bash -s x < job.sbatch",
        "cat job.sbatch | bash -s x",
        "ln -s job.sbatch link && ./link x",
        "cp job.sbatch slurm_script && $PWD/slurm_script x",
        "source ./hand.sh && bash job.sbatch x",
        "bash --posix job.sbatch x",
    ],
)
def test_a_script_that_is_executed_runs(script, way):
    (script.parent / "hand.sh").write_text("set -u\n")
    assert (
        subprocess.run(["bash", "-c", way], cwd=script.parent, capture_output=True, text=True, check=False).stdout
        == "ran x\n"
    )


@pytest.mark.parametrize(
    "way",
    [
        "source ./job.sbatch",
        ". ./job.sbatch x",
        "set -eu; source ./job.sbatch",
        "set -eE; trap 'echo trapped' ERR; source ./job.sbatch",
        "trap 'echo trapped' EXIT; source ./job.sbatch; trap - EXIT",
        "f() { source ./job.sbatch; }; f",
        "bash hand.sh",
        "bash < hand.sh",
        "bash -c 'source ./job.sbatch' ./job.sbatch",
        "source /dev/stdin < job.sbatch",
        "bash --norc -i -c 'source ./job.sbatch'",
        "source ./job.sbatch; source ./job.sbatch",
    ],
)
def test_a_script_that_is_sourced_runs_nothing_and_defines_everything(script, way):
    (script.parent / "hand.sh").write_text("source ./job.sbatch\n")
    done = subprocess.run(["bash", "-c", way], cwd=script.parent, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    check = subprocess.run(
        ["bash", "-c", "source ./job.sbatch; HR_NAME=mine; declare -F hr::main; echo $HR_NAME"],
        cwd=script.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert check.stdout == "hr::main\nmine\n"


def test_the_real_script_says_nothing_when_it_is_sourced_and_defines_launch(tmp_path):
    path = tmp_path / "job.sbatch"
    path.write_text(script_of("name: a\ncommand: a\n"))
    done = subprocess.run(
        ["bash", "-euc", "source ./job.sbatch; declare -F hr::launch; trap -p"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("hr::launch\n", "")
    assert {path.name for path in tmp_path.iterdir()} == {"job.sbatch"}
