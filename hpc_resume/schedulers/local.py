"""The embedded default: plain processes on this machine, requeue included, array tasks side by side.

Chosen: the scheduler is the foreground process that the person sees, one thread, signals as input. Rejected: a daemon
with a queue; it would outlive the terminal and need a second place to look. When it is killed, the kernel tells the
batch shells (parent-death signal), and the training saves and stops.

As a `Scheduler`, the id of a local job is the path of its run directory: the numbers are unique only below one run_dir.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from hpc_resume.errors import ConfigError, SchedulerError
from hpc_resume.run.delivery import send_signal
from hpc_resume.run.events import say
from hpc_resume.run.process import Identity, is_alive
from hpc_resume.run.rundir import RunDir
from hpc_resume.schedulers import JobState
from hpc_resume.schedulers.batch_shell import HELD_BACK
from hpc_resume.schedulers.continuation import Choice, choose, choose_named
from hpc_resume.schedulers.control import ask_to_stop
from hpc_resume.schedulers.inbox import Inbox
from hpc_resume.schedulers.local_runs import LocalRuns, launcher_at_work, scheduler_of
from hpc_resume.schedulers.local_task import LocalJob, LocalTask, TaskResult

TICK: Final = 0.1  # seconds between two looks; a signal or a child's end is seen at once
ORPHAN_PATIENCE: Final = 60.0  # seconds for the last attempt of a killed scheduler to save and stop
CANCEL_PATIENCE: Final = 60.0  # seconds for a training to save and stop

_WARNINGS: Final = (signal.SIGUSR1, signal.SIGUSR2)


class Watcher(Protocol):
    """Shows a person what goes on. `look` is called at every tick and must not block."""

    def look(self, tasks: Sequence[LocalTask]) -> None:
        """See the present state."""
        ...


def choose_run(job: LocalJob, *, new: bool, wanted: str = "") -> Choice:
    """Choose the run to start and claim it, so that nobody else does.

    Raises ConfigError when run_dir is unusable; RunNotFoundError and RunHeldError when the key `wanted` cannot be had.
    """
    runs = LocalRuns(job.run_parent, job.name)
    if not new:
        _await_orphans(runs)
    with runs.choosing():
        facts = runs.facts()
        if wanted:
            choice = choose_named(job.name, facts, wanted)
        else:
            choice = choose(facts, job.tasks, new=new, others=runs.others())
        runs.claim(choice.number)
    return choice


def supervise(job: LocalJob, number: int, watcher: Watcher) -> tuple[TaskResult, ...]:
    """Run every task to its end, in the foreground; the results in the order of the tasks that were started.

    SIGINT, SIGTERM and SIGHUP ask each training to save and end, SIGINT once more ends it hard; SIGUSR1 and SIGUSR2 are
    passed on as the warning. Main thread, and no other thread beside it. Raises ConfigError without bash.
    """
    tasks = [LocalTask(job, number, task) for task in job.tasks]
    runs = LocalRuns(job.run_parent, job.name)
    try:
        with Inbox(HELD_BACK) as inbox:
            _Supervision(tasks, job.width, runs.place_script(number, job.script), watcher).run(inbox)
    except FileNotFoundError as error:
        raise ConfigError(f"cannot start bash in {job.directory}: {error.strerror} ({error.filename})") from error
    finally:
        runs.release(number)
    return tuple(task.result for task in tasks if task.result is not None)


class _Supervision:
    """The loop over all tasks."""

    def __init__(self, tasks: Sequence[LocalTask], width: int, script: Path, watcher: Watcher) -> None:
        self._tasks, self._width, self._script, self._watcher = tasks, width, script, watcher
        self._stopping = False

    def run(self, inbox: Inbox) -> None:
        while any(task.running for task in self._tasks) or self._start_due():
            for number in inbox.wait(TICK):
                self._react(number)
            for task in self._tasks:
                task.poll()
            self._start_due()
            self._watcher.look(self._tasks)

    def _start_due(self) -> bool:
        """Start what may start; whether anything is left to be done."""
        waiting = [task for task in self._tasks if task.result is None and not task.running]
        if self._stopping:
            for task in waiting:
                task.give_up()
            return False
        free = self._width - sum(task.running for task in self._tasks)
        for task in [task for task in waiting if task.due <= time.monotonic()][: max(0, free)]:
            task.start(self._script, os.environ)
        return bool(waiting)

    def _react(self, number: int) -> None:
        if number in _WARNINGS:
            for task in self._tasks:
                task.warn()
        elif number == signal.SIGCHLD:
            return
        elif not self._stopping:
            self._stopping = True
            name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
            say(f"{name}: the training is asked to save and stop; Ctrl-C (again) ends it at once")
            for task in self._tasks:
                task.stop(by=f"{name} to hpc-resume run")
        elif number == signal.SIGINT:
            say("Ctrl-C again: every process of the training is ended now")
            for task in self._tasks:
                task.end_hard()


def _await_orphans(runs: LocalRuns) -> None:
    """A scheduler that was killed leaves a training that is saving: its run can be continued in a moment."""
    deadline = time.monotonic() + ORPHAN_PATIENCE
    said = False
    while (orphans := runs.orphans()) and time.monotonic() < deadline:
        if not said:
            said = True
            say(f"waiting for the last attempt of {orphans[0].key} to save and stop: its `hpc-resume run` was killed")
        time.sleep(TICK)


# --- the Scheduler protocol -------------------------------------------------------------------------------------------


def submit(script: str, *, directory: Path) -> str:
    """There is no queue here. Raises SchedulerError, with the way to do it."""
    raise SchedulerError(
        f"the local scheduler has no queue for this script of {len(script)} bytes; it runs jobs in the foreground: "
        f"cd {directory} && hpc-resume run"
    )


def jobs(job_ids: Sequence[str]) -> tuple[JobState, ...]:
    """Those that are running, or wait for their next attempt under a living scheduler; others are left out."""
    return tuple(state for job_id in job_ids if (state := _state(RunDir(Path(job_id)))) is not None)


def _state(run: RunDir) -> JobState | None:
    at_work, scheduler = launcher_at_work(run), scheduler_of(run)
    process = at_work or scheduler
    if process is None:
        return None
    record = run.run()
    state = "RUNNING" if at_work else "PENDING"
    return JobState(str(run.path), record.name if record else run.key, state, nodes=process.host)


def cancel(job_ids: Sequence[str]) -> None:
    """Ask for the end in control.json, send TERM to the recorded process, wait until it is gone.

    The id of a whole array is the path that its tasks' directories have before their `_<task>`. Raises SchedulerError
    when the process is on another host, cannot be signalled, or does not end in time. One that is over is no error.
    """
    for job_id in job_ids:
        run = RunDir(Path(job_id))
        target = launcher_at_work(run) or scheduler_of(run)
        if target is None:
            continue
        newest = run.newest_attempt()
        if newest is not None and newest.exit() is None:
            ask_to_stop(newest, "hpc-resume cancel")
        _terminate(target, run.key)


def cancel_runs(path: Path, runs: Sequence[RunDir]) -> str:
    """End the run at `path`, or the array whose tasks are `runs`; what was done, in words.

    Raises SchedulerError as `cancel` does, and when nobody is at work there.
    """
    at_work = [str(run.path) for run in runs if jobs([str(run.path)])]
    if not at_work:
        how = "finished" if all(run.finished() for run in runs) else "not running"
        raise SchedulerError(f"{path.name} is {how}: nothing to cancel")
    is_array = path not in [run.path for run in runs]
    # Through the scheduler where it lives: it would go on with the tasks that have not begun.
    cancel([str(path)] if is_array and scheduler_of(RunDir(path)) else at_work)
    ended = [run for run in runs if str(run.path) in at_work]
    return "; ".join(
        f"{what}: {', '.join(_where(run) for run in these)}"
        for what, these in (
            ("cancelled", [run for run in ended if run.finished() is None]),
            ("finished before it could be cancelled", [run for run in ended if run.finished() is not None]),
        )
        if these
    )


def _where(run: RunDir) -> str:
    step = run.latest_step()
    return f"{run.key} unsaved" if step is None else f"{run.key} at step {step}"


def _terminate(target: Identity, key: str) -> None:
    """TERM to exactly that process, and the wait for its end."""
    if is_alive(target) is None:
        raise SchedulerError(f"{key} runs on {target.host}, which cannot be reached from here: cancel it there")
    try:
        if not send_signal(target, signal.SIGTERM):
            return
    except PermissionError:
        raise SchedulerError(f"{key}: process {target.pid} belongs to somebody else") from None
    deadline = time.monotonic() + CANCEL_PATIENCE
    while is_alive(target):
        if time.monotonic() > deadline:
            raise SchedulerError(
                f"{key}: process {target.pid} is still there {CANCEL_PATIENCE:.0f} s after it was asked to save and "
                "stop; it ends at its next step boundary. To end it now: Ctrl-C twice in its terminal"
            )
        time.sleep(TICK)
