"""Which step all ranks stop, or save, at: one pure state machine at rank 0, and what each rank makes of its word.

Nothing is exchanged per step. When one rank is warned, rank 0 orders FREEZE: each rank holds at its next boundary and
says how far it is. The agreed step is the highest that any rank has begun; who holds below it goes on to it, since
others may wait for it there in a collective. A rank that has answered cannot begin a step beyond that: its answer is
read after its freeze is set, and its main thread writes its step before it looks at the freeze.

    GATHER -> RUN -> FREEZE -> GO -> OPEN -> WRITE -> COMMIT -> SAVED -> FREEZE ... -> END
                     (each of them may become LEAVE: a rank is gone, or was warned before the first step)

Rejected: a step announced ahead (no margin is safe where ranks are not in lockstep), and a collective per step.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

SETTLE: Final = 0.2  # seconds in which ranks that are about to come to a boundary may do so
BLAME: Final = 1.0  # seconds in which a warning, or the loss of a rank, may explain the failure or loss of another


class Phase(StrEnum):
    """What rank 0 orders."""

    GATHER = "gather"  # not all ranks are there: nobody begins
    RUN = "run"
    FREEZE = "freeze"  # hold at the next boundary, and say where that is
    GO = "go"  # on to `step`, and hold there
    OPEN = "open"  # all are there: rank 0 makes a place to write into
    WRITE = "write"  # each rank writes its part into `place`
    COMMIT = "commit"  # all parts are durable: rank 0 publishes
    SAVED = "saved"  # or not, then `failure` says why; with `signum` everybody leaves now
    LEAVE = "leave"  # at once, without a boundary
    END = "end"  # all have come to the end of the training


class State(StrEnum):
    """What a rank says of itself."""

    READY = "ready"  # before its first step
    RUNNING = "running"  # has passed the boundary `step`
    HELD = "held"  # its main thread waits at the boundary `step`
    OPENED = "opened"
    WRITTEN = "written"
    PUBLISHED = "published"
    ENDING = "ending"  # the training is over, as far as this rank is concerned
    FAILED = "failed"  # an exception has left the training
    LEFT = "left"  # its last word


@dataclass(frozen=True, slots=True)
class Order:
    """Rank 0's word to all. `signum`: this round ends with everybody leaving, for that signal; 0: it only saves.

    `step` is in completed steps, `code` the exit code of a LEAVE that is no stop.
    """

    phase: Phase = Phase.GATHER
    round: int = 0
    step: int = 0
    signum: int = 0
    place: str = ""
    failure: str = ""
    code: int = 0

    @property
    def is_idle(self) -> bool:
        """Whether a training goes on without a look at us."""
        return self.phase is Phase.RUN or (self.phase is Phase.SAVED and not self.signum)

    @property
    def is_last(self) -> bool:
        """Whether everybody leaves by this order: who is gone after it is not missed."""
        return self.phase in (Phase.LEAVE, Phase.END) or (self.phase is Phase.SAVED and bool(self.signum))


@dataclass(frozen=True, slots=True)
class Report:
    """One rank's word, in the round that it knows. `final`: no step comes after `step`. `wish`: it asks for a save.

    `failure` says why something could not be done; `code` is the exit code of a FAILED.
    """

    state: State
    round: int = 0
    step: int = 0
    final: bool = False
    wish: bool = False
    place: str = ""
    failure: str = ""
    code: int = 0

    @property
    def begun(self) -> int:
        """The highest step that the rank may have begun: it is past the boundary, or may be by now."""
        return self.step if self.final or self.state is not State.RUNNING else self.step + 1


@dataclass(frozen=True, slots=True)
class Council:
    """What rank 0 knows: the newest report of each rank, who is gone and in which words, the first warning.

    `echo`: the signal that whoever started the ranks sends to the rest when one is gone; from then on no warning.
    """

    size: int
    order: Order = Order()
    reports: tuple[Report | None, ...] = ()
    gone: tuple[tuple[int, str], ...] = ()
    warned: int = 0
    hasty: int = field(default=-1)  # the round whose patience is over
    echo: int = 0

    @classmethod
    def of(cls, size: int, echo: int = 0) -> Council:
        """Before anybody has come."""
        return cls(size, reports=(None,) * size, echo=echo)

    def hear(self, rank: int, report: Report) -> Council:
        """A rank has spoken."""
        reports = (*self.reports[:rank], report, *self.reports[rank + 1 :])
        return replace(self, reports=reports)

    def lose(self, rank: int, words: str) -> Council:
        """A rank is gone; whether it was on its way out anyway is known here."""
        report = self.reports[rank]
        if (report is not None and report.state is State.LEFT) or self.order.is_last:
            return self
        if any(known == rank for known, _ in self.gone):
            return self
        return replace(self, gone=(*self.gone, (rank, words)))

    def warn(self, signum: int) -> Council:
        """A rank has been warned; only the first signal counts."""
        if self.gone and signum == self.echo:
            return self
        return replace(self, warned=self.warned or signum)

    def lose_patience(self) -> Council:
        """`patience` seconds have passed since the last change."""
        return replace(self, hasty=self.order.round)

    def advance(self) -> Council:
        """By one order, if one follows: each must be told, since a rank may wait for it and not for the next."""
        return replace(self, order=self.following())

    @property
    def patience(self) -> float | None:
        """Seconds after which `lose_patience` is to be called if nothing else happens; None: there is no need."""
        if self.order.is_last or self.hasty == self.order.round:
            return None
        if self._failed() is not None or self._has_lost():
            return BLAME
        return SETTLE if self.order.phase is Phase.FREEZE and self._all_answered() else None

    def missing(self) -> tuple[int, ...]:
        """The ranks that nobody has heard of."""
        return tuple(rank for rank, report in enumerate(self.reports) if report is None)

    # --- the table ------------------------------------------------------------------------------------------------

    def following(self) -> Order:
        """The order that follows from what is known; the present one where nothing does."""
        order = self.order
        if order.is_last:
            return order
        if (leave := self._break_up()) is not None:
            return leave
        if self._has_lost():
            return order
        match order.phase:
            case Phase.GATHER:
                return self._gather()
            case Phase.RUN | Phase.SAVED:
                return self._idle()
            case Phase.FREEZE:
                return self._freeze()
            case Phase.GO:
                return self._go()
            case _:
                return self._save()

    def _break_up(self) -> Order | None:
        """Somebody is gone, or has failed: the rest cannot go on, whatever they are at.

        What warns some ranks may have killed another, and then the news of the warning may come second.
        """
        is_over = self.hasty == self.order.round
        if self._has_lost() and (self.warned or is_over):
            words = "; ".join(words for _, words in self.gone)
            return self._leave(words, 0 if self.warned else 1)
        failed = self._failed()
        if failed is not None and is_over:
            return self._leave(failed.failure, failed.code or 1)
        return None

    def _has_lost(self) -> bool:
        """While rank 0 publishes it needs nobody else."""
        return bool(self.gone) and (self.order.phase is not Phase.COMMIT or any(rank == 0 for rank, _ in self.gone))

    def _leave(self, words: str, code: int) -> Order:
        signum = 0 if code else self.warned
        return replace(self.order, phase=Phase.LEAVE, failure=words, code=code, signum=signum)

    def _gather(self) -> Order:
        if self.warned:
            return self._leave("warned before the first step", 0)
        states = {report.state if report is not None else None for report in self.reports}
        if states == {State.READY}:
            return replace(self.order, phase=Phase.RUN)
        if states == {State.ENDING}:
            return replace(self.order, phase=Phase.END, signum=0)
        if states == {State.READY, State.ENDING}:
            return self._leave("some ranks have come to their end before the first step, and others have not", 1)
        return self.order

    def _idle(self) -> Order:
        order = self.order
        if all(report is not None and report.state is State.ENDING for report in self.reports):
            return replace(order, phase=Phase.END, signum=0)
        wished = any(report.wish for report in self._answers())
        if self.warned or wished:
            return Order(Phase.FREEZE, order.round + 1, signum=self.warned)
        return order

    def _freeze(self) -> Order:
        order = replace(self.order, signum=self.warned)  # a warning makes a stop of what began as a save
        if not self._all_answered():
            return order
        states = {report.state for report in self._answers()}
        if states == {State.ENDING}:
            return replace(order, phase=Phase.END, signum=0)
        if State.RUNNING in states and order.signum and self.hasty != order.round:
            return order
        return replace(order, phase=Phase.GO, step=max(report.begun for report in self._answers()))

    def _go(self) -> Order:
        order, answers = self.order, self._answers()
        arrived = [r for r in answers if r.state is State.HELD and r.step == order.step]
        ending = [r for r in answers if r.state is State.ENDING]
        if len(arrived) == self.size:
            return replace(order, phase=Phase.OPEN)
        if len(arrived) + len(ending) < self.size:
            return order
        if all(report.final for report in answers):  # nothing is left to train: some have come a little further
            return replace(order, phase=Phase.END, signum=0)
        words = "some ranks have come to their end and others have not"
        return self._leave(words, 0) if order.signum else replace(order, phase=Phase.SAVED, failure=words)

    def _save(self) -> Order:
        """OPEN, WRITE, COMMIT: each ends when who has to do something has done it, or has said why not."""
        order = self.order
        awaited = {Phase.OPEN: State.OPENED, Phase.WRITE: State.WRITTEN, Phase.COMMIT: State.PUBLISHED}[order.phase]
        done = [r for r in self._answers() if r.state is awaited]
        if len(done) < (self.size if awaited is State.WRITTEN else 1):
            return order
        failure = next((r.failure for r in done if r.failure), "")
        if not failure and order.phase is Phase.OPEN and done[0].place:  # without a place there is nothing to write
            return replace(order, phase=Phase.WRITE, place=done[0].place)
        if not failure and order.phase is Phase.WRITE:
            return replace(order, phase=Phase.COMMIT)
        return replace(order, phase=Phase.SAVED, failure=failure)

    def _answers(self) -> list[Report]:
        return [r for r in self.reports if r is not None and r.round == self.order.round]

    def _all_answered(self) -> bool:
        known = (State.RUNNING, State.HELD, State.ENDING)
        return sum(report.state in known for report in self._answers()) == self.size

    def _failed(self) -> Report | None:
        return next((r for r in self.reports if r is not None and r.state is State.FAILED), None)


class Verdict(StrEnum):
    """What a main thread at a boundary does next."""

    WAIT = "wait"
    GO_ON = "go on"
    OPEN = "open"
    WRITE = "write"
    COMMIT = "commit"
    STOP = "stop"  # saved as far as it could be: leave for the order's signal
    BREAK_UP = "break up"  # leave at once


@dataclass(frozen=True, slots=True)
class Seat:
    """One rank's place: the newest order, and the last thing done in its round. Pure."""

    rank: int
    order: Order = Order()
    done: tuple[int, State] = (0, State.READY)

    def told(self, order: Order) -> Seat:
        """A new order has come."""
        return replace(self, order=order)

    def did(self, state: State) -> Seat:
        """Its part of the present round, up to there, is done."""
        return replace(self, done=(self.order.round, state))

    def answer(self, state: State, completed: int, *, final: bool) -> Report | None:
        """What a rank that is RUNNING, HELD or ENDING says to a new order at once; None: nothing."""
        return Report(state, self.order.round, completed, final) if self.order.phase is Phase.FREEZE else None

    def at_boundary(self, completed: int) -> Verdict:
        """For a main thread that waits at `completed`."""
        order = self.order
        if order.phase in (Phase.OPEN, Phase.WRITE, Phase.COMMIT):
            return self._part(order)
        if order.phase is Phase.GO:
            return Verdict.WAIT if completed == order.step else self._on_the_way(completed)
        if order.phase is Phase.SAVED and order.signum:
            return Verdict.STOP
        if order.phase is Phase.LEAVE:
            return Verdict.BREAK_UP
        return Verdict.WAIT if order.phase is Phase.FREEZE else Verdict.GO_ON

    def _on_the_way(self, completed: int) -> Verdict:
        # Beyond the agreed step nobody can be; if one were, to go on would tear the ranks apart.
        return Verdict.GO_ON if completed < self.order.step else Verdict.BREAK_UP

    def _part(self, order: Order) -> Verdict:
        verdict, state, everybody = {
            Phase.OPEN: (Verdict.OPEN, State.OPENED, False),
            Phase.WRITE: (Verdict.WRITE, State.WRITTEN, True),
            Phase.COMMIT: (Verdict.COMMIT, State.PUBLISHED, False),
        }[order.phase]
        mine = everybody or self.rank == 0
        return verdict if mine and self.done != (order.round, state) else Verdict.WAIT
