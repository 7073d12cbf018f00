"""`hpc-resume submit`: job.yaml into Slurm's queue."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", readable=False, help="A job; `-`: stdin.")] = Path("job.yaml"),
    *,
    resume: Annotated[str, typer.Option(metavar="RUN", help="Go on with this run: its key, or its directory.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask Slurm when it would start; queue nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the job's id and the run's key as JSON.")] = False,
) -> None:
    """Put a job into Slurm's queue and print its id. A new run begins, unless --resume names one.

    \b
    Examples:
      hpc-resume submit
      hpc-resume submit experiments/big.yaml --json
      hpc-resume submit --resume resnet-12      go on with that run, in a new job
      hpc-resume submit --resume resnet-12_3    one task of an array
    """  # noqa: D301 - click reads the \b: keep these lines
    from hpc_resume.cli import console  # noqa: PLC0415 - a verb pays only for what it uses
    from hpc_resume.launch import script_file  # noqa: PLC0415
    from hpc_resume.launch.job_file import read_job  # noqa: PLC0415
    from hpc_resume.launch.plan import decide  # noqa: PLC0415
    from hpc_resume.launch.render import render  # noqa: PLC0415
    from hpc_resume.schedulers import places, resumption, slurm  # noqa: PLC0415

    job_file = read_job(file)
    job, directory = job_file.job, job_file.directory
    run_dir = directory / job.run_dir
    places.check_run_dir(run_dir)
    has_array = "array" in job.slurm
    found = resumption.choose(resume, run_dir, name=job.name, is_array=has_array) if resume else None
    script = render(decide(job, run_key=found.run_key, array=found.array) if found else decide(job))
    script_file.verify(script)
    console.say_notes(job_file.notes)
    if dry_run:
        words = slurm.try_out(script, directory=directory)
        if as_json:
            console.answer_json({"dry_run": True, "words": words})
        else:
            console.answer(f"{words}\n")
        return
    for key in ("output", "error"):
        if key in job.slurm:
            places.make_output_directory(directory, key, str(job.slurm[key]))
    job_id = slurm.submit(script, directory=directory)
    run = found.run.key if found else f"{job.name}-{job_id}"
    console.say(f"job {job_id} works on {run} in {run_dir}; see `hpc-resume status {run}`")
    if as_json:
        console.answer_json({"job_id": job_id, "run": run})
    else:
        console.answer(f"{job_id}\n")
