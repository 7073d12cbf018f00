"""`hpc-resume verify-resume`: whether an interruption changes a training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", readable=False, help="The job.")] = Path("job.yaml"),
    *,
    interruptions: Annotated[int, typer.Option(min=1, metavar="K", help="How often to interrupt it.")] = 2,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the choice of the steps.")] = 0,
    tolerance: Annotated[float, typer.Option(min=0.0, metavar="X", help="Numbers may differ by X; 0: no bit.")] = 0.0,
    metric: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Compare this; else every loss.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    report: Annotated[str, typer.Option(metavar="FILE", help="Write a page: FILE.html or FILE.md.")] = "",
) -> None:
    """Run a training uninterrupted and interrupted on this machine, and compare losses, batches and final state.

    Needs @resumable and run.steps() or run.checkpoint_point(); run.log(metrics, batch=ids) has the ids of the samples
    compared too. The exit code is 0 when both are equal, 1 when not; then the suspect is named.

    \b
    Examples:
      hpc-resume verify-resume
      hpc-resume verify-resume job.yaml --interruptions 5 --seed 3 --report resume.html
      hpc-resume verify-resume --tolerance 1e-6 --metric loss --json
    """  # noqa: D301 - click reads the \b: keep these lines
    from hpc_resume.cli import console  # noqa: PLC0415 - a verb pays only for what it uses
    from hpc_resume.verify import report as reports  # noqa: PLC0415
    from hpc_resume.verify.verdict import as_record  # noqa: PLC0415
    from hpc_resume.verify.verification import Request, verify  # noqa: PLC0415

    request = Request(file, interruptions, seed, tolerance, tuple(metric or ()), Path(report) if report else None)
    verdict = verify(request, console.say)
    if as_json:
        console.answer_json(as_record(verdict))
    else:
        console.answer(reports.in_words(verdict))
    raise typer.Exit(0 if verdict.equal else 1)
