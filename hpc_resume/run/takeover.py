"""How a process leaves when its main thread does not: each thing that may hang has a bound, and the end has none."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

from hpc_resume.durable import FILE_MODE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def bounded(call: Callable[[], object], seconds: float) -> bool:
    """Call it, for at most `seconds`, in a thread of its own; whether it has come back. Its errors are nobody's."""

    def work() -> None:
        with contextlib.suppress(BaseException):
            call()

    thread = threading.Thread(target=work, daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no thread to be had
        return False
    thread.join(max(0.0, seconds))
    return not thread.is_alive()


def dump_stacks(path: Path) -> bool:
    """Where every thread is, in `path`; False when that could not be written."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    except OSError:
        return False
    try:
        faulthandler.dump_traceback(descriptor, all_threads=True)
    except (OSError, RuntimeError, ValueError):
        return False
    finally:
        os.close(descriptor)
    return True


def exit_now(code: int) -> NoReturn:
    """End the process, from any thread: what it has printed is flushed if nobody holds the streams."""

    def flush() -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()

    bounded(flush, 0.2)
    os._exit(code)
