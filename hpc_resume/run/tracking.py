"""What the trackers and the mirror of an attempt are told, and how they are opened; rank 0 alone has any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hpc_resume.errors import ConfigError
from hpc_resume.run.events import say
from hpc_resume.trackers import FINISH_SECONDS, Facts, Trackers
from hpc_resume.trackers.jsonl import JsonLines
from hpc_resume.trackers.mirrors import MIRRORS, open_mirror

if TYPE_CHECKING:
    from pathlib import Path

    from hpc_resume.run.environment import Environment
    from hpc_resume.run.opening import Opening
    from hpc_resume.trackers.mirrors import Mirror

_LEAD: Final = 120.0  # where nobody said how long before the end the warning comes


def facts_of(environment: Environment, opening: Opening, step: int, *, resumed: bool) -> Facts:
    """For an attempt that goes on from `step`. With a mirror the last words carry a checkpoint: 2/5 of the lead."""
    run_dir, number = opening.run_dir, opening.attempt
    return Facts(
        opening.attempt_dir.metrics_file,
        run_dir.key,
        number,
        step,
        resumed,
        run_dir.run_file,
        say,
        tuple(one.metrics_file for one in run_dir.attempts() if one.number < number),
        patience=max(5.0, (environment.lead or _LEAD) * 0.4) if environment.mirror else 5.0,
    )


def open_trackers(
    environment: Environment, opening: Opening, step: int, *, resumed: bool
) -> tuple[Trackers, JsonLines | None]:
    """Every tracker that wants this run, and where a drill's batches go."""
    if environment.rank != 0:
        return Trackers({}, say), None
    facts = facts_of(environment, opening, step, resumed=resumed)
    batches = JsonLines(opening.attempt_dir.batches_file) if environment.drill is not None else None
    return Trackers.open(facts, say), batches


def mirror_of(environment: Environment, opening: Opening) -> Mirror | None:
    """None where nobody asked for one. Raises ConfigError for one that there is not."""
    if not environment.mirror or environment.rank != 0 or environment.drill is not None:
        return None
    if environment.mirror not in MIRRORS:
        raise ConfigError(f"checkpoint.mirror: {environment.mirror}: there is {', '.join(MIRRORS)}")
    if environment.world_size > 1:
        raise ConfigError("checkpoint.mirror is for a training of one process; leave it out, and share run_dir")
    return open_mirror(environment.mirror, facts_of(environment, opening, 0, resumed=False))


class Mirroring:
    """Keeps each published checkpoint a second time; a failure is said once and costs nothing else."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._failed = False

    def __call__(self, step: int, directory: Path) -> None:
        """Publish there too."""
        try:
            self._mirror.publish(step, directory)
        except Exception as error:  # noqa: BLE001 - somebody else's network; no save dies of its copy
            if not self._failed:
                say(f"step {step} is not in the mirror: {type(error).__name__}: {error}")
            self._failed = True


def mirroring(environment: Environment, opening: Opening) -> Mirroring | None:
    """What to do with each published checkpoint, None without a mirror."""
    mirror = mirror_of(environment, opening)
    return Mirroring(mirror) if mirror is not None else None


def last_words(environment: Environment) -> float:
    """Seconds that the trackers get after a warning, of which they need one when all is well.

    FINISH_SECONDS is what a lost server costs; a lost wandb-core has to be started again, which a busy node delays.
    """
    lead = environment.lead or _LEAD
    if environment.mirror:
        return max(FINISH_SECONDS, lead * 0.4 + 1.0)
    return max(FINISH_SECONDS, min(20.0, lead * 0.15))
