"""What a start costs: `import hpc_resume` over bare Python, and `hpc-resume render` as a whole process."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import Figure


def seconds(argv: list[str], cwd: Path) -> float:
    """Wall clock of one process."""
    began = time.perf_counter()
    subprocess.run(argv, cwd=cwd, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def figures(trials: int = 15) -> list[Figure]:
    """Each in turn with its baseline, after one warm-up."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "job.yaml").write_text("name: bench\ncommand: [python, train.py]\nslurm: {time: 1:00:00}\n")
        bare = [sys.executable, "-c", "pass"]
        ours = [sys.executable, "-c", "import hpc_resume"]
        render = [str(Path(sys.executable).with_name("hpc-resume")), "render"]
        yaml = [sys.executable, "-c", "import pydantic, yaml, jinja2"]
        columns: list[list[float]] = [[], [], [], []]
        for trial in range(trials + 1):
            for argv, column in zip((bare, ours, render, yaml), columns, strict=True):
                value = seconds(argv, directory) * 1000
                if trial:
                    column.append(value)
    return [
        Figure("python -c 'import hpc_resume'", "ms", columns[1], "bare python", columns[0], "at most 30 ms more"),
        Figure("hpc-resume render", "ms", columns[2], "importing pydantic, yaml, jinja2", columns[3], "< 200 ms"),
    ]
