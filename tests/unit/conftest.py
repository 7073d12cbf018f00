"""`cli`: the command line as a person runs it, in a process and a directory of its own."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

VALID = "name: a\ncommand: [python, train.py]\nslurm:\n  time: 10:00\n"


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def cli(tmp_path: Path) -> Callable[..., Done]:
    """`cli("render", "job.yaml")` in a directory that holds a valid job.yaml."""
    (tmp_path / "job.yaml").write_text(VALID)

    def run(
        *words: str, stdin: str = "", env: dict[str, str] | None = None, address_space: int = 0, cwd: Path = tmp_path
    ) -> Done:
        """`address_space`: how many MiB it may have at most; 0: all there is."""

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_AS, (address_space << 20,) * 2)

        done = subprocess.run(
            [sys.executable, "-m", "hpc_resume", *words],
            cwd=cwd,
            input=stdin,
            capture_output=True,
            text=True,
            env={**os.environ, "COLUMNS": "100", **(env or {})},
            check=False,
            preexec_fn=limit if address_space else None,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    return run
