"""What the training logged by itself and an earlier attempt could not send: sent by the next one, once.

Its rows are in no ledger of ours, only in the attempt's .wandb file. Rejected: `wandb sync` of that file. Measured with
wandb 0.31, it sends rows of a resumed run twice that had arrived already, and it ends the run once more.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hpc_resume.trackers.wandb_log import read_history

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from hpc_resume.trackers.wandb_names import RunFile

Row = dict[str, Any]
_KEPT: Final = "_timestamp"  # of wandb's own columns: when it happened


def lacking(logs: Iterable[tuple[bool, Sequence[Row]]], reached: int) -> list[tuple[int, Row]]:
    """What of the logs (offline, rows), oldest first, a server lacks whose next `_step` is `reached`: (number, row).

    An attempt that was offline could not know where the one before had ended: its numbers begin again.
    """
    found: list[tuple[int, Row]] = []
    for offline, every in logs:
        rows = [row for row in every if isinstance(row.get("_step"), int)]
        shift = reached if offline and rows and rows[0]["_step"] == 0 else 0
        for row in rows:
            number = row["_step"] + shift
            if number >= reached:
                found.append((number, row))
                reached = number + 1
    return found


class Leftovers:
    """The .wandb files, in run.json's section `wandb`, of attempts that were not seen to send everything."""

    def __init__(self, file: RunFile, say: Callable[[str], None]) -> None:
        self._file = file
        self._say = say

    def rows(self, run: Any) -> list[tuple[int, Row]]:
        """What the server lacks of `run`, which has just been resumed there: (number, row)."""
        logs = []
        for _, path, offline in self.known(run.id):
            rows: list[Row] = []
            with contextlib.suppress(ValueError, TypeError, AttributeError, ImportError):  # another wandb's file
                rows = read_history(Path(path))
            if offline and not Path(path).exists():
                self._say(f"W&B: what an earlier attempt logged offline is in {path}, which is not here")
            logs.append((offline, rows))
        return [(number, _metrics(row)) for number, row in lacking(logs, run.starting_step)]

    def with_this(self, run: Any, *, others: bool) -> list[list[Any]]:
        """What to keep in run.json from now on: the file of `run`, beside the `others` or with all that was theirs."""
        mine = [run.id, str(Path(run.settings.sync_file).absolute()), run.offline]
        return [*(log for log in self.known(run.id) if others and log != mine), mine]

    def known(self, run_id: str) -> list[list[Any]]:
        """(run id, file, whether it was offline), oldest first."""
        logs = self._file.section().get("logs")
        every = logs if isinstance(logs, list) else []
        return [log for log in every if isinstance(log, list) and len(log) == 3 and log[0] == run_id]


def _metrics(row: Row) -> Row:
    return {name: value for name, value in row.items() if name == _KEPT or not name.startswith("_")}
