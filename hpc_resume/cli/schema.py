"""`hpc-resume schema`: the JSON Schema of job.yaml."""

from __future__ import annotations


def command() -> None:
    """Print the JSON Schema of job.yaml, for editors.

    \b
    Examples:
      hpc-resume schema > job.schema.json
      then, as the first line of job.yaml:  # yaml-language-server: $schema=job.schema.json
    """  # noqa: D301 - click reads the \b: keep these lines
    from hpc_resume.cli import console  # noqa: PLC0415 - a verb pays only for what it uses
    from hpc_resume.launch.spec import json_schema  # noqa: PLC0415

    console.answer_json(json_schema())
