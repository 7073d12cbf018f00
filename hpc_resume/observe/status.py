"""Facts to rows: the state of each run in one word, why in plain words, and what can be done. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hpc_resume import contract
from hpc_resume.observe.facts import Facts
from hpc_resume.observe.waiting import in_words
from hpc_resume.run.records import ExitRecord
from hpc_resume.schedulers import JobState

# What may stand in the column `state`.
STATES: Final = ("running", "pending", "requeued", "finished", "stopped", "crashed", "cancelled", "lost", "unknown")

_CAUSES: Final[Mapping[str, str]] = {
    "timeout": "stopped for its time limit",
    "preempted": "preempted",
    "node_fail": "ended without a word",
    "operator": "stopped by a signal",
    "cancelled": "cancelled by its owner",
    "config": "cannot work as it is configured (code 78)",
    "no_work": "did no work (code 75)",
    "unknown": "stopped by a signal; Slurm did not say why",
}
_WAITING: Final = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")


@dataclass(frozen=True, slots=True)
class Row:
    """One run for a person, and for `--json`."""

    run: str
    state: str
    attempts: int
    step: int | None
    saved: float | None  # epoch seconds of the last checkpoint
    job_id: str
    host: str
    why: str
    cause: str
    scheduler: str
    directory: str
    chain: tuple[str, ...] = ()  # what is between the launcher and the training, both included
    auto: Mapping[str, object] | None = None  # with `every: auto`: the interval and what it comes from


def row(facts: Facts) -> Row:
    """What is known of a run, as one row."""
    state, why = _judge(facts)
    record = facts.attempt
    if state == "running" and len(facts.chain) > 2:  # a wrapper, where signals can get lost
        why = _joined(why, " → ".join(facts.chain))
    if state == "running" and facts.auto is not None:
        why = _joined(why, f"saved {facts.auto.words()}")
    at_work = facts.job is not None and facts.job.state == "RUNNING"
    return Row(
        run=facts.key,
        state=state,
        attempts=facts.attempts,
        step=facts.step,
        saved=facts.saved,
        job_id=record.job_id if record else "",
        host=facts.job.nodes if facts.job is not None and at_work else (record.process.host if record else ""),
        why=why,
        cause=_cause(facts),
        scheduler=record.scheduler if record else "",
        directory=facts.directory,
        chain=facts.chain,
        auto=facts.auto.record() if facts.auto is not None else None,
    )


def row_of_job(job: JobState) -> Row:
    """A job in Slurm's queue that has not begun: it has no run directory yet."""
    base, _, task = job.job_id.partition("_")
    key = f"{job.name}-{base}" + (f"_{task}" if task else "")
    state = "pending" if job.state in _WAITING else job.state.lower()
    return Row(key, state, 0, None, None, job.job_id, job.nodes, in_words(job), "", "slurm", "")


def _judge(facts: Facts) -> tuple[str, str]:
    if facts.trouble:
        return "unknown", facts.trouble
    if facts.finished:
        return "finished", ""
    if facts.beginning:
        return "running", f"attempt {facts.attempts} is beginning"
    if facts.attempt is None and facts.attempts:
        return "unknown", f"attempt {facts.attempts} left no record of who began it: is there space in its directory?"
    if facts.attempt is None:
        return "pending", "no attempt has begun"
    if facts.attempt.scheduler == "slurm":
        return _judge_slurm(facts)
    return _judge_local(facts)


def _judge_local(facts: Facts) -> tuple[str, str]:
    """A run of plain processes: under `hpc-resume run`, `bash job.sbatch` or `python train.py`."""
    ended = facts.exit is not None
    if not ended and facts.alive:
        return "running", "asked to save and stop" if facts.cancel_asked else ""
    if not ended and facts.alive is None:
        host = facts.attempt.process.host if facts.attempt else "?"
        return "unknown", f"was at work on {host}, which cannot be asked from here"
    if facts.exit is None:
        return _judge_outcome(facts)
    if facts.exit.decision == "requeue":
        if facts.scheduler_alive:
            return "requeued", _ended_words(facts)
        return "stopped", f"{_ended_words(facts)}; its scheduler is gone: `hpc-resume run` goes on with it"
    return _judge_exit(facts, facts.exit)


def _judge_outcome(facts: Facts) -> tuple[str, str]:
    """No launcher has written the end: only the training's own word, if any."""
    outcome = facts.outcome
    if outcome is not None and outcome.outcome == contract.OUTCOME_CRASHED:
        return "crashed", outcome.error or f"code {outcome.code}"
    if outcome is not None:
        return "stopped", f"stopped by SIG{outcome.signal}" if outcome.signal else "stopped"
    return "lost", "its process ended without a word (kill -9, out of memory, a full disk, power?)"


def _judge_slurm(facts: Facts) -> tuple[str, str]:
    job = facts.job
    if job is not None and job.active:
        if job.state in _WAITING:
            return "requeued", _joined(_ended_words(facts), in_words(job, facts.launch_limit), _excluded_words(facts))
        return "running", _joined("" if job.state == "RUNNING" else job.state.lower(), _excluded_words(facts))
    if facts.exit is not None and facts.exit.decision not in ("requeue", "slurm"):
        return _judge_exit(facts, facts.exit)
    if job is not None and job.state == "CANCELLED":
        return (
            "cancelled",
            "cancelled in the queue" if facts.exit is not None else "cancelled, and killed before its end",
        )
    if not facts.slurm_answered:
        return ("requeued", _ended_words(facts)) if facts.exit is not None else ("unknown", "Slurm did not say")
    if facts.exit is not None:
        return (
            "stopped",
            f"{_ended_words(facts)}, yet not in the queue: `hpc-resume submit --resume {facts.key}` goes on",
        )
    said = f"; Slurm says {job.state}" if job is not None else ""
    return "lost", f"its batch shell ended without a word{said}: `hpc-resume submit --resume {facts.key}` goes on"


def _judge_exit(facts: Facts, ended: ExitRecord) -> tuple[str, str]:
    states = {"cancelled": "cancelled", "crash": "crashed", "config": "crashed", "finished": "finished"}
    return states.get(ended.cause, "stopped"), _ended_words(facts)


def _ended_words(facts: Facts) -> str:
    """Why the last attempt ended, and what its batch shell decided."""
    ended = facts.exit
    if ended is None:
        return ""
    if ended.cause == "crash":
        error = facts.outcome.error if facts.outcome is not None else ""
        cause = f"crashed with code {ended.code}" + (f" ({error})" if error else "")
    else:
        cause = _CAUSES.get(ended.cause, ended.cause)
    says_more = ended.decision in ("stop", "hold") and ended.cause not in ("cancelled", "config")
    return f"{cause}; {ended.reason}" if says_more and ended.reason else cause


def _excluded_words(facts: Facts) -> str:
    return f"without {facts.excluded}, which ended it twice without a word" if facts.excluded else ""


def _joined(*parts: str) -> str:
    return "; ".join(filter(None, parts))


def _cause(facts: Facts) -> str:
    if facts.exit is not None:
        return facts.exit.cause
    return "finished" if facts.finished else ""


def age(seconds: float) -> str:
    """`12 s`, `5 min`, `3 h`, `2 d`: how long ago, in one unit."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} s"


def cells(item: Row, now: float) -> tuple[str, ...]:
    """A row as text, without `why`: run, state, attempts, step, saved, job, host."""
    return (
        item.run,
        item.state,
        str(item.attempts),
        "-" if item.step is None else str(item.step),
        "-" if item.saved is None else f"{age(now - item.saved)} ago",
        item.job_id or "-",
        item.host or "-",
    )
