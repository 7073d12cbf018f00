"""`hpc-resume init`: a commented starter job.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")] = Path("job.yaml"),
    *,
    name: Annotated[str, typer.Option(help="Name of the job; the directory's when left out.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented starter job.yaml.

    \b
    Examples:
      hpc-resume init
      hpc-resume init experiments/big.yaml --name big
    """  # noqa: D301 - click reads the \b: keep these lines
    import shlex  # noqa: PLC0415 - a verb pays only for what it uses

    from hpc_resume.cli import console  # noqa: PLC0415
    from hpc_resume.errors import CommandLineError  # noqa: PLC0415
    from hpc_resume.launch import starter  # noqa: PLC0415
    from hpc_resume.launch.script_file import write_whole  # noqa: PLC0415

    text = starter.text(name or starter.name_for(file))
    try:
        write_whole(file, text, starter.MODE, replace=force)
    except FileExistsError:
        raise CommandLineError(f"{file}: is there already; --force replaces it") from None
    console.say(f"wrote {file}; edit it, then `hpc-resume check {shlex.quote(str(file))}`")
