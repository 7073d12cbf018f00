"""`hpc-resume check`: whether a job.yaml is right, and what it means."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", readable=False, help="A job; `-`: stdin.")] = Path("job.yaml"),
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Validate a job.yaml and say what it means.

    Every problem is shown at once, each with its line. The exit code is 0, or 78 when the file is wrong.

    \b
    Examples:
      hpc-resume check
      hpc-resume check experiments/big.yaml --json
    """  # noqa: D301 - click reads the \b: keep these lines
    from hpc_resume.cli import console  # noqa: PLC0415 - a verb pays only for what it uses
    from hpc_resume.errors import ConfigError, Problem, SpecError  # noqa: PLC0415
    from hpc_resume.launch import summary  # noqa: PLC0415
    from hpc_resume.launch.job_file import read_job  # noqa: PLC0415
    from hpc_resume.launch.plan import decide  # noqa: PLC0415

    try:
        job_file = read_job(file)
    except (SpecError, ConfigError) as error:
        if as_json:
            unread = (Problem(str(file), 0, 0, "", str(error).removeprefix(f"{file}: ")),)
            console.answer_json(summary.failure(file, getattr(error, "problems", unread)))
        raise
    plan = decide(job_file.job)
    console.say_notes(job_file.notes)
    if as_json:
        console.answer_json(summary.success(job_file, plan))
    else:
        console.answer(summary.in_words(job_file, plan))
