"""What `import hpc_resume` brings along, and what the public names are."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import pytest

import hpc_resume
from hpc_resume.errors import UsageError

LOADED = """
import json, sys
before = set(sys.modules)
import hpc_resume
if {use}:
    hpc_resume.Run, hpc_resume.resumable, hpc_resume.Stopped
known = sys.stdlib_module_names
print(json.dumps(sorted(n for n in set(sys.modules) - before if n.split(".")[0] not in known)))
"""


@pytest.mark.parametrize("use", [False, True])
def test_no_third_party_module_is_loaded(use):
    argv = [sys.executable, "-c", LOADED.format(use=use)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    loaded = json.loads(done.stdout)
    assert [name for name in loaded if name.split(".")[0] != "hpc_resume"] == []
    assert ("hpc_resume.run.training" in loaded) is use
    if not use:
        assert loaded == ["hpc_resume"]


def test_every_public_name_is_there():
    assert all(getattr(hpc_resume, name) is not None for name in hpc_resume.__all__)
    assert set(hpc_resume.__all__) <= set(dir(hpc_resume))
    with pytest.raises(AttributeError, match="no attribute 'resumible'"):
        _ = hpc_resume.resumible


def test_the_decorated_function_shows_its_own_parameters_without_run():
    @hpc_resume.resumable(every=100)
    def train(run: hpc_resume.Run, lr: float = 1e-3, *, deep: bool = False) -> int:
        """Train."""

    assert str(inspect.signature(train)) == "(lr: 'float' = 0.001, *, deep: 'bool' = False) -> 'int'"
    assert (train.__name__, train.__doc__) == ("train", "Train.")


def test_a_coroutine_or_generator_would_pass_for_finished_and_is_refused():
    async def later(run):
        pass

    def some(run):
        yield

    for function in (later, some):
        with pytest.raises(UsageError, match="plain function"):
            hpc_resume.resumable(function)


def test_a_run_that_is_not_open_says_how_to_open_it():
    run = hpc_resume.Run()
    assert run.should_stop() is False
    for use in (
        lambda: run.directory,
        lambda: next(run.steps(3)),
        lambda: run.checkpoint_point(1),
        lambda: run.log({}),
    ):
        with pytest.raises(UsageError, match="inside `with"):
            use()
