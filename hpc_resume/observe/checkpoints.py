"""The checkpoints of one run: which there are, which can be loaded, and which may go. Reads; prune removes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpc_resume.checkpoints import layout, manifest
from hpc_resume.checkpoints.catalogue import Catalogue, Published, Skipped, is_gone
from hpc_resume.checkpoints.generations import Generations
from hpc_resume.checkpoints.manifest import BrokenError
from hpc_resume.checkpoints.placing import ByManifest, ByRename, probe
from hpc_resume.checkpoints.retention import Retention
from hpc_resume.contract import LEASE_DIR
from hpc_resume.durable import read_plain
from hpc_resume.errors import CommandLineError, RunHeldError, RunStateError
from hpc_resume.run import lease as leases
from hpc_resume.run.rundir import RunDir
from hpc_resume.schedulers.local_runs import launcher_at_work

WHOLE: Final = "whole"  # its manifest and its sizes; not every byte was read
VERIFIED: Final = "verified"
BROKEN: Final = "broken"
UNREADABLE: Final = "unreadable"  # now: the disk or the network failed, and the next look may find it whole
_FEWEST: Final = 2


@dataclass(frozen=True, slots=True)
class Row:
    """`created` is epoch seconds, None where the manifest does not say; `size` is in bytes."""

    step: int
    state: str
    reason: str  # of a broken one
    latest: bool
    created: float | None
    size: int
    backends: tuple[str, ...]
    path: str


def listing(run: RunDir, *, verify: bool, show: Callable[[str], None] | None = None) -> tuple[Row, ...]:
    """Every checkpoint, newest first; with `verify` every byte of each is read, and `show` is told before.

    Raises RunStateError when a newer hpc_resume wrote one.
    """
    latest = run.latest_step()
    found = (_row(run, item, latest, show, verify=verify) for item in _catalogue(run).listing())
    rows = [row for row in found if row is not None]
    rows += [_aside(run, name) for name in _names(run) if ".broken-" in name]
    return tuple(sorted(rows, key=lambda row: row.step, reverse=True))


def prune(run: RunDir, keep: int, show: Callable[[str], None] | None = None) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """Remove all but the newest `keep` that verify, and what is broken; those that stay, and those that went.

    Nothing is removed where nothing verifies. Raises RunHeldError while a process is at work on the run;
    CommandLineError for fewer than two; RunStateError when a removal fails, or when the run is somebody else's.
    """
    if keep < _FEWEST:
        raise CommandLineError(
            f"--prune {keep}: at least {_FEWEST}, since the newest may turn out to be unreadable elsewhere"
        )
    if (owner := run.path.stat().st_uid) != os.geteuid():
        raise RunStateError(f"{run.path} belongs to user id {owner}, this is {os.geteuid()}: only its owner prunes it")
    with _held(run):
        rows = listing(run, verify=True, show=show)
        sound = [row for row in rows if row.state == VERIFIED]
        gone = set(Retention(keep).superfluous(row.step for row in sound))
        if not sound:
            return rows, ()
        chosen = [row for row in rows if row.state == BROKEN or row.step in gone]
        placing = _placing(run)
        for row in chosen:
            try:
                _remove(placing, row)
            except OSError as error:
                raise RunStateError(f"{row.path}: {error.strerror or error}; remove it by hand") from error
    return tuple(row for row in rows if row not in chosen), tuple(chosen)


def _remove(placing: ByRename | ByManifest, row: Row) -> None:
    path = Path(row.path)
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    elif layout.parse_step(path.name) is None:  # set aside: nobody takes it for a checkpoint any more
        shutil.rmtree(path)
    else:
        placing.remove(row.step, path)


def _placing(run: RunDir) -> ByRename | ByManifest:
    root = run.checkpoints_dir
    generation = _generations(run).highest()
    return ByRename(root, generation) if probe(root).atomic else ByManifest(root, generation)


@contextmanager
def _held(run: RunDir) -> Iterator[None]:
    """The run's own lease: whoever wants to continue it meanwhile has to wait."""
    lease = leases.take(run)
    if lease is None:
        raise RunHeldError(
            f"{run.key} is at work: nothing is removed; wait for its end, or `hpc-resume cancel {run.key}`"
        )
    try:
        launcher = launcher_at_work(run)
        if launcher is not None:
            raise RunHeldError(
                f"{run.key} is at work (pid {launcher.pid} on {launcher.host}): nothing is removed; wait for its end"
            )
        yield
    finally:
        lease.release()


def _row(
    run: RunDir, item: Published | Skipped, latest: int | None, show: Callable[[str], None] | None, *, verify: bool
) -> Row | None:
    """None for one that was pruned while it was read."""
    if isinstance(item, Skipped):
        return _broken(item.step, item.directory, item.reason, BROKEN if item.lasting else UNREADABLE)
    if verify and show is not None:
        show(f"reading step {item.step} ({size_words(item.manifest.size)})")
    try:
        manifest.verify(item.directory, item.manifest, checksums=verify)
    except BrokenError as error:
        if is_gone(item.directory):
            return None
        return _broken(item.step, item.directory, str(error), BROKEN if error.lasting else UNREADABLE)
    return Row(
        item.step,
        VERIFIED if verify else WHOLE,
        "",
        item.step == latest,
        item.manifest.created or None,
        item.manifest.size,
        tuple(sorted(set(item.manifest.components.values()))),
        str(run.checkpoint_dir(item.step)),
    )


def _broken(step: int, directory: Path, reason: str, state: str = BROKEN) -> Row:
    return Row(step, state, reason, False, _changed(directory), _size(directory), (), str(directory))


def _aside(run: RunDir, name: str) -> Row:
    """One that a start has set aside, with the reason that it left."""
    directory = run.checkpoints_dir / name
    step = layout.parse_step(name.partition(".")[0]) or 0
    if directory.is_symlink():
        return _broken(step, directory, "a link, set aside")
    try:
        reason = read_plain(directory / layout.REASON_FILE).decode("utf-8", "replace").strip()
    except OSError:
        reason = "set aside"
    return _broken(step, directory, reason)


def _catalogue(run: RunDir) -> Catalogue:
    return Catalogue(run.checkpoints_dir, _generations(run))


def _generations(run: RunDir) -> Generations:
    return Generations(run.path / LEASE_DIR)


def _names(run: RunDir) -> Sequence[str]:
    try:
        return os.listdir(run.checkpoints_dir)  # noqa: PTH208 - names are all that is needed
    except FileNotFoundError:
        return ()


def _changed(directory: Path) -> float | None:
    try:
        return directory.lstat().st_mtime
    except OSError:
        return None


def _size(directory: Path) -> int:
    if directory.is_symlink():
        return 0
    return sum(path.lstat().st_size for path in directory.rglob("*") if path.is_file() and not path.is_symlink())


def size_words(size: int) -> str:
    """Bytes for a person: 1.2 GiB."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
