"""What the loopback W&B server knows, behind one lock: runs, sweeps, files; and how it behaves, changed at any time."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from urllib.parse import quote

from loopback_runs import Runs, state_at_end, state_when_silent
from loopback_sweeps import Habits, Sweeps

USER = "lab"  # the one user, and their entity

MODES = ("up", "slow", "hanging", "500", "404", "gone")


class NotFoundError(Exception):
    """Answered as GraphQL does: an error in the body."""


@dataclass(slots=True)
class Settings:
    """Everything that a test may change while the server is at work.

    `mode` is one of MODES, for the paths that begin with `mode_for` ("" : all; "/graphql", "/files"); `gone` closes
    the port for all of them. `delay` is the seconds of `slow`. `crash_after` is W&B's heartbeat limit.
    """

    mode: str = "up"
    mode_for: str = ""
    delay: float = 1.0
    crash_after: float = 300.0
    rewind: bool = True
    habits: Habits = field(default_factory=Habits)


@dataclass(frozen=True, slots=True)
class Request:
    """One line of the log: an operation, an upload, a POST of the file stream."""

    t: float
    kind: str
    name: str
    about: dict[str, object]


class Backend:
    """Every method takes the lock; what they return may be looked at under `lock` only."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lock = threading.RLock()
        self.runs = Runs()
        self.sweeps = Sweeps(self.runs, settings.habits)
        self.blobs: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.unhandled: list[str] = []
        self.base = ""

    def record(self, kind: str, name: str, **about: object) -> None:
        with self.lock:
            self.requests.append(Request(round(self.runs.now(), 3), kind, name, about))

    def file_url(self, entity: str, project: str, run: str, name: str) -> str:
        return f"{self.base}/storage/{quote(entity)}/{quote(project)}/{quote(run)}/{quote(name)}"

    def store(self, path: str, content: bytes) -> None:
        """An upload: below /storage/ENTITY/PROJECT/RUN/ it is that run's file too."""
        with self.lock:
            self.blobs[path] = content
            parts = path.split("/", 3)
            run = self.runs.find(*parts[:3]) if len(parts) == 4 else None
            if run is not None:
                run.files[parts[3]] = content

    def stream(self, entity: str, project: str, name: str, body: dict[str, object]) -> dict[str, object] | None:
        """One POST of the file stream; None where there is no such run. It may carry a mark and the end at once."""
        with self.lock:
            run = self.runs.find(entity, project, name)
            if run is None:
                return None
            run.heartbeat = self.runs.now()
            files: dict[str, dict[str, object]] = body.get("files") or {}  # type: ignore[assignment]
            for file, chunk in files.items():
                run.receive(file, int(str(chunk["offset"])), chunk["content"])  # type: ignore[arg-type]
            if body.get("preempting"):  # before the end: both may come in one POST
                self.runs.mark(run)
            if body.get("complete"):
                self._end(run, int(str(body.get("exitcode") or 0)))
            return {"exitcode": run.exit_code, "limits": {}, "stopped": run.stop_wanted}

    def reap(self) -> None:
        """End the runs whose heartbeat has stopped."""
        with self.lock:
            for run in self.runs.silent(self.settings.crash_after):
                self._settle(run, state_when_silent(preempting=run.preempting))

    def _end(self, run, exit_code: int) -> None:
        run.exit_code = exit_code
        run.said.append((f"complete {exit_code}", round(self.runs.now(), 3)))
        self._settle(run, state_at_end(exit_code, preempting=run.preempting))

    def _settle(self, run, state: str) -> None:
        self.runs.set_state(run, state)
        if state == "preempted":
            self.sweeps.enqueue(run)
