"""What `pip install` of this tree registers for submitit, for a tree that is only on PYTHONPATH."""

from __future__ import annotations

import os
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

ROOT = Path(__file__).parents[2]
GROUP = "submitit"


def registered(directory: Path) -> dict[str, str]:
    """The PYTHONPATH with which a child process finds our plugin: an editable install may be older than this tree."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][GROUP]
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    if {(entry.name, entry.value) for entry in entry_points(group=GROUP)} < set(declared.items()):
        info = directory / "hpc_resume_plugin-0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hpc-resume-plugin\nVersion: 0\n")
        lines = (f"{name} = {value}" for name, value in declared.items())
        (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines, ""]))
        paths.append(str(directory))
    return {"PYTHONPATH": os.pathsep.join(paths)}
