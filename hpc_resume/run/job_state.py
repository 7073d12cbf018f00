"""What Slurm says of the job that an owner belonged to: bounded, and no answer is an answer."""

from __future__ import annotations

import os
import re
import subprocess
from typing import Final

PATIENCE: Final = 5.0  # seconds; with slurmctld away the heartbeat has to do
_JOB: Final = re.compile(r"\d+(_\d+)?")
_TASTE: Final = re.compile(r"(SQUEUE|SINFO)_|SLURM_TIME_FORMAT$")
# Processes of a job in one of these may still be there; a requeued one counts its new start while it is completing.
_ENDING: Final = frozenset({"COMPLETING", "STAGE_OUT", "SIGNALING"})
_PRESENT: Final = frozenset({"RUNNING", "SUSPENDED", "STOPPED", "RESIZING"})
_UNSURE: Final = ("down", "unk", "fut", "reboot", "boot", "pow")  # and "*": it does not answer


def is_gone(job_id: str, restart_count: int, host: str) -> bool | None:
    """Whether that start of the job is over, with its processes; None when Slurm cannot tell.

    A node that does not answer may still run what Slurm has given up (measured: slurmd killed, the job requeued, its
    old processes alive), so that such a node's owner is judged by its heartbeat.
    """
    if not _JOB.fullmatch(job_id):
        return None
    said = _ask("squeue", "--noheader", "--array", "--states=all", f"--jobs={job_id}", "--Format=State:|,RestartCnt:|")
    if said is None:
        return None
    over = parse_over(said, restart_count)
    if over is not True:
        return over
    node = _ask("sinfo", "--noheader", f"--nodes={host}", "--format=%t")
    return True if node is not None and is_answering(node) else None


def parse_over(text: str, restart_count: int) -> bool | None:
    """From squeue's words, one line a task: empty when Slurm has forgotten the job. Pure."""
    rows = [line.strip().split("|") for line in text.splitlines() if line.strip()]
    if not rows:
        return True
    if len(rows) > 1 or len(rows[0]) < 2 or not rows[0][1].isdigit():
        return None
    state, count = rows[0][0], int(rows[0][1])
    if state in _ENDING:
        return False
    return count > restart_count or state not in _PRESENT


def is_answering(text: str) -> bool:
    """From sinfo's words on a node: Slurm would know of a process of a job there. Pure."""
    states = text.split()
    return bool(states) and not any("*" in state or state.startswith(_UNSURE) for state in states)


def _ask(*words: str) -> str | None:
    environment = {name: value for name, value in os.environ.items() if not _TASTE.match(name)}
    try:
        done = subprocess.run(
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode == 0:
        return done.stdout
    return "" if "Invalid job id" in done.stderr else None
