"""The agreement's messages on a TCP connection: a line of JSON each, between processes that know the run's secret.

Both sides prove that they have read the secret in the run directory (HMAC-SHA-256 over both nonces) before either
believes a word. What follows is neither secret nor signed: it says numbers of steps, on a cluster's own network.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import socket
import threading
from collections import deque
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from hpc_resume.run.ranks.agreement import Order, Phase, Report, State

if TYPE_CHECKING:
    from collections.abc import Mapping

LINE_LIMIT: Final = 64 * 1024  # bytes; who sends more is none of us
NONCE_BYTES: Final = 16
_COUNCIL: Final = "council"
_MEMBER: Final = "member"

Message = Report | Order | dict[str, Any]


class WireError(Exception):
    """The other side is gone, or is not one of us; the message says which. Never leaves the package."""


def encode(message: Message) -> bytes:
    """One line."""
    match message:
        case Report():
            record: Mapping[str, Any] = {"report": asdict(message)}
        case Order():
            record = {"order": asdict(message)}
        case _:
            record = message
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Message:
    """The inverse of `encode`. Raises WireError."""
    try:
        record = json.loads(line)
        if "report" in record:
            values = record["report"]
            return Report(**(values | {"state": State(values["state"])}))
        if "order" in record:
            values = record["order"]
            return Order(**(values | {"phase": Phase(values["phase"])}))
        return dict(record)
    except (ValueError, TypeError, KeyError) as error:
        raise WireError(f"not a message of ours: {line[:80]!r}") from error


@dataclass(slots=True)
class Lines:
    """The lines that have come so far on one connection."""

    buffer: bytes = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes. Raises WireError beyond LINE_LIMIT."""
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        if len(self.buffer) > LINE_LIMIT:
            raise WireError("a line without an end")
        return lines


def proof(secret: str, role: str, theirs: str, ours: str, rank: int) -> str:
    """What shows that `role` knows the secret: over the nonce of the other side, its own, and the rank."""
    words = f"{role}:{theirs}:{ours}:{rank}"
    return hmac.new(secret.encode(), words.encode(), hashlib.sha256).hexdigest()


def council_proof(secret: str, theirs: str, ours: str, rank: int) -> str:
    """Rank 0's."""
    return proof(secret, _COUNCIL, theirs, ours, rank)


def member_proof(secret: str, theirs: str, ours: str, rank: int) -> str:
    """Any other rank's."""
    return proof(secret, _MEMBER, theirs, ours, rank)


def is_proof(given: object, expected: str) -> bool:
    """In constant time."""
    return isinstance(given, str) and hmac.compare_digest(given.encode(), expected.encode())


class Channel:
    """A blocking connection, as a member has one; `send` may be called from any thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._lines = Lines()
        self._waiting: deque[bytes] = deque()
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        """Raises OSError."""
        with self._lock:
            self._socket.sendall(encode(message))

    def receive(self) -> Message:
        """The next message. Raises WireError at the end, OSError."""
        while not self._waiting:
            data = self._socket.recv(4096)
            if not data:
                raise WireError("the connection has ended")
            self._waiting.extend(self._lines.feed(data))
        return decode(self._waiting.popleft())

    def close(self) -> None:
        """For both sides, also in a thread that waits in `receive`; forked children keep no copy of it."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def drop(self) -> None:
        """In a forked child: its copy would keep rank 0 from noticing the end of its parent."""
        self._socket.close()


def tune(connection: socket.socket) -> None:
    """Small messages at once; a node that dies without a word is noticed within half a minute."""
    options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    keepalive = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 25_000}
    options += [
        (socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in keepalive.items() if hasattr(socket, name)
    ]
    for level, option, value in options:
        connection.setsockopt(level, option, value)
