"""A training of many ranks whose every step is on record: ranks_train.py STEPS SECONDS [SAVE_EVERY [EVALUATE_EVERY]].

In each step the ranks add up a number over a connection of their own (as a collective would: none gets through alone),
so the state of every rank depends on the random numbers of all.
"""

import hashlib
import json
import os
import random
import socket
import struct
import sys
import time
from pathlib import Path

import hpc_resume


class Sum:
    """All-reduce over TCP through rank 0, which says in the run directory where it listens."""

    def __init__(self, place: Path, rank: int, size: int) -> None:
        self.rank, self.size, self.peers = rank, size, []
        if rank == 0:
            listener = socket.create_server(("127.0.0.1", 0), backlog=512)
            temporary = place.with_suffix(".tmp")
            temporary.write_text(str(listener.getsockname()[1]))
            temporary.rename(place)
            found = {}
            while len(found) < size - 1:
                peer, _ = listener.accept()
                found[struct.unpack("q", self._read(peer, 8))[0]] = peer
            self.peers = [found[rank] for rank in sorted(found)]
        else:
            until = time.monotonic() + 60
            while not place.exists() and time.monotonic() < until:
                time.sleep(0.005)
            self.peers = [socket.create_connection(("127.0.0.1", int(place.read_text())))]
            self.peers[0].sendall(struct.pack("q", rank))
        for peer in self.peers:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __call__(self, value: float) -> float:
        if self.rank:
            self.peers[0].sendall(struct.pack("d", value))
            return struct.unpack("d", self._read(self.peers[0], 8))[0]
        total = value
        for peer in self.peers:
            total += struct.unpack("d", self._read(peer, 8))[0]
        for peer in self.peers:
            peer.sendall(struct.pack("d", total))
        return total

    @staticmethod
    def _read(peer: socket.socket, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = peer.recv(count - len(data))
            if not more:
                raise ConnectionError("a rank has left in the middle of a collective")
            data += more
        return data


class Walk:
    """A state that depends on every step and on the random numbers that all ranks drew."""

    def __init__(self, rank: int) -> None:
        self.random = random.Random(rank)
        self.total = 0.0
        self.order = ""

    def advance(self, step: int, all_reduce: Sum) -> None:
        self.total += all_reduce(self.random.random())
        self.order = hashlib.sha256(f"{self.order}{step}{self.total!r}".encode()).hexdigest()

    def state_dict(self) -> dict:
        return {"random": self.random.getstate(), "total": self.total, "order": self.order}

    def load_state_dict(self, state: dict) -> None:
        self.random.setstate(state["random"])
        self.total, self.order = state["total"], state["order"]


@hpc_resume.resumable(every=int(sys.argv[3]) if len(sys.argv) > 3 and int(sys.argv[3]) else "1h")
def train(run: hpc_resume.Run, steps: int, seconds: float, evaluate: int) -> None:
    """One line per executed step and rank, and each rank's final state."""
    rank = int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0)
    size = int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_STEP_NUM_TASKS") or 1)
    walk = Walk(rank)
    run.register(walk=walk)
    again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # by torchrun, within an attempt
    all_reduce = Sum(run.directory / f"sum.{run.attempt}.{again}", rank, size)
    log = os.open(run.directory / f"executed.{rank}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for step in run.steps(steps):
        os.write(log, f"{run.attempt} {step} {time.time()}\n".encode())
        time.sleep(seconds * random.random())  # ranks are never quite in step
        walk.advance(step, all_reduce)
        if evaluate and step % evaluate == evaluate - 1:
            for _ in range(10):
                run.checkpoint_point(step + 1)
                time.sleep(seconds)
                all_reduce(1.0)
    (run.directory / f"final.{rank}.json").write_text(json.dumps(walk.state_dict()))


if __name__ == "__main__":
    train(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[4]) if len(sys.argv) > 4 else 0)
