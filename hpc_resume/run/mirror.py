"""A run whose disk is empty goes on from its mirror: fetched beside, verified byte by byte, adopted as our own."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hpc_resume.checkpoints.generations import Generations
from hpc_resume.checkpoints.layout import parse_step, step_name
from hpc_resume.checkpoints.store import Store
from hpc_resume.contract import CHECKPOINTS_DIR, LEASE_DIR, MANIFEST_FILE
from hpc_resume.errors import CheckpointError, MirrorError, RunStateError
from hpc_resume.run.events import say
from hpc_resume.run.records import read_fields

if TYPE_CHECKING:
    from hpc_resume.checkpoints.catalogue import Published
    from hpc_resume.trackers.mirrors import Mirror


def bring_back(mirror: Mirror, store: Store, run_dir: Path, attempt: int, *, first: bool) -> bool:
    """Whether `store`, which has nothing, got the newest checkpoint of `mirror` that verifies.

    A mirror that cannot be read is said in a job's first start. Raises MirrorError in a later one: to begin anew would
    write over what is there.
    """
    beside = Path(tempfile.mkdtemp(prefix=".mirror.tmp.", dir=run_dir))
    try:
        try:
            mirror.fetch(beside)
        except Exception as error:  # noqa: BLE001 - somebody else's network
            what = f"the mirror could not be read ({type(error).__name__}: {error})"
            if not first:
                raise MirrorError(
                    f"{what}, and there is no checkpoint here: nothing is begun; it is tried again"
                ) from None
            say(f"{what}; the run starts anew")
            return False
        found = _newest(beside, attempt)
        if found is None:
            return False
        store.adopt(found)
        say(f"step {found.step} came back from the mirror")
        return True
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _newest(beside: Path, attempt: int) -> Published | None:
    root = beside / CHECKPOINTS_DIR
    root.mkdir()
    for path in sorted(beside.iterdir()):
        step = _step_of(path / MANIFEST_FILE)
        if step is not None and not (root / step_name(step)).exists():
            path.rename(root / step_name(step))
    log = Generations(beside / LEASE_DIR)
    store = Store(root, None, attempt=attempt, keep=2, generation=0, generations=log, durable=False)
    try:
        return store.load().newest
    except (CheckpointError, RunStateError) as error:
        say(f"what the mirror has cannot be used: {error}; the run starts anew")
        return None


def _step_of(manifest: Path) -> int | None:
    try:
        fields = read_fields(manifest)
    except RunStateError:
        return None
    step = fields.whole("step", -1) if fields is not None else -1
    return step if parse_step(step_name(max(step, 0))) == step else None
