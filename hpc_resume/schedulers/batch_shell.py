"""One batch shell as a local process: in a session of its own, ended when we end, gone only with all it started.

Not promised: processes that leave the session (setsid) and did not announce themselves are not ended with it. Under
Slurm the job's cgroup would find those too.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Final

from hpc_resume.run.delivery import send_signal
from hpc_resume.run.process import Identity, identify, own_identity, read_stat

HELD_BACK: Final = frozenset(
    {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD}
)
PATIENCE: Final = (
    5.0  # seconds from TERM to KILL; Slurm's KillWait is 30, but there the person at the terminal is not waiting
)

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)  # loaded before any fork: loading takes locks


class BatchShell:
    """A started `bash SCRIPT`. One thread starts and asks it; that thread must live as long as the shell does.

    The kernel sends the parent-death signal when the *thread* that forked ends (prctl(2)), and a fork beside other
    threads may inherit a held lock: so whoever uses this class has one thread.
    """

    def __init__(
        self,
        script: Path,
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdout: int | IO[bytes] | None,
        stderr: int | None = None,
    ) -> None:
        ours = os.getpid()

        def in_the_child() -> None:
            # Between fork and exec our own handlers are still installed and would write to our wake-up descriptor:
            # nothing may reach them. So the signals stay blocked until they are back to their defaults.
            for number in HELD_BACK:
                signal.signal(number, signal.SIG_DFL)
            _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
            if os.getppid() != ours:  # we ended before prctl: nobody would tell it any more
                os._exit(128 + signal.SIGTERM)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)

        signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
        try:
            self._process = subprocess.Popen(
                ["bash", str(script)],
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.DEVNULL,  # as in a batch job
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,  # the terminal's Ctrl-C reaches only us
                preexec_fn=in_the_child,  # noqa: PLW1509 - one thread, see the class
            )
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
        self.pid = self._process.pid
        stat = read_stat(self.pid)  # also of one that has ended by now: nobody else has its pid until we reap it
        self.identity = replace(own_identity(), pid=self.pid, start_ticks=stat.start_ticks) if stat else None
        self.by_signal = False  # once it is gone: whether a signal ended it, and not a code of its own
        self._terminated_at: float | None = None
        self._hard_since: float | None = None
        self._others: tuple[Identity, ...] = ()

    def signal(self, number: int) -> None:
        """Signal the shell itself. Only until `poll` has given its code: up to then its pid is nobody else's."""
        os.kill(self.pid, number)  # Popen.send_signal would look first, and reap it

    def end_hard(self, announced: Iterable[Identity]) -> None:
        """Begin to end everything in the session, and `announced` processes: TERM, then KILL, at last the shell."""
        if self._hard_since is None:
            self._hard_since = time.monotonic()
            self._others = tuple(announced)

    def poll(self) -> int | None:
        """Its exit code (128+n when a signal ended it) once it and its session are gone; None until then.

        Ends what the shell has left behind: a requeued attempt must not meet processes of the one before. The shell
        stays a zombie until then, so that its pid, which names the session, cannot be given to anybody else.
        """
        now = time.monotonic()
        if self._hard_since is not None:
            self._press(now - self._hard_since)
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        if os.waitid(os.P_PID, self.pid, flags) is None:
            return None
        members = self._members()
        if members:
            if self._terminated_at is None:
                self._terminated_at = now
                _signal_all(members, signal.SIGTERM)
            elif now - self._terminated_at > PATIENCE:
                _signal_all(members, signal.SIGKILL)
            return None
        code = self._process.wait()
        self.by_signal = code < 0
        return code if code >= 0 else 128 - code

    def _press(self, elapsed: float) -> None:
        """The ladder of a hard stop, seconds after it was asked for."""
        if elapsed < PATIENCE:
            if self._terminated_at is None:
                self._terminated_at = time.monotonic()
                _signal_all({*self._members(), *self._others}, signal.SIGTERM)
            return
        _signal_all({*self._members(), *self._others}, signal.SIGKILL)
        if elapsed > 2 * PATIENCE:
            self.signal(signal.SIGKILL)

    def _members(self) -> set[Identity]:
        """Those of our session, without the shell; zombies are gone."""
        pids = (pid for pid in _pids() if pid != self.pid and _is_in_session(pid, self.pid))
        return {member for pid in pids if (member := identify(pid)) is not None}


def _pids() -> Iterable[int]:
    return (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())


def _is_in_session(pid: int, session: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return False
    fields = stat[stat.rindex(")") + 2 :].split()  # state ppid pgrp session: the name before may hold anything
    return int(fields[3]) == session and fields[0] not in "ZXx"


def _signal_all(targets: Iterable[Identity], number: int) -> None:
    for target in targets:
        with contextlib.suppress(PermissionError):
            send_signal(target, number)
