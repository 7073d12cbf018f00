"""render, as a person uses it."""

from __future__ import annotations

import json
import stat
import subprocess

import pytest

import hpc_resume.launch.render
from hpc_resume.cli.render import command
from hpc_resume.contract import SCRIPT_VARIABLES
from hpc_resume.errors import HpcResumeError


def test_the_script_goes_to_stdout_and_nothing_else(cli):
    done = cli("render")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("#!/bin/bash\n")
    assert subprocess.run(["bash", "-n"], input=done.out, text=True, check=False).returncode == 0


def test_a_script_is_written_whole(cli, tmp_path):
    done = cli("render", "-o", "job.sbatch")
    assert (done.code, done.out) == (0, "")
    assert done.err == "wrote job.sbatch; queue it with `sbatch job.sbatch`\n"
    path = tmp_path / "job.sbatch"
    assert path.read_text() == cli("render", "-o", "-").out
    assert stat.S_IMODE(path.stat().st_mode) == 0o755


def test_what_it_says_to_type_can_be_typed(cli):
    assert "`sbatch 'my job.sbatch'`" in cli("render", "-o", "my job.sbatch").err


def test_a_wrong_job_leaves_the_old_script(cli, tmp_path):
    (tmp_path / "job.sbatch").write_text("old")
    (tmp_path / "job.yaml").write_text("name: a\n")
    assert cli("render", "-o", "job.sbatch").code == 78
    assert (tmp_path / "job.sbatch").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"job.sbatch", "job.yaml"}


def test_a_script_that_bash_does_not_understand_is_never_written(tmp_path, monkeypatch):
    (tmp_path / "job.yaml").write_text("name: a\ncommand: x\n")
    (tmp_path / "job.sbatch").write_text("old")
    monkeypatch.setattr(hpc_resume.launch.render, "read_runtime", lambda: "if then\n")
    with pytest.raises(HpcResumeError, match="nothing was written"):
        command(tmp_path / "job.yaml", output=str(tmp_path / "job.sbatch"))
    assert (tmp_path / "job.sbatch").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"job.sbatch", "job.yaml"}


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("none/job.sbatch", "does not exist; make it first"),
        (".", "is a directory; name the file to write"),
        ("/dev/stdout", "is not an ordinary file"),
        ("/proc/job.sbatch", "/proc/job.sbatch: No such file or directory"),
    ],
)
def test_a_place_that_takes_no_script_is_one_line(cli, tmp_path, output, words):
    done = cli("render", "-o", output)
    assert done.code == (1 if output.startswith("/proc") else 2)
    assert words in done.err
    assert len(done.err.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"job.yaml"}


def test_diff_is_empty_for_the_same_and_1_for_another(cli, tmp_path):
    cli("render", "-o", "job.sbatch")
    same = cli("render", "--diff", "job.sbatch")
    assert (same.code, same.out) == (0, "")
    with (tmp_path / "job.yaml").open("a") as file:
        file.write("  mem: 16G\n")
    other = cli("render", "--diff", "job.sbatch")
    assert other.code == 1
    assert "\n+#SBATCH --mem=16G\n" in other.out
    assert other.out.startswith("--- job.sbatch\n+++ ")
    assert cli("render", "--diff", "none").code == 78
    with (tmp_path / "endless").open("wb") as file:  # as /dev/zero, which was read until the memory was full
        file.truncate(16 * 1024 * 1024 + 1)
    endless = cli("render", "--diff", "endless")
    assert (endless.code, endless.out) == (78, "")
    assert endless.err == "endless: is larger than 16 MiB: this is not a script of ours\n"


def test_explain_names_the_key_and_the_line_of_every_line_of_the_script(cli, tmp_path):
    (tmp_path / "job.yaml").write_text(
        "name: a\ncommand: [python, train.py]\nslurm:\n  time: 10:00\n  extra: {x: y z}\nsetup: |\n  a\n  b\n"
    )
    done = cli("render", "--explain")
    script = cli("render").out.splitlines()
    told = {}
    for row in done.out.splitlines():
        number = int(row[:5])
        told[number] = row
        shown = row[7:].split("  ")[0].rstrip("… ").rstrip()
        if "records.sh" not in row:
            assert script[number - 1].lstrip().startswith(shown), row
    rows = "\n".join(told.values())
    assert "name (job.yaml:1)" in rows
    assert "slurm.time (job.yaml:4)" in rows
    assert "slurm.extra.x (job.yaml:5)" in rows
    assert "preemption.signal (default), preemption.lead (default)" in rows
    for name, _ in SCRIPT_VARIABLES:
        assert f"  {name}=" in rows
    directives = [n for n, line in enumerate(script, 1) if line.startswith("#SBATCH")]
    assert set(directives) <= told.keys()


def test_json_holds_the_script_its_values_and_their_keys(cli):
    record = json.loads(cli("render", "--json").out)
    assert record["script"] == cli("render").out
    assert len(record["digest"]) == 12
    assert {"option": "time", "value": "10:00", "from": [{"key": "slurm.time", "line": 4}]} in record["directives"]
    assert {"name": "HR_LEAD", "value": 120, "from": [{"key": "preemption.lead", "line": None}]} in record["variables"]


def test_a_line_break_in_a_directive_is_refused_at_its_line(cli, tmp_path):
    (tmp_path / "job.yaml").write_text('name: a\ncommand: x\nslurm:\n  comment: "a\\n#SBATCH --uid=0"\n')
    done = cli("render")
    assert (done.code, done.out) == (78, "")
    assert done.err == "job.yaml:4:12: slurm.comment: a line break cannot stand in an #SBATCH line\n"


def test_a_file_of_another_system_renders_the_same(cli, tmp_path):
    unix = cli("render").out
    text = (tmp_path / "job.yaml").read_text()
    (tmp_path / "job.yaml").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert cli("render").out == unix


def test_a_script_is_utf_8_under_every_locale(cli, tmp_path):
    (tmp_path / "job.yaml").write_text("name: a\ncommand: [python, ä€]\n", encoding="utf-8")
    plain = cli("render", env={"LC_ALL": "C.UTF-8"})
    odd = cli("render", env={"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert odd.code == 0
    assert "python 'ä€'" in plain.out
    assert odd.out == plain.out


def test_rendering_writes_nothing_and_reads_no_start_file_of_bash(cli, tmp_path):
    (tmp_path / "evil.sh").write_text("touch evil\n")
    assert cli("render", env={"BASH_ENV": str(tmp_path / "evil.sh")}).code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"evil.sh", "job.yaml"}
