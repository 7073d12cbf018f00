"""The directory and job.yaml of one cell, and which launchers this machine has."""

from __future__ import annotations

import importlib.util
import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from survival_cells import EVERY, Cell

TRAINING = Path(__file__).with_name("survival_training.py")
# As `conda run`, which lives as long as its child and passes nothing on; it does not even die.
WRAPPER = '#!/bin/bash\ntrap : USR1 TERM\n"$@"\nexit "$?"\n'
# The nodes' names, which torchrun takes for addresses, are the cluster's own invention.
TORCHRUN = (
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--local-addr=127.0.0.1",
    "--nproc-per-node=1",
)
UV = Path(sys.executable).with_name("uv")


def missing(launcher: str) -> str:
    """What this machine lacks for a launcher; empty when it has all."""
    if launcher == "uv" and not (UV.exists() or shutil.which("uv")):
        return "uv is not installed"
    if launcher == "torchrun" and importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed"
    return ""


def command(launcher: str, phase: str) -> list[str]:
    """The words under `command`."""
    words = [sys.executable, "train.py", phase]
    uv = str(UV if UV.exists() else "uv")
    return {
        "direct": words,
        "srun": words,
        # With a second command the shell does not replace itself by the first one.
        "sh": ["sh", "-c", f"{shlex.join(words)}; exit $?"],
        "uv": [uv, "run", "--no-project", "--offline", "--quiet", "--python", *words[:1], "python", *words[1:]],
        "conda": ["./conda-like", *words],
        "torchrun": [*TORCHRUN, *words[1:]],
    }[launcher]


def write(cell: Cell, directory: Path) -> None:
    """Everything that a user of this cell would have in a directory; JSON is YAML."""
    directory.mkdir(parents=True)
    shutil.copy(TRAINING, directory / "train.py")
    wrapper = directory / "conda-like"
    wrapper.write_text(WRAPPER)
    wrapper.chmod(0o755)
    slurm: dict[str, Any] = {"partition": "low", "time": "15:00", "exclusive": True}
    if cell.interruption == "preempted, grace":
        slurm["partition"] = "patient"
    if cell.interruption == "time limit":
        slurm["time"] = "2" if cell.launcher == "torchrun" else "1"  # PyTorch alone takes some of it
    spec = {
        "name": "cell",
        "command": command(cell.launcher, cell.phase),
        "slurm": slurm,
        "launcher": "srun" if cell.launcher == "srun" else "direct",
        "env": {"OMP_NUM_THREADS": "1"},
        # Slurm looks every 30 s: of a minute the warning comes after 10 to 40 s, when every cell is in its phase.
        "preemption": {"lead": "20s"},
        "requeue": {"max": {"crash": 2}},
        "checkpoint": {"every": EVERY},
    }
    (directory / "job.yaml").write_text(json.dumps(spec))
