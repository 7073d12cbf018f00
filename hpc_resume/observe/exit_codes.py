"""What an exit code means, by the table of the contract, and what usually is behind it. Pure."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hpc_resume.contract import EXIT_CONFIG, EXIT_FINISHED, EXIT_NO_WORK, EXIT_TABLE, EXIT_USAGE, SIGNAL_BASE


@dataclass(frozen=True, slots=True)
class CodeWords:
    """`signal` without SIG, empty for a plain code; `hint` is what to look at."""

    code: int
    meaning: str
    follows: str  # what the batch shell does
    signal: str = ""
    warning: bool = False
    hint: str = ""


_ROWS: Final = {row[0]: row for row in EXIT_TABLE}
_CRASH: Final = _ROWS["other"][2]
_STOPPED: Final = _ROWS["128+signum"]

_PLAIN: Final[Mapping[int, tuple[str, str]]] = {
    1: ("the program failed", "a Python program that ends by an exception has this code: read the job's output"),
    EXIT_USAGE: (
        "its command line was wrong",
        "argparse, click and typer end with it; `command` in job.yaml is what was called",
    ),
    126: ("the command cannot be executed", "not executable, or a script for an interpreter that is not there"),
    127: ("the command was not found", "is its module loaded or its environment activated in `setup` of job.yaml?"),
    255: ("the program failed with -1", "ssh and srun end with it when they themselves fail: read the job's output"),
}

_OOM: Final = (
    "out of memory, mostly: `sacct -j JOB -o State,MaxRSS,ReqMem` (OUT_OF_MEMORY, or MaxRSS near ReqMem), then raise"
    " slurm.mem. Or Slurm's KILL, KillWait seconds after its TERM, or `scancel -s KILL`, or `kill -9`"
)
_SIGNALS: Final[Mapping[str, tuple[str, str]]] = {
    "KILL": ("killed, without a chance to save", _OOM),
    "SEGV": (
        "segmentation fault in compiled code",
        "`python -X faulthandler` shows where; a changed library, or a driver",
    ),
    "BUS": ("bus error", "a file that is mapped into memory was cut short, or /dev/shm is full (DataLoader workers)"),
    "ABRT": (
        "aborted by the program itself",
        "a failed assertion in compiled code (CUDA, NCCL, glibc): read the job's output",
    ),
    "ILL": ("illegal instruction", "a binary for another processor: load or build it on this kind of node"),
    "FPE": ("arithmetic error in compiled code", "an integer division by zero, mostly"),
    "INT": ("interrupted, as by Ctrl-C", ""),
    "HUP": ("its terminal was closed", "use `hpc-resume submit`, or run it in tmux"),
    "PIPE": ("wrote to a reader that was gone", "a pipe in `command`, as in `train | head`"),
    "XCPU": ("used up its CPU time", "`ulimit -t`"),
    "XFSZ": ("a file grew beyond its limit", "`ulimit -f`"),
    "SYS": ("made a forbidden system call", "a container's seccomp profile"),
}
_WARNINGS: Final = ("USR1", "USR2", "TERM")


def explain_code(code: int) -> CodeWords:
    """What a code of 0 to 255 says."""
    if code in (EXIT_FINISHED, EXIT_NO_WORK, EXIT_CONFIG):
        _, meaning, follows = _ROWS[str(code)]
        return CodeWords(code, meaning, follows)
    name = signal_name(code - SIGNAL_BASE)
    if name in _WARNINGS:
        by = f"SIG{name}: warned of the end, or asked to stop"
        hint = "without our helper in it a program just dies of this signal; then nothing was saved"
        return CodeWords(code, f"{_STOPPED[1]} ({by})", _STOPPED[2], name, warning=True, hint=hint)
    if name:
        meaning, hint = _SIGNALS.get(name, (f"ended by SIG{name}", ""))
        return CodeWords(code, f"{meaning} (SIG{name})", _CRASH, name, hint=hint)
    meaning, hint = _PLAIN.get(code, (f"{_ROWS['other'][1]}: the program's own code {code}", "read the job's output"))
    return CodeWords(code, meaning, _CRASH, hint=hint)


def signal_name(number: int) -> str:
    """`USR1` for 10; empty for what is no signal."""
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return f"RTMIN+{number - signal.SIGRTMIN}" if signal.SIGRTMIN < number < signal.SIGRTMAX else ""


def parse_code(text: str) -> int | None:
    """138, `0:9` as sacct and scontrol write it, or a signal's name; None for anything else."""
    pair = re.fullmatch(r"(\d{1,3})(?::(\d{1,2}))?", text)
    if pair is not None:
        code = SIGNAL_BASE + int(pair[2]) if pair[2] and int(pair[2]) else int(pair[1])
        return code if 0 <= code <= 255 else None
    name = f"SIG{text.upper().removeprefix('SIG')}"
    return SIGNAL_BASE + signal.Signals[name] if name in signal.Signals.__members__ else None


def in_words(words: CodeWords) -> str:
    """For a person."""
    lines = [f"{words.code}: {words.meaning}", f"  the batch shell: {words.follows}"]
    return "\n".join([*lines, *([f"  look at: {words.hint}"] if words.hint else [])]) + "\n"
