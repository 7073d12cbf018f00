"""`hpc-resume status`: what became of runs, here and in Slurm."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TARGET]...", help="A job.yaml, a run or a directory of runs, a run's key, a job id."),
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Show runs: their state, attempts, published step, why the last attempt ended, what happens next.

    Without a TARGET the runs of ./job.yaml, else those in ./runs. Runs of every scheduler, and of a plain
    `python train.py`, are shown.

    \b
    Examples:
      hpc-resume status
      hpc-resume status runs/resnet-12 --json
      hpc-resume status 12_3
    """  # noqa: D301 - click reads the \b: keep these lines
    import sys  # noqa: PLC0415 - a verb pays only for what it uses
    import time  # noqa: PLC0415
    from dataclasses import asdict  # noqa: PLC0415

    from hpc_resume.cli import console  # noqa: PLC0415
    from hpc_resume.observe import table  # noqa: PLC0415
    from hpc_resume.observe.survey import survey  # noqa: PLC0415

    found = survey(targets or [])
    for note in found.notes:
        console.say(f"note: {note}")
    if as_json:
        console.answer_json({"runs": [asdict(row) for row in found.rows], "notes": list(found.notes)})
    elif sys.stdout is not None and sys.stdout.isatty():
        table.show(found.rows, time.time())
    else:
        console.answer(table.plain(found.rows, time.time()))
