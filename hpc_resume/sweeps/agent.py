"""One `wandb agent --count 1`, from its start until neither it nor anything that it has started is there any more.

The warning goes to the training itself, once it can hear it; the agent is ended when that is gone. W&B's agent would
forward it as well, but to a process that may not have come to its handlers (measured: killed 10 times in 10).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hpc_resume.run.deadline import KILL_WAIT, read_told
from hpc_resume.run.delivery import send_signal
from hpc_resume.run.events import say
from hpc_resume.run.process import read_stat
from hpc_resume.sweeps import family, hand

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hpc_resume.run.process import Identity
    from hpc_resume.sweeps.hand import Hand
    from hpc_resume.sweeps.place import Place

_TICK: Final = 0.1  # seconds
_STARTING: Final = 5.0  # from the record of a run in hand to its process: milliseconds
_UNREADY: Final = 60.0  # a training that never hears is terminated then, where nobody says when the end comes
_QUESTION: Final = 20.0  # a question that W&B leaves open for longer is given up, also with much time left
_SERVICE: Final = "wandb-core"


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of it. `killed`: the training did not end by itself, or was told to end before it could hear."""

    hand: Hand | None
    killed: bool
    code: int
    left: tuple[Identity, ...] = ()


class OneAgent:
    """`signals` gives what this process has received so far, oldest first."""

    def __init__(self, place: Place, variables: Mapping[str, str], signals: Callable[[], tuple[int, ...]]) -> None:
        self._place = place
        self._variables = dict(variables)
        self._signals = signals
        self._told: list[int] = []  # what the training was sent
        self._warned_at = 0.0
        self._asked_to_end: set[str] = set()
        self._seen = False  # the training
        self._killed = False

    def run(self) -> Ended:
        """Returns when all of its processes are gone."""
        place = self._place
        place.hand_file.unlink(missing_ok=True)
        words = ["agent", "--forward-signals", "--count", "1", place.sweep]
        agent = subprocess.Popen(
            [sys.executable, "-m", "hpc_resume.sweeps.client", str(place.hand_file), *words],
            env=self._variables,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C at a terminal is for us
        )
        family.wait_for(agent.pid)
        while agent.poll() is None or self._training(agent.pid) is not None:
            self._attend(agent)
            family.reap()
            time.sleep(_TICK)
        left = family.end_all(self._patience(), say)
        return Ended(hand.read(place.hand_file), self._killed or agent.returncode < 0, agent.returncode, tuple(left))

    def _attend(self, agent: subprocess.Popen[bytes]) -> None:
        """One look: pass on what has come, and end the agent when it has nothing to wait for."""
        signals = self._signals()
        if signals:
            self._warned_at = self._warned_at or time.monotonic()
        if signals.count(signal.SIGINT) > 1:
            self._stop_hard(agent)
        elif agent.poll() is not None:
            self._end_orphan(self._training(agent.pid), signals)
        elif signals:
            training = self._training(agent.pid)
            if training is not None:
                self._warn(training, signals)
            else:
                self._ask_to_end(agent)

    def _ask_to_end(self, agent: subprocess.Popen[bytes]) -> None:
        """Before a run has come the agent leaves when that is safe; after it there is nothing to wait for."""
        taken = self._place.hand_file.exists()
        if taken and not self._seen and time.monotonic() - self._warned_at < _STARTING:
            return  # in the middle of the start of the training
        stage = "done" if taken else "idle"
        if stage not in self._asked_to_end:
            self._asked_to_end.add(stage)
            agent.send_signal(signal.SIGTERM)
        elif not taken and time.monotonic() - self._warned_at > min(_QUESTION, self._unready()):
            say("W&B has not answered the agent's question for a run: the agent is ended without one")
            agent.kill()
            agent.wait()

    def _training(self, agent: int) -> Identity | None:
        """The process that trains the run in hand: the one that has announced itself, else the agent's child."""
        taken = hand.read(self._place.hand_file)
        if taken is None:
            return None
        below = [one for one in family.descendants(os.getpid()) if one.pid != agent]
        newest = self._place.run_dir(taken.run).newest_attempt()
        for record in newest.pids() if newest is not None else ():
            if any(one.is_same(record.process) for one in below):
                self._seen = True
                return record.process
        direct = set(family.children(agent)) | set(family.children(os.getpid()))
        for one in below:
            stat = read_stat(one.pid)
            if one.pid not in direct or stat is None or stat.name.startswith((_SERVICE, "hpc-heartbeat")):
                continue
            if family.environment_of(one.pid).get("WANDB_RUN_ID") == taken.run:
                self._seen = True
                return one
        return None

    def _warn(self, training: Identity, signals: tuple[int, ...]) -> None:
        """Each signal once, and the first only when it is heard: before that it would just kill."""
        warning = self._place.environment.signum
        wanted = [warning if signum == signal.SIGINT else signum for signum in signals]
        for signum in dict.fromkeys(wanted):
            if signum in self._told:
                continue
            if not self._told and not family.catches(training.pid, signum):
                if time.monotonic() - self._warned_at < self._unready():
                    return
                say("the training has not got ready for the warning: it is ended, and its run handed back")
                self._killed = True
                send_signal(training, signal.SIGKILL)
                return
            if send_signal(training, signum):
                self._told.append(signum)

    def _end_orphan(self, training: Identity | None, signals: tuple[int, ...]) -> None:
        """Something has killed the agent, and its training has become our child."""
        if training is None:
            return
        if not self._warned_at:
            say("the agent is gone without its training: that is warned, to save and to hand its run back")
            self._warned_at = time.monotonic()
        self._warn(training, signals or (self._place.environment.signum,))

    def _stop_hard(self, agent: subprocess.Popen[bytes]) -> None:
        """A second Ctrl-C."""
        self._killed = True
        for one in family.descendants(os.getpid()):
            send_signal(one, signal.SIGKILL)
        agent.wait()

    def _unready(self) -> float:
        """How long a training may take until it can hear: half of what is left."""
        allocation = self._place.allocation
        told = read_told(allocation.warning_file) if allocation is not None else None
        if told is not None:
            return max(1.0, (told.deadline - told.t) / 2)
        lead = self._place.environment.lead
        return max(1.0, min(lead, KILL_WAIT) / 2) if lead else _UNREADY

    def _patience(self) -> family.Patience:
        """In a dying allocation every second counts."""
        return family.Patience(itself=2.0, term=2.0, kill=2.0) if self._signals() else family.Patience()
