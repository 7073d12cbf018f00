"""`hpc-resume explain-exit`: what an exit code means."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    code: Annotated[
        str, typer.Argument(metavar="CODE", help="0 to 255; or 0:9 as sacct writes it; or a signal, as USR1.")
    ],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Say what an exit code means, what the batch shell does about it, and where to look.

    \b
    Examples:
      hpc-resume explain-exit 138
      hpc-resume explain-exit 0:9
      hpc-resume explain-exit 137 --json
    """  # noqa: D301 - click reads the \b: keep these lines
    from dataclasses import asdict  # noqa: PLC0415 - a verb pays only for what it uses

    from hpc_resume.cli import console  # noqa: PLC0415
    from hpc_resume.observe.exit_codes import explain_code, in_words, parse_code  # noqa: PLC0415

    number = parse_code(code)
    if number is None:
        raise typer.BadParameter(f"{code} is no exit code: give 0 to 255, 0:9 as sacct writes it, or a signal's name")
    words = explain_code(number)
    if as_json:
        console.answer_json(asdict(words))
    else:
        console.answer(in_words(words))
