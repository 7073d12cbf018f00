"""`hpc-resume agent`: a W&B sweep agent that hands its run back before it goes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    sweep: Annotated[str, typer.Argument(metavar="SWEEP", help="entity/project/id, as `wandb sweep` prints it.")],
    *,
    runs: Annotated[Path | None, typer.Option(metavar="DIR", help="Parent of the run directories [runs].")] = None,
    interval: Annotated[float, typer.Option(metavar="SECONDS", help="Between the starts of two agents.")] = 0.0,
    jitter: Annotated[float, typer.Option(metavar="SECONDS", help="Upper bound of a random part on top.")] = 0.0,
    burst: Annotated[int, typer.Option(help="So many may start at once after a rest.", min=1)] = 1,
) -> None:
    """Work on a W&B sweep until it is finished: one run at a time, each resumable, none with two owners.

    Ctrl-C once: the run saves, is marked and handed back to the sweep, for the next agent; twice stops hard.
    A job.yaml with `sweep:` starts one of these in each array task.

    \b
    Examples:
      wandb sweep sweep.yaml
      hpc-resume agent entity/project/abc123
    """  # noqa: D301 - click reads the \b: keep these lines
    import importlib.util  # noqa: PLC0415 - a verb pays only for what it uses
    import os  # noqa: PLC0415

    from hpc_resume.errors import ConfigError  # noqa: PLC0415
    from hpc_resume.sweeps.bucket import Rate  # noqa: PLC0415
    from hpc_resume.sweeps.loop import Loop  # noqa: PLC0415
    from hpc_resume.sweeps.place import locate  # noqa: PLC0415

    if importlib.util.find_spec("wandb") is None:
        raise ConfigError("an agent needs wandb beside hpc-resume: pip install 'hpc-resume[wandb]'")
    place = locate(sweep, runs, os.environ)
    raise typer.Exit(Loop(place, Rate(interval, burst, jitter)).run())
