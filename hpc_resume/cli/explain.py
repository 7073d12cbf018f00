"""`hpc-resume explain`: why a run stopped, and what happens next."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    target: Annotated[
        str,
        typer.Argument(metavar="[TARGET]", help="A run's key or directory, a job id, or a job.yaml: its newest run."),
    ] = "",
    *,
    table: Annotated[bool, typer.Option("--table", help="Print the table by which every end is decided.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Say why a run stopped, what happens next, and on which evidence.

    Without a TARGET the newest run of ./job.yaml, else of ./runs. What the job is at now is asked of Slurm where there
    is one, and unknown otherwise.

    \b
    Examples:
      hpc-resume explain
      hpc-resume explain 12_3
      hpc-resume explain runs/resnet-12 --json
      hpc-resume explain --table
    """  # noqa: D301 - click reads the \b: keep these lines
    from dataclasses import asdict  # noqa: PLC0415 - a verb pays only for what it uses

    from hpc_resume.cli import console  # noqa: PLC0415
    from hpc_resume.observe import decision  # noqa: PLC0415

    if table:
        rows = [dict(zip(decision.COLUMNS, rule.when, strict=True)) for rule in decision.rules()]
        endings = [{"decision": rule.decision, "reason": rule.reason} for rule in decision.rules()]
        if as_json:
            console.answer_json({"rules": [row | end for row, end in zip(rows, endings, strict=True)]})
        else:
            console.answer(decision.printed())
        return
    from hpc_resume.observe.evidence import find  # noqa: PLC0415
    from hpc_resume.observe.explain import explain  # noqa: PLC0415
    from hpc_resume.observe.telling import told  # noqa: PLC0415

    explanation = explain(find(target))
    if as_json:
        console.answer_json(asdict(explanation))
    else:
        console.answer(told(explanation))
