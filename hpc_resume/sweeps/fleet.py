"""`wandb sweep --resume`, once for a whole fleet and before its first agent: without it W&B hands no queued run out.

Once for a job, and not again after its requeues: a sweep that somebody has paused or ended meanwhile stays as it is.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from hpc_resume.contract import FLEETS_DIR, FORMAT_VERSION
from hpc_resume.durable import DIR_MODE, write_json
from hpc_resume.run import lease as leases
from hpc_resume.run.events import say
from hpc_resume.run.rundir import RunDir

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from hpc_resume.sweeps.place import Place

_SECONDS: Final = 120.0
_RESUMED: Final = "resumed.json"


def resume_once(place: Place, variables: Mapping[str, str], is_warned: Callable[[], bool]) -> None:
    """Returns when it was done, by us or by another agent of the fleet; at a terminal there is no fleet."""
    if not place.fleet:
        return
    home = RunDir(place.shared / FLEETS_DIR / place.fleet)
    home.path.mkdir(DIR_MODE, parents=True, exist_ok=True)
    marker = home.path / _RESUMED
    while not marker.exists() and not is_warned():
        lease = leases.take(home)
        if lease is None:
            time.sleep(0.2)
            continue
        try:
            if not marker.exists():
                _resume(place.sweep, variables, marker)
        finally:
            lease.release()


def _resume(sweep: str, variables: Mapping[str, str], marker: Path) -> None:
    words = [sys.executable, "-m", "wandb", "sweep", "--resume", sweep]
    try:
        done = subprocess.run(
            words,
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            start_new_session=True,
        )
        code, said = done.returncode, (done.stderr or done.stdout).strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        code, said = -1, str(error)
    if code:
        say(f"`wandb sweep --resume {sweep}` failed ({code}): {said}; the agents are started all the same")
    write_json(marker, {"version": FORMAT_VERSION, "code": code, "t": round(time.time(), 3)})
