"""The runs of the loopback W&B server: what they hold, and the state table of W&B's documentation.

The rules are those of W&B's page on resuming and preempting; what its real servers do beyond that page is not claimed.
"""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass, field

ENDED = frozenset({"finished", "failed", "crashed", "killed", "preempted"})
KILLED_CODE = 255  # what the client sends for an uncaught KeyboardInterrupt

# The client's file -> where its lines are kept.
STREAMS = {"wandb-history.jsonl": "history", "wandb-events.jsonl": "events", "output.log": "logs"}


def state_at_end(exit_code: int, *, preempting: bool) -> str:
    """The state of a run that says how it ended."""
    if exit_code == 0:
        return "finished"  # also when it was marked
    if preempting:
        return "preempted"
    return "killed" if exit_code == KILLED_CODE else "failed"


def state_when_silent(*, preempting: bool) -> str:
    """The state of a run whose heartbeat has ended without a word."""
    return "preempted" if preempting else "crashed"


def global_id(kind: str, *parts: str) -> str:
    """Ids as GraphQL has them: opaque to the client."""
    return base64.b64encode(":".join((kind, "v1", *parts)).encode()).decode()


@dataclass(slots=True)
class StoredRun:
    """One run. Times are seconds since the server's start; lines are kept under the offset that the client gave."""

    entity: str
    project: str
    name: str
    state: str = "pending"
    display_name: str = ""
    notes: str | None = None
    config: str = "{}"
    summary: str = "{}"
    tags: list[str] = field(default_factory=list)
    group: str | None = None
    job_type: str | None = None
    host: str | None = None
    sweep: str | None = None
    sweep_args: dict[str, object] = field(default_factory=dict)
    agent: str | None = None
    exit_code: int | None = None
    preempting: bool = False
    stop_wanted: bool = False
    started: bool = False
    starts: int = 0
    heartbeat: float | None = None
    history: dict[int, str] = field(default_factory=dict)
    events: dict[int, str] = field(default_factory=dict)
    logs: dict[int, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    transitions: list[tuple[str, float]] = field(default_factory=list)
    said: list[tuple[str, float]] = field(default_factory=list)  # preempting, complete, notes, rewind: as they came

    @property
    def id(self) -> str:
        return global_id("Run", self.name, self.project, self.entity)

    def lines(self, stream: str) -> list[str]:
        """In the order of their offsets."""
        kept: dict[int, str] = getattr(self, stream)
        return [kept[offset] for offset in sorted(kept)]

    def receive(self, file: str, offset: int, content: list[str]) -> None:
        """Lines of one file. A start from 0 with other content is another life of the run: what was there goes."""
        if file == "wandb-summary.json":
            self.summary = content[-1]
            return
        if file not in STREAMS:
            return
        kept: dict[int, str] = getattr(self, STREAMS[file])
        if offset == 0 and content and kept.get(0) not in (None, content[0]):
            kept.clear()
        kept.update((offset + index, line) for index, line in enumerate(content))


class Runs:
    """All runs, and the only place that changes a state. The server's lock is held by whoever calls."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self._runs: dict[tuple[str, str, str], StoredRun] = {}

    def now(self) -> float:
        return time.monotonic() - self.began

    def __iter__(self):
        return iter(list(self._runs.values()))

    def find(self, entity: str, project: str, name: str) -> StoredRun | None:
        return self._runs.get((entity, project, name))

    def by_id(self, wanted: str) -> StoredRun | None:
        return next((run for run in self if run.id == wanted), None)

    def add(self, run: StoredRun) -> StoredRun:
        run.display_name = run.display_name or run.name
        self._runs[run.entity, run.project, run.name] = run
        run.transitions.append((run.state, self.now()))
        return run

    def set_state(self, run: StoredRun, state: str) -> None:
        if run.state != state:
            run.state = state
            run.transitions.append((state, round(self.now(), 3)))

    def start(self, run: StoredRun) -> None:
        """An `init` reached the server: a pending or ended run lives (again); a living one is only updated."""
        run.heartbeat = self.now()
        if run.state == "pending" or run.state in ENDED:
            run.starts += 1
            run.preempting, run.exit_code = False, None
            self.set_state(run, "running")
        run.started = True

    def mark(self, run: StoredRun) -> None:
        run.preempting = True
        run.said.append(("preempting", round(self.now(), 3)))
        self.set_state(run, "preempting")

    def rewind(self, run: StoredRun, step: int) -> None:
        """Forget what was logged after `step` (`_step`, the client's own)."""
        kept = [line for line in run.lines("history") if json.loads(line).get("_step", 0) <= step]
        run.history = dict(enumerate(kept))
        run.said.append((f"rewind {step}", round(self.now(), 3)))

    def silent(self, seconds: float) -> list[StoredRun]:
        """Living runs without a heartbeat for `seconds`."""
        limit = self.now() - seconds
        living = ("running", "preempting")
        return [run for run in self if run.state in living and run.heartbeat is not None and run.heartbeat < limit]
