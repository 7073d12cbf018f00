"""Why a run stopped, what happens next, and on which evidence: from what is on disk and what Slurm says. Pure.

observe/evidence.py collects, this judges, observe/telling.py has the words on paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hpc_resume.contract import REQUEUE_CAUSES
from hpc_resume.observe.budgets import Budget, Past, budgets
from hpc_resume.observe.exit_codes import CodeWords, explain_code
from hpc_resume.observe.facts import Facts
from hpc_resume.observe.status import Row, row
from hpc_resume.observe.timeline import Moment, timeline
from hpc_resume.observe.waiting import explain_reason, launches
from hpc_resume.run.records import AttemptRecord, Event, ExitRecord, Limits, OutcomeRecord

CAUSE_WORDS: Final[Mapping[str, str]] = {
    "finished": "the training ended by itself",
    "timeout": "the time limit had come, or its warning",
    "preempted": "Slurm wanted its nodes for another job",
    "node_fail": "it ended without a word: the node failed, or the batch shell was killed",
    "operator": "somebody asked for it by a signal (scancel -s, hpc-resume poke)",
    "cancelled": "its owner ended it",
    "crash": "the training failed by itself",
    "config": "it cannot work as it is configured",
    "no_work": "it did no work: the run was held elsewhere, or the start was refused",
    "unknown": "a signal stopped it, and Slurm did not say why: slurmctld gave no answer",
}


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that was found of one run. `attempt` and what follows it is of the attempt that ended last."""

    facts: Facts
    number: int = 0  # of that attempt; 0: none has ended
    attempt: AttemptRecord | None = None
    exit: ExitRecord | None = None
    outcome: OutcomeRecord | None = None
    events: Sequence[Event] = ()
    request: str = ""
    history: Sequence[Past] = ()
    limits: Limits | None = None
    checkpoint: str = ""  # the directory that `latest` names
    excluded: str = ""  # as Slurm has it
    files: Sequence[str] = ()
    trouble: str = ""  # why Slurm did not say more


@dataclass(frozen=True, slots=True)
class Next:
    """What happens now, in words, and the command that changes it; `decision` is the batch shell's."""

    decision: str
    reason: str
    words: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """For `--json`, and for observe/telling.py."""

    run: str
    directory: str
    state: str
    attempt: int  # the one that ended last, 0: none has
    job_id: str
    cause: str
    cause_words: str
    code: CodeWords | None
    evidence: tuple[str, ...]
    next: Next
    budgets: tuple[Budget, ...]
    warning: tuple[Moment, ...]
    checkpoint_step: int | None
    checkpoint: str
    excluded: str
    slurm_state: str  # "unknown" where it could not be asked, empty without Slurm
    files: tuple[str, ...]


def explain(found: Evidence) -> Explanation:
    """Judge."""
    facts = found.facts
    seen = row(facts)
    cause, words = _cause(found, seen)
    return Explanation(
        run=facts.key,
        directory=facts.directory,
        state=seen.state,
        attempt=found.number,
        job_id=seen.job_id or (facts.job.job_id if facts.job is not None else ""),
        cause=cause,
        cause_words=words,
        code=explain_code(found.exit.code) if found.exit is not None and 0 <= found.exit.code <= 255 else None,
        evidence=_evidence(found),
        next=_next(found, seen, cause),
        budgets=budgets(found.history, facts.attempts, found.limits) if found.limits is not None else (),
        warning=timeline(found.events),
        checkpoint_step=facts.step,
        checkpoint=found.checkpoint,
        excluded=found.excluded or facts.excluded,
        slurm_state=_slurm_state(facts),
        files=tuple(found.files),
    )


def _cause(found: Evidence, seen: Row) -> tuple[str, str]:
    """Of the attempt that ended last; what nobody has written down is inferred from the silence."""
    if found.exit is not None:
        error = found.outcome.error if found.outcome is not None and found.exit.cause == "crash" else ""
        return found.exit.cause, CAUSE_WORDS.get(found.exit.cause, found.exit.cause) + (f": {error}" if error else "")
    if found.number == 0:
        return "", "nothing has stopped it yet" if seen.state == "running" else seen.why or "no attempt has begun"
    if found.outcome is not None:
        return ("finished" if found.outcome.outcome == "finished" else ""), _outcome_words(found.outcome)
    if seen.state == "unknown":
        return "", seen.why
    if seen.state == "cancelled":
        return "cancelled", seen.why
    return "node_fail", CAUSE_WORDS["node_fail"]


def _outcome_words(outcome: OutcomeRecord) -> str:
    by = f" by SIG{outcome.signal}" if outcome.signal else ""
    return f"{outcome.outcome}{by}, code {outcome.code}" + (f": {outcome.error}" if outcome.error else "")


def _evidence(found: Evidence) -> tuple[str, ...]:
    """What speaks for the cause, one line each."""
    facts, lines = found.facts, []
    if found.exit is not None:
        lines += [found.exit.evidence, "warned before its end" if found.exit.warned else "no warning was received"]
    elif found.number:
        lines.append(f"attempt {found.number} has no exit.json: its batch shell did not get to its end")
    if found.outcome is not None:
        lines.append(f"the training itself says: {_outcome_words(found.outcome)}, after step {found.outcome.step}")
    if found.request:
        lines.append(f"its owner asked for: {found.request} (control.json)")
    lines += [f"{event.event}: {_data(event)}" for event in found.events if event.event in _TELLING]
    if facts.job is not None:
        reason = f", reason {facts.job.reason}" if facts.job.reason else ""
        restarts = f", restarted {facts.job.restarts} times" if facts.job.restarts else ""
        lines.append(f"Slurm: job {facts.job.job_id} is {facts.job.state}{reason}{restarts}")
    return tuple(filter(None, (*lines, found.trouble)))


# Events that say something about an end, besides those of the timeline.
_TELLING: Final = (
    "stray",
    "requeued",
    "excluded",
    "slow_boundary",
    "handler_replaced",
    "stuck",
    "not_saved",
    "skipped",
)


def _data(event: Event) -> str:
    return ", ".join(f"{key} {value}" for key, value in event.data.items())


def _slurm_state(facts: Facts) -> str:
    if facts.job is not None:
        return facts.job.state
    if facts.attempt is None or facts.attempt.scheduler != "slurm":
        return ""
    return "not in the queue" if facts.slurm_answered else "unknown"


def _next(found: Evidence, seen: Row, cause: str) -> Next:
    facts, ended = found.facts, found.exit
    decision, reason = (ended.decision, ended.reason) if ended is not None else ("", "")
    if facts.finished:
        return Next(decision or "finish", reason, "nothing: the run is finished")
    if seen.state == "running":
        return Next(decision, reason, f"attempt {facts.attempts} is at work on {seen.host or '?'}")
    if facts.job is not None and facts.job.active:
        return _in_queue(found, cause, decision, reason)
    if decision in ("requeue", "slurm", "hold") and facts.attempt is not None and facts.attempt.scheduler == "slurm":
        if not facts.slurm_answered:
            return Next(decision, reason, "it should be in the queue; Slurm could not be asked")
        return Next(decision, reason, "it is not in the queue any more", _resume(facts))
    if seen.state == "requeued":
        return Next(decision, reason, "its scheduler starts the next attempt")
    if seen.state in ("unknown", "pending"):
        return Next(decision, reason, seen.why or "it waits for its first attempt")
    return Next(decision, reason, "it does not come back by itself", _resume(facts))


def _in_queue(found: Evidence, cause: str, decision: str, reason: str) -> Next:
    """It waits: until when, for what, held by whom; or it waits in vain."""
    facts = found.facts
    assert facts.job is not None  # noqa: S101 - the caller has looked
    waiting = explain_reason(facts.job)
    refused = refusal(cause, facts.attempts, found.limits, requeued=_is_slurms_requeue(found.exit))
    words = [f"held: {waiting.words}" if waiting.held else f"in the queue: {waiting.words or waiting.reason}"]
    words += [launches(facts.job, facts.launch_limit)]
    if refused:
        words.append(f"its next start is refused: {refused}")
    return Next(decision, reason, "; ".join(filter(None, words)), waiting.command)


def refusal(cause: str, attempts: int, limits: Limits | None, *, requeued: bool) -> str:
    """Why the launcher will not start the next attempt of a job that Slurm has requeued, empty when it will.

    As in templates/rundir.sh, hr::is_admitted: Slurm requeues past our budgets.
    """
    if limits is None:
        return ""
    total = limits.most.get("total", -1)
    if 0 <= total < attempts:
        return f"requeue.max.total is used up ({total})"
    if requeued and cause in REQUEUE_CAUSES and cause != "timeout" and cause not in limits.requeue_on:
        return f"requeue.on does not name {cause}"
    return ""


def _is_slurms_requeue(ended: ExitRecord | None) -> bool:
    """By the facts of the decision; an attempt without a last word can only have been requeued by Slurm."""
    return ended is None or ended.facts.split()[1:2] == ["yes"]


def _resume(facts: Facts) -> str:
    scheduler = facts.attempt.scheduler if facts.attempt is not None else "none"
    if scheduler == "none":
        return ""
    return f"hpc-resume {'submit' if scheduler == 'slurm' else 'run'} --resume {facts.key}"
