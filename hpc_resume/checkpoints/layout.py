"""The names inside checkpoints/: pure, both ways, so that nothing half-written can be taken for a checkpoint."""

from __future__ import annotations

import re
from typing import Final

from hpc_resume.contract import STEP_DIGITS, STEP_PREFIX
from hpc_resume.errors import UsageError

REASON_FILE: Final = "broken.txt"  # why a checkpoint was set aside, in it
_STEP: Final = re.compile(rf"{re.escape(STEP_PREFIX)}(\d{{{STEP_DIGITS},}})", re.ASCII)
_LEFTOVER: Final = re.compile(rf"{re.escape(STEP_PREFIX)}\d+\.(?:tmp|trash)\.(\d+)[\w-]*", re.ASCII)
_PROBE: Final = ".probe.tmp."
_UNCOMMITTED: Final = re.compile(r"uncommitted\.(\d+)", re.ASCII)
_RESERVED: Final = ("manifest", "uncommitted", "broken")
_COMPONENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)


def step_name(step: int) -> str:
    """`step-00001200`: the state after 1200 completed steps; more digits where eight are too few."""
    return f"{STEP_PREFIX}{step:0{STEP_DIGITS}d}"


def parse_step(name: str) -> int | None:
    """The step of a published checkpoint's name, None for every other name."""
    match = _STEP.fullmatch(name)
    return int(match[1]) if match else None


def temporary_name(step: int, generation: int) -> str:
    """Where generation `generation` writes a save before it is published."""
    return f"{step_name(step)}.tmp.{generation}"


def trash_name(step: int, generation: int) -> str:
    """What a pruned checkpoint is called while it is being removed."""
    return f"{step_name(step)}.trash.{generation}"


def uncommitted_name(generation: int) -> str:
    """The file that marks a directory which is being written, or removed, under its final name."""
    return f"uncommitted.{generation}"


def parse_uncommitted(name: str) -> int | None:
    """The generation of such a mark, None for every other name."""
    match = _UNCOMMITTED.fullmatch(name)
    return int(match[1]) if match else None


def broken_name(step: int, number: int) -> str:
    """Where a checkpoint that did not verify goes when its name is needed again."""
    return f"{step_name(step)}.broken-{number}"


def probe_name(suffix: str) -> str:
    """Where a probe tries what the file system can do; `suffix` keeps two of them apart."""
    return f"{_PROBE}{suffix}"


def leftover_generation(name: str) -> int | None:
    """Whose save that never got published, or removal that never ended, `name` is; None for every other name.

    0 for a probe: whoever made it is none the worse for its loss.
    """
    if name.startswith(_PROBE):
        return 0
    match = _LEFTOVER.fullmatch(name)
    return int(match[1]) if match else None


def check_component_name(name: str) -> None:
    """Raise UsageError unless `name` can name files in a checkpoint."""
    if _COMPONENT.fullmatch(name) is None or name in _RESERVED:
        raise UsageError(
            f"component name {name!r}: it names files, so use letters, digits and _ (at most 64,"
            f" not {' or '.join(repr(word) for word in _RESERVED)})"
        )
