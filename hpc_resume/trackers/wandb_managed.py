"""The W&B run of `wandb:` in job.yaml: one over all attempts, with every row of run.log() in it once.

Its id is in run.json, and the training may call wandb.init() itself (its arguments count) or leave it to us.

Rows carry W&B's `_step` as their number in the ledger (metrics.jsonl of all attempts), so the `starting_step` of a
resumed run says which of them the server has: the rest is sent first. Rejected: `wandb sync` of the .wandb file. It
sends rows twice that had arrived before the connection was lost, and the file lacks up to 32 KiB when wandb-core is
killed (both measured, 0.31).
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from hpc_resume.errors import ConfigError
from hpc_resume.trackers.ledger import merge, read_rows, repeats
from hpc_resume.trackers.wandb import WandbTracker
from hpc_resume.trackers.wandb_names import Changes, Wishes, name_run
from hpc_resume.trackers.wandb_rewind import rewind
from hpc_resume.trackers.wandb_service import is_reachable
from hpc_resume.trackers.wandb_session import allow_changes, hear

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hpc_resume.trackers import Facts
    from hpc_resume.trackers.ledger import Row

INIT_SECONDS: Final = 30
REVIVE_SECONDS: Final = 2.0
LAST_TRIES: Final = 8  # at the normal end, where nobody is waiting for the node


class ManagedTracker(WandbTracker):
    """A run of our own, which the training may also begin and log to by itself."""

    def __init__(self, facts: Facts, wishes: Wishes) -> None:
        super().__init__(facts)
        self.wishes = wishes
        self.known = self.file.section()
        self.ours = False
        self._set: dict[str, str | None] = {}  # variables as they were before us
        self._changes = Changes({})
        self._notes = ""  # not sent again
        self._metrics_of: Any = None  # the run that knows our step metric
        self._next = 0
        self._repeats: Counter[int] = Counter()
        self._reachable = True
        self._logging = False
        self._is_shared = self.known.get("shared") is True
        self._has_own_axis = False
        self._reached = -1  # the last step that the server has, where the ledger does not know

    # --- the start ------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """The id on disk, W&B's variables set, wandb.init replaced by one that keeps to them."""
        self.id = name_run(self.facts, self.wishes, os.environ)
        if self.wishes.run_id not in ("", self.id):
            self.facts.say(f"W&B takes no run id {self.wishes.run_id!r}: it is {self.id}")
        if self.known.get("id") != self.id:
            self.known = {}
            self.file.note(id=self.id, project=self.wishes.project, entity=self.wishes.entity, started=False)
        self._changes = Changes(self.known.get("config") or {})
        self._reachable = os.environ.get("WANDB_MODE", "online") != "online" or is_reachable(os.environ)
        for variable, value in self._variables().items():
            self._set[variable] = os.environ.get(variable)
            os.environ[variable] = value
        if not self._reachable:
            self.facts.say("W&B is out of reach: this attempt logs offline, and the next one sends it")
        import wandb  # noqa: F401, PLC0415 - asked for by job.yaml

        self.session.watch(self._begin_unless_other)

    def _variables(self) -> dict[str, str]:
        wanted = {
            "WANDB_RUN_ID": self.id,
            "WANDB_RESUME": self._resume(),
            "WANDB_PROJECT": self.wishes.project,
            "WANDB_ENTITY": self.wishes.entity,
            "WANDB_RUN_GROUP": self.wishes.group,
            "WANDB_NAME": self.wishes.name,
            "WANDB_INIT_TIMEOUT": os.environ.get("WANDB_INIT_TIMEOUT", str(INIT_SECONDS)),
            "WANDB_FINISH_TIMEOUT": os.environ.get("WANDB_FINISH_TIMEOUT", str(int(self.facts.patience))),
        }
        if not self._reachable:
            wanted["WANDB_MODE"] = "offline"
        return {name: value for name, value in wanted.items() if value}

    def _resume(self) -> str:
        """`never` is about the first start; what `auto` keeps in the working directory, run.json keeps better."""
        asked = self.wishes.resume
        return "allow" if asked == "auto" or (asked == "never" and self.known.get("started")) else asked

    def _begin_unless_other(self, *args: Any, **kwargs: Any) -> Any:
        """In place of wandb.init: the training's own call begins our run, unless it names another."""
        if self.session.run is not None or (kwargs.get("id") or self.id) != self.id:
            return self.session.init(*args, **kwargs)
        return self._begin(*args, **kwargs)

    def begin(self) -> None:
        """Before the first step: the run exists, and what an earlier attempt could not send is on its way."""
        with self.lock:
            self.session.look()
            run = self.session.run
            if run is None and self.session.ended is None:
                self._begin_ours()
            elif run is not None and not run.disabled:
                if run.id != self.id:
                    self._follow(run)
                self._compare(dict(run.config))  # with what the training has put into it since

    def _found(self, run: Any) -> None:
        """The training has begun it past us (`from wandb import init`); another than ours is seen to in begin()."""
        if run.id == self.id:
            with self.lock:
                self._take_up(run, self._ledger(), rewound=False)

    def _follow(self, run: Any) -> None:
        """The training trains under an id of its own: that is the run's, from now on and in every attempt."""
        section = self.file.section()
        self.facts.say(f"W&B: the training has begun run {run.id}; it is this run's from now on")
        self.id = os.environ["WANDB_RUN_ID"] = run.id
        self.known = section if section.get("id") == run.id else {}
        self._changes = Changes(self.known.get("config") or {})
        self.note(id=run.id, project=run.project, entity=run.entity, started=False)
        self._take_up(run, self._ledger(), rewound=False)

    def _begin_ours(self) -> None:
        """Once: an init that failed would cost its time-out at every row."""
        if self.ours:
            return
        self.ours = True
        self._begin()

    def _begin(self, *args: Any, **kwargs: Any) -> Any:
        """`init` with the run's own name; offline when the server is lost meanwhile. Raises ConfigError for `must`."""
        kwargs = self._kept_to(kwargs)
        rows, rewound = self._ledger(), False
        first = self._first_to_go(rows)
        try:
            run = rewind(self.session, f"{self.id}?_step={first - 1}", args, kwargs, self.facts.say) if first else None
            rewound = run is not None
            run = run or self.session.init(*args, **kwargs)
        except Exception as error:
            if self.wishes.resume in ("must", "never") and type(error).__name__ == "UsageError":
                raise ConfigError(f"W&B refuses resume={self.wishes.resume} for {self.id}: {error}") from None
            if type(error).__name__ != "CommError":
                raise
            self.facts.say(f"W&B does not answer ({error}): this attempt logs offline, and the next one sends it")
            self.session.clear()
            run = self.session.init(*args, **(kwargs | {"mode": "offline", "resume": "allow"}))
        self.session.adopt(run)
        self._take_up(run, rows, rewound=rewound)
        return run

    def _kept_to(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        own = {"tags": list(self.wishes.tags) or None, "notes": self.wishes.notes or None}
        kept = {"resume": self._resume(), "allow_val_change": True} | own | dict(kwargs)
        if "WANDB_SWEEP_ID" not in os.environ:
            kept["id"] = self.id  # under a sweep it is in WANDB_RUN_ID, and given here it is ignored with a warning
        if self.known.get("started"):
            self._notes = str(kept.pop("notes", None) or "")  # it would overwrite what a person wrote in the web page
            os.environ.pop("WANDB_NOTES", None)
        return kept

    # --- the ledger -----------------------------------------------------------------------------------------------

    def _ledger(self) -> list[Row]:
        return merge(read_rows(path) for path in (*self.facts.earlier, self.facts.metrics_file))

    def _first_to_go(self, rows: list[Row]) -> int:
        """The number of the first row after the checkpoint, where those are to be taken back; else 0."""
        if not (self.wishes.rewind and self._reachable):
            return 0
        return next((number for number, row in enumerate(rows) if row.step >= self.facts.step), 0)

    def _take_up(self, run: Any, rows: list[Row], *, rewound: bool) -> None:
        """Say what has changed, and send what the server lacks."""
        if run.disabled:
            return
        self._compare(dict(run.config))
        self._watch(run)
        if self._notes and not run.resumed and not run.offline:
            run.notes = self._notes  # the attempts before were offline: nobody can have written anything
        self._repeats = Counter() if rewound else repeats(rows, self.facts.step)
        self._next = run.starting_step if rewound else len(rows)
        if run.starting_step > len(rows):  # somebody else's rows, or a ledger that was lost with its disk
            self._share()
        if run.offline and self._is_shared:
            self._next = 0  # the next attempt that reaches the server numbers them
        if rewound or run.offline:
            self.note(logs=self.leftovers.with_this(run, others=run.offline))
            return
        theirs, late = [], rows[run.starting_step :]
        if self._is_shared:  # then the numbers are not ours alone, and the step metric tells how far the server is
            theirs = self.leftovers.rows(run)
            known = [run.summary.get(self.wishes.step_metric), *(row.get(self.wishes.step_metric) for _, row in theirs)]
            reached = max((step for step in known if isinstance(step, int | float)), default=None)
            self._reached = int(reached) if reached is not None and not rows else -1
            late = [row for row in rows if reached is None or row.step > reached]
        for number, sent in theirs:
            self._log(run, sent, number)
        first = theirs[-1][0] + 1 if theirs else run.starting_step
        for number, row in enumerate(late, start=first):
            self._log_ours(run, {**row.metrics, "_timestamp": row.t}, row.step, number)
        if self._is_shared:
            self._next = first + len(late)
        self._tell_sent(len(theirs) + len(late))
        self.note(logs=self.leftovers.with_this(run, others=False))

    def _log_ours(self, run: Any, row: Mapping[str, Any], step: int, number: int) -> None:
        """With the step metric, which is on the x axis of every metric unless the training has set another."""
        if self._metrics_of is not run:
            self._metrics_of = run
            run.define_metric(self.wishes.step_metric)
            if not self._has_own_axis:
                run.define_metric("*", step_metric=self.wishes.step_metric)
        self._log(run, {**row, self.wishes.step_metric: step}, number)

    def _log(self, run: Any, row: Mapping[str, Any], number: int) -> None:
        self._logging = True
        try:
            run.log(row, step=number, commit=True)
        finally:
            self._logging = False

    def _share(self) -> None:
        if not self._is_shared:
            self._is_shared = True
            self.note(shared=True)

    def _watch(self, run: Any) -> None:
        """Hear of the training's own rows and axis: with such rows, a row's number is not its place in our ledger."""
        self._has_own_axis = False

        def logged(*_: Any, **__: Any) -> None:
            if not self._logging:
                self._share()

        def defined(name: str = "", *_: Any, **__: Any) -> None:
            self._has_own_axis = self._has_own_axis or (name == "*" and self._metrics_of is not run)

        hear(run, "log", logged)
        hear(run, "define_metric", defined)
        if run.resumed:
            allow_changes(run)

    def _compare(self, config: Mapping[str, Any]) -> None:
        """A changed value is allowed, and named."""
        now = {str(name): str(value) for name, value in config.items()}
        if changed := self._changes.new(now):
            self.facts.say(f"W&B: the configuration has changed: {', '.join(changed)}")
        if now != self.known.get("config") or not self.known.get("started"):
            self.known |= {"started": True, "config": now}
            self.note(started=True, config=now)

    # --- what a run tells -----------------------------------------------------------------------------------------

    def log(self, metrics: Mapping[str, object], step: int) -> None:
        """One row, unless an earlier attempt has logged it. It is in metrics.jsonl already: a lost one comes again."""
        with self.lock:
            if self._repeats[step] > 0:
                self._repeats[step] -= 1
                return
            if step <= self._reached:
                return
            self.session.look()
            if self.session.run is None:
                if self.session.ended is None:
                    self._begin_ours()  # sends this row with the rest of the ledger
                return
            run = self.session.run
            try:
                number = max(self._next, run.step) if self._is_shared else self._next  # asking costs a round trip
                named = {str(name): value for name, value in metrics.items()}
                self._log_ours(run, named, step, number)
            except Exception as error:
                if not self.session.is_lost(error):
                    raise
                self.revive()
                return
            self._next = number + 1

    def mark_preempting(self) -> None:
        """As every run; under a sweep also one that has not begun: unmarked, no agent would get it again."""
        with self.lock:
            self.session.look(tell=False)
            if self.session.begun == 0 and "WANDB_SWEEP_ID" in os.environ:
                self._begin_ours()
            super().mark_preempting()

    def finish(self, exit_code: int) -> None:
        """End the run; what W&B's variables were, they are again. At the normal end a slow server gets more time."""
        with self.lock:
            self.session.look()
            if self.ours and exit_code == 0 and self.session.run is not None:
                self._finish_well()
                self.settle()
            else:
                super().finish(exit_code)
        self._restore()

    def _finish_well(self) -> None:
        """There is no next attempt to send the rest: begin the run again for it, while the server is there."""
        sent = self.session.finish(0) and self._reachable
        for _ in range(LAST_TRIES):
            if sent or not is_reachable(os.environ):
                break
            self._reachable = True
            os.environ["WANDB_MODE"] = "online"
            self.revive()
            sent = self.session.finish(0)
        if not sent:
            self.facts.say(f"W&B has not got all of {self.id}: `wandb sync` beside its directory wandb/ sends it")

    def revive(self) -> None:
        """And what was lost with the service process is sent again, from the ledger."""
        marked = self.session.marked
        self._reachable = self._reachable and is_reachable(os.environ, REVIVE_SECONDS)
        run = self.session.revive(resume="allow", **({} if self._reachable else {"mode": "offline"}))
        if marked:
            self.session.mark()
        repeated = self._repeats
        self._take_up(run, self._ledger(), rewound=False)
        self._repeats = repeated

    def _restore(self) -> None:
        if self.session.run is None:
            self.session.release()
            for name, value in self._set.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
