"""The owner's end of its heartbeat: started with the lease, again if something killed it, and stopped at last.

Without a process to be had the run goes on: an owner without a sign of life is taken over by another machine sooner or
later, and is fenced off then.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from hpc_resume import contract
from hpc_resume.contract import FORMAT_VERSION
from hpc_resume.durable import write_json
from hpc_resume.errors import ConfigError
from hpc_resume.run.liveness import PERIOD
from hpc_resume.run.process import own_identity

_SCRIPT: Final = Path(__file__).with_name("heartbeat.py")
_STOP_SECONDS: Final = 2.0
_STARTS: Final = 20  # a machine that kills every helper is not fought for ever


class Pulse:
    """One heartbeat, of this process, for one generation."""

    def __init__(self, file: Path, generation: int) -> None:
        self._file = file
        self._generation = generation
        self._starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.keep()

    def keep(self) -> None:
        """See that it beats."""
        if (self._process is not None and self._process.poll() is None) or self._starts >= _STARTS:
            return
        self._starts += 1
        self._close()
        me = own_identity()
        words = [str(self._file), str(self._generation), f"{period():g}", str(me.pid), str(me.start_ticks)]
        with contextlib.suppress(OSError):
            self._process = subprocess.Popen(
                [sys.executable or "python3", "-I", "-S", str(_SCRIPT), *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
            )

    def stop(self) -> None:
        """The last word is that the lease is free: the heartbeat's own, or ours if it cannot say it any more."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.write(b"given back\n")
                process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                if process.wait(_STOP_SECONDS) == 0:
                    return
            process.kill()
            process.wait()
        with contextlib.suppress(OSError):
            self.write(self._file, self._generation, "given back")

    def _close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    @staticmethod
    def write(file: Path, generation: int, released: str) -> None:
        """A last word that no heartbeat says. Raises OSError."""
        write_json(
            file, {"version": FORMAT_VERSION, "generation": generation, "period": period(), "released": released}
        )


def period() -> float:
    """Seconds between two beats. Raises ConfigError for a value that cannot be meant."""
    text = os.environ.get(contract.ENV_HEARTBEAT, "").strip()
    try:
        value = float(text or PERIOD)
    except ValueError:
        value = 0.0
    if not 0.01 <= value <= 3600:
        raise ConfigError(f"{contract.ENV_HEARTBEAT}={text}: give seconds, from 0.01 to 3600, or unset it")
    return value
