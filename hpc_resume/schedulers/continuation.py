"""Which run a local start belongs to, and what follows the end of an attempt: pure rules over plain facts."""

from __future__ import annotations

import heapq
import re
import signal
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from hpc_resume.errors import RunHeldError, RunNotFoundError
from hpc_resume.run.records import ExitRecord

NO_WORK_LIMIT: Final = 10  # starts in a row that did no work: with the pauses below about two minutes
PAUSE_LIMIT: Final = 60.0  # seconds between two starts at most
NO_WORK_PAUSE_LIMIT: Final = 30.0
_KILLED: Final = (128 + signal.SIGKILL, 128 + signal.SIGTERM)  # the codes of a shell whose death somebody passed on


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What is known of one run directory of this name; `holder` says in words who is at work on it, empty: nobody."""

    number: int
    task: int | None
    finished: bool
    holder: str
    attempts: int
    step: int | None
    digest: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Local job `number`; `continues` are the facts of its unfinished runs, empty for a new one."""

    number: int
    continues: tuple[RunFacts, ...]
    passed_over: tuple[str, ...]  # in words: runs at work that were not joined


@dataclass(frozen=True, slots=True)
class Ended:
    """How one start of the batch shell ended; `exit` is None when it left no word, `began`: it had begun an attempt.

    `by_signal`: the shell itself died of a signal, and did not pass a code of its training on. `place` is the run's.
    """

    code: int
    began: bool
    exit: ExitRecord | None
    by_signal: bool = False
    place: str = ""


@dataclass(frozen=True, slots=True)
class Streak:
    """Starts in a row, up to the last one, that did no work, or that published nothing newer."""

    no_work: int = 0
    no_progress: int = 0


@dataclass(frozen=True, slots=True)
class Next:
    """`again` after `pause` seconds, or the end; `reason` where the records do not say it themselves."""

    again: bool
    pause: float
    reason: str


def job_key(name: str, number: int) -> str:
    """The run's key, without the array task's suffix."""
    return f"{name}-local-{number}"


def task_key(key: str, task: int | None) -> str:
    """The key of one run: array tasks have their index behind it, as the runtime adds it."""
    return key if task is None else f"{key}_{task}"


def parse_key(name: str, key: str) -> tuple[int, int | None] | None:
    """Number and array task of a local run of this name; None for any other key."""
    match = re.fullmatch(rf"{re.escape(name)}-local-([1-9][0-9]{{0,8}})(?:_([0-9]{{1,9}}))?", key)
    return (int(match[1]), None if match[2] is None else int(match[2])) if match else None


def choose(
    facts: Sequence[RunFacts], tasks: Sequence[int | None], *, new: bool, others: Collection[int] = ()
) -> Choice:
    """The newest run that is neither finished nor at work; else, or when `new`, the next number.

    An array is unfinished while any of `tasks` is, also one that never began. `others` are numbers that other users
    have taken in the same place.
    """
    passed_over: list[str] = []
    wanted = frozenset(tasks)
    for number in sorted({run.number for run in facts}, reverse=True):
        ours = [run for run in facts if run.number == number and run.task in wanted]
        unfinished = tuple(run for run in ours if not run.finished)
        if new or not ours or (not unfinished and len(ours) == len(tasks)):
            continue
        holder = _holder(facts, number)
        if not holder:
            return Choice(number, unfinished, tuple(passed_over))
        passed_over.append(f"local-{number} is at work: {holder}")
    return Choice(max({0, *others, *(run.number for run in facts)}) + 1, (), tuple(passed_over))


def choose_named(name: str, facts: Sequence[RunFacts], key: str) -> Choice:
    """The run of that key, finished or not. Raises RunNotFoundError; RunHeldError while somebody is at work on it."""
    numbers = parse_key(name, key)
    ours = tuple(run for run in facts if numbers and run.number == numbers[0])
    if numbers is None or not ours:
        known = sorted({job_key(name, run.number) for run in facts})
        raise RunNotFoundError(
            f"no local run {key}; " + (f"there are {', '.join(known)}" if known else "there is none yet")
        )
    holder = _holder(facts, numbers[0])
    if holder:
        raise RunHeldError(f"{key} is at work: {holder}; wait for its end, or end it with: hpc-resume cancel {key}")
    return Choice(numbers[0], tuple(run for run in ours if not run.finished), ())


def _holder(facts: Sequence[RunFacts], number: int) -> str:
    return next((run.holder for run in facts if run.number == number and run.holder), "")


def count(streak: Streak, ended: Ended) -> Streak:
    """The streak with one more end."""
    if ended.exit is not None and ended.exit.cause == "no_work":
        return Streak(streak.no_work + 1, streak.no_progress)
    progressed = ended.exit is not None and ended.exit.step_after > ended.exit.step_before
    return Streak(0, 0 if progressed else streak.no_progress + 1)


def what_next(ended: Ended, streak: Streak) -> Next:
    """What follows, with `streak` counting this end too. The batch shell has decided; only its pace is ours.

    One that was killed left no word: as after a node failure it is started again, and the runtime itself refuses when
    requeue.on or a budget says so. One that came to its end and left no word could not write it: on a full disk the
    next attempt would have the same end, and whether this one was to be the last is not known. One that had not begun
    has said why.
    """
    if not ended.began:
        return Next(again=False, pause=0.0, reason="")
    if ended.exit is not None and ended.exit.decision != "requeue":
        return Next(again=False, pause=0.0, reason="")
    if ended.exit is None:
        if ended.by_signal or ended.code in _KILLED:
            return Next(again=True, pause=_backed_off(streak.no_progress), reason="the batch shell was killed")
        return Next(again=False, pause=0.0, reason=_unwritten(ended))
    if ended.exit.cause == "no_work":
        if streak.no_work >= NO_WORK_LIMIT:
            return Next(again=False, pause=0.0, reason=f"{streak.no_work} starts in a row did no work")
        return Next(again=True, pause=min(_backed_off(streak.no_work), NO_WORK_PAUSE_LIMIT), reason="")
    if ended.exit.cause == "crash":
        return Next(again=True, pause=_backed_off(streak.no_progress), reason="")
    # A program that leaves unasked with a signal's code, again and again, is not started a thousand times at once.
    return Next(again=True, pause=0.0 if ended.exit.warned else _backed_off(streak.no_progress - 1), reason="")


def _unwritten(ended: Ended) -> str:
    return (
        f"how the attempt ended (code {ended.code}) could not be written: free space in {ended.place} (`df`, `quota`);"
        " it is not started again by itself"
    )


def _backed_off(times: int) -> float:
    """0, 1, 2, 4, ... seconds."""
    return 0.0 if times < 1 else min(2.0 ** min(times - 1, 10), PAUSE_LIMIT)


def task_indexes(array: str | None) -> Iterator[int | None]:
    """The indexes of an array (`0-9%4`, `1,3,5-7`, `0-15:4`) in order, each once; None alone for no array.

    One by one: an array may have millions. Only for text that units.array_indexes has accepted.
    """
    if not array:
        yield None
        return
    ranges = []
    for part in array.partition("%")[0].split(","):
        span, _, step = part.partition(":")
        first, _, last = span.partition("-")
        ranges.append(range(int(first), int(last or first) + 1, int(step or 1)))
    before = -1
    for index in heapq.merge(*ranges):
        if index != before:
            yield index
        before = index
