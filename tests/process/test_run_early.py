"""A warning during the user's imports is heard; what runs behind the early start is python as python runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from hpc_resume.run.interpreter import parse

SLOW = "print('importing', flush=True)\nimport time\ntime.sleep(30)\n"


@pytest.fixture
def launched(tmp_path: Path) -> dict[str, str]:
    attempt = tmp_path / "run" / "attempts" / "0001"
    (attempt / "pids").mkdir(parents=True)
    (attempt / "events").mkdir()
    return {
        "HPC_RESUME_RUN_DIR": str(tmp_path / "run"),
        "HPC_RESUME_ATTEMPT": "1",
        "HPC_RESUME_ATTEMPT_DIR": str(attempt),
        "HPC_RESUME_LEAD": "60",
        "PYTHONUNBUFFERED": "1",
    }


def begin(directory: Path, words: list[str], env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    mine = {k: v for k, v in os.environ.items() if not k.startswith(("HPC_RESUME_", "SLURM_"))}
    return subprocess.Popen(
        [sys.executable, "-m", "hpc_resume.run", "--", *words],
        cwd=directory,
        env=mine | (env or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
    return process.returncode, out, err


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGTERM])
def test_a_warning_during_a_long_import_leaves_at_once_and_resumable(tmp_path, launched, signum):
    (tmp_path / "heavy.py").write_text(SLOW)
    (tmp_path / "train.py").write_text("import heavy\nimport hpc_resume\n")
    process = begin(tmp_path, [sys.executable, "train.py"], launched)
    assert process.stdout.readline() == "importing\n"
    attempt = Path(launched["HPC_RESUME_ATTEMPT_DIR"])
    record = json.loads(next(attempt.glob("pids/*.0.json")).read_text())
    assert record["pid"] == process.pid
    began = time.monotonic()
    process.send_signal(signum)
    code, _, err = finish(process)
    assert (code, time.monotonic() - began < 15) == (128 + signum, True)
    assert "nothing to save" in err
    assert json.loads((attempt / "outcome.json").read_text())["outcome"] == "stopped"


@pytest.mark.torch
def test_a_warning_during_the_real_import_of_torch_leaves_at_once(tmp_path, launched, eventually):
    (tmp_path / "train.py").write_text("import torch\nimport time\nprint('imported', flush=True)\ntime.sleep(30)\n")
    process = begin(tmp_path, [sys.executable, "train.py"], launched)
    pids = Path(launched["HPC_RESUME_ATTEMPT_DIR"]) / "pids"
    eventually(lambda: list(pids.glob("[!.]*.json")), "a PID record")
    process.send_signal(signal.SIGUSR1)
    code, out, err = finish(process)
    assert (code, out) == (138, ""), err


def test_a_warning_between_the_start_and_the_run_counts_for_the_run(tmp_path, launched):
    """Adopted, not installed twice: the run's own watchdog has the early one's ears, and its PID record stays."""
    source = """
    import hpc_resume, os, signal, time
    before = signal.getsignal(signal.SIGUSR1)
    with hpc_resume.Run() as run:
        assert signal.getsignal(signal.SIGUSR1) == before
        for step in run.steps(100000):
            print("step", step, flush=True)
            time.sleep(0.01)
    """
    (tmp_path / "train.py").write_text(textwrap.dedent(source))
    process = begin(tmp_path, [sys.executable, "train.py"], launched)
    while process.stdout.readline() != "step 3\n":
        assert process.poll() is None
    process.send_signal(signal.SIGUSR1)
    code, _, err = finish(process)
    assert code == 138, err
    events = Path(launched["HPC_RESUME_ATTEMPT_DIR"]) / "events"
    lines = [json.loads(line)["event"] for path in events.iterdir() for line in path.read_text().splitlines()]
    assert (lines.count("ready"), lines.count("received"), lines[-1]) == (1, 1, "stopped")


def test_a_warning_while_the_model_is_built_leaves_without_waiting_for_a_step(tmp_path, launched):
    source = """
    import hpc_resume, time
    with hpc_resume.Run() as run:
        print("building", flush=True)
        time.sleep(30)
    """
    (tmp_path / "train.py").write_text(textwrap.dedent(source))
    process = begin(tmp_path, [sys.executable, "train.py"], launched)
    assert process.stdout.readline() == "building\n"
    process.send_signal(signal.SIGUSR1)
    began = time.monotonic()
    code, _, err = finish(process)
    assert code == 138
    assert time.monotonic() - began < 15
    assert "before the first step" in err


def test_a_program_with_a_handler_of_its_own_keeps_it(tmp_path, launched):
    source = """
    import signal, sys, time
    signal.signal(signal.SIGUSR1, lambda *_: (print("mine", flush=True), sys.exit(7)))
    print("ready", flush=True)
    time.sleep(30)
    """
    (tmp_path / "train.py").write_text(textwrap.dedent(source))
    process = begin(tmp_path, [sys.executable, "train.py"], launched)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGUSR1)
    assert finish(process)[:2] == (7, "mine\n")


def test_a_handler_of_the_programs_own_is_an_acknowledgement_and_no_run(tmp_path, launched, eventually):
    """The launcher does not signal it again, which would make it save a second time, and judges no checkpoints."""
    source = """
    import signal, time
    signal.signal(signal.SIGUSR1, lambda *_: print("mine", flush=True))
    print("ready", flush=True)
    time.sleep(60)
    """
    (tmp_path / "train.py").write_text(textwrap.dedent(source))
    attempt = tmp_path / "run" / "attempts" / "0001"
    process = begin(tmp_path, [sys.executable, "train.py"], launched)
    try:
        assert process.stdout.readline() == "ready\n"
        assert json.loads(next((attempt / "pids").glob("*.0.json")).read_text())["opened"] is False
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "mine\n"
        log = next((attempt / "events").glob("*.jsonl"))
        eventually(lambda: '"event": "received"' in log.read_text(), "it acknowledged")
        heard = [json.loads(line) for line in log.read_text().splitlines() if '"received"' in line]
        assert [(one["signal"], one["by"]) for one in heard] == [("USR1", "__main__.<lambda>")]
    finally:
        process.kill()
        process.communicate()


def test_a_warning_that_went_to_such_a_handler_is_heard_by_a_run_that_opens_later(tmp_path, launched, eventually):
    source = """
    import signal, time
    heard = []
    signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
    print("ready", flush=True)
    while not heard:
        time.sleep(0.01)
    time.sleep(1.0)
    import hpc_resume
    with hpc_resume.Run() as run:
        for step in run.steps(10**6):
            time.sleep(0.01)
    """
    (tmp_path / "train.py").write_text(textwrap.dedent(source))
    process = begin(tmp_path, [sys.executable, "train.py"], launched)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGUSR1)
    assert finish(process)[0] == 138
    record = next((tmp_path / "run" / "attempts" / "0001" / "pids").glob("*.0.json"))
    assert json.loads(record.read_text())["opened"] is True


def test_the_starter_of_a_training_is_not_taken_for_it(tmp_path, launched):
    """A subprocess that announces itself takes the record over; a signal to its parent then saves nothing there."""
    (tmp_path / "train.py").write_text(
        "import hpc_resume, time\nwith hpc_resume.Run() as run:\n"
        "    for step in run.steps(10**6):\n        print('step', flush=True)\n        time.sleep(0.01)\n"
    )
    (tmp_path / "outer.py").write_text(
        "import subprocess, sys\nsys.exit(subprocess.run([sys.executable, 'train.py']).returncode)\n"
    )
    process = begin(tmp_path, [sys.executable, "outer.py"], launched)
    assert process.stdout.readline() == "step\n"
    record = json.loads(next(Path(launched["HPC_RESUME_ATTEMPT_DIR"]).glob("pids/*.0.json")).read_text())
    assert record["pid"] != process.pid
    os.kill(record["pid"], signal.SIGUSR1)
    assert finish(process)[0] == 138
    assert json.loads((tmp_path / "run/attempts/0001/outcome.json").read_text())["outcome"] == "stopped"


FACTS = """
import os, sys, json
import beside
import __main__
print(json.dumps([sys.argv, sys.path[0], __name__, __main__.__dict__ is globals(), os.path.basename(__file__),
    str(__spec__ and __spec__.name), sys.flags.optimize, sys.flags.utf8_mode, sys.dont_write_bytecode,
    __package__, sorted(k for k in globals() if k.startswith("__"))]))
"""


@pytest.mark.parametrize("options", [[], ["-u"], ["-O"], ["-u", "-X", "utf8"], ["-B", "-OO"]])
@pytest.mark.parametrize("how", ["script", "module"])
def test_argv_path_main_and_options_are_what_python_makes_them(tmp_path, options, how):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "facts.py").write_text(FACTS)
    (package / "beside.py").write_text("")
    (tmp_path / "beside.py").write_text("")
    words = [
        sys.executable,
        *options,
        *(["package/facts.py"] if how == "script" else ["-m", "package.facts"]),
        "-a",
        "b c",
    ]
    plain = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert finish(begin(tmp_path, words))[1] == plain


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("import sys; sys.exit(3)", 3),
        ("import sys; sys.exit('words')", 1),
        ("1/0", 1),
        ("raise SystemExit", 0),
        ("def broken(:", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9),
    ],
)
def test_the_end_of_a_script_is_its_own(tmp_path, source, code):
    (tmp_path / "train.py").write_text(source)
    plain = subprocess.run([sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    ours = finish(begin(tmp_path, [sys.executable, "train.py"]))
    assert ours == (code, plain.stdout, plain.stderr)


def test_multiprocessing_spawn_finds_the_main_module(tmp_path):
    (tmp_path / "train.py").write_text(
        "import multiprocessing\ndef work(n): return n * n\n"
        "if __name__ == '__main__':\n    with multiprocessing.get_context('spawn').Pool(1) as pool: print(pool.map(work, [3]))\n"
    )
    assert finish(begin(tmp_path, [sys.executable, "train.py"]))[1] == "[9]\n"


@pytest.mark.parametrize("words", [["echo", "a b"], [sys.executable, "-c", "print('a b')"], ["sh", "-c", "echo a b"]])
def test_everything_else_is_executed_untouched(tmp_path, words):
    assert finish(begin(tmp_path, words))[1] == "a b\n"


@pytest.mark.parametrize("how", ["dotted", "linked directory", "wrapper"])
def test_a_python_that_is_named_another_way_is_started_once(tmp_path, how):
    """`../venv/bin/python`, a linked environment, a script that becomes python: no process may exec itself for ever."""
    binary = Path(sys.executable).parent
    if how == "dotted":
        (tmp_path / "sub").mkdir()
        python = tmp_path / "sub" / os.path.relpath(sys.executable, tmp_path / "sub")
    elif how == "linked directory":
        (tmp_path / "bin").symlink_to(binary)
        python = tmp_path / "bin" / Path(sys.executable).name
    else:
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
    (tmp_path / "train.py").write_text("print('ran')\n")
    assert finish(begin(tmp_path, [str(python), "train.py"]))[:2] == (0, "ran\n")


def test_a_command_that_is_not_there_says_so(tmp_path):
    code, _, err = finish(begin(tmp_path, ["no-such-program"]))
    assert (code, err) == (127, "hpc_resume: no-such-program: No such file or directory\n")


def test_another_python_without_us_runs_the_command_as_it_was(tmp_path):
    """-I and -S hide the packages: the same as a python into which hpc_resume was never installed."""
    (tmp_path / "train.py").write_text("import sys; print(sys.argv, sys.flags.isolated, sys.orig_argv[1:])")
    words = [sys.executable, "-I", "-S", "train.py", "x"]
    assert finish(begin(tmp_path, words))[1] == "['train.py', 'x'] 1 ['-I', '-S', 'train.py', 'x']\n"


@pytest.mark.parametrize(
    ("words", "script", "module"),
    [
        ("python train.py -m x", "train.py", ""),
        ("/a/b/python3.12 -u -W error -X dev train.py", "train.py", ""),
        ("python3 -um package", None, None),
        ("python -u -m package.train a", "", "package.train"),
        ("python -m torch.distributed.run train.py", None, None),
        ("python -m deepspeed train.py", None, None),
        ("python -c pass", None, None),
        ("python -i train.py", None, None),
        ("python", None, None),
        ("pythonic train.py", None, None),
        ("torchrun train.py", None, None),
    ],
)
def test_what_is_a_training_in_python(words, script, module):
    command = parse(words.split())
    assert (command and command.script, command and command.module) == (script, module)
