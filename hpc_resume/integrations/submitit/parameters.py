"""`slurm_partition=` and `hpc_resume_requeue=` reach our executor through submitit.AutoExecutor.

AutoExecutor splits a parameter's name at its first underscore: `hpc_resume_requeue` would be one of an executor `hpc`,
which is an error, and `slurm_partition` is only for an executor named `slurm`, and is dropped without a word. A user
who changes nothing but `cluster=` means it for ours. So its method is wrapped; for other clusters it stays as it was.
Rejected: an executor named `slurm`, which would take over every submission of everybody who installs us.
"""

from __future__ import annotations

import functools
from typing import Any, Final

from submitit.auto.auto import AutoExecutor

from hpc_resume.integrations.submitit.naming import CLUSTER

_PREFIXES: Final = (f"{CLUSTER}_", "slurm_")
_MARK: Final = "_heard_by_hpc_resume"


def hear() -> None:
    """Wrap AutoExecutor's method, once."""
    theirs = AutoExecutor._internal_update_parameters  # noqa: SLF001 - no other way in
    if hasattr(theirs, _MARK):
        return

    @functools.wraps(theirs)
    def update(self: Any, **kwargs: Any) -> None:
        if self.cluster != CLUSTER:
            theirs(self, **kwargs)
            return
        ours, rest = split(kwargs, generic=frozenset(AutoExecutor._typed_parameters()))  # noqa: SLF001
        theirs(self, **rest)
        if ours:
            self._executor._internal_update_parameters(**ours)  # noqa: SLF001

    setattr(update, _MARK, True)
    AutoExecutor._internal_update_parameters = update  # noqa: SLF001


def split(given: dict[str, Any], *, generic: frozenset[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those meant for our executor, without their prefix, and the rest. Ours goes before Slurm's; None is not given.

    A generic one with a prefix (`slurm_mem_gb`) becomes the generic one.
    """
    ours: dict[str, Any] = {}
    rest = {name: value for name, value in given.items() if not name.startswith(_PREFIXES)}
    for prefix in reversed(_PREFIXES):
        for name, value in given.items():
            if name.startswith(prefix) and value is not None:
                bare = name.removeprefix(prefix)
                (rest if bare in generic else ours)[bare] = value
    return ours, rest
