"""`hpc-resume run`: a job on this machine, in the foreground, requeued by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", readable=False, help="The job.")] = Path("job.yaml"),
    *,
    new: Annotated[bool, typer.Option("--new", help="Begin a new run, whatever is unfinished.")] = False,
    resume: Annotated[str, typer.Option(metavar="RUN", help="Continue this run, not the newest unfinished one.")] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON; the job's output to stderr.")
    ] = False,
) -> None:
    """Run a job on this machine, in the foreground, and again after each interruption.

    Continues the newest unfinished run of that name. Ctrl-C asks the training to save and stop, a second one ends it
    at once; SIGUSR1 to this process is passed on as the warning, to rehearse an interruption. The exit code is the
    training's own.

    \b
    Examples:
      hpc-resume run
      hpc-resume run experiments/big.yaml --new
      hpc-resume run --resume resnet-local-2
    """  # noqa: D301 - click reads the \b: keep these lines
    if new and resume:
        raise typer.BadParameter("only one of --new and --resume at a time")
    from hpc_resume.cli import console  # noqa: PLC0415 - a verb pays only for what it uses
    from hpc_resume.launch.job_file import read_job  # noqa: PLC0415
    from hpc_resume.observe.progress import live_line  # noqa: PLC0415
    from hpc_resume.run.events import say  # noqa: PLC0415
    from hpc_resume.schedulers import local, local_start  # noqa: PLC0415
    from hpc_resume.schedulers.continuation import job_key  # noqa: PLC0415

    job_file = read_job(file)
    console.say_notes(job_file.notes)
    job = local_start.local_job(job_file, stdout=2 if as_json else None)
    choice = local.choose_run(job, new=new, wanted=resume)
    for words in local_start.words_at_start(job, choice):
        say(words)
    with live_line() as line:
        results = local.supervise(job, choice.number, line)
    for words in local_start.words_at_end(results, file):
        say(words)
    code = local_start.exit_code(results, len(job.tasks))
    if as_json:
        console.answer_json(local_start.as_record(job_key(job.name, choice.number), results, code))
    raise typer.Exit(code)
