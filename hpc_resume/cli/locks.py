"""`hpc-resume locks`: can two nodes trust this directory, and who has which run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The run_dir of job.yaml.")] = Path("runs"),
    *,
    break_run: Annotated[str, typer.Option("--break", metavar="RUN", help="Take the run from whoever has it.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Try out the locks and renames of a directory, and list the leases of its runs.

    Under srun with several tasks, they try it out together: no number may be given to two of them, and what one node
    writes must be seen by the others. The exit code is 78 for a directory that another node cannot use:
    a disk or memory of this machine alone, or one whose locks and renames cannot be trusted.

    \b
    Examples:
      hpc-resume locks
      srun -N2 --ntasks-per-node=1 hpc-resume locks /scratch/me/runs
      hpc-resume locks --break resnet-12       its owner ends at its next look
    """  # noqa: D301 - click reads the \b: keep these lines
    from hpc_resume.cli import console  # noqa: PLC0415 - a verb pays only for what it uses
    from hpc_resume.observe import locks  # noqa: PLC0415

    if break_run:
        run = locks.find(directory, break_run)
        owner = locks.owner_of(run)
        if not yes and not typer.confirm(
            f"Take {run.key} from {owner}? If that lives, its work since the last save is lost", err=True
        ):
            raise typer.Exit(1)
        generation = locks.take_away(run)
        console.say(f"{run.key} is free (generation {generation}): {owner} ends at its next look")
        return
    report = locks.look(directory)
    if report is None:
        return  # one of several tasks; the first one tells
    if as_json:
        console.answer_json(report.record())
    else:
        console.answer(report.text())
    raise typer.Exit(report.exit_code)
