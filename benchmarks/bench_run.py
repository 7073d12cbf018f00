"""What a training pays when nothing happens, and what a save costs over writing the same bytes."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path

from figures import Figure

import hpc_resume

CALLS = 200_000
REPEATS = 7
PAYLOAD = 64 << 20  # bytes


class Flag:
    """What a hand-written training would look at."""

    def __init__(self) -> None:
        self.value = None

    def is_set(self) -> bool:
        """One attribute read in one call: nothing that can be asked costs less."""
        return self.value is not None


def nanoseconds(call: Callable[[], object], calls: int = CALLS) -> list[float]:
    """Per call, for each of REPEATS runs."""
    return [seconds / calls * 1e9 for seconds in timeit.repeat(call, number=calls, repeat=REPEATS)]


def turns(run: hpc_resume.Run) -> list[float]:
    """One idle turn of steps(), nanoseconds."""
    values, total = [], 0
    for _ in range(REPEATS):
        total += CALLS
        began = time.perf_counter()
        for _step in run.steps(total):
            pass
        values.append((time.perf_counter() - began) / CALLS * 1e9)
    return values


def empty_turns() -> list[float]:
    """The same loop without us."""
    values = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        for _step in range(CALLS):
            pass
        values.append((time.perf_counter() - began) / CALLS * 1e9)
    return values


def idle(directory: Path) -> list[Figure]:
    """should_stop(), a turn of steps(), checkpoint_point(), log()."""
    with hpc_resume.Run(directory / "idle") as run:
        flag = nanoseconds(Flag().is_set)
        stop = nanoseconds(run.should_stop)
        turn, empty = turns(run), empty_turns()
        last = CALLS * REPEATS
        point = nanoseconds(lambda: run.checkpoint_point(last))
        nothing = nanoseconds(lambda: None)
        log = nanoseconds(lambda: run.log({"loss": 0.5}), 5_000)
        line = (directory / "plain").open("ab", buffering=0)
        with line:
            plain = nanoseconds(lambda: line.write(b'{"step": 1400000, "t": 1795244506.908, "loss": 0.5}\n'), 5_000)
    return [
        Figure("run.should_stop()", "ns", stop, "a method that reads one attribute", flag, "at most 200 ns"),
        Figure("an idle turn of run.steps()", "ns", turn, "a turn of range()", empty, "about 200 ns"),
        Figure("run.checkpoint_point() with nothing due", "ns", point, "an empty lambda", nothing, "about 200 ns"),
        Figure("run.log() of one number", "ns", log, "write() of the same line", plain),
    ]


def saving(directory: Path) -> list[Figure]:
    """Publishing 64 MiB from a callable, against writing and syncing the same bytes."""
    data = os.urandom(PAYLOAD)
    ours, plain = [], []
    with hpc_resume.Run(directory / "saving", every=1) as run:
        run.register_io(save=lambda where: (where / "data").write_bytes(data), load=lambda _where: None)
        for turn in range(REPEATS):
            began = time.perf_counter()
            with (directory / "plain").open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            plain.append(time.perf_counter() - began)
            began = time.perf_counter()
            run.checkpoint_point(turn + 1)
            ours.append(time.perf_counter() - began)
    return [Figure("publishing 64 MiB", "s", ours, "write and fsync", plain)]


def figures() -> list[Figure]:
    """All of them, in one directory that goes away."""
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stderr(io.StringIO()):
        return [*idle(Path(name)), *saving(Path(name))]
