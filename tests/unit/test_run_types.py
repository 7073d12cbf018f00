"""What a type checker says to somebody who uses the public API: `run` is supplied, everything else stays typed."""

from __future__ import annotations

import subprocess
import sys
import textwrap

API = """
import hpc_resume

@hpc_resume.resumable
def plain(run: hpc_resume.Run, lr: float, *, deep: bool = False) -> str:
    for step in run.steps(3):
        reveal_type(step)
    reveal_type(run.deadline)
    return "done"

@hpc_resume.resumable(every=100, keep=3)
def with_options(run: hpc_resume.Run, lr: float) -> int:
    return 1

reveal_type(plain(0.1, deep=True))
reveal_type(with_options(0.1))
reveal_type(hpc_resume.__version__)
with hpc_resume.Run("runs/x") as run:
    reveal_type(run)
plain("fast")
with_options()
"""


def test_mypy_sees_the_api_as_it_is(tmp_path):
    (tmp_path / "api.py").write_text(textwrap.dedent(API))
    argv = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "api.py"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False)
    notes = [line.split("note: ")[1] for line in done.stdout.splitlines() if "note: Revealed" in line]
    types = [note.removeprefix("Revealed type is ").strip('"') for note in notes]
    assert types == ["int", "float | None", "str", "int", "str", "hpc_resume.run.training.Run"], done.stdout
    errors = [line.split("error: ")[1] for line in done.stdout.splitlines() if "error: " in line]
    assert len(errors) == 2, done.stdout
    assert 'Argument 1 to "plain" has incompatible type "str"; expected "float"' in errors[0]
    assert 'Too few arguments for "with_options"' in errors[1] or 'Missing positional argument "lr"' in errors[1]
