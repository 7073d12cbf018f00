"""The step boundary as the training sees it, in one process: numbering, order of calls, mistakes."""

from __future__ import annotations

import json
import os
import re
import signal

import pytest

import hpc_resume
from hpc_resume.run.rundir import RunDir


class Count:
    def __init__(self):
        self.done = 0

    def state_dict(self):
        return {"done": self.done}

    def load_state_dict(self, state):
        self.done = state["done"]


@pytest.fixture(autouse=True)
def _bare(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("HPC_RESUME_", "SLURM_", "RANK")):
            monkeypatch.delenv(name)


def saved(run: RunDir, attempt: int = 1) -> list[tuple[int, str]]:
    return [(e.data["step"], e.data["trigger"]) for e in run.attempt(attempt).events() if e.event == "saved"]


def test_two_loops_go_on_from_each_other(tmp_path):
    with hpc_resume.Run(tmp_path / "r", every=4, keep=9) as run:
        assert (run.start_step, run.attempt, run.resumed, run.cause) == (0, 1, False, None)
        assert list(run.steps(3)) == [0, 1, 2]
        assert list(run.steps(3)) == []
        assert list(run.steps(5)) == [3, 4]
    assert saved(RunDir(tmp_path / "r")) == [(3, "end"), (4, "steps"), (5, "end")]


def test_time_makes_a_save_due(tmp_path):
    with hpc_resume.Run(tmp_path / "r", every="0.01s") as run:
        for _ in run.steps(10**9):
            if saved(RunDir(tmp_path / "r")):
                break
    assert saved(RunDir(tmp_path / "r"))[0][1] == "time"


def test_a_signal_during_a_periodic_save_waits_for_it_and_saves_nothing_more(tmp_path):
    class Signalling(Count):
        def state_dict(self):
            if self.done == 2:
                os.kill(os.getpid(), signal.SIGUSR1)
            return super().state_dict()

    @hpc_resume.resumable(run_dir=tmp_path / "r", every=2)
    def train(run):
        count = Signalling()
        run.register(count=count)
        for _ in run.steps(10):
            count.done += 1

    with pytest.raises(hpc_resume.Stopped) as stopped:
        train()
    assert (stopped.value.code, stopped.value.step) == (138, 2)
    assert saved(RunDir(tmp_path / "r")) == [(2, "steps")]
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_old_checkpoints_go_and_the_ones_asked_for_stay(tmp_path):
    with hpc_resume.Run(tmp_path / "r", every=1, keep=3) as run:
        list(run.steps(10))
    names = sorted(path.name for path in (tmp_path / "r" / "checkpoints").iterdir())
    assert names == ["step-00000008", "step-00000009", "step-00000010"]
    assert (tmp_path / "r" / "latest").read_text() == "step-00000010\n"


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda run: run.register(count=7), "builtins.int has no state_dict and no load_state_dict"),
        (lambda run: run.register(**{"a/b": Count()}), "'a/b': it names files"),
        (lambda run: run.register(manifest=Count()), "'manifest'"),
        (lambda run: run.register_io(save=None, load=print), "save= is a NoneType"),
        (lambda run: [run.register(a=Count()), run.register(a=Count())], "'a' is registered twice"),
        (lambda run: [next(run.steps(2)), run.register(a=Count())], "after the first step"),
        (lambda run: [run.checkpoint_point(3), run.checkpoint_point(2)], r"checkpoint_point\(2\) after 3 completed"),
        (lambda run: [(s, run.checkpoint_point(s + 2)) for s in run.steps(3)], "pass 0 before .* or 1 after it"),
        (lambda _: hpc_resume.Run().__enter__(), "a run is open in this process already"),
    ],
)
def test_a_mistake_is_told_with_the_line_and_ends_with_78(tmp_path, capsys, use, words):
    with pytest.raises(SystemExit) as left, hpc_resume.Run(tmp_path / "r") as run:
        use(run)
    assert left.value.code == 78
    message = capsys.readouterr().err
    assert re.search(words, message), message


def test_a_state_that_needs_pickle_is_an_error_at_registration_and_names_the_place(tmp_path, capsys):
    class Odd(Count):
        def state_dict(self):
            return {"good": 1, "rows": [1, (2, object())]}

    with pytest.raises(SystemExit) as left, hpc_resume.Run(tmp_path / "r") as run:
        run.register(odd=Odd())
    assert left.value.code == 78
    assert "state['rows'][1][1] is a builtins.object" in capsys.readouterr().err
    assert not (tmp_path / "r" / "checkpoints").exists()


def test_the_functions_value_comes_back_and_arguments_go_through(tmp_path):
    @hpc_resume.resumable(run_dir=tmp_path / "r")
    def train(run, a, *, b=2):
        return [a, b, *run.steps(2)]

    assert train(1, b=3) == [1, 3, 0, 1]
    with pytest.raises(hpc_resume.AlreadyFinished) as finished:
        train(1)
    assert finished.value.code == 0


def test_metrics_carry_the_index_of_the_turn(tmp_path):
    with hpc_resume.Run(tmp_path / "r") as run:
        for step in run.steps(2):
            run.log({"loss": 0.5 + step})
        run.log({"accuracy": float("nan")})
        run.log({"late": True}, step=1)
    lines = RunDir(tmp_path / "r").attempt(1).metrics_file.read_text().splitlines()
    metrics = [{k: v for k, v in json.loads(line).items() if k != "t"} for line in lines]
    assert metrics == [
        {"step": 0, "loss": 0.5},
        {"step": 1, "loss": 1.5},
        {"step": 2, "accuracy": "nan"},
        {"step": 1, "late": True},
    ]


def test_handlers_are_as_before_after_a_run_without_warning(tmp_path):
    before = [signal.getsignal(signum) for signum in (signal.SIGUSR1, signal.SIGTERM)]
    with hpc_resume.Run(tmp_path / "r"):
        assert [signal.getsignal(signum) for signum in (signal.SIGUSR1, signal.SIGTERM)] != before
    assert [signal.getsignal(signum) for signum in (signal.SIGUSR1, signal.SIGTERM)] == before


def test_a_file_pair_is_restored_and_links_are_refused(tmp_path, capsys):
    held = {}

    def save(directory):
        (directory / "deep").mkdir()
        (directory / "deep" / "x").write_text("seven")

    def load(directory):
        held["x"] = (directory / "deep" / "x").read_text()

    @hpc_resume.resumable(run_dir=tmp_path / "r")
    def train(run, total, save):
        run.register_io(save=save, load=load)
        list(run.steps(total))
        raise ValueError("crash")

    for total in (1, 2):
        with pytest.raises(ValueError, match="crash"):
            train(total, save)
    assert held == {"x": "seven"}
    with pytest.raises(SystemExit):
        train(3, lambda directory: (directory / "link").symlink_to("/etc/passwd"))
    assert "a checkpoint holds plain files only" in capsys.readouterr().err
