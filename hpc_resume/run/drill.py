"""An interruption on purpose, at an exact step: what verify-resume asks a training to do to itself.

The real warning by the real way: to the launcher where there is one, which passes it on as it would any other. Then
the boundary waits for it, so that the same seed interrupts at the same steps on every machine.
"""

from __future__ import annotations

import os
import random
import sys
import time
from typing import TYPE_CHECKING, Final

from hpc_resume.errors import CheckpointError
from hpc_resume.run.cadence import NEVER
from hpc_resume.run.delivery import send_signal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hpc_resume.run.rundir import AttemptDir
    from hpc_resume.run.signals import Recorder

PATIENCE: Final = 30.0  # seconds from the signal to our handler, over a busy machine's shell
_LOOK: Final = 0.002


def next_drill(steps: Sequence[int] | None, done: int) -> int:
    """The next step to be interrupted at after `done`; what was interrupted and saved is not done again."""
    return min((step for step in steps or () if step > done), default=NEVER)


def seed_the_unseeded() -> None:
    """Give the global generators that start at random a fixed start; what the training seeds itself goes over it.

    Else two uninterrupted runs differ already, in a generator that perhaps nobody uses. torch starts at a fixed seed.
    """
    random.seed(0)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(0)


def interrupt(recorder: Recorder, signum: int, attempt_dir: AttemptDir, *, launched: bool) -> None:
    """Send the warning and wait until it is here. Raises CheckpointError when it does not come."""
    record = attempt_dir.attempt() if launched else None
    if record is None:
        os.kill(os.getpid(), signum)
    elif not send_signal(record.process, signum):
        raise CheckpointError(f"the launcher (pid {record.process.pid}) is not to be found: nobody can be warned")
    deadline = time.monotonic() + PATIENCE
    while recorder.first is None:
        if time.monotonic() > deadline:
            raise CheckpointError(f"the warning that was sent for the drill has not come in {PATIENCE:.0f} s")
        time.sleep(_LOOK)
