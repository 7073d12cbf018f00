"""wandb's own command line in this process, as `wandb` would start it, with three things that it lacks.

`python -m hpc_resume.sweeps.client HAND agent --forward-signals --count 1 SWEEP`:

- The run is written to the file HAND before its process is started: whoever comes after a kill knows which run it was.
- A warning before a run has arrived ends the agent, but never while it asks for one or starts it: what the server has
  handed out by then would be a run that nobody is given again. (Left alone it dies of the signal at any moment: its
  handlers are installed with the first run, 6 s after the start.)
- It hears of its starter's death, and hands the warning on.

Nothing of wandb is replaced: audit events and the stack of the main thread are looked at.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hpc_resume.sweeps.family import die_with_parent
from hpc_resume.sweeps.hand import write

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

_LOOP: Final = "_run_loop"
_WAITING: Final = "read_many_from_queue"  # five seconds before each question
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


class Watcher:
    """What the agent is at: nothing yet, a question, or a run."""

    def __init__(self, hand: Path) -> None:
        self._hand = hand
        self.taken = False

    def install(self) -> None:
        """From now on."""
        sys.addaudithook(self._audit)
        for signum in SIGNALS:
            signal.signal(signum, self._on_signal)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "subprocess.Popen" or self.taken:
            return
        environment = arguments[3]
        run = (environment or {}).get("WANDB_RUN_ID") if hasattr(environment, "get") else None
        if run and _is_in(sys._getframe(), _LOOP):  # noqa: SLF001 - who asks; wandb starts its service elsewhere
            self.taken = True
            sys.setprofile(None)
            with suppress(OSError):
                write(self._hand, str(run), os.environ)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self.taken:  # wandb's handler has forwarded it, and calls us in place of ending its loop
            if signum not in (signal.SIGUSR1, signal.SIGUSR2):
                raise SystemExit(128 + signum)
            return
        if not _is_in(frame, _LOOP) or _is_in(frame, _WAITING):
            raise SystemExit(128 + signum)
        sys.setprofile(self._on_call)

    def _on_call(self, frame: FrameType, event: str, _argument: object) -> None:
        """The question is answered, and no run came of it: the next wait begins."""
        if event == "call" and frame.f_code.co_name == _WAITING and not self.taken:
            sys.setprofile(None)
            raise SystemExit(128 + signal.SIGTERM)


def _is_in(frame: FrameType | None, name: str) -> bool:
    while frame is not None:
        if frame.f_code.co_name == name:
            return True
        frame = frame.f_back
    return False


def main(words: Sequence[str]) -> None:
    """`words` are HAND and wandb's own. Does not return."""
    die_with_parent(signal.SIGTERM)
    watcher = Watcher(Path(words[0]))
    watcher.install()
    from wandb.cli.cli import cli  # noqa: PLC0415 - after the handlers: it takes a second

    sys.argv[:] = ["wandb", *words[1:]]
    cli(args=list(words[1:]), prog_name="wandb")


if __name__ == "__main__":
    main(sys.argv[1:])
