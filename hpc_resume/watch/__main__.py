"""`python -m hpc_resume.watch -- PROGRAM`: what `hpc-resume watch` becomes, without the weight of the CLI."""

from __future__ import annotations

import argparse
import os
import re
import sys

from hpc_resume.contract import EXIT_USAGE
from hpc_resume.errors import HpcResumeError
from hpc_resume.run.cadence import parse_every
from hpc_resume.run.environment import read_environment
from hpc_resume.run.events import say
from hpc_resume.watch.asking import Settings

_SECONDS = 60.0  # job.yaml's default too


def main() -> int:
    """Parse the words and drive the program; its exit code, or 128+signum after a warning."""
    parser = argparse.ArgumentParser(prog="hpc-resume watch", allow_abbrev=False)
    parser.add_argument("--on-warning", default="", metavar="TEXT")
    parser.add_argument("--expect", default="", metavar="REGEX")
    parser.add_argument("--timeout", default="", metavar="TIME")
    parser.add_argument("program", nargs="+", metavar="PROGRAM")
    words = parser.parse_args()
    try:
        expect = re.compile(words.expect.encode()) if words.expect else None
        timeout = parse_every(words.timeout).seconds if words.timeout else _SECONDS
        environment = read_environment(os.environ)
        settings = Settings(words.on_warning.encode(), expect, timeout)
        from hpc_resume.watch.driver import drive  # noqa: PLC0415 - pexpect, only when there is something to drive

        return drive(words.program, settings, environment)
    except re.error as error:
        say(f"--expect {words.expect!r}: {error}; it is a regular expression of Python")
        return EXIT_USAGE
    except HpcResumeError as error:
        say(str(error))
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
