"""W&B's two other sides: its server, which may be out of reach, and its service process, which may be dead.

wandb-core is a child of the training. A SIGTERM to every process of a step kills it, and from then on log, mark and
finish raise ConnectionResetError (wandb 0.31, issue 9963); what it had not written to the .wandb file is lost with it.
"""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

PROBE_SECONDS: Final = 5.0
SERVER: Final = "https://api.wandb.ai"
_NAME: Final = "wandb-core"
_ASKING: Final = b'{"query":"query Viewer{viewer{id}}","operationName":"Viewer"}'


def is_reachable(variables: Mapping[str, str], seconds: float = PROBE_SECONDS) -> bool:
    """Whether the server answers GraphQL at all: any answer but "not found" and its own failures."""
    url = variables.get("WANDB_BASE_URL", SERVER).rstrip("/")
    request = urllib.request.Request(  # noqa: S310 - the owner's own WANDB_BASE_URL
        f"{url}/graphql", _ASKING, {"Content-Type": "application/json", "User-Agent": "hpc_resume"}
    )
    try:
        with urllib.request.urlopen(request, timeout=seconds):  # noqa: S310 - as above
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return error.code < 500 and error.code != 404
    except (OSError, ValueError):
        return False


def service_pids() -> tuple[int, ...]:
    """The living wandb-core processes among this process's children."""
    me = os.getpid()
    children: set[int] = set()
    for task in Path(f"/proc/{me}/task").glob("*/children"):
        try:
            children.update(int(word) for word in task.read_text(encoding="ascii").split())
        except OSError:  # a thread that has ended meanwhile
            continue
    return tuple(sorted(pid for pid in children if is_alive(pid)))


def is_alive(pid: int) -> bool:
    """Whether `pid` is a wandb-core that is at work."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    name, _, rest = text.partition("(")[2].rpartition(")")
    return name.startswith(_NAME[:15]) and rest.split()[0] not in ("Z", "X")
