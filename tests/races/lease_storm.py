"""Many processes that want the same few runs, whose owners are killed, stopped and frozen all the time.

    python lease_storm.py DIRECTORY TAKEOVERS CONTENDERS RUNS SEED

A referee who sees the real process table says when two held one run: whoever gets a lease finds the owner before it
gone, or has its word that it has given up. Prints one JSON object; `violations` must be empty. Each process is on a
machine of its own by name, with a clock that is up to an hour wrong.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path

os.environ["HPC_RESUME_LOCKS"] = "log"

from hpc_resume.errors import RunHeldError
from hpc_resume.run import lease as leases
from hpc_resume.run import process
from hpc_resume.run.pulse import period
from hpc_resume.run.rundir import RunDir

COUNTERS = ("takeovers", "killed", "lost", "stopped", "frozen", "fenced", "given back")


class Storm:
    def __init__(self, directory: Path, runs: int) -> None:
        self.directory = directory
        self.runs = [RunDir(directory / f"run-{number}") for number in range(runs)]
        for run in self.runs:
            run.path.mkdir(parents=True)
        self.shared = mmap.mmap(-1, 8 * len(COUNTERS) * 256)

    def count(self, slot: int, name: str) -> None:
        """Each contender has a line of its own: no lock of the test's may order what is tested."""
        place = 8 * (slot * len(COUNTERS) + COUNTERS.index(name))
        struct.pack_into("q", self.shared, place, struct.unpack_from("q", self.shared, place)[0] + 1)

    def total(self, name: str) -> int:
        index = COUNTERS.index(name)
        return sum(struct.unpack_from("q", self.shared, 8 * (s * len(COUNTERS) + index))[0] for s in range(256))

    def violation(self, words: str) -> None:
        (self.directory / f"violation-{os.getpid()}-{time.monotonic_ns()}").write_text(words)

    # --- a contender ------------------------------------------------------------------------------------------------

    def contend(self, slot: int, seed: int) -> None:
        chance = random.Random(seed)
        skew = chance.uniform(-3600, 3600)
        real, name = time.time, f"machine-{slot}"
        time.time = lambda: real() + skew
        process.host_name = lambda: name
        while True:
            run = chance.choice(self.runs)
            lease = leases.take(run)
            if lease is None:
                time.sleep(chance.uniform(0.02, 0.1))
                continue
            self.count(slot, "takeovers")
            self.hold(run, lease, slot, chance)

    def hold(self, run: RunDir, lease: leases.Lease, slot: int, chance: random.Random) -> None:
        witness = run.path / "witness"
        before = witness.read_text().split() if witness.exists() else []
        me = process.own_identity()
        there = process.read_stat(int(before[0])) if before else None
        lives = there is not None and there.state not in "ZX" and str(there.start_ticks) == before[1]
        if lives and before[2] not in ("free", "frozen"):
            self.violation(f"{run.key}: generation {lease.generation} while {before} holds it")
        fate = chance.choices(("killed", "lost", "stopped", "frozen", "given back"), (6, 1, 2, 1, 3))[0]
        draft = run.path / f"witness.{os.getpid()}"
        draft.write_text(f"{me.pid} {me.start_ticks} {fate} {lease.generation}")
        draft.replace(witness)
        time.sleep(chance.uniform(0.0, 0.02))
        self.count(slot, fate)
        heart = lease._pulse._process
        if fate == "killed":
            os.kill(me.pid, signal.SIGKILL)
        if fate == "lost":  # the node, with everything on it
            os.kill(heart.pid, signal.SIGKILL)
            os.kill(me.pid, signal.SIGKILL)
        if fate == "frozen":
            os.kill(heart.pid, signal.SIGSTOP)
        if fate in ("stopped", "frozen"):
            os.kill(me.pid, signal.SIGSTOP)  # the referee continues it
        if fate == "frozen":
            os.kill(heart.pid, signal.SIGCONT)
        try:
            lease.check()
        except RunHeldError:
            self.count(slot, "fenced")
            if fate != "frozen":
                self.violation(f"{run.key}: generation {lease.generation} was taken over while it lived ({fate})")
            lease.release()
            return
        draft.write_text("0 0 free 0")
        draft.replace(witness)
        lease.release()

    # --- the referee ------------------------------------------------------------------------------------------------

    def play(self, takeovers: int, contenders: int, seed: int) -> dict[str, object]:
        chance = random.Random(seed)
        began = time.monotonic()
        living: dict[int, int] = {}
        stopped: dict[int, float] = {}
        for slot in range(contenders):
            living[self.fork(slot, chance.getrandbits(32))] = slot
        while self.total("takeovers") < takeovers:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            now = time.monotonic()
            for one in [one for one, until in stopped.items() if until < now]:
                del stopped[one]
                os.kill(one, signal.SIGCONT)
            if pid == 0:
                time.sleep(0.002)
            elif os.WIFSTOPPED(status):
                stopped[pid] = now + chance.uniform(0.5, 3.0) * period()
            elif pid in living:
                slot = living.pop(pid)
                if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
                    self.violation(f"contender {slot} ended with {status}")
                living[self.fork(slot, chance.getrandbits(32))] = slot
        for pid in living:
            os.kill(pid, signal.SIGKILL)
        for pid in living:
            os.waitpid(pid, 0)
        self.thaw()
        found = [path.read_text() for path in self.directory.glob("violation-*")]
        seconds = round(time.monotonic() - began, 1)
        return {"violations": found, "seconds": seconds} | {name: self.total(name) for name in COUNTERS}

    def thaw(self) -> None:
        """Heartbeats whose owner ended between their stop and their going on: they see that, and end."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if os.fsencode(self.directory) in path.read_bytes() and int(path.parent.name) != os.getpid():
                    os.kill(int(path.parent.name), signal.SIGCONT)

    def fork(self, slot: int, seed: int) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                self.contend(slot, seed)
            except BaseException as error:  # noqa: BLE001 - told to the referee
                self.violation(f"contender {slot}: {type(error).__name__}: {error}")
            finally:
                os._exit(1)
        return pid


if __name__ == "__main__":
    where, takeovers, contenders, runs, seed = sys.argv[1:]
    print(json.dumps(Storm(Path(where), int(runs)).play(int(takeovers), int(contenders), int(seed))))
