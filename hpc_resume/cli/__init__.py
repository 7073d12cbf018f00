"""The command line: one file per verb, and the one place where errors become words and exit codes."""

from __future__ import annotations

import gc
import sys

from hpc_resume.cli import console
from hpc_resume.errors import HpcResumeError

PROGRAM = "hpc-resume"


def main() -> int:
    """Run the command line and return its exit code: 2 for a wrong command line; errors.py has the others."""
    # Imports make many objects and no garbage. Of the 200 ms of `render` collecting among them costs 20 ms,
    # and once more at the end of the interpreter 35 ms.
    gc.set_threshold(100_000, 20, 20)
    try:
        return _guarded()
    finally:
        gc.freeze()


def _guarded() -> int:
    try:
        code = _run()
        if sys.stdout is not None:
            sys.stdout.flush()
    except HpcResumeError as error:
        console.say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as a shell reports it
    except BrokenPipeError:
        console.drop_stdout()
        return console.EXIT_PIPE
    except OSError as error:
        console.drop_stdout()
        console.say(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error))
        return 1
    return code


def _run() -> int:
    from hpc_resume.cli.verbs import application  # noqa: PLC0415 - errors of the import itself end in main, too

    try:
        application()(prog_name=PROGRAM)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    return 0
