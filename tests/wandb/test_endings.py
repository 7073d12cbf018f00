"""However a training ends, W&B is told the truth: also where wandb itself would send 0 for a crash, or 1 for an end.

Each case is the body of `with hpc_resume.Run() as run:`; `steps()` is its loop, which warns itself where told.
"""

from __future__ import annotations

import textwrap

import pytest
from loopback_runs import state_at_end
from trainings import managed
from wandb_log import only_log

HEAD = """
import json, os, signal, sys
from sys import exit as bound_before
import hpc_resume
if os.environ.get("THEIRS"):
    import wandb

class State:
    def state_dict(self): return {}
    def load_state_dict(self, state): pass

with hpc_resume.Run() as run:
    run.register(state=State())

    def warn():
        os.kill(os.getpid(), signal.SIGUSR1)

    def steps(warn_at=None):
        for step in run.steps(6):
            run.log({"loss": float(step)})
            if step == warn_at:
                warn()
            yield step

"""

CANCEL = (
    """(run.directory / 'attempts/0001/control.json').write_text('{"version": 1, "request": "cancel", "t": 1.0}')"""
)

# name -> (body, exit code, state, the code that W&B has)
ENDS = {
    "returns": ("w = wandb.init()\nfor _ in steps(): w.log({'a': 1})", 0, "finished", 0),
    "raises": ("wandb.init()\nfor _ in steps(): raise RuntimeError", 1, "failed", 1),
    "sys-exit": ("wandb.init()\nfor _ in steps(): sys.exit(3)", 3, "failed", 3),
    "raises-system-exit": ("wandb.init()\nfor _ in steps(): raise SystemExit(3)", 3, "failed", 3),
    "builtin-exit": ("wandb.init()\nfor _ in steps(): exit(3)", 3, "failed", 3),
    "exit-bound-before": ("wandb.init()\nfor _ in steps(): bound_before(3)", 3, "failed", 3),
    "exits-well": ("wandb.init()\nfor _ in steps(): pass\nsys.exit(0)", 0, "finished", 0),
    "with-exits-well": ("with wandb.init():\n    for _ in steps(): pass\n    sys.exit(0)", 0, "finished", 0),
    "with-exits": ("with wandb.init():\n    for _ in steps(): sys.exit(4)", 4, "failed", 4),
    "with-raises": ("with wandb.init():\n    for _ in steps(): raise RuntimeError", 1, "failed", 1),
    "finally-finish": (
        "wandb.init()\ntry:\n    for _ in steps(): raise RuntimeError\nfinally:\n    wandb.finish()",
        1,
        "failed",
        1,
    ),
    "raises-before-the-first-step": (
        "wandb.init()\ntry:\n    raise RuntimeError\nfinally:\n    wandb.finish()",
        1,
        "failed",
        1,
    ),
    "finish-then-exit": ("w = wandb.init()\nfor _ in steps(): pass\nw.finish()\nraise SystemExit(5)", 5, "failed", 5),
    "finish-then-returns": ("wandb.init()\nfor _ in steps(): pass\nwandb.finish()", 0, "finished", 0),
    "finish-while-handled": (
        "wandb.init()\ntry:\n    raise ValueError\nexcept ValueError:\n    wandb.finish()\nfor _ in steps(): pass",
        0,
        "finished",
        0,
    ),
    "own-code-stays": ("w = wandb.init()\nfor _ in steps(): pass\nw.finish(exit_code=9)", 0, "failed", 9),
    "interrupted": ("wandb.init()\nfor _ in steps(): raise KeyboardInterrupt", -2, "killed", 255),
    "warned": ("wandb.init()\nfor _ in steps(3): pass", 138, "preempted", 138),
    "warned-in-with": ("with wandb.init():\n    for _ in steps(3): pass", 138, "preempted", 138),
    "warned-finally-finish": (
        "wandb.init()\ntry:\n    for _ in steps(3): pass\nfinally:\n    wandb.finish()",
        138,
        "preempted",
        138,
    ),
    "warned-after-finish": ("wandb.init()\nwandb.finish()\nfor _ in steps(3): pass", 138, "preempted", 138),
    "warned-and-swallowed": (
        "wandb.init()\ntry:\n    for _ in steps(3): pass\nexcept SystemExit:\n    pass\nwandb.finish()",
        138,
        "preempted",
        138,
    ),
    "cancelled": (f"wandb.init()\nfor step in steps(3):\n    if step == 2:\n        {CANCEL}", 138, "failed", 138),
}
OURS = ("returns", "raises", "raises-system-exit", "exits-well", "interrupted", "warned", "cancelled")
LATE = ("raises-before-the-first-step", "finally-finish", "finish-then-exit", "with-exits", "warned", "returns")
TOGETHER = 3  # clients at a time


def body_of(name, *, theirs):
    body = ENDS[name][0]
    return (
        body
        if theirs
        else "\n".join(
            line.replace("w = ", "").replace("wandb.init()", "pass").replace("w.log({'a': 1})", "pass")
            for line in body.splitlines()
        )
    )


def at_server(server, name, home):
    seen = server.run(name)
    assert seen is not None
    return seen.state, seen.exit_code


def in_log(server, name, home):
    """What the server would make of the .wandb file."""
    seen = only_log(home)
    assert seen.run_id == name
    assert seen.exit_code is not None
    return state_at_end(seen.exit_code, preempting=seen.preempting), seen.exit_code


def play(server, train, names, look=at_server, *, theirs, first="", **mode):
    """Each in a process of its own, some at a time; (exit code, state, code at W&B) of each."""
    found, waiting = {}, list(names)
    while waiting:
        started = []
        for name in waiting[:TOGETHER]:
            more = {"THEIRS": "" if first else "1"} if theirs else {"HPC_RESUME_WANDB": managed()}
            source = HEAD + textwrap.indent(first + body_of(name, theirs=theirs), "    ")
            place = {"home": name, "HPC_RESUME_RUN_DIR": "run", "WANDB_RUN_ID": name}
            started.append((name, train(source=source, **place, **more, **mode)))
        del waiting[:TOGETHER]
        for name, training in started:
            code = training.code()
            found[name] = (code, *look(server, name, training.log.parent), training.output)
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", range(4))
def test_the_training_calls_wandb_itself(server, train, part):
    names = sorted(ENDS)[part::4]
    for name, (*seen, output) in play(server, train, names, theirs=True).items():
        assert tuple(seen) == ENDS[name][1:], f"{name}: {output}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", ["import wandb\n", "import wandb.sdk\nfrom wandb import init\n"])
def test_the_training_imports_wandb_when_its_run_is_open(server, train, first):
    for name, (*seen, output) in play(server, train, LATE, theirs=True, first=first).items():
        assert tuple(seen) == ENDS[name][1:], f"{name}: {output}"


@pytest.mark.timeout(300)
def test_the_run_is_ours(server, train):
    for name, (*seen, output) in play(server, train, OURS, theirs=False).items():
        assert tuple(seen) == ENDS[name][1:], f"{name}: {output}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("theirs", [True, False], ids=["theirs", "ours"])
def test_offline_the_log_says_the_same(server, train, theirs):
    for name, (*seen, output) in play(server, train, OURS, in_log, theirs=theirs, WANDB_MODE="offline").items():
        assert tuple(seen) == ENDS[name][1:], f"{name}: {output}"
    assert server.runs() == []
