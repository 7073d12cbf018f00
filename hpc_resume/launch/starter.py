"""The starter job.yaml: valid as it stands, every key shown, what is commented out being the default."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from hpc_resume.errors import CommandLineError
from hpc_resume.launch.spec import is_name
from hpc_resume.launch.templates import STARTER, read_template

MODE: Final = 0o644
_PLACEHOLDER: Final = "my-job"


def text(name: str) -> str:
    """The starter for a job called `name`. Raises CommandLineError for a text that cannot be a name."""
    if not is_name(name):
        raise CommandLineError(
            f"--name {name}: letters, digits, '.', '_' and '-', at most 64, a letter or a digit first"
        )
    quoted = name if re.search(r"[A-Za-z]", name) else f'"{name}"'
    return read_template(STARTER).replace(f"name: {_PLACEHOLDER}", f"name: {quoted}", 1)


def name_for(file: Path) -> str:
    """The name of the directory in which `file` will be, made to fit; `my-job` when nothing of it fits."""
    fitting = re.sub(r"[^A-Za-z0-9._-]+", "-", file.absolute().parent.name).lstrip("._-")[:64]
    return fitting or _PLACEHOLDER
