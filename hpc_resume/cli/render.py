"""`hpc-resume render`: job.yaml to script."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", readable=False, help="A job; `-`: stdin.")] = Path("job.yaml"),
    *,
    output: Annotated[str, typer.Option("--output", "-o", metavar="SCRIPT", help="Write the script there.")] = "",
    diff: Annotated[str, typer.Option(metavar="OLD", help="Show what changed since the script OLD.")] = "",
    explain: Annotated[bool, typer.Option("--explain", help="Show which key each line comes from.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the script and its values as JSON.")] = False,
) -> None:
    """Print the batch script of a job.yaml, or write it to a file.

    The same job.yaml gives the same bytes on every machine. With --diff the exit code is 1 when something changed.

    \b
    Examples:
      hpc-resume render | less
      hpc-resume render job.yaml -o job.sbatch && sbatch job.sbatch
      hpc-resume render --diff job.sbatch
    """  # noqa: D301 - click reads the \b: keep these lines
    if sum(map(bool, (output, diff, explain, as_json))) > 1:
        raise typer.BadParameter("only one of --output, --diff, --explain and --json at a time")
    from hpc_resume.cli import console  # noqa: PLC0415 - a verb pays only for what it uses
    from hpc_resume.launch import script_file  # noqa: PLC0415
    from hpc_resume.launch.job_file import read_job  # noqa: PLC0415
    from hpc_resume.launch.plan import decide  # noqa: PLC0415
    from hpc_resume.launch.render import render  # noqa: PLC0415

    job_file = read_job(file)
    plan = decide(job_file.job)
    script = render(plan)
    script_file.verify(script)
    console.say_notes(job_file.notes)
    if output and output != "-":
        import shlex  # noqa: PLC0415

        script_file.write_whole(Path(output), script, script_file.SCRIPT_MODE)
        console.say(f"wrote {output}; queue it with `sbatch {shlex.quote(output)}`")
    elif diff:
        changes = script_file.changes(Path(diff), script)
        console.answer(changes)
        raise typer.Exit(1 if changes else 0)
    elif explain:
        from hpc_resume.launch.explain import explain as table  # noqa: PLC0415

        console.answer(table(plan, job_file.source, script))
    elif as_json:
        from hpc_resume.launch.explain import as_record  # noqa: PLC0415

        console.answer_json(as_record(plan, job_file.source, script))
    else:
        console.answer(script)
