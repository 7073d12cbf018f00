"""`hpc-resume lint`: what in a training or a job.yaml will go wrong at the first interruption."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    paths: Annotated[list[Path] | None, typer.Argument(metavar="[PATH]...", help="Files or directories.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    show_rules: Annotated[bool, typer.Option("--rules", help="List the rules.")] = False,
) -> None:
    """Find what will go wrong at the first interruption, in Python sources and job.yaml files.

    Each finding is a line `file:line:column: rule: what happens; what to do`. Without a PATH, the present directory.
    The exit code is 0 when there is none, 1 when there are some.

    \b
    Examples:
      hpc-resume lint
      hpc-resume lint train.py job.yaml --json
    """  # noqa: D301 - click reads the \b: keep these lines
    from hpc_resume.cli import console  # noqa: PLC0415 - a verb pays only for what it uses
    from hpc_resume.launch import lint  # noqa: PLC0415

    if show_rules:
        if as_json:
            console.answer_json({"rules": lint.rules()})
        else:
            console.answer("".join(f"{name}: {about}\n" for name, about in lint.rules().items()))
        return
    found = lint.lint(paths or [Path()])
    if as_json:
        places = ("file", "line", "column")
        console.answer_json(
            {"findings": [{p: getattr(f, p) for p in places} | {"rule": f.key, "message": f.message} for f in found]}
        )
    else:
        console.answer("".join(f"{problem}\n" for problem in found))
    if found:
        raise typer.Exit(1)
