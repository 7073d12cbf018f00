"""`resume_from`: a run without what was logged after the checkpoint, where W&B's server can take that back.

A preview feature of W&B's, so only where job.yaml asks for it; where it fails in any way, the run goes on as it is.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from hpc_resume.trackers.wandb_session import Session


def rewind(
    session: Session, moment: str, args: tuple[Any, ...], kwargs: dict[str, Any], say: Callable[[str], None]
) -> Any:
    """The run as it was at `moment` (`id?_step=n`); None where the server cannot do that, which is said."""
    without = {name: value for name, value in kwargs.items() if name not in ("resume", "id")}
    mode = os.environ.pop("WANDB_RESUME", None)  # beside resume_from it is an error
    try:
        return session.init(*args, **without, resume_from=moment)
    except Exception as error:  # noqa: BLE001 - as above
        say(f"W&B cannot rewind the run ({error}): what is logged already stays as it is")
        session.clear()
        return None
    finally:
        if mode is not None:
            os.environ["WANDB_RESUME"] = mode
