"""One process at a time continues a run; who wants to asks here first, and W&B, a directory or a step only afterwards.

Two mechanisms, by the file system of the run directory (`hpc-resume locks` says which, HPC_RESUME_LOCKS overrules):

- kernel: where one machine alone sees it, a POSIX record lock on run.lock. Exact; given back however a process ends.
- log: everywhere else. The owner is who has the highest number in the log of generations, taken by link(2); it shows
  life by a heartbeat process. A dead owner is taken over at once when it can be seen to be dead from here (its pid, its
  heartbeat's last word, Slurm), else after 1.75 periods without a sign. A living one never, also when it is stopped.

Not promised: that a process which is taken over while it and its heartbeat are both frozen knows it at once. It finds
out at its next look or publish, and what it published in between does not count (generations).
Never open run.lock elsewhere in the same process: closing any descriptor of it would drop the lock (POSIX).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from hpc_resume import contract
from hpc_resume.checkpoints.generations import Generations
from hpc_resume.durable import DIR_MODE, FILE_MODE, read_plain
from hpc_resume.errors import ConfigError, RunHeldError
from hpc_resume.run import filesystem, job_state
from hpc_resume.run.liveness import LOOKS, PERIOD, Watch
from hpc_resume.run.process import is_alive, own_identity
from hpc_resume.run.pulse import Pulse, period
from hpc_resume.run.records import Fields

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from hpc_resume.run.rundir import RunDir

Mechanism = Literal["kernel", "log"]
State = Literal["free", "dead", "alive", "unseen"]

_HELD: Final = (errno.EACCES, errno.EAGAIN)
_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@dataclass(frozen=True, slots=True)
class Claimant:
    """What a claim says of its owner besides the process: Slurm's job and which start of it, and the attempt."""

    job_id: str = ""
    restart_count: int = 0
    attempt: int = 0

    def record(self, locks: Mechanism) -> dict[str, object]:
        """With the process, and what keeps others out, as it goes into the log."""
        me = own_identity()
        process = {
            "pid": me.pid,
            "start_ticks": me.start_ticks,
            "boot_id": me.boot_id,
            "host": me.host,
            "pid_ns": me.pid_ns,
        }
        mine = {"attempt": self.attempt, "job_id": self.job_id, "restart_count": self.restart_count}
        return mine | process | {"locks": locks, "period": period()}


class Lease:
    """The right to continue a run, held by this process until `release`, or until it is gone."""

    def __init__(self, log: Generations, claimant: Claimant) -> None:
        self.generation = 0  # before `claim`, where a lock is what holds it
        self._log = log
        self._claimant = claimant
        self._pid = os.getpid()
        self._descriptor = -1
        self._pulse: Pulse | None = None

    def claim(self) -> int:
        """The generation that whatever this process publishes carries. Raises OSError."""
        if self.generation == 0:
            self.generation = self._log.claim(self._claimant.record("kernel"))
        return self.generation

    def check(self) -> None:
        """Raise RunHeldError once another process has taken the run over; see that the heartbeat goes on."""
        highest = self._log.highest()
        if self.generation and highest > self.generation:
            raise RunHeldError(
                f"{describe(self._log.owner(highest))} has taken this run over (generation {highest}, this process has"
                f" {self.generation}); it ends here"
            )
        if self._pulse is not None:
            self._pulse.keep()

    def release(self) -> None:
        """Give it back; the next one may continue the run. In a forked child: nothing."""
        if os.getpid() != self._pid:
            return
        if self._pulse is not None:
            self._pulse.stop()
            self._pulse = None
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1


def mechanism(directory: Path) -> Mechanism:
    """What keeps two processes apart in `directory`. Raises ConfigError for a word in HPC_RESUME_LOCKS that is none."""
    told = os.environ.get(contract.ENV_LOCKS, "")
    if told not in ("", "kernel", "log"):
        raise ConfigError(f"{contract.ENV_LOCKS}={told}: give kernel or log, or unset it")
    if told:
        return "kernel" if told == "kernel" else "log"
    return "kernel" if filesystem.is_node_local(filesystem.kind(directory)) else "log"


def take(run: RunDir, claimant: Claimant = Claimant(), say: Callable[[str], None] | None = None) -> Lease | None:
    """The run's lease, or None while another process holds it.

    Whether an owner on another machine lives takes up to two periods to see; `say` is told when that begins.
    Raises OSError when the directory cannot be used.
    """
    lease = Lease(Generations(run.lease_dir), claimant)
    if mechanism(run.path) == "kernel":
        locked = _lock(run.lock_file)
        if locked is not None:
            if locked >= 0 and not _is_foreign(lease._log):  # noqa: SLF001 - one unit
                lease._descriptor = locked  # noqa: SLF001
                return lease
            if locked < 0:
                return None
            os.close(locked)
    return _take_by_log(lease, say or (lambda _words: None))


def _lock(path: Path) -> int | None:
    """A descriptor that holds the lock, -1 while another process does, None where there are no locks."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in _NO_LOCKS:
            return None
        if error.errno in _HELD:
            return -1
        raise
    return descriptor


def _is_foreign(log: Generations) -> bool:
    """Whether the newest owner is one that beats, on another machine: this one serves the file system to it."""
    record = log.owner(log.highest())
    return record.get("locks") == "log" and is_alive(Fields(record).identity()) is None


def _take_by_log(lease: Lease, say: Callable[[str], None]) -> Lease | None:
    log = lease._log  # noqa: SLF001 - one unit
    observer = Observer(log)
    told = 0
    while True:
        number, state = observer.look()
        if state == "alive":
            return None
        if state != "unseen":
            mine = log.claim_after(number, lease._claimant.record("log"))  # noqa: SLF001
            if mine is not None and log.highest() == mine:
                lease.generation = mine
                lease._pulse = Pulse(log.beat_file(mine), mine)  # noqa: SLF001
                return lease
            continue
        if told != number:
            told = number
            say(f"{describe(log.owner(number))} had this run: watching whether it still lives")
        time.sleep(observer.period / LOOKS)


class Observer:
    """Looks at the newest owner in a log again and again, and judges it."""

    def __init__(self, log: Generations) -> None:
        self._log = log
        self._watch = Watch(0)
        self._asked: tuple[int, float] | None = None  # Slurm: about which generation, and when
        self.period = PERIOD

    def look(self) -> tuple[int, State]:
        """The highest generation and what is known of its owner now. Raises OSError."""
        number = self._log.highest()
        if number == 0:
            return 0, "free"
        sign = read_sign(self._log.beat_file(number))
        beat = _parse(sign)
        if beat.get("released"):
            return number, "free"
        record = self._log.owner(number)
        self.period = _period(beat, record)
        visible = is_alive(Fields(record).identity()) if record else None
        if visible is not None:
            return number, "alive" if visible else "dead"
        self._watch = self._watch.look(number, sign, time.monotonic(), self.period)
        if self._watch.changed:
            return number, "alive"
        if self._watch.is_dead(self.period) or self._is_gone(number, record):
            return number, "dead"
        return number, "unseen"

    def _is_gone(self, number: int, record: Mapping[str, object]) -> bool:
        """By Slurm's word, asked once a period."""
        now = time.monotonic()
        if self._asked is not None and self._asked[0] == number and now - self._asked[1] < self.period:
            return False
        self._asked = (number, now)
        fields = Fields(record)
        job, restarts, host = fields.text("job_id"), fields.whole("restart_count"), fields.text("host")
        return bool(job) and job_state.is_gone(job, restarts or 0, host) is True


def read_sign(file: Path) -> bytes | None:
    """What an owner shows; None when there is nothing."""
    try:
        return read_plain(file)
    except OSError:
        return None


def describe(record: Mapping[str, object]) -> str:
    """An owner, for people."""
    if not record:
        return "another process"
    job = f" (job {record['job_id']})" if record.get("job_id") else ""
    return f"pid {record.get('pid', '?')} on {record.get('host', '?')}{job}"


def break_lease(run: RunDir, by: str) -> int:
    """Take the run from whoever has it, for nobody: the next one may continue it. The generation that says so.

    An owner that lives is fenced off: it ends at its next look or publish. Raises OSError.
    """
    log = Generations(run.lease_dir)
    run.lease_dir.mkdir(DIR_MODE, exist_ok=True)
    number = log.claim({"broken_by": by, "pid": 0, "host": own_identity().host})
    Pulse.write(log.beat_file(number), number, "broken by hand")
    return number


def _parse(sign: bytes | None) -> Mapping[str, object]:
    with contextlib.suppress(ValueError, TypeError):
        return dict(json.loads(sign or b"{}"))
    return {}


def _period(beat: Mapping[str, object], record: Mapping[str, object]) -> float:
    for told in (beat.get("period"), record.get("period")):
        if isinstance(told, int | float) and told > 0:
            return float(told)
    return PERIOD
