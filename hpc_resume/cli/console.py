"""stdout is for the answer, in UTF-8 whatever the locale; stderr is for words."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Final

from hpc_resume.errors import HpcResumeError, Problem

EXIT_PIPE: Final = 141  # 128 + SIGPIPE, as a shell reports it: the reader has seen enough


def answer(text: str) -> None:
    """Write `text` to stdout as it is: a script must be the same bytes under every locale."""
    if sys.stdout is None:
        raise HpcResumeError("standard output is closed")
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        drop_stdout()
        sys.exit(EXIT_PIPE)  # the framework would make it 1, which `render --diff` uses for "something changed"


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


def drop_stdout() -> None:
    """What is still in the buffer cannot be written: keep the interpreter from trying again at its end."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
