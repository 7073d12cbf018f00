"""How the ranks of one attempt come together: rank 0 opens the run and invites, the others go on from what it says."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from hpc_resume import contract
from hpc_resume.errors import ConfigError, HpcResumeError, RankLostError, UsageError
from hpc_resume.run.ending import AlreadyFinished, Stopped, describe
from hpc_resume.run.opening import check_owner
from hpc_resume.run.ranks import member as members
from hpc_resume.run.ranks.chair import Chair
from hpc_resume.run.ranks.ensemble import Ensemble
from hpc_resume.run.ranks.member import Member
from hpc_resume.run.ranks.rendezvous import Departure, departures, enter, listen, note_departure, own_addresses
from hpc_resume.run.rundir import AttemptDir, RunDir
from hpc_resume.run.storage import join_storage, open_storage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hpc_resume.run.environment import Environment
    from hpc_resume.run.events import EventLog
    from hpc_resume.run.opening import Opening
    from hpc_resume.run.ranks.agreement import Report
    from hpc_resume.run.ranks.wire import Channel
    from hpc_resume.run.signals import Recorder
    from hpc_resume.run.storage import Storage, Wishes

_WORD_SECONDS: Final = 1.5  # for the others to leave word when rank 0 is gone
_AGENTS: Final = ("TORCHELASTIC_RUN_ID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")  # torchrun and mpirun end what is left
PATIENCE: Final = 600.0  # seconds until a rank that has not come is given up; as PyTorch's own rendezvous


@dataclass(frozen=True, slots=True)
class Place:
    """Where the ranks of this attempt meet; `departures` is None where nobody can have left word."""

    rendezvous: Path
    departures: Path | None


class Meeting:
    """One rank's way to the others: `prepare`, then the opening of the run, then `open`."""

    def __init__(self, environment: Environment, asked: Path | None, recorder: Recorder) -> None:
        self._environment = environment
        self._recorder = recorder
        self._place = _place(environment, asked)
        self._run_dir = environment.run_dir or asked
        self._since = time.monotonic()
        self._channel: Channel | None = None
        self._welcome: Mapping[str, Any] = {}

    def prepare(self) -> Environment:
        """Without a launcher only rank 0 knows which attempt this is: the others ask it first."""
        if self._environment.rank and not self._environment.launched:
            self._enter()
            return replace(self._environment, attempt=int(self._welcome["attempt"]))
        return self._environment

    def open(self, opening: Opening, events: EventLog, wishes: Wishes) -> tuple[Storage, Ensemble]:
        """The run's storage, and this rank's seat. Raises as open_storage does; Stopped, RankLostError."""
        if self._environment.rank:
            return self._join(opening, events)
        return self._invite(opening, events, wishes)

    def excuse(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """As an exit callback: a rank that cannot start leaves word for those that would wait for it."""
        directory = self._place.departures
        if error is None or directory is None:
            return
        if isinstance(error, Stopped):
            leave_word(directory, Departure(self._environment.rank, error.signum, 0, "warned before it had come"))
            return
        code = error.exit_code if isinstance(error, HpcResumeError) else 0 if isinstance(error, AlreadyFinished) else 1
        leave_word(directory, Departure(self._environment.rank, 0, code, describe(error, os.environ)))

    def _invite(self, opening: Opening, events: EventLog, wishes: Wishes) -> tuple[Storage, Ensemble]:
        environment = self._environment
        storage = open_storage(environment, opening, events, wishes)
        newest = storage.loaded.newest
        generation = storage.store.generation
        welcome = {"attempt": opening.attempt, "generation": generation, "step": newest.step if newest else None}
        try:
            addresses = own_addresses(os.environ, one_host=environment.one_host)
            sockets, invitation = listen(self._place.rendezvous, addresses)
        except OSError as error:
            raise ConfigError(
                f"{self._place.rendezvous}: {error.strerror or error}; no rank can meet rank 0"
            ) from error
        local = _Local()
        seat = Member(0, local)
        size = environment.world_size
        chair = Chair(size, sockets, invitation, welcome, seat.told, self._place.departures, PATIENCE, self._echo)
        local.chair = chair
        _at_fork(chair)
        chair.start()
        return storage, Ensemble(seat, 0, size, chair.close)

    def _join(self, opening: Opening, events: EventLog) -> tuple[Storage, Ensemble]:
        if self._channel is None:
            self._enter()
        assert self._channel is not None  # noqa: S101 - just entered
        environment = self._environment
        seat = Member(environment.rank, self._channel)
        ensemble = Ensemble(seat, environment.rank, environment.world_size, lambda _seconds: None)
        _at_fork(self._channel)
        members.listen(self._channel, seat, lambda: self._find_warning(seat))
        try:
            step = self._welcome["step"]
            storage = join_storage(environment, opening, events, int(self._welcome["generation"]), step)
        except HpcResumeError as error:
            ensemble.fail(describe(error, os.environ), error.exit_code)
            raise
        return storage, ensemble

    def _enter(self) -> None:
        self._channel, message = enter(self._place.rendezvous, self._environment.rank, self._look)
        self._welcome = message["welcome"]

    @property
    def _echo(self) -> int:
        """The signal that the death of a rank brings to the rest, 0: none."""
        return signal.SIGTERM if any(name in os.environ for name in _AGENTS) else 0

    def _find_warning(self, seat: Member) -> int:
        """Rank 0 is gone: the run directory is how the others tell each other that they have been warned."""
        until = time.monotonic() + _WORD_SECONDS
        directory = self._place.departures
        known = seat.warned
        while time.monotonic() < until:
            # The watchdog passes on what the main thread, stuck in a collective, has not come to record.
            if (signum := known or seat.warned) and (known or signum != self._echo):
                if directory is not None:
                    leave_word(directory, Departure(self._environment.rank, signum, 0, "warned, and rank 0 is gone"))
                return signum
            for left in departures(directory) if directory is not None else ():
                if left.signum:
                    return left.signum
            time.sleep(0.05)
        return 0

    def _look(self) -> None:
        """Ask, while rank 0 is not there, whether there is any use in waiting for it."""
        if self._recorder.first is not None:
            raise Stopped(self._recorder.first.signum, 0)
        if self._run_dir is not None:
            with contextlib.suppress(FileNotFoundError):  # rank 0 makes it
                check_owner(self._run_dir)  # before its invitation is read: another user's is none
            if RunDir(self._run_dir).finished() is not None:
                raise AlreadyFinished
        for left in departures(self._place.departures) if self._place.departures is not None else ():
            if left.signum:
                raise Stopped(left.signum, 0)
            if left.rank == 0 and left.code == 0:
                raise AlreadyFinished
            raise RankLostError(f"rank {left.rank} has left before it had met the others: {left.words}", left.code or 1)
        if time.monotonic() - self._since > PATIENCE:
            raise RankLostError(f"rank 0 did not open the run within {PATIENCE:.0f} s; its own words say why", 1)


class _Local:
    """Rank 0 speaks to its own chair."""

    chair: Chair

    def send(self, message: Report | dict[str, int]) -> None:
        """Into the inbox."""
        self.chair.post(message["warned"] if isinstance(message, dict) else message)

    def close(self) -> None:
        """The chair is closed when the others have gone."""


def leave_word(directory: Path, departure: Departure) -> None:
    """As well as the disk allows: whoever waits gives up by himself, later."""
    with contextlib.suppress(OSError):
        note_departure(directory, departure)


def _place(environment: Environment, asked: Path | None) -> Place:
    if environment.attempt_dir is not None:
        attempt = AttemptDir(environment.attempt_dir)
        return Place(attempt.rendezvous_file(environment.incarnation), attempt.departures_dir)
    directory = environment.run_dir or asked
    if directory is None:
        raise UsageError(
            f"rank {environment.rank} of {environment.world_size} does not know the run directory: set"
            f" {contract.ENV_RUN_DIR} for all ranks"
        )
    # The same for all ranks of one start, another for the next: what torchrun, or the step, calls it.
    names = (
        "TORCHELASTIC_RUN_ID",
        "MASTER_ADDR",
        "MASTER_PORT",
        "SLURM_JOB_ID",
        "SLURM_STEP_ID",
        "SLURM_RESTART_COUNT",
    )
    start = ":".join([*(os.environ.get(name, "") for name in names), str(environment.incarnation)])
    return Place(directory / f".{zlib.crc32(start.encode()):08x}.{contract.RENDEZVOUS_FILE}", None)


def _at_fork(one: Chair | Channel) -> None:
    """A forked child (a data loader's worker) must not keep a connection open that its parent's death would end."""
    os.register_at_fork(after_in_child=one.drop)
