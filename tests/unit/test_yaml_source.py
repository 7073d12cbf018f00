from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_resume.errors import SpecError
from hpc_resume.launch.yaml_source import MAX_BYTES, parse


def read(text: str | bytes):
    return parse(text.encode() if isinstance(text, str) else text, "job.yaml")


def refusal(text: str | bytes) -> str:
    with pytest.raises(SpecError) as error:
        read(text)
    assert error.value.exit_code == 78
    return str(error.value)


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("24:00:00", "24:00:00"),
        ("1:30", "1:30"),
        ("no", "no"),
        ("on", "on"),
        ("y", "y"),
        ("0123", "0123"),
        ("0o17", "0o17"),
        ("0x1F", "0x1F"),
        ("12_000", "12_000"),
        ("2026-11-21", "2026-11-21"),
        (".inf", ".inf"),
        ("9" * 40, "9" * 40),
        ("12", 12),
        ("-3", -3),
        ("0", 0),
        ("1e3", 1000.0),
        ("1.50", 1.5),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'true'", "true"),
        ('"12"', "12"),
    ],
)
def test_only_what_yaml_1_2_calls_a_number_is_one(scalar, value):
    found = read(f"x: {scalar}").data["x"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("key", ["command", "env", "slurm"])
@pytest.mark.parametrize("scalar", ["1e-3", "1.10", "007", "true", "null", "~", "24:00:00", "0x10", "1_000"])
def test_below_command_env_and_slurm_a_scalar_stays_as_written(key, scalar):
    assert read(f"{key}: {{a: {scalar}}}").data == {key: {"a": scalar}}


def test_an_empty_section_is_nothing_and_not_a_text():
    assert read("slurm:\nenv: ~x\n").data == {"slurm": None, "env": "~x"}


def test_the_key_on_is_not_true():
    assert read("requeue: {on: [timeout], yes: 1}").data == {"requeue": {"on": ["timeout"], "yes": 1}}


def test_every_key_and_value_has_its_place():
    source = read("name: a\nslurm:\n  time: 1:00\n  extra: {x: 1}\nlist: [a,\n   b]\n")
    assert source.keys["slurm", "time"] == (3, 3)
    assert source.values["slurm", "time"] == (3, 9)
    assert source.values["slurm", "extra", "x"] == (4, 14)
    assert source.values["list", 1] == (6, 4)
    assert source.place(("slurm", "nodes")) == (3, 3)


def test_all_problems_of_form_are_found_in_one_pass():
    text = refusal("a: 1\na: 2\nb: !!python/object:os.system x\nc: !mine {k: 1}\nd: {e: 1, e: 2}\n? [x]\n: 1\n")
    lines = text.splitlines()
    assert lines[0] == "job.yaml:2:1: a: given twice; the first is in line 1"
    assert "3:4: b: the tag !!python/object:os.system is refused" in lines[1]
    assert "4:4: c: the tag !mine is refused" in lines[2]
    assert "5:11: d.e: given twice" in lines[3]
    assert "6:3: a key must be plain text" in lines[4]
    assert len(lines) == 5


@pytest.mark.parametrize("tag", ["!!int '3'", "!!binary aGk=", "!!set {a}", "!!str 3"])
def test_a_tag_is_refused_even_a_harmless_one(tag):
    assert "is refused" in refusal(f"x: {tag}")


def test_an_alias_stands_for_its_anchor():
    source = read("a: &x {k: [1, 2]}\nb: *x\n")
    assert source.data == {"a": {"k": [1, 2]}, "b": {"k": [1, 2]}}


def test_aliases_of_aliases_do_not_fill_the_memory():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "more than 10000 values" in refusal("\n".join(lines))


def test_an_alias_of_itself_is_refused():
    assert "stands for" in refusal("a: &a [*a]")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "job.yaml: is empty"),
        (b"  \n\n", "job.yaml: is empty"),
        (b"# only a comment\n", "holds no keys"),
        (b"---\n", "must be a mapping"),
        (b"just text", "job.yaml:1:1: must be a mapping"),
        (b"- a\n- b\n", "job.yaml:1:1: must be a mapping"),
        (b"a: 1\n---\nb: 2\n", "job.yaml:2:1: a second document"),
        (b"a: \xff\n", "job.yaml:1:4: is not UTF-8 text (byte 0xff)"),
        (b"a: 1\nb: \xc3\xa4\xe4\n", "job.yaml:2:5: is not UTF-8"),
        (b"\x7fELF\x02\x01\x01\0", "job.yaml:1:8: holds a NUL byte: this is not a text file"),
        (b"\xff\xfea\0:\0", "NUL byte"),
        (b"a: 1\nb: \x1b[31m\n", "job.yaml:2:4: holds the control character U+001B"),
        (b"a: 'x\n", "is not YAML"),
        (b"a: [x\nb: 1\n", "job.yaml:2:2: is not YAML: while parsing a flow sequence that begins in line 1, expected"),
        (b"a: *nowhere\n", "undefined alias"),
        (b"a:\n\tb: 1\n", "job.yaml:2:1: a tab where YAML wants spaces"),
        (b"a: b: c\n", "job.yaml:1:5: is not YAML"),
        (b'a: "\\0"\n', "no program can be given"),
        (b'a: "\\ud800"\n', "no program can be given"),
        (b"a: " + b"x" * MAX_BYTES, "larger than 256 KiB"),
        (b"[" * 20_000, "nested too deeply"),
    ],
)
def test_what_is_no_job_yaml_is_refused_with_its_place(content, words):
    assert words in refusal(content)


def test_line_ends_of_another_system_and_a_byte_order_mark_change_nothing():
    unix = read("name: a\nsetup: |\n  x\n  y\nslurm: {time: 1:00}\n")
    dos = read(b"\xef\xbb\xbfname: a\r\nsetup: |\r\n  x\r\n  y\r\nslurm: {time: 1:00}\r\n")
    assert dos.data == unix.data
    assert dos.keys == unix.keys


def test_characters_that_json_writes_as_two_escapes_are_one():
    assert read('{"name": "\\ud83d\\ude80 \\u00e9"}').data == {"name": "🚀 é"}


@given(st.binary(max_size=200))
def test_no_bytes_make_a_traceback(content):
    with contextlib.suppress(SpecError):
        parse(content, "job.yaml")


@given(st.text(alphabet=" \n\t:-[]{}&*!|>'\"#%@`,?abc01~.", max_size=60))
def test_no_punctuation_makes_a_traceback(text):
    with contextlib.suppress(SpecError):
        read(text)
