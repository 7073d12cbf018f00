"""Who has which run below a directory, and whether they live, as far as one look from here can tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpc_resume import contract
from hpc_resume.checkpoints.generations import Generations
from hpc_resume.run.lease import Observer, State, describe
from hpc_resume.run.rundir import RunDir, find_runs

WORDS: Final[dict[State, str]] = {
    "free": "given back",
    "dead": "gone: the next start has it",
    "alive": "at work",
    "unseen": "on another machine: watch its heartbeat",
}


@dataclass(frozen=True, slots=True)
class Held:
    """One run's lease. `owner` is for people."""

    run: str
    generation: int
    state: State
    owner: str

    def record(self) -> dict[str, object]:
        """As JSON."""
        return {"run": self.run, "generation": self.generation, "state": self.state, "owner": self.owner}


def leases(directory: Path) -> Iterator[Held]:
    """Of every run below `directory`, and of the fleets of its sweeps, that anybody has ever had."""
    for run in (*find_runs(directory), *_fleets(directory)):
        log = Generations(run.lease_dir)
        number, state = Observer(log).look()
        if number:
            yield Held(run.key, number, state, describe(log.owner(number)))


def _fleets(directory: Path) -> Iterator[RunDir]:
    for place in sorted(directory.glob(f"{contract.SWEEP_PREFIX}*/{contract.FLEETS_DIR}/*")):
        yield RunDir(place)
