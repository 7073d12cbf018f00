"""A W&B server on this machine's loopback, for tests with the real client: start it, break it, look at its runs.

`with Loopback() as server:`, then clients with `env=server.environment(tmp_path)`, then `server.run("abc").state`.
"""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from loopback_backend import MODES, USER, Backend, Request, Settings
from loopback_http import Server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from loopback_runs import StoredRun
    from loopback_sweeps import Assignment

API_KEY = "0123456789abcdef0123456789abcdef01234567"  # 40 characters: the client counts them
PROJECT = "nets"


@dataclass(frozen=True, slots=True)
class SeenRun:
    """A run as it was at one moment. `rows` are the history's, in the server's order, with the client's `_step`."""

    name: str
    state: str
    exit_code: int | None
    preempting: bool
    notes: str | None
    config: dict[str, object]
    summary: dict[str, object]
    tags: list[str]
    sweep: str | None
    starts: int
    rows: list[dict[str, object]]
    files: dict[str, bytes]
    transitions: list[str]
    said: list[str]

    def column(self, metric: str) -> list[object]:
        """The values of one metric, of the rows that have it."""
        return [row[metric] for row in self.rows if metric in row]


class Loopback:
    """One server. Everything may be called while clients are at work."""

    def __init__(self, settings: Settings | None = None, port: int = 0) -> None:
        self.settings = settings or Settings()
        self.backend = Backend(self.settings)
        self._server: Server | None = None
        self._port = port
        self._closing = threading.Event()
        self._reaper = threading.Thread(target=self._reap, name="loopback-reaper", daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        self._listen()
        self._reaper.start()

    def stop(self) -> None:
        self._closing.set()
        self._reaper.join()
        self._leave()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def behave(self, mode: str, only: str = "", delay: float = 1.0) -> None:
        """From now on be `up`, `slow`, `hanging`, `500`, `404` or `gone`; `only` below a path ("/files", "/graphql")."""
        assert mode in MODES, mode
        self.settings.mode_for, self.settings.delay, self.settings.mode = only, delay, mode
        if mode == "gone":
            self._leave()
        elif self._server is None:
            self._listen()

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """This process's, for a client of this server that keeps all of its own files below `home`."""
        foreign = ("WANDB_", "HPC_RESUME_", "SLURM_", "SBATCH_")
        variables = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            variables.pop(name, None)
        own = {
            "WANDB_BASE_URL": self.base_url,
            "WANDB_API_KEY": API_KEY,
            "WANDB_ENTITY": USER,
            "WANDB_PROJECT": PROJECT,
            "WANDB_ERROR_REPORTING": "false",
            "WANDB_SILENT": "true",
            "WANDB_DIR": str(home),
            "WANDB_CONFIG_DIR": str(home / "wandb-config"),
            "WANDB_CACHE_DIR": str(home / "wandb-cache"),
            "WANDB_DATA_DIR": str(home / "wandb-data"),
            "WANDB_ARTIFACT_DIR": str(home / "wandb-artifacts"),
        }
        return variables | own | more

    # --- what it has ----------------------------------------------------------------------------------------------

    def run(self, name: str, project: str = PROJECT, entity: str = USER) -> SeenRun | None:
        with self.backend.lock:
            found = self.backend.runs.find(entity, project, name)
            return None if found is None else _seen(found)

    def runs(self) -> list[SeenRun]:
        with self.backend.lock:
            return [_seen(run) for run in self.backend.runs]

    def requests(self, kind: str | None = None, name: str | None = None) -> list[Request]:
        """The log so far: kind `graphql` (name: the operation), `stream` (name: the run), `PUT`, `GET`."""
        with self.backend.lock:
            every = list(self.backend.requests)
        return [one for one in every if kind in (None, one.kind) and name in (None, one.name)]

    def unhandled(self) -> list[str]:
        """What a client asked for in vain."""
        with self.backend.lock:
            return list(self.backend.unhandled)

    def assignments(self) -> list[Assignment]:
        with self.backend.lock:
            return list(self.backend.sweeps.assignments)

    def create_sweep(self, config: str, project: str = PROJECT, entity: str = USER) -> str:
        """`config` is YAML. Returns entity/project/id."""
        with self.backend.lock:
            return f"{entity}/{project}/{self.backend.sweeps.create(config, entity, project).name}"

    def sweep_state(self, path: str) -> str:
        with self.backend.lock:
            return self.backend.sweeps.by_name[path.rpartition("/")[2]].state

    def queued(self, path: str) -> list[str]:
        """The preempted runs that wait for an agent of this sweep."""
        with self.backend.lock:
            return [waiting.name for waiting in self.backend.sweeps.by_name[path.rpartition("/")[2]].queue]

    def stop_run(self, name: str, project: str = PROJECT, entity: str = USER) -> None:
        """As the stop button of the web page."""
        with self.backend.lock:
            run = self.backend.runs.find(entity, project, name)
            assert run is not None, name
            run.stop_wanted = True

    def annotate(self, name: str, notes: str, project: str = PROJECT, entity: str = USER) -> None:
        """As a person who writes into the web page."""
        with self.backend.lock:
            run = self.backend.runs.find(entity, project, name)
            assert run is not None, name
            run.notes = notes

    def wait_for(self, holds: Callable[[], object], seconds: float = 60.0) -> None:
        """Until `holds()`; an AssertionError with every run's state after `seconds`."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                states = {run.name: (run.state, run.said) for run in self.runs()}
                raise AssertionError(f"not in {seconds:g} s; runs: {states}; unhandled: {self.unhandled()}")
            time.sleep(0.02)

    # --- the server's threads -------------------------------------------------------------------------------------

    def _listen(self) -> None:
        self._server = Server(self.backend, self._port)
        self._port = self._server.server_address[1]
        self.backend.base = self.base_url
        serve = self._server.serve_forever
        threading.Thread(target=serve, args=(0.05,), name="loopback", daemon=True).start()

    def _leave(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.go()

    def _reap(self) -> None:
        while not self._closing.wait(0.1):
            self.backend.reap()


def _seen(run: StoredRun) -> SeenRun:
    config = json.loads(run.config)
    return SeenRun(
        run.name,
        run.state,
        run.exit_code,
        run.preempting,
        run.notes,
        {key: item["value"] for key, item in config.items() if isinstance(item, dict) and "value" in item},
        json.loads(run.summary),
        list(run.tags),
        run.sweep,
        run.starts,
        [json.loads(line) for line in run.lines("history")],
        dict(run.files),
        [state for state, _ in run.transitions],
        [what for what, _ in run.said],
    )
