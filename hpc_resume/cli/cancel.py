"""`hpc-resume cancel`: the end of a job or a run, for good."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    targets: Annotated[list[str], typer.Argument(metavar="TARGET...", help="Job ids, keys of runs, or directories.")],
    *,
    run_dir: Annotated[
        str, typer.Option(metavar="DIR", help="Where the runs are; else the run_dir of ./job.yaml, else runs.")
    ] = "",
) -> None:
    """End jobs or runs, in Slurm or on this machine; they do not come back by themselves.

    What was done is saved where there is time for it. `submit --resume` or `run --resume` goes on with such a run.

    \b
    Examples:
      hpc-resume cancel 12             a job of Slurm
      hpc-resume cancel resnet-12_3    one task's run
      hpc-resume cancel runs/resnet-local-1
    """  # noqa: D301 - click reads the \b: keep these lines
    from hpc_resume.cli import console  # noqa: PLC0415 - a verb pays only for what it uses
    from hpc_resume.errors import HpcResumeError  # noqa: PLC0415
    from hpc_resume.schedulers.cancellation import cancel, run_parent  # noqa: PLC0415

    parent = run_parent(run_dir)
    failures: list[HpcResumeError] = []
    for target in targets:
        try:
            console.say(cancel(target, parent))
        except HpcResumeError as error:  # the others are to end all the same
            console.say(str(error))
            failures.append(error)
    if failures:
        raise typer.Exit(failures[0].exit_code)
