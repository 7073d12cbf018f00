"""`latest`: one line that names the newest checkpoint, for people and the batch shell. A load does not believe it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from hpc_resume.checkpoints.layout import step_name
from hpc_resume.durable import write_atomic
from hpc_resume.errors import RunHeldError, RunStateError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hpc_resume.checkpoints.catalogue import Catalogue


class Latest:
    """The file at `path`; None: there is none (a fast tier)."""

    def __init__(self, path: Path | None, catalogue: Catalogue) -> None:
        self._path = path
        self._catalogue = catalogue

    def point(self, step: int, check_generation: Callable[[], None]) -> list[str]:
        """Make it say `step`; what went wrong, if anything did.

        Raises RunHeldError, from `check_generation`: stopped between the look before and the write, we have replaced
        what our successor had written there. That is put back first.
        """
        if self._path is None:
            return []
        try:
            write_atomic(self._path, _line(step))
            check_generation()
        except OSError as error:
            return [f"{self._path}: {error.strerror or error}; the checkpoint itself is published"]
        except RunHeldError:
            self._give_back(self._path)
            raise
        return []

    def _give_back(self, path: Path) -> None:
        with contextlib.suppress(OSError, RunStateError):
            found, _ = self._catalogue.survey()
            newest = max(found, key=lambda published: published.rank, default=None)
            if newest is None:
                path.unlink()
            else:
                write_atomic(path, _line(newest.step))


def _line(step: int) -> bytes:
    return f"{step_name(step)}\n".encode()
