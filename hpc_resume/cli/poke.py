"""`hpc-resume poke`: a request to the attempt of a run that is at work."""

from __future__ import annotations

from typing import Annotated, Literal

import typer


def command(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A run's key or directory, or a job id.")],
    request: Annotated[
        Literal["save", "stop", "requeue"],
        typer.Argument(
            metavar="save|stop|requeue", help="Save and go on; save and end; save and go back to the queue."
        ),
    ],
    *,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait, up to two minutes, for the effect.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print what came of it as JSON.")] = False,
) -> None:
    """Ask the attempt of a run that is at work to save, to stop, or to go back into the queue.

    Unlike `scancel -s` it names the attempt, so it cannot hit the next one. The exit code is 0 when it was done, 1
    when it was not, or not seen in time.

    \b
    Examples:
      hpc-resume poke 12 save           save at the next step, and go on
      hpc-resume poke resnet-12 stop    save and end for good
      hpc-resume poke 12_3 requeue      save and go back into the queue
    """  # noqa: D301 - click reads the \b: keep these lines
    import getpass  # noqa: PLC0415 - a verb pays only for what it uses
    from dataclasses import asdict  # noqa: PLC0415

    from hpc_resume.cli import console  # noqa: PLC0415
    from hpc_resume.observe.targets import select_one  # noqa: PLC0415
    from hpc_resume.schedulers.poking import PATIENCE, poke  # noqa: PLC0415

    run = select_one(target)
    poked = poke(run, request, f"hpc-resume poke by {getpass.getuser()}", patience=PATIENCE if wait else 0)
    if as_json:
        console.answer_json(asdict(poked))
    else:
        words = poked.words or f"asked with SIG{poked.signal}; `hpc-resume explain {poked.run}` says what came of it"
        console.say(f"{poked.run}, attempt {poked.attempt}: {words}")
    if wait and not poked.done:
        raise typer.Exit(1)
