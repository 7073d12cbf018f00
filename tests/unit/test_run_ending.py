"""What leaves a training, and what that says to the batch shell and to the next attempt."""

from __future__ import annotations

import contextlib
import signal

import pytest

from hpc_resume.errors import UsageError
from hpc_resume.run.ending import AlreadyFinished, Ending, Stopped, describe, judge, place_of


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (None, Ending("finished", 0)),
        (SystemExit(), Ending("finished", 0)),
        (SystemExit(0), Ending("finished", 0)),
        (SystemExit(3), Ending("crashed", 3, error="sys.exit(3)")),
        (SystemExit("no data"), Ending("crashed", 1, error="sys.exit(1)")),
        (Stopped(signal.SIGUSR1, 7), Ending("stopped", 138, "USR1")),
        (Stopped(signal.SIGTERM, 7), Ending("stopped", 143, "TERM")),
        (KeyboardInterrupt(), Ending("stopped", 130, "INT")),
        (ValueError("bad\nworse"), Ending("crashed", 1, error="ValueError: bad")),
        (UsageError("twice"), Ending("crashed", 78, error="UsageError: twice")),
    ],
)
def test_the_judgement_of_each_way_out(error, ending):
    assert judge(error, {}) == ending


def test_what_is_recorded_is_bounded_and_keeps_no_secret():
    variables = {"WANDB_API_KEY": "abcdef0123456789", "MY_TOKEN": "short", "HOME": "/home/me"}
    text = describe(RuntimeError("401 for abcdef0123456789 in /home/me, short " + "x" * 1000), variables)
    assert text.startswith("RuntimeError: 401 for *** in /home/me, short x")
    assert len(text) == 300


def test_the_two_exits_are_exits_and_not_exceptions_that_a_training_would_catch():
    assert not isinstance(Stopped(10, 1), Exception)
    assert Stopped(10, 1).code == 138
    assert AlreadyFinished().code == 0


def test_the_place_of_an_error_is_the_users_line_and_not_the_librarys_that_it_came_through():
    """A full disk in `run.steps()` was said to be at contextlib.py:158."""

    with pytest.raises(TypeError) as caught:
        contextlib.ExitStack().enter_context(None)  # raises two lines of contextlib.py further down
    assert caught.traceback[-1].path.name == "contextlib.py"
    line = (
        test_the_place_of_an_error_is_the_users_line_and_not_the_librarys_that_it_came_through.__code__.co_firstlineno
    )
    assert place_of(caught.value) == f"{__file__}:{line + 4}: "
