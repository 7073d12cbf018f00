"""Where the ranks meet: rank 0 listens, and says where, with a secret, in the attempt's directory (mode 0600).

Every address of the node that may lead here is offered; a wrong one leads to nobody, or to somebody who cannot prove
that he knows the secret. A rank that leaves before it has come says so in a file of its own, which whoever waits reads.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hpc_resume.contract import FORMAT_VERSION
from hpc_resume.durable import DIR_MODE, write_json
from hpc_resume.errors import HpcResumeError
from hpc_resume.run.process import host_name
from hpc_resume.run.ranks import wire
from hpc_resume.run.records import read_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_CONNECT_SECONDS: Final = 5.0
_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 0.5
_LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Invitation:
    """rendezvous.json: where rank 0 listens, and the secret."""

    addresses: tuple[tuple[str, int], ...]
    secret: str


@dataclass(frozen=True, slots=True)
class Departure:
    """A rank that left before it had come: by a warning (`signum`), or with `code`."""

    rank: int
    signum: int
    code: int
    words: str


def listen(file: Path, addresses: tuple[str, ...]) -> tuple[list[socket.socket], Invitation]:
    """Listen at each of `addresses` that is this host's, and write `file`. Raises OSError where none is."""
    sockets = []
    for address in dict.fromkeys(addresses):
        with contextlib.suppress(OSError):  # not ours, or not up
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            listener = socket.socket(family, socket.SOCK_STREAM)
            try:
                listener.bind((address, 0))
                listener.listen(1024)
            except OSError:
                listener.close()
                raise
            sockets.append(listener)
    if not sockets:
        raise OSError(f"no address to listen at among {', '.join(addresses)}")
    invitation = Invitation(tuple(s.getsockname()[:2] for s in sockets), secrets.token_hex(32))
    record = {"version": FORMAT_VERSION, "addresses": invitation.addresses, "secret": invitation.secret}
    write_json(file, record)
    return sockets, invitation


def own_addresses(variables: Mapping[str, str], *, one_host: bool) -> tuple[str, ...]:
    """By which other nodes may reach this one, the likeliest first; the loopback alone where there are no others."""
    found: list[str] = []
    if not one_host:
        launch = variables.get("SLURM_LAUNCH_NODE_IPADDR", "")
        found += [launch, _towards(launch)] if launch else []
        for name in (variables.get("SLURMD_NODENAME", ""), host_name()):
            with contextlib.suppress(OSError):
                infos = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM) if name else []
                found += [str(info[4][0]) for info in infos]
    return tuple(dict.fromkeys([*filter(None, found), _LOOPBACK]))


def _towards(address: str) -> str:
    """Our own address on the way to `address`; nothing is sent."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))
        return str(probe.getsockname()[0])
    return ""


def read_invitation(file: Path) -> Invitation | None:
    """None before rank 0 has written it, or when it cannot be read yet."""
    with contextlib.suppress(HpcResumeError):
        fields = read_fields(file)
        if fields is not None:
            addresses = fields.values.get("addresses")
            pairs = tuple((str(host), int(port)) for host, port in addresses) if isinstance(addresses, list) else ()
            return Invitation(pairs, fields.text("secret"))
    return None


def enter(file: Path, rank: int, look: Callable[[], None]) -> tuple[wire.Channel, dict[str, Any]]:
    """Come to rank 0, however long it takes to be there; its connection and its welcome.

    `look` is called in between, and raises what ends the wait.
    """
    pause = _FIRST_PAUSE
    while True:
        look()
        invitation = read_invitation(file)
        for address in invitation.addresses if invitation is not None else ():
            assert invitation is not None  # noqa: S101 - the loop's own condition
            with contextlib.suppress(OSError, wire.WireError):
                return _introduce(address, invitation.secret, rank)
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)


def _introduce(address: tuple[str, int], secret: str, rank: int) -> tuple[wire.Channel, dict[str, Any]]:
    connection = socket.create_connection(address, _CONNECT_SECONDS)
    channel = wire.Channel(connection)
    try:
        wire.tune(connection)
        theirs = str(_plain(channel).get("nonce"))
        ours = secrets.token_hex(wire.NONCE_BYTES)
        answer = {"rank": rank, "host": host_name(), "pid": os.getpid(), "nonce": ours}
        channel.send(answer | {"proof": wire.member_proof(secret, theirs, ours, rank)})
        welcome = _plain(channel)
    except BaseException:
        channel.close()
        raise
    if not wire.is_proof(welcome.get("proof"), wire.council_proof(secret, ours, theirs, rank)):
        channel.close()
        raise wire.WireError("who listens there does not know the secret")
    connection.settimeout(None)
    return channel, welcome


def _plain(channel: wire.Channel) -> dict[str, Any]:
    message = channel.receive()
    if not isinstance(message, dict):
        raise wire.WireError("a word before the welcome")
    return message


def note_departure(directory: Path, departure: Departure) -> None:
    """Leave word for whoever waits for this rank. Raises OSError."""
    directory.mkdir(DIR_MODE, exist_ok=True)
    record = {"signum": departure.signum, "code": departure.code, "words": departure.words}
    write_json(directory / f"{departure.rank}.json", {"version": FORMAT_VERSION, "rank": departure.rank, **record})


def departures(directory: Path) -> list[Departure]:
    """Who has left before he had come."""
    found = []
    with contextlib.suppress(OSError):
        for path in sorted(directory.iterdir()):
            with contextlib.suppress(HpcResumeError):
                fields = read_fields(path) if path.suffix == ".json" and not path.name.startswith(".") else None
                if fields is not None:
                    words = fields.text("words")
                    found.append(Departure(fields.whole("rank"), fields.whole("signum"), fields.whole("code"), words))
    return found
