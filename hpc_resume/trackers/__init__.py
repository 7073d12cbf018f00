"""Where metrics go, and who is told how a run ends: one file per tracker, one line each in TRACKERS.

A module offers `open(facts) -> Tracker | None` (None: not wanted in this run). Outside packages register theirs under
the entry point group `hpc_resume.trackers`. A tracker never holds up a save or an exit: what it is asked on the way
out runs in a thread of its own, with a limit (W&B's finish() was measured to block without one when its server hangs).
"""

from __future__ import annotations

import importlib
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from hpc_resume.errors import HpcResumeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from importlib.metadata import EntryPoint
    from pathlib import Path

# The order counts: what a tracker logs is in metrics.jsonl by then.
TRACKERS: Final = {"jsonl": "hpc_resume.trackers.jsonl", "wandb": "hpc_resume.trackers.wandb"}
ENTRY_POINTS: Final = "hpc_resume.trackers"

MARK_SECONDS: Final = 2.0  # W&B's takes under 1 ms when it works
FINISH_SECONDS: Final = 6.0  # on a warning; wandb with finish_timeout=5 was back after 5.1
CLOSE_SECONDS: Final = 60.0  # at the normal end, where nobody is waiting for the node


@dataclass(frozen=True, slots=True)
class Facts:
    """What a tracker may want to know when it is opened.

    `step` is the one that the run goes on from; `patience` are the seconds that the last words may take; `earlier` are
    the metrics files of the attempts before, oldest first; `run_file` is run.json, where a tracker may keep a section
    of its own; `say` is a line on stderr.
    """

    metrics_file: Path
    run_key: str
    attempt: int
    step: int
    resumed: bool
    run_file: Path
    say: Callable[[str], None]
    earlier: tuple[Path, ...] = ()
    patience: float = 5.0  # wandb-core then closes its file and gives up; measured: back after 5.1


class Tracker(Protocol):
    """What a run tells; none of it is ever called from a signal handler."""

    def begin(self) -> None:
        """The first step is about to be taken; nothing was logged for it yet."""

    def log(self, metrics: Mapping[str, object], step: int) -> None:
        """Record `metrics` of `step`."""

    def mark_preempting(self) -> None:
        """The run is about to be interrupted and will come back."""

    def finish(self, exit_code: int) -> None:
        """The process is about to end with `exit_code`; nothing is logged after it."""


class Trackers:
    """Those of one run, asked together; each failure is said once and costs nothing else."""

    def __init__(self, opened: Mapping[str, Tracker], say: Callable[[str], None]) -> None:
        self._opened = dict(opened)
        self._say = say
        self._failed: set[str] = set()

    @classmethod
    def open(cls, facts: Facts, say: Callable[[str], None]) -> Trackers:
        """Open every registered tracker that wants this run."""
        opened: dict[str, Tracker] = {}
        for name, load in _loaders().items():
            try:
                tracker = load()(facts)
            except HpcResumeError:
                raise  # the owner's mistake, in words
            except Exception as error:  # noqa: BLE001 - somebody else's code; no training dies of a logger
                say(f"tracker {name}: {type(error).__name__}: {error}; it is left out")
                continue
            if tracker is not None:
                opened[name] = tracker
        return cls(opened, say)

    def begin(self) -> None:
        """Tell each. Raises what is the owner's mistake; anything else is said."""
        for name, tracker in self._opened.items():
            try:
                tracker.begin()
            except HpcResumeError:
                raise
            except Exception as error:  # noqa: BLE001 - as above
                self._note(name, f"{type(error).__name__}: {error}")

    def log(self, metrics: Mapping[str, object], step: int) -> None:
        """Hand `metrics` to each."""
        for name, tracker in self._opened.items():
            try:
                tracker.log(metrics, step)
            except HpcResumeError:
                raise
            except Exception as error:  # noqa: BLE001 - as above
                self._note(name, f"{type(error).__name__}: {error}; metrics are being lost")

    def mark_preempting(self) -> None:
        """Ask each, at most MARK_SECONDS."""
        for name, tracker in self._opened.items():
            self._bounded(name, tracker.mark_preempting, MARK_SECONDS)

    def finish(self, exit_code: int, seconds: float) -> None:
        """Ask each, at most `seconds`."""
        for name, tracker in self._opened.items():
            self._bounded(name, lambda tracker=tracker: tracker.finish(exit_code), seconds)  # type: ignore[misc]

    @property
    def failed(self) -> list[str]:
        """Those that raised, or did not answer in time: what they were told may be lost."""
        return sorted(self._failed)

    def _bounded(self, name: str, call: Callable[[], None], seconds: float) -> None:
        failure: list[BaseException] = []

        def work() -> None:
            try:
                call()
            except BaseException as error:  # noqa: BLE001 - it must not reach threading's excepthook
                failure.append(error)

        thread = threading.Thread(target=work, name=f"hpc_resume-{name}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads: asking without a limit could hang the exit
            self._note(name, f"not asked: {error}")
            return
        thread.join(seconds)
        if thread.is_alive():
            self._note(name, f"no answer in {seconds:g} s; going on without it")
        elif failure:
            self._note(name, f"{type(failure[0]).__name__}: {failure[0]}")

    def _note(self, name: str, what: str) -> None:
        if name not in self._failed:
            self._failed.add(name)
            self._say(f"tracker {name}: {what}")


def _loaders() -> dict[str, Callable[[], Callable[[Facts], Tracker | None]]]:
    loaders = {name: partial(_load, home) for name, home in TRACKERS.items()}
    return loaders | {point.name: point.load for point in _outside()}


def _load(home: str) -> Callable[[Facts], Tracker | None]:
    opener: Callable[[Facts], Tracker | None] = importlib.import_module(home).open
    return opener


def _outside() -> Sequence[EntryPoint]:
    from importlib.metadata import entry_points  # noqa: PLC0415 - 15 ms of imports that `import hpc_resume` does without

    return tuple(entry_points(group=ENTRY_POINTS))
