"""The names inside checkpoints/: pure, both ways, so that nothing half-written can be taken for a checkpoint."""

from __future__ import annotations

import re
from typing import Final

from hpc_resume.contract import STEP_DIGITS, STEP_PREFIX
from hpc_resume.errors import UsageError

_STEP: Final = re.compile(rf"{re.escape(STEP_PREFIX)}(\d{{{STEP_DIGITS},}})", re.ASCII)
_LEFTOVER: Final = re.compile(rf"{re.escape(STEP_PREFIX)}\d+\.(?:tmp|trash)\.[\w-]+", re.ASCII)
_COMPONENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)


def step_name(step: int) -> str:
    """`step-00001200`: the state after 1200 completed steps; more digits where eight are too few."""
    return f"{STEP_PREFIX}{step:0{STEP_DIGITS}d}"


def parse_step(name: str) -> int | None:
    """The step of a published checkpoint's name, None for every other name."""
    match = _STEP.fullmatch(name)
    return int(match[1]) if match else None


def temporary_name(step: int, writer: str) -> str:
    """Where a save is written; `writer` is `<attempt>-<pid>`."""
    return f"{step_name(step)}.tmp.{writer}"


def trash_name(step: int, writer: str) -> str:
    """What a pruned checkpoint is called while it is being removed."""
    return f"{step_name(step)}.trash.{writer}"


def broken_name(step: int, number: int) -> str:
    """Where a checkpoint that did not verify goes when its name is needed again."""
    return f"{step_name(step)}.broken-{number}"


def is_leftover(name: str) -> bool:
    """Whether `name` is a save that never got published or a removal that never ended."""
    return _LEFTOVER.fullmatch(name) is not None


def check_component_name(name: str) -> None:
    """Raise UsageError unless `name` can name files in a checkpoint."""
    if _COMPONENT.fullmatch(name) is None or name == "manifest":
        raise UsageError(
            f"component name {name!r}: it names files, so use letters, digits and _ (at most 64, not 'manifest')"
        )
