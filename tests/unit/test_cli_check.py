"""check, init and schema, as a person uses them."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys

import pytest

from hpc_resume.launch.templates import STARTER, read_template


def test_a_valid_file_is_told_in_words_on_stdout(cli):
    done = cli("check")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("job.yaml is valid (spec ")
    for words in ("python train.py", "00:10:00", "USR1, 2min before the end", "every 15min", "runs/a-<job id>"):
        assert words in done.out


def test_a_wrong_file_is_told_with_every_problem_on_stderr(cli, tmp_path):
    (tmp_path / "job.yaml").write_text("name: a\ncommand: [x]\nslurm: {partiton: low, time: 1h}\n")
    done = cli("check")
    assert (done.code, done.out) == (78, "")
    assert done.err.splitlines()[0] == "job.yaml:3:9: slurm.partiton: unknown key; did you mean partition?"
    assert len(done.err.splitlines()) == 2


def test_json_holds_the_problems_and_their_places(cli, tmp_path):
    assert json.loads(cli("check", "--json").out)["valid"] is True
    (tmp_path / "job.yaml").write_text("name: a\ncommand: [x]\nslurm: {partiton: low}\n")
    done = cli("check", "--json")
    assert done.code == 78
    record = json.loads(done.out)
    assert record["valid"] is False
    assert record["problems"] == [
        {
            "file": "job.yaml",
            "line": 3,
            "column": 9,
            "key": "slurm.partiton",
            "message": "unknown key; did you mean partition?",
        }
    ]


def test_standard_input_is_read_as_a_dash(cli):
    assert cli("check", "-", stdin="name: b\ncommand: x\n").out.startswith("stdin is valid")
    assert cli("check", "-", stdin="name: b\n").err == "stdin:1:1: command: this key is required and missing\n"


def test_a_note_does_not_make_a_file_wrong(cli, tmp_path):
    (tmp_path / "job.yaml").write_text("name: a\ncommand: [x, $SLURM_ARRAY_TASK_ID]\n")
    done = cli("check")
    assert done.code == 0
    assert done.err.startswith("note: job.yaml:2:14: command[1]: $SLURM_ARRAY_TASK_ID stays as it is in a list")


@pytest.mark.parametrize(
    ("slurm", "place"),
    [
        ("{output: 'logs/%A_%a.out'}", "3:17: slurm.output"),
        ("{error: '%4a.err'}", "3:16: slurm.error"),
        ("{output: '%%a_%j.out'}", None),
        ("{output: '\\%a.out'}", None),
        ("{output: '%A_%a.out', array: 0-3}", None),
    ],
)
def test_the_task_in_an_outputs_name_is_noted_where_there_is_no_array(cli, tmp_path, slurm, place):
    (tmp_path / "job.yaml").write_text(f"name: a\ncommand: 'true'\nslurm: {slurm}\n")
    done = cli("check")
    assert done.code == 0
    assert done.err == (
        f"note: job.yaml:{place}: this job is no array: Slurm writes 4294967294 for %a; use %j\n" if place else ""
    )


def test_an_array_beyond_slurms_default_is_noted_and_a_huge_one_does_not_run_here(cli, tmp_path):
    def array(text):
        (tmp_path / "job.yaml").write_text(f"name: a\ncommand: 'true'\nslurm: {{array: '{text}'}}\n")

    array("0-1000")
    assert cli("check").err == ""
    array("0-1001")
    done = cli("check")
    assert (done.code, done.err.startswith("note: job.yaml:3:16: slurm.array: 1,002 tasks: Slurm takes 1,001")) == (
        0,
        True,
    )
    for text, tasks in (("0-3999999", "4,000,000"), ("0-1999998,1999999-3999999,4000000", "4,000,001")):
        array(text)
        done = cli("run", address_space=512)
        assert (done.code, done.out) == (78, "")
        assert f"is {tasks} tasks, and one machine takes 10,000 at most" in done.err
        assert "hpc-resume submit" in done.err
        assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ("slurm: {ntasks_per_node: 4}", "auto: 4 tasks, of which srun makes one rank each"),
        ("launcher: srun", "launcher: srun"),
        ("launcher: torchrun\nslurm: {nodes: 2, ntasks_per_node: 2}", "launcher: torchrun"),
    ],
)
def test_ranks_that_srun_would_start_are_refused_on_a_machine_without_slurm(cli, tmp_path, monkeypatch, keys, why):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    (tmp_path / "job.yaml").write_text(f"name: a\ncommand: [python, train.py]\n{keys}\n")
    done = cli("run")
    assert done.code == 78
    assert f"this job's ranks are started by srun ({why})" in done.err
    assert not (tmp_path / "runs").exists()


def test_bash_that_is_none_is_refused_at_its_line(cli, tmp_path):
    (tmp_path / "job.yaml").write_text("name: a\ncommand: 'if x'\nsetup: |\n  module load cuda\n  if true; then\n")
    done = cli("check")
    assert done.code == 78
    first, second = done.err.splitlines()
    assert first.startswith("job.yaml:2:10: command: bash does not understand this: syntax error")
    assert second.startswith("job.yaml:6:1: setup: bash does not understand this: syntax error")


def test_a_file_that_cannot_be_read_is_one_line(cli, tmp_path):
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "job.yaml").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    for name, words in [
        ("none.yaml", "none.yaml: no such file; `hpc-resume init` writes one\n"),
        ("dir", "dir: is a directory, not a job.yaml; did you mean dir/job.yaml?\n"),
        ("job.yaml/x", "job.yaml/x: cannot be read: Not a directory\n"),
        ("/proc/self/mem", "/proc/self/mem: cannot be read: Input/output error\n"),
        ("loop", "loop: cannot be read: Too many levels of symbolic links\n"),
    ]:
        done = cli("check", name)
        assert (done.code, done.out, done.err) == (78, "", words)
        done = cli("check", "--json", name)
        assert (done.code, done.err) == (78, words)
        record = json.loads(done.out)
        assert (record["file"], record["valid"], len(record["problems"])) == (name, False, 1)
        assert words == f"{name}: {record['problems'][0]['message']}\n"


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="root reads everything, and there is no setpriv here")
@pytest.mark.parametrize(
    ("closed", "verb", "words"),
    [
        ("job.yaml", "check", "job.yaml: cannot be read: Permission denied\n"),
        ("job.yaml", "submit", "job.yaml: cannot be read: Permission denied\n"),
        (
            "runs",
            "run",
            "cannot read {}/runs: Permission denied; set run_dir in job.yaml to a directory that you can write\n",
        ),
    ],
)
def test_what_may_not_be_read_is_said_with_the_code_of_a_wrong_file(tmp_path, closed, verb, words):
    (tmp_path / "job.yaml").write_text("name: a\ncommand: [python, train.py]\n")
    (tmp_path / "runs").mkdir()
    (tmp_path / closed).chmod(0)
    rights = "-dac_override,-dac_read_search"
    as_a_person = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*as_a_person, sys.executable, "-m", "hpc_resume", verb],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (78, words.format(tmp_path))


def test_init_writes_a_file_that_is_valid_and_named_after_its_directory(cli, tmp_path):
    (tmp_path / "my exp").mkdir()
    done = cli("init", "my exp/job.yaml")
    assert (done.code, done.out) == (0, "")
    assert done.err == "wrote my exp/job.yaml; edit it, then `hpc-resume check 'my exp/job.yaml'`\n"
    path = tmp_path / "my exp" / "job.yaml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert "\nname: my-exp #" in path.read_text()
    assert cli("check", "my exp/job.yaml").code == 0


def test_init_keeps_what_is_there_unless_forced(cli, tmp_path):
    done = cli("init")
    assert (done.code, done.err) == (2, "job.yaml: is there already; --force replaces it\n")
    assert (tmp_path / "job.yaml").read_text().startswith("name: a\n")
    assert cli("init", "--force", "--name", "7").code == 0
    assert "name  " in cli("check").out


def test_a_key_given_twice_does_not_hide_what_else_is_wrong(cli, tmp_path):
    (tmp_path / "job.yaml").write_text("name: a\nslurm: {tim: 1, nodes: 1, nodes: 2}\ncommand: !!str x\nbogus: 1\n")
    done = cli("check")
    assert done.code == 78
    assert [line.split(": ")[1] for line in done.err.splitlines()] == ["slurm.tim", "slurm.nodes", "command", "bogus"]


@pytest.mark.parametrize("verb", ["status", "explain", "checkpoints"])
def test_where_nothing_is_and_nothing_is_named_the_words_are_whole(cli, tmp_path, verb):
    empty = tmp_path / "empty"
    empty.mkdir()
    no_job = cli(verb, cwd=empty)
    assert (no_job.code, no_job.out) == (1, "")
    assert no_job.err == "no job.yaml and no runs here: go to a job's directory, or name a run\n"
    no_run = cli(verb)
    assert no_run.code == 1
    assert "this directory's job.yaml" in no_run.err or "this job" in no_run.err


def test_init_refuses_a_name_that_is_none(cli, tmp_path):
    done = cli("init", "x.yaml", "--name", "a b")
    assert done.code == 2
    assert done.err.startswith("--name a b: letters, digits")
    assert not (tmp_path / "x.yaml").exists()


def test_the_starter_shows_every_key_and_is_valid_with_all_of_them_uncommented(cli, tmp_path):
    lines = read_template(STARTER).splitlines()
    body = lines[lines.index("name: my-job # of the job and of its run directories") :]
    uncommented = [line.replace("# ", "", 1) if line.lstrip().startswith("# ") else line for line in body]
    together = [line for line in uncommented if "in place of" not in line]
    (tmp_path / "job.yaml").write_text("\n".join(together) + "\n")
    done = cli("check")
    assert done.code == 0, done.err
    from hpc_resume.launch.spec import Job

    assert {line.split(":")[0] for line in uncommented if line and line[0].isalpha()} == set(Job.model_fields)


def test_what_the_starter_shows_as_a_default_is_one(cli, tmp_path):
    """Every commented line that is no example may be uncommented without a change of the script."""
    text = read_template(STARTER)
    (tmp_path / "job.yaml").write_text(text)
    plain = cli("render").out
    lines = []
    example = False
    for line in text[text.index("name: my-job") :].splitlines():
        if line.startswith("# "):
            example = "# example" in line or (example and line.startswith("#   "))
        lines.append(line.removeprefix("# ") if line.startswith("# ") and not example else line)
    (tmp_path / "job.yaml").write_text("\n".join(lines) + "\n")
    assert cli("render").out == plain
    assert "\npreemption:\n  signal: USR1" in (tmp_path / "job.yaml").read_text()


def test_the_schema_is_json_on_stdout(cli):
    done = cli("schema")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["title"] == "Job"
