"""Names every template that the package carries; nobody else builds a path to one."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Final

SCRIPT_TEMPLATE: Final = "sbatch.sh.j2"
STARTER: Final = "starter.yaml"

# The runtime, in the order in which a script carries it. It is read as text and never rendered: bash's `${#array[@]}`
# holds Jinja's comment opener.
RUNTIME_FILES: Final = (
    "records.sh",
    "rundir.sh",
    "deliver.sh",
    "sentinel.sh",
    "ranks.sh",
    "child.sh",
    "orphans.sh",
    "cause.sh",
    "decide.sh",
    "requeue.sh",
    "runtime.sh",
)


@cache
def read_template(name: str) -> str:
    """The text of one template."""
    return (files("hpc_resume") / "templates" / name).read_text(encoding="utf-8")


def read_runtime() -> str:
    """The static bash that every rendered script carries."""
    return "\n".join(read_template(name) for name in RUNTIME_FILES)
