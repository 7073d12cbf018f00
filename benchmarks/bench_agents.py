"""What a start costs each agent of a fleet, all at the same moment on one directory: a token of the bucket and a lease.

Against the obvious way: one lock file for the whole sweep, and behind it a table of who has which run. The kernel
queues those who wait for it, which is the best such a lock can do: filelock's, asked for again every 50 ms by each of
1,000, leaves its owner no processor, and two cores do not come to an end in minutes.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from figures import Figure

from hpc_resume.run import lease as leases
from hpc_resume.run.rundir import RunDir
from hpc_resume.sweeps.bucket import Bucket, Rate

FLEETS = (10, 100, 1000)


class NoPulse:
    """The heartbeat's process is its own: 1,000 of them on one machine would measure that machine."""

    def __init__(self, *_: object) -> None: ...

    def stop(self) -> None: ...


def ours(directory: Path, agent: int) -> None:
    Bucket(directory / "starts", Rate(1.0), agent).take()
    run = RunDir(directory / f"run-{agent}")
    run.path.mkdir()
    lease = leases.take(run)
    assert lease is not None
    lease.release()


def one_lock_file(directory: Path, agent: int) -> None:
    table = directory / "table.json"
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = json.loads(table.read_text()) if table.exists() else {}
        known[f"run-{agent}"] = {"pid": os.getpid(), "start": len(known)}
        table.write_text(json.dumps(known))


def fleet(claim: Callable[[Path, int], None], count: int) -> list[float]:
    """Milliseconds from the common start until each of `count` processes has its claim, over their number."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        gate, go = os.pipe()
        answers, told = os.pipe()
        children = []
        for agent in range(count):
            pid = os.fork()
            if pid == 0:
                os.close(go)
                os.read(gate, 1)
                claim(directory, agent)
                os.write(told, struct.pack("d", time.monotonic()))
                os._exit(0)
            children.append(pid)
        began = time.monotonic()
        os.close(go)  # everybody's read ends
        ends = [struct.unpack("d", os.read(answers, 8))[0] for _ in range(count)]
        for pid in children:
            os.waitpid(pid, 0)
        for descriptor in (gate, answers, told):
            os.close(descriptor)
        return [1000 * (max(ends) - began) / count]


def figures(trials: int = 3) -> list[Figure]:
    """Each fleet in turn with its baseline."""
    pulse, leases.Pulse = leases.Pulse, NoPulse
    os.environ["HPC_RESUME_LOCKS"] = "log"
    try:
        return measured(trials)
    finally:
        leases.Pulse = pulse
        del os.environ["HPC_RESUME_LOCKS"]


def measured(trials: int) -> list[Figure]:
    found = []
    for count in FLEETS:
        mine = [value for _ in range(trials) for value in fleet(ours, count)]
        theirs = [value for _ in range(trials) for value in fleet(one_lock_file, count)]
        limit = f"flat: at most twice that of {FLEETS[0]}" if count > FLEETS[0] else ""
        found.append(
            Figure(
                f"{count} agents at once: a start and a lease, each",
                "ms",
                mine,
                "one lock file",
                theirs,
                limit,
                in_readme=count == FLEETS[-1],
            )
        )
    return found
