"""An explanation on paper: why, then what next, then the evidence, in lines for a terminal and a pipe."""

from __future__ import annotations

import time
from collections.abc import Iterator

from hpc_resume.observe.explain import Explanation
from hpc_resume.observe.timeline import Moment


def told(what: Explanation) -> str:
    """The whole answer."""
    return "\n".join(_lines(what)) + "\n"


def _lines(what: Explanation) -> Iterator[str]:
    job = f", job {what.job_id}" if what.job_id else ""
    yield f"{what.run}: {what.state}{job}"
    which = f" (attempt {what.attempt})" if what.attempt else ""
    yield _line("why", f"{what.cause}: {what.cause_words}{which}" if what.cause else f"{what.cause_words}{which}")
    if what.code is not None:
        yield _line("code", f"{what.code.code}: {what.code.meaning}")
        if what.cause == "crash" and what.code.hint:
            yield _line("", what.code.hint)
    yield from _next(what)
    yield _line(
        "goes on from", f"step {what.checkpoint_step}, {what.checkpoint}" if what.checkpoint else "the beginning"
    )
    if what.excluded:
        yield _line("left out", f"node {what.excluded}: the job does not go there")
    yield from _block("budgets", [_budget(one.name, one.used, one.most) for one in what.budgets])
    yield from _block("the warning", [_moment(moment) for moment in what.warning])
    yield from _block("evidence", what.evidence)
    yield from _block("files", [f"{what.directory}/{name}" for name in what.files])


def _next(what: Explanation) -> Iterator[str]:
    following = what.next
    if following.decision:
        yield _line("decision", f"{following.decision}: {following.reason}")
    yield _line("now", following.words)
    if following.command:
        yield _line("do", f"`{following.command}`")


def _budget(name: str, used: int, most: int | None) -> str:
    if most is None:
        return f"{name}: {used} used, unlimited"
    return f"{name}: {used} of {most} used, {max(0, most - used)} left"


def _moment(moment: Moment) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(moment.t))
    return f"{clock}  +{moment.ms:8.1f} ms  {moment.what}" + (f" ({moment.words})" if moment.words else "")


def _block(head: str, lines: list[str] | tuple[str, ...]) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield _line(head if number == 0 else "", line)


def _line(head: str, text: str) -> str:
    return f"  {head:<13} {text}"
