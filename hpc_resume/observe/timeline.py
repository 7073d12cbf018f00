"""The way of a warning through one attempt: received, sent, heard by the training, saved, gone. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from hpc_resume.run.records import Event


@dataclass(frozen=True, slots=True)
class Moment:
    """`t` is epoch seconds, `ms` milliseconds since the warning was received."""

    what: str
    t: float
    ms: float
    words: str = ""


def _of_the_launcher(event: Event) -> bool:
    """Both sides call it received; the launcher's and the sentinel's lines say more than the signal."""
    return event.event == "received" and ("count" in event.data or "sentinel" in event.data)


def _of_the_training(event: Event) -> bool:
    return event.event == "received" and not _of_the_launcher(event)


def _saved_for_it(event: Event) -> bool:
    return event.event == "saved" and event.data.get("trigger") == "warning"


# In the order in which they happen.
_STAGES: Final[tuple[tuple[str, Callable[[Event], bool]], ...]] = (
    ("received", _of_the_launcher),
    ("sent", lambda event: event.event == "sent" and event.data.get("signal") != "URG"),
    ("heard", _of_the_training),
    ("saved", _saved_for_it),
    ("not saved", lambda event: event.event in ("not_saved", "save_failed")),
    ("stuck", lambda event: event.event == "stuck"),
    ("terminated", lambda event: event.event == "terminated"),
    ("gone", lambda event: event.event == "gone"),
)


def timeline(events: Sequence[Event]) -> tuple[Moment, ...]:
    """The stages that the warning passed, by time; nothing where the attempt was not warned."""
    begun = min((event.t for event in events if _of_the_launcher(event) or _of_the_training(event)), default=None)
    if begun is None:
        return ()
    found = []
    for what, belongs in _STAGES:
        first = next((event for event in events if event.t >= begun and belongs(event)), None)
        if first is not None:
            found.append(Moment(what, first.t, round((first.t - begun) * 1000, 1), _words(what, first)))
    return tuple(sorted(found, key=lambda moment: moment.t))


def _words(what: str, event: Event) -> str:
    data = event.data
    if what in ("received", "sent", "heard"):
        by = "by the training" if what == "heard" else "by a sentinel" if "sentinel" in data else ""
        to = f"to process {data['pid']}" if what == "sent" and "pid" in data else ""
        return " ".join(filter(None, (f"SIG{data.get('signal', '?')}", by, to)))
    if what in ("saved", "not saved"):
        return f"step {data.get('step', '?')}"
    return f"code {data['code']}" if what == "gone" and "code" in data else ""
