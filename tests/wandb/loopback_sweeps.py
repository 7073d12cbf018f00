"""The sweeps of the loopback W&B server: grid and random search, agents, and the queue of preempted runs."""

from __future__ import annotations

import itertools
import json
import random
import string
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import yaml
from loopback_runs import ENDED, StoredRun, global_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loopback_runs import Runs

HAND_OUT = ("atomic", "racy", "until_init")


@dataclass(slots=True)
class Waiting:
    """A preempted run in its sweep's queue; `handed` is when an agent got it first."""

    name: str
    handed: float | None = None


@dataclass(slots=True)
class Sweep:
    entity: str
    project: str
    name: str
    text: str
    config: dict[str, object]
    state: str = "PENDING"
    queue: list[Waiting] = field(default_factory=list)
    created: int = 0
    grid: Iterator[dict[str, object]] | None = None
    states: list[str] = field(default_factory=list)  # every state that somebody asked for

    @property
    def id(self) -> str:
        return global_id("Sweep", self.name)


@dataclass(slots=True)
class Agent:
    id: str
    sweep: str
    host: str
    seen: float = 0.0


@dataclass(frozen=True, slots=True)
class Assignment:
    """An agent was told to start or continue a run."""

    t: float
    agent: str
    run: str
    kind: str


@dataclass(slots=True)
class Habits:
    """How runs are handed out.

    `atomic`: each queued run once. `racy`: to everybody who asks within `racy_window` seconds. `until_init`: to
    everybody until one has called init, as agents that start together were seen to get it.
    """

    hand_out: str = "atomic"
    racy_window: float = 6.0  # agents ask every five seconds
    resume_command: str = "resume"
    exit_when_done: bool = True


class Sweeps:
    """All sweeps and agents. The server's lock is held by whoever calls."""

    def __init__(self, runs: Runs, habits: Habits) -> None:
        self.runs = runs
        self.habits = habits
        self.by_name: dict[str, Sweep] = {}
        self.agents: dict[str, Agent] = {}
        self.assignments: list[Assignment] = []

    def find(self, name_or_id: str | None) -> Sweep | None:
        return next((sweep for sweep in self.by_name.values() if name_or_id in (sweep.name, sweep.id)), None)

    def create(self, text: str, entity: str, project: str) -> Sweep:
        sweep = Sweep(entity, project, _name(), text, yaml.safe_load(text) or {})
        self.by_name[sweep.name] = sweep
        return sweep

    def set_state(self, sweep: Sweep, state: str) -> None:
        sweep.state = state.upper()
        sweep.states.append(sweep.state)

    def add_agent(self, sweep: Sweep, host: str) -> Agent:
        if sweep.state == "PENDING":
            sweep.state = "RUNNING"
        agent = Agent(global_id("Agent", str(len(self.agents) + 1), sweep.name), sweep.name, host, self.runs.now())
        self.agents[agent.id] = agent
        return agent

    def enqueue(self, run: StoredRun) -> None:
        """A run was preempted: the next agent that asks continues it."""
        sweep = self.by_name.get(run.sweep or "")
        if sweep is not None and all(waiting.name != run.name for waiting in sweep.queue):
            sweep.queue.append(Waiting(run.name))

    def begun(self, run: StoredRun) -> None:
        """Somebody has called init on it: it waits no more."""
        sweep = self.by_name.get(run.sweep or "")
        if sweep is not None:
            sweep.queue = [waiting for waiting in sweep.queue if waiting.name != run.name]

    def heartbeat(self, agent: Agent, run_state: dict[str, bool]) -> list[dict[str, object]]:
        """The commands for an agent whose children are `run_state` (name to alive)."""
        sweep = self.by_name[agent.sweep]
        agent.seen = self.runs.now()
        active = [name for name, alive in run_state.items() if alive]
        if sweep.state in ("CANCELED", "CANCELLED"):
            return [{"type": "exit"}]
        if active:
            return [{"type": "stop", "run_id": name} for name in active if self._should_stop(sweep, name)]
        if sweep.state == "FINISHED":
            return [{"type": "exit"}]
        if sweep.state == "PAUSED":
            return []
        return self._next(sweep, agent)

    def _should_stop(self, sweep: Sweep, name: str) -> bool:
        run = self.runs.find(sweep.entity, sweep.project, name)
        return run is not None and run.stop_wanted

    def _next(self, sweep: Sweep, agent: Agent) -> list[dict[str, object]]:
        queued = self._from_queue(sweep)
        if queued is not None:
            return [self._assign(sweep, agent, queued, self.habits.resume_command)]
        values = next_parameters(sweep)
        if values is not None:
            sweep.created += 1
            run = StoredRun(sweep.entity, sweep.project, _name(), sweep=sweep.name, sweep_args=values)
            run.config = json.dumps(values)
            return [self._assign(sweep, agent, self.runs.add(run), "run")]
        alive = any(run.sweep == sweep.name and run.state not in ENDED for run in self.runs)
        if alive or not self.habits.exit_when_done:
            return []  # one of them may be preempted yet
        sweep.state = "FINISHED"
        return [{"type": "exit"}]

    def _from_queue(self, sweep: Sweep) -> StoredRun | None:
        now, habits = self.runs.now(), self.habits
        sweep.queue = [
            waiting
            for waiting in sweep.queue
            if habits.hand_out != "racy" or waiting.handed is None or now - waiting.handed < habits.racy_window
        ]
        if not sweep.queue:
            return None
        waiting = sweep.queue[0]
        if habits.hand_out == "atomic":
            sweep.queue.pop(0)
        elif waiting.handed is None:
            waiting.handed = now
        return self.runs.find(sweep.entity, sweep.project, waiting.name)

    def _assign(self, sweep: Sweep, agent: Agent, run: StoredRun, kind: str) -> dict[str, object]:
        run.agent = agent.id
        self.assignments.append(Assignment(round(self.runs.now(), 3), agent.id, run.name, kind))
        return {
            "type": kind,
            "run_id": run.name,
            "args": run.sweep_args,
            "program": sweep.config.get("program"),
            "id": global_id("AgentCommand", run.name),
        }


def next_parameters(sweep: Sweep) -> dict[str, object] | None:
    """The next run's, as `{name: {"value": ...}}`; None when the grid, or the cap, is reached."""
    cap = sweep.config.get("run_cap")
    if cap and sweep.created >= int(str(cap)):
        return None
    parameters: dict[str, dict[str, object]] = sweep.config.get("parameters") or {}  # type: ignore[assignment]
    if sweep.config.get("method") != "grid":
        return {name: {"value": _draw(space)} for name, space in parameters.items()}
    if sweep.grid is None:
        axes = [space.get("values", [space.get("value")]) for space in parameters.values()]
        sweep.grid = (dict(zip(parameters, values, strict=True)) for values in itertools.product(*axes))  # type: ignore[arg-type]
    values = next(sweep.grid, None)
    return None if values is None else {name: {"value": value} for name, value in values.items()}


def _draw(space: dict[str, object]) -> object:
    if "values" in space:
        return random.choice(space["values"])  # type: ignore[arg-type]
    if "value" in space:
        return space["value"]
    low, high = space["min"], space["max"]
    if isinstance(low, int) and isinstance(high, int):
        return random.randint(low, high)
    return random.uniform(float(str(low)), float(str(high)))


def _name() -> str:
    return "".join(random.choices(string.ascii_lowercase + string.digits, k=8))
