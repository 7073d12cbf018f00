"""`make demo`: one job, interrupted three times in three ways, ends where the uninterrupted one does.

Does what a person would do, with the command line: renders examples/minimal, runs it under the local scheduler, sends
it the signals that Slurm would send, and compares. Exit code 0 only if the final states are equal.
"""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from hpc_resume.run.rundir import AttemptDir, RunDir, find_runs

MINIMAL = Path(__file__).resolve().parent / "minimal"
STEPS = 200
STEP_SECONDS = 0.04
PATIENCE = 60.0  # seconds for the whole demo; it takes about 15
CLI = [sys.executable, "-m", "hpc_resume"]


@dataclass(frozen=True, slots=True)
class Interruption:
    """`pid_in` finds the process in the attempt's records."""

    at_step: int
    signal: signal.Signals
    target: str
    meaning: str
    pid_in: Callable[[AttemptDir], int]


def launcher_pid(attempt: AttemptDir) -> int:
    record = attempt.attempt()
    if record is None:
        raise LookupError(f"{attempt.path}: no attempt.json")
    return record.process.pid


def training_pid(attempt: AttemptDir) -> int:
    return next(record.process.pid for record in attempt.pids() if record.rank == 0)


INTERRUPTIONS = (
    Interruption(45, signal.SIGUSR1, "batch shell", "time limit", launcher_pid),
    Interruption(97, signal.SIGTERM, "batch shell", "preemption", launcher_pid),
    Interruption(150, signal.SIGTERM, "training", "grace time", training_pid),
)


@dataclass(slots=True)
class Attempt:
    """What was seen of one attempt: the steps it executed, and when it was interrupted by what."""

    executed: list[int] = field(default_factory=list)
    interruption: Interruption | None = None
    sent: float = 0.0


class Screen:
    """A bar under the lines on a terminal, the lines alone on a pipe."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        columns = (
            TextColumn("  attempt {task.fields[attempt]}"),
            BarColumn(30),
            TextColumn("step {task.completed}/{task.total}"),
        )
        self.progress = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self.bar = self.progress.add_task("", total=STEPS, attempt=1)
        self.began = time.monotonic()

    def say(self, text: str) -> None:
        self.console.print(f"[dim]{time.monotonic() - self.began:5.1f} s[/]  {text}", soft_wrap=True)

    def step(self, attempt: int, step: int) -> None:
        self.progress.update(self.bar, completed=step + 1, attempt=attempt)


def environment() -> dict[str, str]:
    """The user's, with this Python first on PATH, and without any job around it."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "HPC_RESUME_"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", os.defpath)])
    return env | {"PATH": path, "TOTAL_STEPS": str(STEPS), "STEP_SECONDS": str(STEP_SECONDS)}


def start(argv: list[str], directory: Path, *, stderr: int) -> subprocess.Popen[str]:
    """A command of the demo; the answer comes through its stdout."""
    return subprocess.Popen(argv, cwd=directory, env=environment(), stdout=subprocess.PIPE, stderr=stderr, text=True)


def lines_of(process: subprocess.Popen[str]) -> Iterator[str]:
    """What the job prints, as it prints it. Raises TimeoutError when the demo takes too long."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in process.stderr or ():
            lines.put(line.rstrip("\n"))
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise TimeoutError(f"the demo did not end in {PATIENCE:.0f} s") from None
        if line is None:
            return
        yield line


def interrupt(what: Interruption, run: RunDir) -> float:
    """Send it to the newest attempt's process; when."""
    pid = what.pid_in(run.attempts()[-1])
    now = time.time()
    os.kill(pid, what.signal)
    return now


def follow(process: subprocess.Popen[str], runs: Path, screen: Screen) -> tuple[list[Attempt], str, list[str]]:
    """Watch the job and interrupt it: the attempts, the final state it prints, and everything it printed."""
    attempts, final, log = [Attempt()], "", []
    left = list(INTERRUPTIONS)
    for line in lines_of(process):
        log.append(line)
        if match := re.match(r"step (\d+) ", line):
            step = int(match[1])
            attempts[-1].executed.append(step)
            screen.step(len(attempts), step)
            if left and step >= left[0].at_step and attempts[-1].interruption is None:
                what = left.pop(0)
                attempts[-1].interruption = what
                attempts[-1].sent = interrupt(what, find_runs(runs)[0])
                screen.say(f"step {step}: [bold]{what.signal.name}[/] to the {what.target} ({what.meaning})")
        elif match := re.match(
            r"hpc_resume: attempt (\d+) of \S+: code (\d+), (\w+) .*published step (\d+); (\w+)", line
        ):
            screen.say(f"attempt {match[1]} left with code {match[2]}, saved at step {match[4]}: [bold]{match[5]}[/]")
            if match[5] == "requeue":
                attempts.append(Attempt())
        elif line.startswith("final state "):
            final = line.removeprefix("final state ")
    return attempts, final, log


def steps_lost(attempt: Attempt, published: int) -> int:
    """Executed here, and not in the checkpoint that the next attempt starts from."""
    return sum(step >= published for step in attempt.executed)


def table_of(attempts: list[Attempt], run: RunDir) -> tuple[Table, int]:
    """The table, and how many steps were lost altogether."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("attempt", justify="right")
    table.add_column("signal")
    table.add_column("stands for")
    for head in ("gone after", "saved step", "steps lost"):
        table.add_column(head, justify="right")
    total = 0
    for number, (seen, directory) in enumerate(zip(attempts, run.attempts(), strict=True), 1):
        ended = directory.exit()
        published = ended.step_after if ended else 0
        lost = steps_lost(seen, published)
        total += lost
        gone = next((event.t for event in directory.events() if event.event == "gone"), 0.0)
        what = seen.interruption
        how = (f"{what.signal.name} → {what.target}", what.meaning) if what else ("", "[green]finished[/]")
        table.add_row(str(number), *how, f"{gone - seen.sent:.2f} s" if what else "", str(published), str(lost))
    return table, total


def show(directory: Path, screen: Screen) -> bool:
    """The whole demo in `directory`; whether the final states are equal."""
    shutil.copytree(MINIMAL, directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns("runs", "__pycache__"))
    start([*CLI, "render", "-o", "job.sbatch"], directory, stderr=subprocess.DEVNULL).wait()
    size = len((directory / "job.sbatch").read_text().splitlines())
    screen.say(f"hpc-resume render: job.yaml became job.sbatch, {size} lines of plain bash")
    screen.say("beside it, for comparison: python train.py, uninterrupted")
    plain = start([sys.executable, "train.py"], directory, stderr=subprocess.DEVNULL)
    screen.say("hpc-resume run: the same job under the local scheduler")
    job = start([*CLI, "run", "--json"], directory, stderr=subprocess.PIPE)
    try:
        with screen.progress:
            attempts, final, log = follow(job, directory / "runs", screen)
        answer = json.loads(job.communicate(timeout=PATIENCE)[0] or "{}")
        reference = plain.communicate(timeout=PATIENCE)[0].strip().rpartition(" ")[2]
    finally:
        for process in (job, plain):
            if process.poll() is None:
                process.terminate()  # the training saves and stops
                process.wait()
    run = RunDir(directory / "runs" / answer.get("run", "none"))
    if answer.get("decision") != "finish" or len(attempts) != len(INTERRUPTIONS) + 1:
        screen.console.print("\n".join(log[-20:]), markup=False)
        return False
    table, lost = table_of(attempts, run)
    screen.console.print()
    screen.console.print(table)
    screen.console.print()
    equal = final == reference != ""
    verdict = "[bold green]equal to[/]" if equal else "[bold red]NOT equal to[/]"
    screen.console.print(
        f"{len(attempts)} attempts, {lost} steps lost in all; final state {verdict} the uninterrupted run"
    )
    screen.console.print(f"[dim]interrupted    {final}\nuninterrupted  {reference}[/]")
    return equal


def main() -> int:
    screen = Screen()
    directory = Path(tempfile.mkdtemp(prefix="hpc_resume-demo-"))
    try:
        equal = show(directory, screen)
    except KeyboardInterrupt:
        return 130
    except TimeoutError as error:
        screen.console.print(str(error))
        equal = False
    if equal:
        shutil.rmtree(directory)
    else:
        screen.console.print(f"what happened is in {directory}", soft_wrap=True)
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
