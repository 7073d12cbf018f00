from __future__ import annotations

import errno
import os
import stat

import pytest

from hpc_resume.errors import CommandLineError, ConfigError, HpcResumeError
from hpc_resume.launch import bash_syntax, script_file


def test_a_script_is_written_whole_and_executable(tmp_path):
    path = tmp_path / "job.sbatch"
    script_file.write_whole(path, "echo ä\n", script_file.SCRIPT_MODE)
    assert path.read_bytes() == "echo ä\n".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert {path.name for path in tmp_path.iterdir()} == {"job.sbatch"}


@pytest.mark.parametrize("step", ["fsync", "fchmod", "replace"])
def test_a_full_disk_leaves_the_old_script_and_nothing_beside_it(tmp_path, monkeypatch, step):
    path = tmp_path / "job.sbatch"
    path.write_text("old")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(*((type(path), "replace") if step == "replace" else (os, step)), full)
    with pytest.raises(OSError, match="No space left"):
        script_file.write_whole(path, "new", script_file.SCRIPT_MODE)
    assert path.read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"job.sbatch"}


def test_a_file_that_is_there_is_kept_unless_it_may_be_replaced(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("old")
    with pytest.raises(FileExistsError):
        script_file.write_whole(path, "new", 0o644, replace=False)
    assert path.read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"job.yaml"}
    script_file.write_whole(tmp_path / "other.yaml", "new", 0o644, replace=False)
    assert (tmp_path / "other.yaml").read_text() == "new"


def test_a_link_stays_a_link_to_the_file_that_is_replaced(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    script_file.write_whole(tmp_path / "link", "new", 0o755)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_what_is_no_ordinary_file_is_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, words in [
        (tmp_path, "is a directory; name the file to write"),
        (tmp_path / "pipe", "is not an ordinary file"),
        (tmp_path / "no" / "x", "does not exist; make it first"),
    ]:
        with pytest.raises(CommandLineError, match=words):
            script_file.write_whole(path, "new", 0o755)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_script_that_bash_does_not_understand_is_not_let_out():
    with pytest.raises(HpcResumeError, match=r"line 2: .*syntax error.*nothing was written"):
        script_file.verify("echo a\nif then\n")
    script_file.verify("echo a\n")


@pytest.mark.parametrize(
    ("text", "line"), [("x=(\n", 1), ("a\nb\nif true; then\n", 4), ("echo )\n", 1), ("f() {\n\n  echo 'a\n}\n", 3)]
)
def test_bash_names_the_line_of_a_syntax_error(text, line):
    found = bash_syntax.syntax_error(text)
    assert found is not None
    assert found[0] == line


def test_a_syntax_check_runs_nothing_and_reads_no_start_file(tmp_path, monkeypatch):
    (tmp_path / "env.sh").write_text(f"touch {tmp_path}/read\n")
    monkeypatch.setenv("BASH_ENV", str(tmp_path / "env.sh"))
    assert bash_syntax.syntax_error(f"touch {tmp_path}/run\nshopt -s extglob\nls !(a)\n") is None
    assert {path.name for path in tmp_path.iterdir()} == {"env.sh"}


def test_a_machine_without_bash_is_told_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="bash is not on PATH"):
        bash_syntax.syntax_error("true")


def test_changes_are_a_unified_diff_and_empty_for_the_same_bytes(tmp_path):
    old = tmp_path / "old.sbatch"
    old.write_bytes(b"a\nb\xff\n")
    assert "-b\\xff\n+c\n" in script_file.changes(old, "a\nc\n")
    old.write_text("a\nc\n")
    assert script_file.changes(old, "a\nc\n") == ""
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        script_file.changes(tmp_path / "missing", "a")
