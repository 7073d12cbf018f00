"""The directories a queued job will need: looked at, and made where that is ours, before it waits for hours in vain."""

from __future__ import annotations

import os
from pathlib import Path

from hpc_resume.errors import ConfigError


def check_run_dir(run_dir: Path) -> None:
    """Raise ConfigError unless `run_dir` is a directory we can write to, or can be made. Makes nothing."""
    place = run_dir
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise ConfigError(f"run_dir {run_dir}: {place} is not a directory; set run_dir in job.yaml to another place")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(f"run_dir {run_dir}: no right to write in {place}; set run_dir in job.yaml to another place")


def fixed_directory(output: str) -> str:
    """The directories of an output file name up to the first with a %-pattern, which only Slurm can fill in."""
    before = output.partition("%")[0]
    return before.rpartition("/")[0] or ("/" if before.startswith("/") else "")


def make_output_directory(directory: Path, key: str, output: str) -> None:
    """Make the directory of slurm.`key`. Slurm makes none, and fails a job whose output it cannot open without a word.

    Raises ConfigError when it cannot be made.
    """
    wanted = directory / fixed_directory(output)
    try:
        wanted.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        place = error.filename or wanted
        raise ConfigError(f"slurm.{key} {output}: the directory {place} cannot be made: {error.strerror}") from error
