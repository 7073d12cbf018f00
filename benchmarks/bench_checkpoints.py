"""Publishing, loading and snapshotting a state of 1 GiB, each in turn with what it is compared with.

Baselines: plain write(2) and fsync of the same bytes; plain read(2) of them from the disk; a memcpy of the state;
torch.save and a rename; torch.distributed.checkpoint. HPC_RESUME_BENCH_MIB makes it smaller, _ROUNDS shorter.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from figures import Figure

import hpc_resume
from hpc_resume.checkpoints.snapshot import Arena
from hpc_resume.checkpoints.state_dict import StateComponent
from hpc_resume.checkpoints.store import Store

MIB = int(os.environ.get("HPC_RESUME_BENCH_MIB", "1024"))
ROUNDS = int(os.environ.get("HPC_RESUME_BENCH_ROUNDS", "7"))
TENSORS = 16
BLOCK = 8 << 20


class Box:
    """A state of TENSORS tensors."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, tensor in state.items():
            self.state[name].copy_(tensor)


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def in_turn(calls: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """ROUNDS of each in a random order, after one that warms up; nothing of the one before is left to be written."""
    values: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for round_ in range(ROUNDS + 1):
        random.Random(round_).shuffle(names)
        for name in names:
            value = calls[name]()
            if round_:
                values[name].append(value)
    return values


def drop_cache(paths: list[Path]) -> None:
    """So that the next read comes from the disk."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def write_plain(path: Path, views: list[memoryview]) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    for view in views:
        while view:
            view = view[os.write(descriptor, view) :]  # noqa: PLW2901
    os.fsync(descriptor)
    os.close(descriptor)


def read_plain(paths: list[Path]) -> None:
    buffer = bytearray(BLOCK)
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        while os.readv(descriptor, [buffer]):
            pass
        os.close(descriptor)


def files_of(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


class Publishing:
    """The ways to get a state onto the disk. What the way before wrote goes first, outside the time: else one way would
    write into memory that the other has just freed, and the other into memory that a virtual machine has yet to get.
    """

    def __init__(self, torch: Any, base: Path, box: Box) -> None:
        self.torch, self.base, self.box = torch, base, box
        self.step = 0
        self.store = Store(base / "checkpoints", base / "latest", attempt=1, keep=2)
        self.views = [memoryview(tensor.numpy()).cast("B") for tensor in box.state.values()]

    def clear(self) -> None:
        for old in (self.base / "dcp", *(self.base / "checkpoints").glob("step-*")):
            shutil.rmtree(old, ignore_errors=True)
        for name in ("plain", "saved.pt"):
            (self.base / name).unlink(missing_ok=True)
        os.sync()

    def ours(self) -> float:
        self.step += 1
        self.clear()
        return seconds(lambda: self.store.publish(self.step, {"model": StateComponent(self.box)}))

    def plain(self) -> float:
        self.clear()
        return seconds(lambda: write_plain(self.base / "plain", self.views))

    def torch_save(self) -> float:
        """What people write by hand: no fsync, no sum."""
        self.clear()

        def save() -> None:
            self.torch.save(self.box.state, self.base / "saved.pt.tmp")
            (self.base / "saved.pt.tmp").rename(self.base / "saved.pt")

        return seconds(save)

    def dcp(self) -> float:
        from torch.distributed import checkpoint

        self.clear()
        writer = checkpoint.FileSystemWriter(self.base / "dcp")
        return seconds(lambda: checkpoint.save(self.box.state, storage_writer=writer, no_dist=True))


def publishing(torch: Any, base: Path, box: Box) -> list[Figure]:
    ways = Publishing(torch, base, box)
    found = in_turn({"ours": ways.ours, "plain": ways.plain, "torch": ways.torch_save, "dcp": ways.dcp})
    name = f"publishing {MIB} MiB of tensors"
    return [
        Figure(name, "s", found["ours"], "write and fsync", found["plain"], "at most 1.15 x"),
        Figure(name, "s", found["ours"], "torch.save and rename, without fsync", found["torch"]),
        Figure(name, "s", found["ours"], "torch.distributed.checkpoint", found["dcp"]),
    ]


def loading(torch: Any, base: Path, box: Box) -> list[Figure]:
    """From the disk: the page cache is emptied of these files before each; then from the page cache."""
    store = Store(base / "checkpoints", base / "latest", attempt=1, keep=2)
    published = store.publish(10**6, {"model": StateComponent(box)}).published
    files = files_of(published.directory)

    def cold(call: Callable[[], object]) -> Callable[[], float]:
        def timed() -> float:
            drop_cache(files)
            return seconds(call)

        return timed

    def resume() -> None:
        newest = store.load().newest
        assert newest is not None
        StateComponent(box).load(newest.directory, "model", newest.manifest.components["model"])

    by_hand = lambda: box.load_state_dict(torch.load(files[0], weights_only=True))  # noqa: E731
    files.sort(key=lambda path: path.stat().st_size, reverse=True)
    found = in_turn(
        {
            "verify": cold(store.load),
            "plain": cold(lambda: read_plain(files)),
            "resume": cold(resume),
            "hand": cold(by_hand),
        }
    )
    warm = in_turn({"verify": lambda: seconds(store.load), "plain": lambda: seconds(lambda: read_plain(files))})
    return [
        Figure(f"finding and verifying {MIB} MiB", "s", found["verify"], "reading it", found["plain"], "at most 1.3 x"),
        Figure(f"verifying and restoring {MIB} MiB", "s", found["resume"], "torch.load, unverified", found["hand"]),
        Figure(f"verifying {MIB} MiB in the page cache", "s", warm["verify"], "reading it there", warm["plain"]),
    ]


def snapshots(torch: Any, base: Path, box: Box) -> list[Figure]:
    """What an asynchronous save costs the training, against copying the same tensors."""
    arena, there = Arena(), {name: torch.empty_like(tensor) for name, tensor in box.state.items()}

    def memcpy() -> None:
        for name, tensor in box.state.items():
            there[name].copy_(tensor)

    component = StateComponent(box)
    found = in_turn(
        {
            "copy": lambda: seconds(memcpy),
            "freeze": lambda: seconds(lambda: component.freeze("model", arena.copy)),
        }
    )
    arena = Arena()
    blocked, copied = boundary(base, box, memcpy)
    return [
        Figure(f"snapshot of {MIB} MiB", "s", found["freeze"], "a memcpy of the state", found["copy"], "at most 1.2 x"),
        Figure(f"asynchronous boundary, {MIB} MiB", "s", blocked, "a memcpy of the state", copied, "at most 1.2 x"),
    ]


def boundary(base: Path, box: Box, memcpy: Callable[[], None]) -> tuple[list[float], list[float]]:
    """The whole of checkpoint_point() with a save due; the one before has landed."""
    blocked, copied = [], []
    with hpc_resume.Run(base / "run", every=1, save_async=True) as run:
        run.register(model=box)
        for step in range(1, ROUNDS + 2):
            copied.append(seconds(memcpy))
            blocked.append(seconds(lambda: run.checkpoint_point(step)))  # noqa: B023
            run._attempt.saver.wait(None)
    return blocked[1:], copied[1:]


def figures() -> list[Figure]:
    """All of them; none without torch."""
    try:
        with warnings.catch_warnings(action="ignore"):  # without NumPy it warns
            import torch
    except ImportError:
        return []
    size = (MIB << 20) // TENSORS // 4
    box = Box({f"layer{n}": torch.rand(size) for n in range(TENSORS)})
    with tempfile.TemporaryDirectory(dir=os.environ.get("HPC_RESUME_BENCH_DIR")) as name:
        base = Path(name)
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings(action="ignore"):
            return [*publishing(torch, base, box), *loading(torch, base, box), *snapshots(torch, base, box)]


if __name__ == "__main__":
    for figure in figures():
        print(figure.row())
        print("   ", [round(value, 3) for value in figure.values], statistics.median(figure.values))
