"""The one W&B run of this process, whoever began it: marked, ended with an honest code, brought back when it is lost.

Everything here runs in a thread or at a step boundary, never in a signal handler: wandb called from one deadlocks (one
time in 200 with mark and finish, 6 processes of 6 under dense signals).
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from hpc_resume.trackers.wandb_import import ImportWatch
from hpc_resume.trackers.wandb_service import is_alive, service_pids

if TYPE_CHECKING:
    from collections.abc import Callable

_LOSSES: Final = ("HandleAbandonedError", "MailboxClosedError")  # wandb's own words for a dead service
INTERRUPTED: Final = 255  # what wandb itself sends for a KeyboardInterrupt: the run is KILLED


def wandb_module() -> Any:
    """The wandb that the training has imported, None when it has not: we do not import it in its place."""
    return sys.modules.get("wandb")


def honest_code(given: int | None, error: BaseException | None) -> int | None:
    """The code of a finish() that runs while `error` is on its way: wandb sends 0 for a bare one in a `finally`.

    A code that somebody gave stays, but for the 1 with which `with wandb.init()` ends for every SystemExit.
    """
    if isinstance(error, SystemExit) and given in (None, 1):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if given is not None or error is None:
        return given
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1


def hear(run: Any, name: str, heard: Callable[..., None]) -> None:
    """Call `heard` before each call of `run.name`, which `wandb.name` may be too."""
    original, module = getattr(run, name), wandb_module()

    def method(*args: Any, **kwargs: Any) -> Any:
        heard(*args, **kwargs)
        return original(*args, **kwargs)

    setattr(run, name, method)
    if getattr(module, name, None) == original:
        setattr(module, name, method)


def allow_changes(run: Any) -> None:
    """Let a resumed run's configuration be changed: init() allows that for its own `config` alone (wandb 0.31)."""
    config = run.config
    original = getattr(config, "_sanitize", None)
    if original is None:
        return

    def sanitize(key: str, value: Any, allow_val_change: bool | None = None) -> Any:
        return original(key, value, True if allow_val_change is None else allow_val_change)

    object.__setattr__(config, "_sanitize", sanitize)  # its own __setattr__ sets a key


class Session:
    """`run` is None before there is one and after its end; then `ended` is the code that was sent, None before.

    `found` is called with each run that the training has begun by itself. `delivered` is the id of the last run whose
    end left nothing unsent, as far as the client knows.
    """

    def __init__(self, found: Callable[[Any], None]) -> None:
        self.run: Any = None
        self.ended: int | None = None
        self.marked = False
        self.delivered: str | None = None
        self._found = found
        self._unheard: Any = None  # adopted, and `found` does not know it yet
        self.begun = 0  # how many W&B runs this process has had
        self._explicit = False
        self._place: dict[str, str] = {}
        self._service: tuple[int, ...] = ()
        self._service_is_gone = False
        self._init: Callable[..., Any] | None = None
        self._import: ImportWatch | None = None

    def watch(self, begin: Callable[..., Any] | None = None) -> None:
        """Hear of every `wandb.init` from now on, also where wandb is still to be imported; `begin` replaces it."""
        module = wandb_module()
        if self._init is not None:
            return
        if not hasattr(module, "init"):  # not yet, or its import is under way in another thread
            self._import = self._import or ImportWatch(lambda: self.watch(begin))
            return
        self._init, pid = module.init, os.getpid()

        def init(*args: Any, **kwargs: Any) -> Any:
            if os.getpid() != pid:  # a forked child's run is not this run
                return self.init(*args, **kwargs)
            run = (begin or self.init)(*args, **kwargs)
            self.look()
            return run

        module.init = init

    def init(self, *args: Any, **kwargs: Any) -> Any:
        """The one that wandb itself has."""
        return (self._init or wandb_module().init)(*args, **kwargs)

    def release(self) -> None:
        """wandb.init as it was."""
        if self._import is not None:
            self._import.close()
        if self._init is not None:
            wandb_module().init = self._init
            self._init = None

    def look(self, *, tell: bool = True) -> None:
        """Adopt the run that the training has begun meanwhile, if it has; not `tell`: there is no time for `found`."""
        module = wandb_module()
        run = getattr(module, "run", None)
        if run is not None and run is not self.run:
            self.adopt(run)
            self._unheard = run
        if tell and self._unheard is not None:
            run, self._unheard = self._unheard, None
            if run is self.run:
                self._found(run)

    def adopt(self, run: Any) -> None:
        """From now on this is the process's run. A disabled one (mode="disabled") has no service and loses nothing."""
        self.run, self.ended, self.marked = run, None, False
        place = {"id": run.id, "project": run.project, "entity": run.entity}
        if self._place != place:
            self.begun += 1
        self._place = place
        self._service, self._service_is_gone = service_pids(), False
        self._hook(run)

    def is_lost(self, error: Exception | None = None) -> bool:
        """Whether the service process that carried the run is gone; `error` is what wandb has just raised.

        A killed process keeps its place in /proc for a while after its connections are cut.
        """
        if isinstance(error, ConnectionError) or type(error).__name__ in _LOSSES:
            self._service_is_gone = True
        if self._service and not any(is_alive(pid) for pid in self._service):
            self._service_is_gone = True
        return self._service_is_gone

    def mark(self) -> None:
        """Raises whatever wandb raises; `is_lost` may then tell why."""
        if self.run is not None and not self.marked:
            self.run.mark_preempting()
            self.marked = True

    def finish(self, code: int) -> bool:
        """End the run with `code`; whether everything reached the server, as far as the client knows."""
        run = self.run
        if run is None:
            return True
        run.finish(exit_code=code)
        return not getattr(run, "_finish_timed_out", False)

    def must_be_corrected(self, code: int) -> bool:
        """Whether the server was told another end than `code`, by a finish() that could not know better.

        Only where the process had one run: of several, nobody can say which the end belongs to.
        """
        return self.run is None and self.ended not in (None, code) and not self._explicit and self.begun == 1

    def revive(self, **more: Any) -> Any:
        """The same run again, in a new service process. Raises whatever `init` raises.

        Measured with wandb 0.31: after teardown() and without WANDB_SERVICE a new init works, 0.4 s.
        """
        self.run = None
        if self.is_lost():
            self.clear()
        place = {name: value for name, value in self._place.items() if value}
        run = self.init(**({**place, "resume": "must"} | more))
        self.adopt(run)
        return run

    def clear(self) -> None:
        """No service process: the next init starts one. After an init that failed, the id counts as in use there."""
        with contextlib.suppress(Exception):
            wandb_module().teardown()
        os.environ.pop("WANDB_SERVICE", None)

    def _hook(self, run: Any) -> None:
        """`finish`, `with` and wandb's own exit hook all end in `_finish`; without it the public one must do."""
        name = "_finish" if hasattr(run, "_finish") else "finish"
        original: Callable[..., Any] = getattr(run, name)

        def finish(exit_code: int | None = None, *args: Any, **kwargs: Any) -> Any:
            code = honest_code(exit_code, sys.exc_info()[1])
            if self.run is run:
                hooks = getattr(run, "_hooks", None)  # what sys.exit() was called with, as wandb heard it
                self.run, self.ended = None, code or getattr(hooks, "exit_code", 0) or 0
                self._explicit = exit_code is not None and code == exit_code
            run_id = None if getattr(run, "offline", True) else run.id
            result = original(code, *args, **kwargs)
            if not getattr(run, "_finish_timed_out", False):
                self.delivered = run_id
            return result

        setattr(run, name, finish)
