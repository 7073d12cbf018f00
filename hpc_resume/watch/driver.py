"""The loop between a terminal (or a log), the program under its pseudo-terminal, and the warning.

Raw both ways: what the program prints is passed on as it comes, not line by line. On a terminal the person's own keys
and window size reach the program; in a log there is no echo and no carriage return.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
import sys
import termios
import time
import tty
from typing import TYPE_CHECKING, Any, Final

import pexpect

from hpc_resume.contract import SIGNAL_BASE
from hpc_resume.run.announce import announce
from hpc_resume.run.deadline import assumed, read_told
from hpc_resume.run.events import say
from hpc_resume.run.rundir import AttemptDir
from hpc_resume.watch.asking import Asking, Settings, ask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hpc_resume.run.environment import Environment
    from hpc_resume.run.events import EventLog

CHUNK: Final = 1 << 16
PATIENCE: Final = 5.0  # seconds between TERM and KILL of the program
_STDIN: Final = 0
_STDOUT: Final = 1


def drive(words: Sequence[str], settings: Settings, environment: Environment) -> int:
    """Run `words` to their end: their exit code (128+n when a signal killed them), or 128+signum after a warning."""
    wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    for signum in (environment.signum, signal.SIGTERM, signal.SIGINT, signal.SIGWINCH):
        signal.signal(signum, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (environment.signum, signal.SIGTERM))
    try:
        child = pexpect.spawn(words[0], list(words[1:]), timeout=None, preexec_fn=_prepare, dimensions=_size())
    except pexpect.ExceptionPexpect as error:
        say(f"{words[0]}: {str(error).splitlines()[0]}")
        return 127
    attempt = AttemptDir(environment.attempt_dir) if environment.attempt_dir is not None else None
    # No run of ours: the program keeps its state itself, and is not judged by checkpoints that it never publishes.
    events = announce(environment, attempt, opened=False) if attempt is not None else None
    with contextlib.ExitStack() as undo:
        if os.isatty(_STDIN):
            before = termios.tcgetattr(_STDIN)
            undo.callback(termios.tcsetattr, _STDIN, termios.TCSADRAIN, before)
            tty.setraw(_STDIN)
        return _Driver(child, settings, environment, events, wake_read).run()


class _Driver:
    """One program under watch."""

    def __init__(
        self,
        child: pexpect.spawn[Any],
        settings: Settings,
        environment: Environment,
        events: EventLog | None,
        wake: int,
    ) -> None:
        self._child = child
        self._settings = settings
        self._environment = environment
        self._events = events
        self._wake = wake
        self._end = os.pidfd_open(int(child.pid or 0))
        self._asking: Asking | None = None
        self._received: int = 0
        self._ended_at: float | None = None  # when the program was told to end
        self._input = _STDIN if _has_input() else None

    def run(self) -> int:
        poll = select.poll()
        for descriptor in (self._child.child_fd, self._wake, self._end):
            poll.register(descriptor, select.POLLIN)
        if self._input is not None:
            poll.register(self._input, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll(self._timeout())}
            if self._wake in ready:
                for signum in os.read(self._wake, CHUNK):
                    self._hear(signum)
            if self._child.child_fd in ready and not self._pass_output():
                poll.unregister(self._child.child_fd)
            if self._input is not None and self._input in ready and not self._pass_input():
                poll.unregister(self._input)
                self._input = None
            if self._end in ready:
                return self._conclude()
            self._press()

    def _timeout(self) -> int | None:
        """Milliseconds until something is due."""
        now = time.monotonic()
        due = [self._asking.deadline] if self._asking is not None and self._ended_at is None else []
        if self._ended_at is not None:
            due.append(self._ended_at + PATIENCE)
        return max(0, int((min(due) - now) * 1000) + 1) if due else None

    def _hear(self, signum: int) -> None:
        if signum == signal.SIGWINCH:
            self._child.setwinsize(*_size())
        elif signum == signal.SIGINT:
            self._type(b"\x03")  # to the program, as its own terminal would
        elif signum in (self._environment.signum, signal.SIGTERM):
            self._warn(signum)

    def _warn(self, signum: int) -> None:
        name = signal.Signals(signum).name
        if self._received:
            if signum != self._received and self._ended_at is None:
                self._note("received", signal=name.removeprefix("SIG"))
                self._stop(f"{name} as well")
            return
        self._received = signum
        self._note("received", signal=name.removeprefix("SIG"))
        if not self._settings.on_warning:
            self._stop(name)
            return
        self._asking = ask(self._settings, time.monotonic(), self._left(signum))
        self._note("asked", seconds=round(self._asking.deadline - self._asking.since, 3))
        self._type(self._settings.on_warning)

    def _press(self) -> None:
        """What time or an answer makes due."""
        now, asking = time.monotonic(), self._asking
        if self._ended_at is not None:
            if now - self._ended_at >= PATIENCE:
                self._signal(signal.SIGKILL)
            return
        if asking is None or not asking.is_over(now):
            return
        seconds = round(now - asking.since, 3)
        if asking.answered:
            self._note("saved", seconds=seconds, trigger="warning")
            self._stop(f"it has answered after {seconds:.1f} s")
        else:
            self._note("unanswered", seconds=seconds)
            self._stop(f"no answer in {seconds:.1f} s: what it has saved is not known")

    def _stop(self, why: str) -> None:
        say(f"the program is ended: {why}")
        self._ended_at = time.monotonic()
        self._signal(signal.SIGTERM)

    def _signal(self, signum: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._end, signum)

    def _conclude(self) -> int:
        while select.select([self._child.child_fd], [], [], 0)[0] and self._pass_output():
            pass
        self._child.wait()
        status = self._child.exitstatus
        code = status if status is not None else SIGNAL_BASE + int(self._child.signalstatus or 0)
        if self._received:
            self._note("stopped", program=code, code=SIGNAL_BASE + self._received)
            return SIGNAL_BASE + self._received
        self._note("ended", code=code)
        return code

    def _pass_output(self) -> bool:
        """False when there will be no more."""
        try:
            data = os.read(self._child.child_fd, CHUNK)
        except OSError:  # EIO: nobody has the terminal open any more
            return False
        with contextlib.suppress(BrokenPipeError):  # nobody reads it any more; the program goes on
            _write(_STDOUT, data)
        if self._asking is not None:
            self._asking.hear(data, time.monotonic())
        return bool(data)

    def _pass_input(self) -> bool:
        data = os.read(_STDIN, CHUNK)
        self._type(data or b"\x04")  # the end of a pipe is Ctrl-D at a terminal
        return bool(data)

    def _type(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            _write(self._child.child_fd, data)

    def _left(self, signum: int) -> float | None:
        directory = self._environment.attempt_dir
        told = read_told(AttemptDir(directory).warning_file) if directory is not None else None
        now = time.time()
        deadline = told.deadline if told is not None else assumed(signum, now, self._environment)
        return max(0.0, deadline - now) if deadline is not None else None

    def _note(self, event: str, **data: object) -> None:
        if self._events is not None:
            self._events.write(event, **data)


def _prepare() -> None:
    """In the program before it begins, on its own terminal: what a log must not have."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGWINCH):
        signal.signal(signum, signal.SIG_DFL)
    mode = termios.tcgetattr(_STDIN)
    if not _tty_outside[0]:
        mode[3] &= ~termios.ECHO
    if not _tty_outside[1]:
        mode[1] &= ~termios.OPOST
    termios.tcsetattr(_STDIN, termios.TCSANOW, mode)


_tty_outside: Final = (os.isatty(_STDIN), os.isatty(_STDOUT))


def _has_input() -> bool:
    """A terminal, a pipe or a file; not /dev/null, whose end would be typed as Ctrl-D into a batch job."""
    try:
        mode = os.fstat(_STDIN).st_mode
    except OSError:
        return False
    return os.isatty(_STDIN) or stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _size() -> tuple[int, int]:
    """Rows and columns of the terminal around us, a usual one without it."""
    for descriptor in (_STDOUT, _STDIN):
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(descriptor)
            return size.lines or 24, size.columns or 80
    return 24, 80


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    if descriptor == _STDOUT:
        with contextlib.suppress(ValueError):
            sys.stdout.flush()
