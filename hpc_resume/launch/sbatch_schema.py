"""The JSON Schema of `slurm:`, made from the table of sbatch's options."""

from __future__ import annotations

from typing import Final

from hpc_resume.launch.sbatch_options import FLAG, OPTIONS

_SCALAR: Final[dict[str, object]] = {"type": ["string", "number", "boolean"]}

SLURM_SCHEMA: Final[dict[str, object]] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        **{name: {"type": "boolean"} if kind == FLAG else _SCALAR for name, kind in sorted(OPTIONS.items())},
        "extra": {
            "type": "object",
            "description": "Any other long option of sbatch.",
            "additionalProperties": _SCALAR,
        },
    },
}
