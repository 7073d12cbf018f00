"""An operator's request to one attempt: first the request on disk, then the signal, then the look at what came of it.

A `scancel -s` of one's own that meets a job which is just being requeued is tried again by Slurm and hits the next
attempt (measured). So a request names its attempt, which must be at work, and the next one ignores a signal that it
was not asked for.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, replace
from typing import Final, Literal

from hpc_resume.errors import RunNotFoundError, SchedulerError
from hpc_resume.run.delivery import send_signal
from hpc_resume.run.process import is_alive
from hpc_resume.run.records import AttemptRecord
from hpc_resume.run.rundir import AttemptDir, RunDir
from hpc_resume.schedulers import slurm
from hpc_resume.schedulers.control import ask, asked_of

PATIENCE: Final = 120.0  # seconds for the effect: a step, and a save
SAVE_SIGNAL: Final = "URG"  # templates/deliver.sh and run/save_request.py say why it is not the warning's
DEFAULT_SIGNAL: Final = "USR1"
TICK: Final = 0.1

Wish = Literal["save", "stop", "requeue"]


@dataclass(frozen=True, slots=True)
class Poked:
    """What was asked of which attempt, and what came of it: `done` is None while that is not known."""

    run: str
    attempt: int
    job_id: str
    request: str
    signal: str
    asked: float  # epoch seconds
    done: bool | None = None
    step: int | None = None  # the published one
    words: str = ""


def poke(run: RunDir, wish: Wish, by: str, *, patience: float = PATIENCE) -> Poked:
    """Ask `wish` of the attempt that is at work, and wait up to `patience` seconds (0: not at all) for the effect.

    Raises RunNotFoundError when none is at work, SchedulerError when it cannot be reached or does not do such a thing.
    """
    attempt = run.newest_attempt()
    record = attempt.attempt() if attempt else None
    if attempt is None or record is None:
        raise RunNotFoundError(f"{run.key} has not begun: nothing to {wish}")
    if attempt.exit() is not None or run.finished() is not None:
        raise RunNotFoundError(
            f"{run.key}: attempt {attempt.number} has ended; `hpc-resume explain {run.key}` says how"
        )
    if wish == "requeue" and record.scheduler == "none":
        raise SchedulerError(f"{run.key} runs without a scheduler: nobody would start it again; `poke {run.key} stop`")
    _refuse_idle(run, record)
    _refuse_second(run, attempt, wish)
    name = SAVE_SIGNAL if wish == "save" else _warning(attempt)
    poked = Poked(run.key, attempt.number, record.job_id, wish, name, ask(attempt, wish, by))
    _signal(run, record, name)
    return await_effect(run, attempt, poked, patience) if patience > 0 else poked


def _refuse_idle(run: RunDir, record: AttemptRecord) -> None:
    """The newest attempt on disk must be the one that runs."""
    if record.scheduler != "slurm":
        alive = is_alive(record.process)
        if alive is None:
            raise SchedulerError(f"{run.key} runs on {record.process.host}, which cannot be reached from here")
        if not alive:
            raise RunNotFoundError(f"{run.key}: its process has ended without a word; `hpc-resume explain {run.key}`")
        return
    job = next((state for state in slurm.jobs([record.job_id]) if state.job_id == record.job_id), None)
    state = job.state if job is not None else "unknown to Slurm"
    if job is None or job.state != "RUNNING":
        raise RunNotFoundError(f"{run.key}: job {record.job_id} is {state}, not running: nothing was signalled")
    if job.restarts != record.restart_count:
        raise RunNotFoundError(
            f"{run.key}: Slurm is at start {job.restarts + 1} of job {record.job_id}, and attempt {record.attempt} was"
            f" start {record.restart_count + 1}: the next one is just beginning; try again in a moment"
        )


def _refuse_second(run: RunDir, attempt: AttemptDir, wish: Wish) -> None:
    """The file holds one wish: an end that was asked for must not be forgotten for a weaker one."""
    asked = asked_of(attempt)
    if asked in ("cancel", "stop", "requeue") and wish != "stop":
        raise SchedulerError(
            f"{run.key}: attempt {attempt.number} has been asked to {asked} already, and does so at its next step"
        )


def _signal(run: RunDir, record: AttemptRecord, name: str) -> None:
    if record.scheduler == "slurm":
        slurm.signal_batch_shell(record.job_id, name)
        return
    try:
        sent = send_signal(record.process, signal.Signals[f"SIG{name}"])
    except PermissionError:
        raise SchedulerError(f"{run.key}: process {record.process.pid} belongs to somebody else") from None
    if not sent:
        raise RunNotFoundError(f"{run.key}: its process has just ended: nothing was signalled")


def _warning(attempt: AttemptDir) -> str:
    """The signal that this attempt takes for a warning."""
    return next((record.signal for record in attempt.pids() if record.signal), DEFAULT_SIGNAL)


def await_effect(run: RunDir, attempt: AttemptDir, poked: Poked, patience: float = PATIENCE) -> Poked:
    """Look until the request had its effect, the attempt has ended, or `patience` seconds are over."""
    deadline = time.monotonic() + patience
    while True:
        seen = _effect(run, attempt, poked)
        if seen is not None or time.monotonic() > deadline:
            break
        time.sleep(TICK)
    if seen is not None:
        return seen
    late = f"nothing yet after {patience:.0f} s: a training reacts at its next step boundary"
    return _told(run, poked, None, f"{late}; `hpc-resume explain {run.key}` says what becomes of it")


def _effect(run: RunDir, attempt: AttemptDir, poked: Poked) -> Poked | None:
    ended = attempt.exit()
    if poked.request == "save":
        return _saved(run, attempt, poked)
    if ended is None:
        return _ended_alone(run, attempt, poked)
    if poked.request == "stop":
        stopped = ended.decision in ("stop", "finish")
        return _told(run, poked, stopped, f"{ended.cause}; {ended.decision}: {ended.reason}")
    if ended.decision == "requeue" and poked.job_id and not poked.job_id.startswith("local-") and not ended.successor:
        confirmed = any(event.event == "requeued" for event in attempt.events())
        return _told(run, poked, True, f"job {poked.job_id} is back in the queue") if confirmed else None
    return _told(run, poked, ended.decision in ("requeue", "slurm"), f"{ended.decision}: {ended.reason}")


def _saved(run: RunDir, attempt: AttemptDir, poked: Poked) -> Poked | None:
    for event in attempt.events():
        if event.event == "save_served" and event.data.get("asked") == poked.asked:
            step, published = event.data.get("step"), event.data.get("published")
            if step == published:
                return _told(run, poked, True, f"saved step {step}, and it goes on")
            return _told(run, poked, False, f"step {step} could not be saved; step {published} is the last good one")
    ended = attempt.exit()
    if ended is not None:
        return _told(run, poked, False, f"the attempt ended meanwhile: {ended.cause}; {ended.decision}: {ended.reason}")
    return _ended_alone(run, attempt, poked)


def _ended_alone(run: RunDir, attempt: AttemptDir, poked: Poked) -> Poked | None:
    """Without a launcher nobody writes exit.json: the training's own word, or its end, must do."""
    record = attempt.attempt()
    if record is None or record.scheduler != "none" or is_alive(record.process) is not False:
        return None
    outcome = attempt.outcome()
    if attempt.exit() is not None or outcome is None:
        return None if attempt.exit() is not None else _told(run, poked, False, "its process ended without a word")
    return _told(run, poked, poked.request != "save", f"it has ended: {outcome.outcome}, code {outcome.code}")


def _told(run: RunDir, poked: Poked, done: bool | None, words: str) -> Poked:
    return replace(poked, done=done, step=run.latest_step(), words=words)
