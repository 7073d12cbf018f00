"""Rank 0's thread: hears all ranks, lets the council decide, and tells everybody what it has decided."""

from __future__ import annotations

import contextlib
import secrets
import selectors
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from hpc_resume.run.ranks import wire
from hpc_resume.run.ranks.agreement import Council, Order, Phase, Report, State
from hpc_resume.run.ranks.rendezvous import departures

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from hpc_resume.run.ranks.rendezvous import Invitation

_LOOK: Final = 0.5  # seconds between two looks for departures, until all ranks are there
_SEND_SECONDS: Final = 5.0  # who does not take a hundred bytes for so long is gone


@dataclass(slots=True)
class _Guest:
    """One connection; `rank` is -1 until it has proved that it is one of us."""

    connection: socket.socket
    nonce: str = field(default_factory=lambda: secrets.token_hex(wire.NONCE_BYTES))
    lines: wire.Lines = field(default_factory=wire.Lines)
    rank: int = -1
    name: str = ""


class Chair:
    """Started once; `post` and `close` may be called from any thread. `tell` is called in the thread of the chair."""

    def __init__(
        self,
        size: int,
        listeners: list[socket.socket],
        invitation: Invitation,
        welcome: Mapping[str, Any],
        tell: Callable[[Order], None],
        departures_dir: Path | None,
        patience: float,
        echo: int = 0,
    ) -> None:
        self._council = Council.of(size, echo)
        self._changed_at = time.monotonic()
        self._secret = invitation.secret
        self._welcome = dict(welcome)
        self._tell = tell
        self._departures = departures_dir
        self._gather_until = time.monotonic() + patience
        self._guests: dict[int, _Guest] = {}  # by rank
        self._listeners = listeners
        self._linger = 0.0
        self._inbox: list[Report | int | None] = []  # None: rank 0 is done
        self._lock = threading.Lock()
        self._read_end, self._write_end = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._run, name="hpc_resume-chair", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._read_end.setblocking(False)
        self._selector.register(self._read_end, selectors.EVENT_READ, None)
        for listener in self._listeners:
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ, None)
        self._thread.start()

    def post(self, message: Report | int | None) -> None:
        """Rank 0's own word: a report, or the number of a signal; None: it needs the chair no more."""
        with self._lock:
            self._inbox.append(message)
        with contextlib.suppress(OSError):
            self._write_end.send(b"\0")

    def close(self, seconds: float) -> None:
        """When the others have left, at most after `seconds`: a connection closed too early loses the last order."""
        self._linger = seconds
        self.post(None)
        self._thread.join(seconds + 1.0)

    def drop(self) -> None:
        """In a forked child: its copies would keep the others from noticing the end of its parent."""
        for one in (*self._listeners, self._read_end, self._write_end, *(g.connection for g in self._guests.values())):
            one.close()
        self._selector.close()

    # --- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        until = None  # rank 0 is done: who has not left by then is not waited for
        while until is None or (self._guests and time.monotonic() < until):
            wait = self._wait()
            events = self._selector.select(wait if until is None else max(0.0, until - time.monotonic()))
            for key, _ in events:
                if key.data is not None:
                    self._hear(key.data)
                elif key.fileobj is self._read_end:
                    until = self._empty_inbox() or until
                else:
                    self._accept(key.fileobj)
            if self._council.order.phase is Phase.GATHER:
                self._look_for_departures()
            if self._patience_left() == 0:
                self._decide(self._council.lose_patience())
        for one in (*self._listeners, *(guest.connection for guest in self._guests.values())):
            one.close()
        self._selector.close()

    def _patience_left(self) -> float | None:
        """By the last change, not by the last event: a stranger at the door holds nobody up."""
        patience = self._council.patience
        return max(0.0, self._changed_at + patience - time.monotonic()) if patience is not None else None

    def _wait(self) -> float | None:
        patience = self._patience_left()
        if self._council.order.phase is Phase.GATHER:
            return _LOOK if patience is None else min(_LOOK, patience)
        return patience

    def _empty_inbox(self) -> float | None:
        self._read_end.recv(4096)
        with self._lock:
            posted, self._inbox = self._inbox, []
        for message in posted:
            if message is None:
                return time.monotonic() + self._linger
            self._decide(self._council.warn(message) if isinstance(message, int) else self._council.hear(0, message))
        return None

    def _accept(self, listener: Any) -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            connection.settimeout(_SEND_SECONDS)
            wire.tune(connection)
            guest = _Guest(connection)
            connection.sendall(wire.encode({"nonce": guest.nonce}))
            self._selector.register(connection, selectors.EVENT_READ, guest)

    def _hear(self, guest: _Guest) -> None:
        try:
            data = guest.connection.recv(16 * 1024)
            for line in guest.lines.feed(data):
                self._understand(guest, wire.decode(line))
        except (OSError, wire.WireError):
            data = b""
        if not data:
            self._lose(guest)

    def _understand(self, guest: _Guest, message: wire.Message) -> None:
        if guest.rank < 0:
            self._admit(guest, message)
        elif isinstance(message, Report):
            self._decide(self._council.hear(guest.rank, message))
        elif isinstance(message, dict) and isinstance(message.get("warned"), int):
            self._decide(self._council.warn(message["warned"]))

    def _admit(self, guest: _Guest, message: wire.Message) -> None:
        if not isinstance(message, dict):
            raise wire.WireError("a word before the proof")
        rank, theirs = message.get("rank"), message.get("nonce")
        known = isinstance(rank, int) and 0 < rank < self._council.size and rank not in self._guests
        if not known or not isinstance(rank, int) or not isinstance(theirs, str):
            raise wire.WireError("no rank of ours")
        if not wire.is_proof(message.get("proof"), wire.member_proof(self._secret, guest.nonce, theirs, rank)):
            raise wire.WireError("no proof")
        guest.rank, guest.name = rank, f"rank {rank} (pid {message.get('pid')} on {message.get('host')})"
        self._guests[rank] = guest
        answer = {"proof": wire.council_proof(self._secret, theirs, guest.nonce, rank), "welcome": self._welcome}
        guest.connection.sendall(wire.encode(answer))
        guest.connection.sendall(wire.encode(self._council.order))

    def _lose(self, guest: _Guest) -> None:
        self._selector.unregister(guest.connection)
        guest.connection.close()
        if guest.rank < 0:
            return
        self._guests.pop(guest.rank, None)
        self._decide(self._council.lose(guest.rank, f"{guest.name} is gone without a word"))

    def _decide(self, council: Council) -> None:
        if council != self._council:
            self._changed_at = time.monotonic()
        while True:
            self._council, before = council.advance(), council.order
            if self._council.order == before:
                return
            line = wire.encode(self._council.order)
            for guest in list(self._guests.values()):
                with contextlib.suppress(OSError):  # its end will be seen where it is read
                    guest.connection.sendall(line)
            self._tell(self._council.order)
            council = self._council

    def _look_for_departures(self) -> None:
        for departure in departures(self._departures) if self._departures is not None else ():
            if departure.signum:
                self._decide(self._council.warn(departure.signum))
            else:
                report = Report(State.FAILED, failure=departure.words, code=departure.code)
                self._decide(self._council.hear(departure.rank, report))
        if time.monotonic() > self._gather_until:
            missing = [rank for rank in range(self._council.size) if rank not in self._guests and rank]
            words = f"rank {', '.join(map(str, missing[:8]))}{' ...' if len(missing) > 8 else ''} never came"
            self._decide(self._council.lose(missing[0] if missing else 0, words))
