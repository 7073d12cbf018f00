"""The report of `hpc-resume locks`: the file system, what was tried out on it, the mechanism, and the leases."""

from __future__ import annotations

import getpass
import os
from dataclasses import dataclass
from pathlib import Path

from hpc_resume import contract
from hpc_resume.checkpoints.generations import Generations
from hpc_resume.errors import ConfigError, RunNotFoundError
from hpc_resume.observe.leases import WORDS, Held, leases
from hpc_resume.observe.locks_probe import Probe, Together, probe, together
from hpc_resume.run import filesystem
from hpc_resume.run.lease import Mechanism, break_lease, describe, mechanism
from hpc_resume.run.rundir import RunDir, find_runs


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. `together` is None where one process alone has looked."""

    directory: Path
    kind: str
    mechanism: Mechanism
    probes: tuple[Probe, ...]
    together: Together | None
    unmet: bool
    held: tuple[Held, ...]

    @property
    def refusal(self) -> str:
        """Why several nodes cannot work on it; empty when nothing speaks against it."""
        if self.kind in filesystem.VOLATILE:
            return f"{self.kind} is a node's own memory or container: every node has another one, and it does not last"
        if self.unmet:
            return "the tasks of this step do not see each other's files: the directory is not shared"
        if self.together is not None and self.together.twice:
            return f"{len(self.together.twice)} numbers were given to two claimants: nothing here can be trusted"
        bad = [probe.name for probe in self.probes if probe.needed and not probe.good]
        if bad:
            return f"{', '.join(bad)} cannot be trusted"
        if self.is_local_disk:
            return f"{self.kind} is a disk of this machine alone, and the next start of a job may be on another"
        return ""

    @property
    def is_local_disk(self) -> bool:
        """Whether no other node has been seen here, and none can be; HPC_RESUME_LOCKS=log says that one can."""
        alone = self.together is None or len(self.together.hosts) < 2
        return alone and self.mechanism == "kernel" and filesystem.is_node_local(self.kind)

    @property
    def exit_code(self) -> int:
        """78 for a directory that is refused."""
        return contract.EXIT_CONFIG if self.refusal else 0

    def text(self) -> str:
        """For people."""
        lines = [f"{self.directory} is on {self.kind or 'a file system that nothing names'}"]
        lines += [f"  {p.name:<11} {'ok' if p.good else 'BAD' if p.needed else 'no':<4} {p.words}" for p in self.probes]
        if self.together is not None:
            seen = f"a rename is seen everywhere within {1000 * self.together.seen_after:.0f} ms"
            lines.append(f"  {len(self.together.hosts)} nodes     ok   {', '.join(self.together.hosts)}: {seen}")
        lines.append(f"  mechanism   {_MECHANISM[self.mechanism]}")
        if self.refusal:
            lines.append(f"  REFUSED     {self.refusal}; set run_dir to a shared file system")
            if self.is_local_disk and self.kind not in filesystem.VOLATILE:
                lines.append(
                    "              (good for jobs that never leave this machine; is it exported: srun -N2 tells)"
                )
        width = max((len(one.run) for one in self.held), default=0)
        lines += ["", *(f"{h.run:<{width}}  {h.owner}: {WORDS[h.state]}" for h in self.held)] if self.held else []
        return "\n".join(lines) + "\n"

    def record(self) -> dict[str, object]:
        """As JSON."""
        nodes = self.together
        return {
            "directory": str(self.directory),
            "file_system": self.kind,
            "mechanism": self.mechanism,
            "refused": self.refusal,
            "probes": [{"name": p.name, "good": p.good, "needed": p.needed, "words": p.words} for p in self.probes],
            "nodes": list(nodes.hosts) if nodes is not None else [],
            "seen_after": nodes.seen_after if nodes is not None else None,
            "claimed_twice": list(nodes.twice) if nodes is not None else [],
            "leases": [one.record() for one in self.held],
        }


_MECHANISM: dict[Mechanism, str] = {
    "kernel": "POSIX locks of this machine's kernel",
    "log": "a log of generations, claimed by link(2), and heartbeats",
}


def look(directory: Path) -> Report | None:
    """Everything about `directory`; None in all tasks of a step but the first. Raises ConfigError."""
    if not directory.is_dir():
        raise ConfigError(f"{directory}: no such directory; name the run_dir of your job.yaml")
    rank, count = int(os.environ.get("SLURM_PROCID", "0")), int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    seen, unmet = None, False
    try:
        if count > 1:
            name = f"{os.environ.get('SLURM_JOB_ID', '0')}.{os.environ.get('SLURM_STEP_ID', '0')}"
            try:
                seen = together(directory, name, rank, count)
            except TimeoutError:
                unmet = True
        if rank != 0:
            return None
        kind = filesystem.kind(directory)
        return Report(directory, kind, mechanism(directory), probe(directory), seen, unmet, tuple(leases(directory)))
    except OSError as error:
        raise ConfigError(f"{directory}: {error.strerror or error}; it must be one that you can write") from error


def find(directory: Path, name: str) -> RunDir:
    """The run of that key below `directory`. Raises RunNotFoundError."""
    for run in find_runs(directory):
        if name in (run.key, str(run.path)):
            return run
    raise RunNotFoundError(f"no run {name} below {directory}; `hpc-resume locks {directory}` lists them")


def owner_of(run: RunDir) -> str:
    """Who has it, for people."""
    log = Generations(run.lease_dir)
    return describe(log.owner(log.highest()))


def take_away(run: RunDir) -> int:
    """Fence its owner off; the generation that does."""
    return break_lease(run, getpass.getuser())
