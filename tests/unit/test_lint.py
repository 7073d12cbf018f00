"""Each rule finds its mistake at its place and lets the right way pass; what the verb prints, and its exit codes."""

from __future__ import annotations

import json
import os
import textwrap
from pathlib import Path

import pytest

from hpc_resume.launch.lint import lint, lint_file, rules

WRONG_AND_RIGHT = {
    "mark-after-init": (
        "import wandb\nrun = wandb.init()\nprint(run.id)\nrun.mark_preempting()\nfor step in range(9): pass\n",
        (4, 1),
        "import wandb\nrun = wandb.init()\nfor step in range(9):\n    if stop:\n        run.mark_preempting()\n",
    ),
    "resume-without-id": (
        "from wandb import init\nrun = init(project='p', resume='allow')\n",
        (2, 7),
        "import wandb\nrun = wandb.init(project='p', resume='allow', id='a')\nwandb.init(**given, resume='allow')\n",
    ),
    "wandb-in-handler": (
        (
            "import signal, wandb\ndef leave():\n    wandb.finish()\ndef stop(signum, frame):\n    leave()\n"
            "signal.signal(signal.SIGUSR1, stop)\n"
        ),
        (3, 5),
        (
            "import signal, wandb\nstopping = []\ndef stop(signum, frame):\n    stopping.append(signum)\n"
            "signal.signal(signal.SIGUSR1, stop)\nwandb.finish()\n"
        ),
    ),
    "early-exit-import": (
        "import wandb\nfrom sys import argv, exit\n",
        (2, 1),
        "import sys, wandb\nsys.exit(3)\n",
    ),
    "handler-exits-0": (
        "import signal, sys\nsignal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(0))\n",
        (2, 53),
        "import signal, sys\nsignal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))\nsys.exit(0)\n",
    ),
}

JOB = "name: a\ncommand: [python, train.py]\n"
WRONG_AND_RIGHT_JOBS = {
    "resume-must": (JOB + "wandb: {resume: must}\n", (3, 17), JOB + "wandb: {resume: allow}\n"),
    "resume-variable": (JOB + "env: {WANDB_RESUME: true}\n", (3, 21), JOB + "env: {WANDB_RESUME: allow}\nwandb: {}\n"),
    "shared-run-id": (
        JOB + "env: {WANDB_RUN_ID: x}\nslurm: {array: 0-3}\n",
        (3, 21),
        JOB + "env: {WANDB_RUN_ID: x}\n",
    ),
    "agent-without-forwarding": (
        "name: a\ncommand: [wandb, agent, e/p/s]\n",
        (2, 10),
        "name: a\ncommand: [wandb, agent, --forward-signals, e/p/s]\n",
    ),
    "trap-exits-0": (
        JOB + "setup: |\n  trap 'echo bye; exit 0' USR1\n",
        (3, 8),
        JOB + "setup: |\n  trap 'echo bye' EXIT\n",
    ),
}

# Other ways of saying the same.
ALSO_WRONG = [
    ("mark-after-init", "import wandb\nwith wandb.init() as run:\n    run.mark_preempting()\n    for x in y: pass\n"),
    ("mark-after-init", "import wandb as w\ndef main():\n    w.init()\n    w.mark_preempting()\n"),
    ("wandb-in-handler", "import signal\nfrom wandb import init\nrun = init()\ndef stop(s, f):\n    run.mark_preempting()\nsignal.signal(signal.SIGUSR1, stop)\n"),
    ("wandb-in-handler", "import signal, wandb\nclass T:\n    def __init__(self):\n        self.run = wandb.init()\n        signal.signal(signal.SIGTERM, self.stop)\n    def stop(self, s, f):\n        self.run.finish(exit_code=143)\n"),
    ("handler-exits-0", "import signal\ndef stop(s, f):\n    raise SystemExit\nsignal.signal(15, stop)\n"),
    ("handler-exits-0", "import os\nfrom signal import signal, SIGUSR1\ndef stop(s, f):\n    os._exit(0)\nsignal(SIGUSR1, stop)\n"),
    ("resume-without-id", "import wandb\nwandb.init(resume=True)\n"),
]  # fmt: skip


def found_in(tmp_path, text, name="train.py"):
    path = tmp_path / name
    path.write_text(textwrap.dedent(text))
    return [(problem.key, problem.line, problem.column) for problem in lint_file(path)]


@pytest.mark.parametrize("rule", sorted(WRONG_AND_RIGHT | WRONG_AND_RIGHT_JOBS))
def test_a_rule_finds_the_mistake_at_its_place_and_lets_the_right_way_pass(tmp_path, rule):
    name = "job.yaml" if rule in WRONG_AND_RIGHT_JOBS else "train.py"
    wrong, place, right = (WRONG_AND_RIGHT | WRONG_AND_RIGHT_JOBS)[rule]
    assert found_in(tmp_path, wrong, name) == [(rule, *place)]
    assert found_in(tmp_path, right, name) == []


def test_every_rule_is_tested_and_says_what_it_is_about():
    assert set(rules()) == set(WRONG_AND_RIGHT | WRONG_AND_RIGHT_JOBS)
    assert all(rules().values())


@pytest.mark.parametrize(("rule", "text"), ALSO_WRONG)
def test_other_ways_of_saying_it_are_found_too(tmp_path, rule, text):
    assert [found[0] for found in found_in(tmp_path, text)] == [rule]


# What looks like it, and is right.
ALSO_RIGHT = [
    "import os, wandb\nos.environ['WANDB_RUN_ID'] = 'a'\nwandb.init(resume='allow')\n",
    "import wandb\nwandb.init(resume='allow', settings=wandb.Settings(run_id='a'))\n",
    "import wandb\nrun = wandb.init()\ntrainer.fit(model)\nrun.mark_preempting()\n",
    "import wandb\nrun = wandb.init()\nrun.mark_preempting()\nrun.finish(exit_code=138)\n",
    "import signal, threading, wandb\ndef stop(s, f):\n    threading.Thread(target=lambda: wandb.finish()).start()\nsignal.signal(15, stop)\n",
    "import signal, wandb\ndef save():\n    wandb.log({})\ndef stop(s, f):\n    timer.save()\nsignal.signal(15, stop)\n",
    "import signal, wandb\nfrom other import save\nclass T:\n    def save(self):\n        wandb.log({})\ndef stop(s, f):\n    save()\nsignal.signal(15, stop)\n",
]  # fmt: skip


@pytest.mark.parametrize("text", ALSO_RIGHT)
def test_what_only_looks_like_it_is_let_pass(tmp_path, text):
    assert found_in(tmp_path, text) == []


@pytest.mark.parametrize("section", ["wandb: {}", "sweep: {id: e/p/abc, agents: 2}"])
def test_a_job_beside_it_that_names_the_run_is_an_id(tmp_path, section):
    text = WRONG_AND_RIGHT["resume-without-id"][0]
    (tmp_path / "job.yaml").write_text(f"name: a\n{section}\n")
    assert found_in(tmp_path, text) == []
    (tmp_path / "job.yaml").write_text("name: a\ncommand: [python, train.py]\n")
    assert len(found_in(tmp_path, text)) == 1


UNREADABLE = {"deep": "x = " + "-" * 100_000 + "1\n", "chain": "a" + ".b" * 3000 + "()\n", "nul": "x = '\0'\n"}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_parsed_is_a_finding_and_no_traceback(tmp_path, text):
    assert [found[0] for found in found_in(tmp_path, text)] == ["syntax"]


def test_an_odd_escape_is_the_compilers_business(tmp_path, recwarn):
    assert found_in(tmp_path, "import re\nre.compile('\\d')\nx = 1 is 1\n") == []
    assert not recwarn.list


def test_a_directory_is_searched_and_what_is_no_python_is_a_finding(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/train.py").write_text("def (\n")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/other.py").write_text("def (\n")
    (tmp_path / "job.yaml").write_text("name: a\nname: b\n")
    (tmp_path / "named.py").mkdir()
    os.mkfifo(tmp_path / "pipe.py")
    found = lint([tmp_path])
    assert [(problem.file.rpartition("/")[2], problem.key) for problem in found] == [
        ("train.py", "syntax"),
        ("job.yaml", "name"),
    ]


def test_the_verb_prints_one_line_a_finding_and_ends_with_one(cli, tmp_path):
    (tmp_path / "train.py").write_text(WRONG_AND_RIGHT["resume-without-id"][0])
    done = cli("lint", "train.py")
    assert done.code == 1
    assert done.out.startswith("train.py:2:7: resume-without-id: resume='allow' without id=: ")
    done = cli("lint", "train.py", "--json")
    (finding,) = json.loads(done.out)["findings"]
    assert (finding["rule"], finding["line"], finding["column"]) == ("resume-without-id", 2, 7)
    (tmp_path / "train.py").write_text("print(1)\n")
    assert (cli("lint").code, cli("lint").out) == (0, "")
    assert cli("lint", "absent.py").code == 78
    (tmp_path / "train.ipynb").write_text('{"cells": []}')  # it would even parse, and nothing in it be found
    done = cli("lint", "train.ipynb")
    assert (done.code, "neither Python nor YAML" in done.err) == (78, True)
    assert "mark-after-init: " in cli("lint", "--rules").out


def test_our_own_sources_have_no_finding():
    root = Path(__file__).parents[2]
    assert lint([root / "examples", root / "hpc_resume", root / "benchmarks"]) == []
