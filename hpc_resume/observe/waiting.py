"""Why a job waits in Slurm's queue, in plain words, and what its owner can do about it. Pure.

The names are those of squeue(1), JOB REASON CODES, and of the texts that Slurm puts in their place.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hpc_resume.schedulers import JobState

DEFAULT_LAUNCHES: Final = 5  # max_batch_requeue where SchedulerParameters does not say


@dataclass(frozen=True, slots=True)
class Waiting:
    """`words` say why, `command` what to type next, empty where there is only waiting. `held`: it never starts so."""

    reason: str
    words: str
    command: str = ""
    held: bool = False


@dataclass(frozen=True, slots=True)
class _Kind:
    words: str
    command: str = ""
    held: bool = False


_RELEASE: Final = "scontrol release {job}"
_SHOW: Final = "scontrol show job {job}"
# Not `now`: a job that starts within the second in which its last attempt ended is refused by the node ("Job credential
# revoked") and ends as FAILED 1:0 for good (22.05, measured).
_START: Final = "scontrol update JobId={job} StartTime=now+2"
_LOGS: Final = "the node's slurmd could not start it (its log, or your site's support, says why)"

# Without spaces and underscores, in lower case: Slurm has both spellings.
_KINDS: Final[Mapping[str, _Kind]] = {
    "jobhelduser": _Kind("held by its owner", _RELEASE, held=True),
    "jobheldadmin": _Kind("held by an administrator, who alone can release it", _SHOW, held=True),
    "jobrequeuedinheldstate": _Kind("requeued and held: it starts when it is released", _RELEASE, held=True),
    "launchfailedrequeuedheld": _Kind(f"its launch failed and Slurm holds it: {_LOGS}", _RELEASE, held=True),
    "launchfailed": _Kind(f"its launch failed: {_LOGS}", _SHOW),
    "jobholdmaxrequeue": _Kind(
        f"held after too many failed launches (SchedulerParameters max_batch_requeue): {_LOGS}", _RELEASE, held=True
    ),
    "repeatedrequeuefailures": _Kind(f"held after too many failed launches: {_LOGS}", _RELEASE, held=True),
    "begintime": _Kind("its begin time has not come", _START),
    "dependency": _Kind("waits for another job to end", "scontrol update JobId={job} Dependency="),
    "dependencyneversatisfied": _Kind(
        "waits for a job that cannot end as it must: it never starts",
        "scontrol update JobId={job} Dependency=",
        held=True,
    ),
    "reqnodenotavail": _Kind("a node that it needs is down, drained or reserved", "sinfo -R"),
    "nodedown": _Kind("a node that it needs is down", "sinfo -R"),
    "resources": _Kind("it is next, and waits for nodes to become free"),
    "priority": _Kind("jobs with a higher priority come first", "sprio -j {job}"),
    "none": _Kind("Slurm has not looked at it yet"),
    "cleaning": _Kind("Slurm is still clearing up after its last attempt"),
    "prolog": _Kind("a prolog of the site is running"),
    "reservation": _Kind("waits for its reservation to begin", "scontrol show reservation"),
    "reservationdeleted": _Kind("its reservation is gone", "scontrol update JobId={job} ReservationName=", held=True),
    "licenses": _Kind("waits for a license", "scontrol show licenses"),
    "jobarraytasklimit": _Kind("its array lets only so many tasks run at once (slurm.array %N)"),
    "partitiondown": _Kind("its partition takes no jobs to run now", "sinfo"),
    "partitioninactive": _Kind("its partition takes no jobs now", "sinfo"),
    "partitionnodelimit": _Kind("asks for more nodes than its partition gives", "scontrol show partition", held=True),
    "partitiontimelimit": _Kind("asks for more time than its partition gives", "scontrol show partition", held=True),
    "partitionconfig": _Kind("asks for what its partition does not have", "scontrol show partition", held=True),
    "badconstraints": _Kind("no node has what it asks for: it never starts", _SHOW, held=True),
    "frontenddown": _Kind("the front end that it needs is down", "sinfo -R"),
    "accountnotallowed": _Kind("its account may not use this partition", "scontrol show partition", held=True),
    "qosnotallowed": _Kind("its QOS may not be used here", "scontrol show partition", held=True),
    "invalidaccount": _Kind("its account is not valid", "sacctmgr show associations user=$USER", held=True),
    "invalidqos": _Kind("its QOS is not valid", "sacctmgr show qos", held=True),
}
# By their beginning: there are about seventy of each.
_FAMILIES: Final = (
    ("reqnodenotavail", _KINDS["reqnodenotavail"]),
    ("nodedown", _KINDS["nodedown"]),
    ("launchfailed", _KINDS["launchfailed"]),
    ("qos", _Kind("a limit of its QOS: it starts when your other jobs use less", "sacctmgr show qos")),
    (
        "assoc",
        _Kind(
            "a limit of your account: it starts when your other jobs use less", "sacctmgr show associations user=$USER"
        ),
    ),
    ("max", _Kind("a limit of the site: it starts when other jobs use less", _SHOW)),
    ("nodes", _Kind("a node that it needs is down, drained or reserved for others", "sinfo -R")),
)


def explain_reason(job: JobState) -> Waiting:
    """Why `job`, which is pending, waits; a reason that nobody has described is given as it is."""
    key = re.sub(r"[\s_(]", "", job.reason.partition(",")[0].lower()) or "none"
    if key == "begintime":
        return _until(job)
    kind = _KINDS.get(key) or next((kind for prefix, kind in _FAMILIES if key.startswith(prefix)), None)
    if kind is None:
        return Waiting(job.reason, "", _SHOW.format(job=job.job_id))
    words = kind.words
    if key == "dependency" and job.dependency:
        words = f"waits for {job.dependency}"
    if "," in job.reason:
        words += f" ({job.reason.partition(',')[2].strip()})"
    return Waiting(job.reason, words, kind.command.format(job=job.job_id), kind.held)


def _until(job: JobState) -> Waiting:
    """A requeued job waits for about two minutes (measured); a back-off of ours is a begin time, too."""
    until = time.strftime("%H:%M:%S", time.localtime(job.start_time)) if job.start_time else "its begin time"
    words = f"Slurm holds a requeued job back until {until}" if job.restarts else f"it may not begin before {until}"
    return Waiting(job.reason, words, _START.format(job=job.job_id))


def launches(job: JobState, limit: int | None) -> str:
    """What of Slurm's own budget of failed launches is used, in words; empty while none has failed.

    Slurm counts in the batch flag, which is 1 before the first, and holds the job when `limit` have failed.
    """
    failed = job.batch_flag - 1
    if failed < 1:
        return ""
    most = DEFAULT_LAUNCHES if limit is None else limit
    assumed = "" if limit is not None else ", Slurm's default"
    return f"{failed} of {most} failed launches{assumed}: then Slurm holds it (`scontrol release {job.job_id}`)"


def launch_limit(config: str) -> int | None:
    """max_batch_requeue in the output of `scontrol show config`; None where it is not given."""
    found = re.search(r"^SchedulerParameters\s*=.*\bmax_?batch_?requeue=(\d+)", config, re.MULTILINE | re.IGNORECASE)
    return int(found[1]) if found else None


def in_words(job: JobState, limit: int | None = None) -> str:
    """One line for `status`."""
    waiting = explain_reason(job)
    if job.reason == "BeginTime":
        told = f"{waiting.words}; `{waiting.command}` starts it now"
    elif not job.reason:
        told = ""
    else:
        told = f"waits in the queue: {waiting.reason}" + (f" ({waiting.words})" if waiting.words else "")
        if waiting.held and waiting.command:
            told = f"{waiting.words}: `{waiting.command}`" if "release" in waiting.command else told
    return "; ".join(filter(None, (told, launches(job, limit))))
