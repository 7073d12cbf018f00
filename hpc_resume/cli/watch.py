"""`hpc-resume watch`: a program that nobody can edit, asked to save at the warning."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    program: Annotated[list[str], typer.Argument(metavar="PROGRAM...", help="The program and its words, after --.")],
    *,
    on_warning: Annotated[
        str, typer.Option(metavar="TEXT", help="Typed into the program at the warning; without it, it is only ended.")
    ] = "",
    expect: Annotated[
        str, typer.Option(metavar="REGEX", help="Its answer in what it prints; without it, its end is waited for.")
    ] = "",
    timeout: Annotated[str, typer.Option(metavar="TIME", help="How long to wait for that: 60s, 5min.")] = "60s",
) -> None:
    """Run a program under a terminal of its own, and end it in good order at the warning.

    Its output passes through as it comes. It ends with the program's own exit code, after a warning with 128+signal,
    which a job of hpc-resume takes for resumable. `watch:` in job.yaml does the same to the job's command.

    \b
    Examples:
      hpc-resume watch --on-warning $'save\\n' --expect 'saved .*' -- ./simulation input.dat
      hpc-resume watch --on-warning $'\\x03' --timeout 5min -- solver run.inp
    """  # noqa: D301 - click reads the \b: keep these lines
    import os  # noqa: PLC0415 - a verb pays only for what it uses
    import sys  # noqa: PLC0415

    options = ["--on-warning", on_warning, "--expect", expect, "--timeout", timeout]
    words = [f"{name}={value}" for name, value in zip(options[::2], options[1::2], strict=True) if value]
    # Executed, not called: nothing of this command line's weight stays beside the program for its whole life.
    os.execv(sys.executable, [sys.executable, "-m", "hpc_resume.watch", *words, "--", *program])  # noqa: S606
