"""One rank's side of the agreement: what its main thread waits for at a boundary, and the thread that hears rank 0.

`told` and the main thread meet under one lock. A freeze is set before the rank's step is read, and the training writes
its step before it looks at the freeze: so an answer is never overtaken by the step after it (see agreement).
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

from hpc_resume.run.ranks.agreement import Order, Phase, Report, Seat, State, Verdict
from hpc_resume.run.ranks.wire import WireError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hpc_resume.run.ranks.wire import Channel

_WAKE: Final = 1.0  # seconds; a wait in Python lets signal handlers run, so this is only a net


class Link(Protocol):
    """How a rank speaks to rank 0."""

    def send(self, message: Report | dict[str, int]) -> None:
        """Raises OSError."""

    def close(self) -> None:
        """The last word was said."""


class Charge(Protocol):
    """What the member does to the training it belongs to; each is called in the thread that hears rank 0."""

    def progress(self) -> tuple[int, bool]:
        """Completed steps, and whether no step comes after them."""

    def freeze(self, *, frozen: bool) -> None:
        """From now on no boundary is idle, or it may be again."""

    def warned(self, signum: int) -> None:
        """All ranks are going to stop for this signal."""

    def break_up(self, order: Order) -> None:
        """Leave at once; the main thread is not at a boundary."""

    def orphaned(self) -> None:
        """Rank 0 is gone: nobody else says how the attempt has ended."""


class Member:
    """The place of this rank. `hold`, `did`, `begin`, `end` and `fail` are the main thread's."""

    def __init__(self, rank: int, link: Link) -> None:
        self.rank = rank
        self._link = link
        self._charge: Charge | None = None
        self._seat = Seat(rank)
        self._state = State.RUNNING
        self._changed = threading.Condition()
        self.warned = 0  # the first signal that this rank has passed on
        self.saved = Order()  # the newest word about a save: the next round may have begun before anybody has read it

    @property
    def order(self) -> Order:
        """The newest word of rank 0."""
        return self._seat.order

    def attach(self, charge: Charge) -> None:
        """From now on orders have an effect on the training; the ones before it are made up for."""
        with self._changed:
            self._charge = charge
            order = self._seat.order
        if order != Order():
            self.told(order)

    # --- the main thread ------------------------------------------------------------------------------------------

    def begin(self, step: int) -> Order:
        """Wait until all ranks are there; what rank 0 says then."""
        return self._await(State.READY, step, lambda order: order.phase is not Phase.GATHER)

    def end(self, step: int) -> Order:
        """Wait until all ranks have come to their end, or have to leave."""
        with self._changed:
            self._state = State.ENDING
        return self._await(State.ENDING, step, lambda order: order.is_last)

    def fail(self, words: str, code: int) -> Order:
        """Tell that an exception has left the training; what the end of all is because of it."""
        report = Report(State.FAILED, failure=words, code=code)
        return self._await(report.state, 0, lambda order: order.is_last, report)

    def arrive(self, completed: int, *, final: bool, wish: bool) -> int:
        """Come to a boundary that is not idle; `wish`: for a save, here or at a later one.

        For `hold`: the round after which the wish is fulfilled, -1 when there is none.
        """
        with self._changed:
            self._state = State.HELD
            order = self._seat.order
            wish = wish and order.is_idle  # else it is in the middle of a round, which saves in any case
            self._report(Report(State.HELD, order.round, completed, final, wish=wish))
            return order.round if wish else -1

    def hold(self, completed: int, wished: int) -> Verdict:
        """Wait at the boundary until there is something to do."""
        with self._changed:
            while True:
                verdict, order = self._seat.at_boundary(completed), self._seat.order
                # Who has a wish, or has been warned, waits for the round that follows from it.
                due = order.is_idle and (order.round == wished or self.warned)
                if verdict is not Verdict.WAIT and not (verdict is Verdict.GO_ON and due):
                    break
                self._changed.wait(_WAKE)
            if verdict is Verdict.GO_ON:
                self._state = State.RUNNING
            return verdict

    def did(self, state: State, completed: int, *, place: str = "", failure: str = "") -> None:
        """Report that the rank's part of the present order is done, or could not be."""
        with self._changed:
            self._seat = self._seat.did(state)
            self._report(Report(state, self._seat.order.round, completed, place=place, failure=failure))

    def leave(self) -> None:
        """The last word: this rank is not missed any more."""
        with self._changed:
            self._report(Report(State.LEFT, self._seat.order.round))
            self._link.close()

    # --- any thread -----------------------------------------------------------------------------------------------

    def warn(self, signum: int) -> None:
        """Pass on that this rank has been warned: so are all."""
        if not self.warned:
            self.warned = signum
            with contextlib.suppress(OSError):
                self._link.send({"warned": signum})

    def told(self, order: Order) -> None:
        """Rank 0 has spoken."""
        with self._changed:
            if self._seat.order.is_last and order != self._seat.order:
                return
            self._seat = self._seat.told(order)
            if order.phase is Phase.SAVED:
                self.saved = order
            charge = self._charge
            if charge is None:
                self._changed.notify_all()
                return
            charge.freeze(frozen=not order.is_idle and order.phase is not Phase.GATHER)
            completed, final = charge.progress()
            answer = self._seat.answer(self._state, completed, final=final or self._state is State.ENDING)
            if answer is not None:
                self._report(answer)
            self._changed.notify_all()
        if order.signum:
            charge.warned(order.signum)
        if order.phase is Phase.LEAVE:
            charge.break_up(order)

    def abandoned(self, signum: int) -> None:
        """Rank 0 is gone: nothing can be agreed any more. `signum`: the warning that was known to anybody, 0: none."""
        order = self._seat.order
        if not order.is_last:
            signum = order.signum or signum
            if self._charge is not None:
                self._charge.orphaned()
            words = "rank 0 is gone without a word"
            self.told(replace(order, phase=Phase.LEAVE, failure=words, signum=signum, code=0 if signum else 1))

    # --- the parts ------------------------------------------------------------------------------------------------

    def _await(self, state: State, step: int, done: Callable[[Order], bool], report: Report | None = None) -> Order:
        with self._changed:
            self._report(report or Report(state, self._seat.order.round, step, final=state is State.ENDING))
            while not done(self._seat.order):
                self._changed.wait(_WAKE)
            return self._seat.order

    def _report(self, report: Report) -> None:
        with contextlib.suppress(OSError):  # the thread that hears rank 0 learns of its end, and what then follows
            self._link.send(report)


def listen(channel: Channel, member: Member, warned: Callable[[], int]) -> threading.Thread:
    """Hear rank 0 in a thread, until it is gone; `warned` then finds out whether anybody had been warned."""

    def run() -> None:
        try:
            while True:
                message = channel.receive()
                if isinstance(message, Order):
                    member.told(message)
        except (OSError, WireError):
            if not member.order.is_last:
                member.abandoned(warned())

    thread = threading.Thread(target=run, name="hpc_resume-member", daemon=True)
    thread.start()
    return thread
