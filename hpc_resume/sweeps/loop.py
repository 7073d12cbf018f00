"""The loop of an agent: ask W&B for one run at a time, until a warning, the end of the sweep or of the allocation.

Under a launcher it is the training that the batch shell knows: it announces itself, hears the warning, and says in
outcome.json how it ended. Its runs are kept beside its own directory, each under its W&B id.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from hpc_resume import contract
from hpc_resume.durable import write_json
from hpc_resume.run.announce import announce
from hpc_resume.run.events import EventLog, say
from hpc_resume.run.rundir import AttemptDir, RunDir
from hpc_resume.sweeps import bucket, family, fleet, hand
from hpc_resume.sweeps.agent import Ended, OneAgent
from hpc_resume.sweeps.decide import Leave, Situation, decide

if TYPE_CHECKING:
    from types import FrameType

    from hpc_resume.sweeps.bucket import Rate
    from hpc_resume.sweeps.hand import Hand
    from hpc_resume.sweeps.place import Place

_BACK_SECONDS: Final = 90.0  # for handing a run back; W&B's answers are bounded below it
_STATE_SECONDS: Final = 60.0
_STATE: Final = """\
import sys, wandb
print("state", wandb.Api(timeout=30).sweep(sys.argv[1]).state)
"""


class Loop:
    """One agent, from its first signal handler to its last file."""

    def __init__(self, place: Place, rate: Rate) -> None:
        self._place = place
        self._rate = rate
        self._received: list[int] = []
        self._heard = 0
        self._events: EventLog | None = None
        self._failures = 0
        self._served = 0
        self._started = False
        self._variables = place.variables(os.environ)

    def run(self) -> int:
        """The exit code."""
        self._install()
        if self._place.allocation is not None:
            self._events = announce(self._place.environment, self._place.allocation)
        if not family.adopt_orphans():
            say("this kernel lets nobody adopt orphans: a training whose agent is killed may be left to init")
        self._hand_back_leftover()
        fleet.resume_once(self._place, self._variables, self._is_warned)
        ending = self._serve()
        say(f"agent of {self._place.sweep}: {ending.words}; runs served: {self._served}")
        self._write_outcome(ending)
        return ending.code

    # --- signals --------------------------------------------------------------------------------------------------

    def _install(self) -> None:
        """A handler only records; INT is the person's, TERM and the job's own signal are Slurm's."""
        for signum in (self._place.environment.signum, signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._on_signal)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signum])

    def _on_signal(self, signum: int, _frame: FrameType | None) -> None:
        self._received.append(signum)

    def _signals(self) -> tuple[int, ...]:
        """Everything so far; each is told once."""
        received = tuple(self._received)
        for signum in received[self._heard :]:
            self._note("received", signal=signal.Signals(signum).name.removeprefix("SIG"))
            if signum == signal.SIGINT and received.count(signum) == 1:
                say("Ctrl-C: the run is saved and handed back; once more stops hard")
        self._heard = len(received)
        return received

    def _is_warned(self) -> bool:
        return bool(self._signals())

    # --- runs -----------------------------------------------------------------------------------------------------

    def _serve(self) -> Leave:
        state = ""
        while True:
            step = decide(self._situation(state))
            if isinstance(step, Leave):
                return step
            self._await_turn(step.delay)
            if self._is_warned():
                continue
            ended = OneAgent(self._place, self._variables, self._signals).run()
            self._conclude(ended)
            state = "" if ended.hand is not None or self._is_warned() else self._ask_state()

    def _situation(self, state: str) -> Situation:
        environment = self._place.environment
        left = environment.end_time - time.time() if environment.end_time is not None else None
        lead = environment.lead or 0.0
        return Situation(self._signals(), environment.signum, state, left, lead, self._failures)

    def _await_turn(self, delay: float) -> None:
        """A token of the bucket; where the directory lets nobody share one, the place in the array."""
        starts = bucket.Bucket(self._place.shared / contract.STARTS_DIR, self._rate, self._place.seed)
        try:
            seconds = starts.take()
        except OSError as error:
            say(f"{self._place.shared}: {error.strerror or error}; starts are spread by the array's index instead")
            first = not self._started
            seconds = bucket.by_index(self._rate, self._place.index, self._place.seed) if first else 0.0
        self._started = True
        self._note("turn", seconds=round(max(seconds, delay), 3), tries=starts.tries)
        bucket.wait(max(seconds, delay), self._is_warned)

    def _conclude(self, ended: Ended) -> None:
        if ended.left:
            self._note("orphans", names=family.names(list(ended.left)))
            say(f"could not end: {family.names(list(ended.left))}")
        if ended.hand is None:
            self._failures += 1
            return
        self._failures = 0
        self._served += 1
        run = self._place.run_dir(ended.hand.run)
        settled = hand.is_settled(ended.hand, run)
        self._note("served", run=ended.hand.run, settled=settled, killed=ended.killed)
        if not settled and (ended.killed or self._is_warned()):
            self._hand_back(ended.hand, run)
        self._place.hand_file.unlink(missing_ok=True)

    def _hand_back_leftover(self) -> None:
        """What the attempt before this one had in hand when its node was lost, or its batch shell killed."""
        own = self._place.allocation
        if own is None or own.number < 2:
            return
        file = AttemptDir(own.path.with_name(f"{own.number - 1:0{contract.ATTEMPT_DIGITS}d}")).path / contract.HAND_FILE
        before = hand.read(file)
        if before is None:
            return
        run = self._place.run_dir(before.run)
        if not hand.is_settled(before, run):
            self._hand_back(before, run)
        file.unlink(missing_ok=True)

    def _hand_back(self, taken: Hand, run: RunDir) -> None:
        """In a process of its own: wandb is not ours to load, and must not hang us."""
        words = [
            sys.executable,
            "-m",
            "hpc_resume.sweeps.hand_back",
            str(run.path),
            str(self._place.environment.signum),
        ]
        entity, project, name = self._place.sweep.split("/")
        told = {"WANDB_RUN_ID": taken.run, "WANDB_SWEEP_ID": name, "WANDB_ENTITY": entity, "WANDB_PROJECT": project}
        try:
            code = subprocess.run(
                words,
                env=self._variables | told,
                stdin=subprocess.DEVNULL,
                timeout=_BACK_SECONDS,
                check=False,
                start_new_session=True,
            ).returncode
        except (OSError, subprocess.TimeoutExpired) as error:
            say(f"run {taken.run} could not be handed back to its sweep: {error}")
            return
        self._note("handed_back", run=taken.run, code=code)
        if code not in (0, contract.EXIT_NO_WORK):
            say(f"run {taken.run} could not be handed back to its sweep (exit code {code})")

    def _ask_state(self) -> str:
        """The sweep's, by W&B's own client; empty when it does not answer."""
        with suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(
                [sys.executable, "-c", _STATE, self._place.sweep],
                env=self._variables,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_STATE_SECONDS,
                check=False,
                start_new_session=True,
            )
            for line in done.stdout.splitlines():
                if line.startswith("state "):
                    return line.split()[1].upper()
            why = done.stderr.strip().rpartition("\n")[2]
            say(f"W&B does not say what state {self._place.sweep} is in: {why}")
        return ""

    # --- words ----------------------------------------------------------------------------------------------------

    def _note(self, event: str, **data: object) -> None:
        if self._events is not None:
            self._events.write(event, **data)

    def _write_outcome(self, ending: Leave) -> None:
        if self._place.allocation is None or ending.code == contract.EXIT_NO_WORK:
            return  # that exit code says it all
        stopped = ending.code > contract.SIGNAL_BASE
        outcome = contract.OUTCOME_STOPPED if stopped else contract.OUTCOME_FINISHED
        name = signal.Signals(ending.code - contract.SIGNAL_BASE).name.removeprefix("SIG") if stopped else None
        record = {"outcome": outcome, "step": self._served, "signal": name, "code": ending.code}
        self._note(outcome, **record)
        with suppress(OSError):
            write_json(self._place.allocation.outcome_file, {"version": contract.FORMAT_VERSION, **record})
