"""stdout is for the answer, in UTF-8 whatever the locale; stderr is for words."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping

from hpc_resume.errors import HpcResumeError, Problem


def answer(text: str) -> None:
    """Write `text` to stdout as it is: a script must be the same bytes under every locale."""
    if sys.stdout is None:
        raise HpcResumeError("standard output is closed")
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))


def answer_json(record: Mapping[str, object]) -> None:
    """Write one JSON object to stdout."""
    answer(json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def say(text: str) -> None:
    """Write one line of words to stderr."""
    if sys.stderr is not None:
        sys.stderr.write(f"{text}\n")


def say_notes(notes: Iterable[Problem]) -> None:
    """Write what is allowed and yet hardly meant to stderr."""
    for note in notes:
        say(f"note: {note}")
