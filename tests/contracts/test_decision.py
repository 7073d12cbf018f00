"""The decision as bash takes it and as `hpc-resume explain` tells it: one table, one count, over every combination."""

from __future__ import annotations

import itertools
import json
import random
import shlex
import subprocess
from pathlib import Path

import pytest

from hpc_resume.contract import CAUSES, DECISIONS
from hpc_resume.launch.templates import RUNTIME_FILES, read_runtime, read_template
from hpc_resume.observe import budgets, decision
from hpc_resume.run.records import Fields, Limits, parse_limits

EVERYTHING = [
    decision.Circumstances(cause, *flags) for cause in CAUSES for flags in itertools.product((True, False), repeat=5)
]


def bash(script: str, cwd: Path) -> list[str]:
    """The lines that the runtime's functions print, in one process."""
    assert "decide.sh" in RUNTIME_FILES
    done = subprocess.run(
        ["bash", "-c", f"{read_runtime()}\n{script}"], cwd=cwd, capture_output=True, text=True, check=True, timeout=90
    )
    return done.stdout.splitlines()


def test_every_combination_of_facts_is_decided_alike(tmp_path: Path) -> None:
    asked = "\n".join(" ".join(one.columns()) for one in EVERYTHING)
    script = (
        f"""while read -r facts; do hr::look_up "$facts"; echo "$HR_DECISION $HR_REASON"; done <<'END'\n{asked}\nEND"""
    )
    answers = [f"{(rule := decision.decide(one)).decision} {rule.reason}" for one in EVERYTHING]
    assert bash(script, tmp_path) == answers
    assert {answer.split()[0] for answer in answers} == set(DECISIONS)


def test_every_line_of_the_table_is_read_and_can_be_reached() -> None:
    quoted = [line for line in read_template("decide.sh").splitlines() if line.startswith("  '")]
    assert len(decision.rules()) == len(quoted) > 5
    assert {decision.decide(one) for one in EVERYTHING} == set(decision.rules())


def _history(seed: int) -> list[dict[str, object]]:
    draw = random.Random(seed)
    step, found = None, []
    for _ in range(draw.randint(1, 7)):
        before = step
        if draw.random() < 0.5:
            step = (step or 0) + draw.choice([0, 10])
        seconds = draw.choice([3, 59, 60, 119, 120, 500])
        cause = draw.choice(CAUSES[1:])
        found.append(
            {"cause": cause, "step_before": before, "step_after": step, "started": 1000, "ended": 1000 + seconds}
        )
    return found


@pytest.mark.parametrize("requeued", [False, True])
def test_counts_and_facts_of_random_histories_are_alike(tmp_path: Path, requeued: bool) -> None:
    script, expected = [], []
    for seed in range(40):
        history = _history(seed)
        most = {
            "timeout": seed % 3 - 1,
            "preempted": seed % 2,
            "crash": seed % 4,
            "no_progress": seed % 4 - 1,
            "total": 4,
        }
        named = ["preempted", "timeout", "node_fail"][: seed % 4]
        directory = tmp_path / f"run-{seed}"
        for number, record in enumerate(history[:-1], 1):
            (directory / f"attempts/{number:04d}").mkdir(parents=True)
            (directory / f"attempts/{number:04d}/exit.json").write_text(json.dumps({"version": 1} | record))
        last = history[-1]
        variables = {f"HR_MAX_{name.upper()}": value for name, value in most.items()} | {
            "HR_DIRECTORY": directory,
            "HR_LEAD": 120,
            "HR_CAUSE": last["cause"],
            "HR_STARTED": last["started"],
            "HR_ENDED": last["ended"],
            "HR_STEP_BEFORE": "" if last["step_before"] is None else last["step_before"],
            "HR_STEP_AFTER": "" if last["step_after"] is None else last["step_after"],
            "HR_ATTEMPT": len(history),
            "HR_SLURM_REQUEUED": int(requeued),
        }
        script += [f"{name}={shlex.quote(str(value))}" for name, value in variables.items()]
        script += [f"HR_REQUEUE_ON=({' '.join(named)})", "hr::count_attempts; hr::decide"]
        script += ['echo "$HR_FACTS|$HR_DECISION|$HR_COUNT_NO_PROGRESS"']
        past = [one for record in history if (one := budgets.past(Fields(record))) is not None]
        limits = Limits(120, tuple(named), most)
        facts = budgets.circumstances(past, len(history), requeued=requeued, limits=limits)
        counted = {budget.name: budget.used for budget in budgets.budgets(past, len(history), limits)}
        expected.append(f"{' '.join(facts.columns())}|{decision.decide(facts).decision}|{counted['no_progress']}")
    assert bash("\n".join(script), tmp_path) == expected
    assert len(set(expected)) > 15


def test_what_an_attempt_records_of_its_budgets_is_read_back(tmp_path: Path) -> None:
    values = "HR_MAX_TIMEOUT=-1 HR_MAX_PREEMPTED=3 HR_MAX_CRASH=0"
    line = bash(f'{values} HR_MAX_NO_PROGRESS=2 HR_MAX_TOTAL=9; hr::limits; echo "$REPLY"', tmp_path)[0]
    limits = parse_limits(Fields({"lead": 30, "requeue_on": "timeout preempted", "max": json.loads(line)}))
    most = {"timeout": -1, "preempted": 3, "crash": 0, "no_progress": 2, "total": 9}
    assert limits == Limits(30, ("timeout", "preempted"), most)


def test_the_printed_table_has_every_row_and_column() -> None:
    text = decision.printed()
    for rule in decision.rules():
        assert rule.reason in text
    for column in (*decision.COLUMNS, "decision", "reason"):
        assert text.split("\n", 1)[0].count(column) == 1
