"""`hpc-resume checkpoints`: what of a run is safe on disk."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    run: Annotated[str, typer.Argument(metavar="[RUN]", help="A run's key or directory, a job.yaml, a job id.")] = "",
    *,
    verify: Annotated[bool, typer.Option("--verify", help="Read every byte and check it.")] = False,
    prune: Annotated[
        int | None,
        typer.Option(
            metavar="KEEP", help="Remove all but the newest KEEP that verify, also those of keep_every; at least 2."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """List the checkpoints of a run: step, age, size, and whether they can be loaded.

    --prune also removes broken ones, and touches nothing while the run is at work. With --verify the exit code is 1
    when one is broken.

    \b
    Examples:
      hpc-resume checkpoints
      hpc-resume checkpoints runs/resnet-12 --verify
      hpc-resume checkpoints resnet-12 --prune 2
    """  # noqa: D301 - click reads the \b: keep these lines
    import sys  # noqa: PLC0415 - a verb pays only for what it uses

    from hpc_resume.cli import console  # noqa: PLC0415
    from hpc_resume.observe import checkpoints, shelf  # noqa: PLC0415
    from hpc_resume.observe.targets import select_one  # noqa: PLC0415

    found = select_one(run)
    show = console.say if sys.stderr is not None and sys.stderr.isatty() else None
    removed: tuple[checkpoints.Row, ...] = ()
    if prune is None:
        rows = checkpoints.listing(found, verify=verify, show=show)
    else:
        rows, removed = checkpoints.prune(found, prune, show)
        if not removed:
            console.say(f"{found.key}: nothing was removed; {shelf.why_nothing(rows, prune)}")
    if as_json:
        console.answer_json(shelf.as_record(found, rows, removed))
    else:
        console.answer(shelf.in_words(found, rows, removed))
    if verify and any(row.reason for row in rows):
        raise typer.Exit(1)
