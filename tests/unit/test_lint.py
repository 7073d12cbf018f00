"""Each rule finds its mistake at its place and lets the right way pass; what the verb prints, and its exit codes."""

from __future__ import annotations

import json
import textwrap

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


def test_a_directory_is_searched_and_what_is_no_python_is_a_finding(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/train.py").write_text("def (\n")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/other.py").write_text("def (\n")
    (tmp_path / "job.yaml").write_text("name: a\nname: b\n")
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
    assert "mark-after-init: " in cli("lint", "--rules").out


def test_our_own_examples_have_no_finding():
    from pathlib import Path

    examples = Path(__file__).parents[2] / "examples"
    assert lint([examples]) == []
