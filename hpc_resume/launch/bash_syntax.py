"""Asks bash itself whether a text is bash, without running any of it."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile

from hpc_resume.errors import ConfigError


def syntax_error(text: str) -> tuple[int, str] | None:
    """Line (from 1) and bash's words for the first syntax error, None when there is none.

    Raises ConfigError where there is no bash.
    """
    # extglob: a text may switch it on before it uses it, and nothing is executed here. LC_ALL: the words are parsed.
    # BASH_ENV must not be read: it could print, or change what is valid.
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    try:
        # From a file, not a pipe: bash reads a pipe byte by byte, 10 ms for a script of 33 kB instead of 3.
        with tempfile.TemporaryFile() as script:
            script.write(text.encode())
            script.seek(0)
            done = subprocess.run(
                ["bash", "-O", "extglob", "-n"], stdin=script, capture_output=True, check=False, env=environment
            )
    except FileNotFoundError:
        raise ConfigError("bash is not on PATH: scripts are checked with it before they are written") from None
    if done.returncode == 0:
        return None
    words = done.stderr.decode(errors="replace").strip()
    match = re.search(r"line ([0-9]+): (.*)", words)
    return (int(match[1]), match[2]) if match else (1, words or f"bash -n ended with {done.returncode}")
