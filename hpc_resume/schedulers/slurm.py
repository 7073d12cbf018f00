"""Slurm through its own commands, as text with explicit formats and an environment that cannot bend them.

`squeue` with a separator, not `scontrol show job`: there a comment that says " JobState=RUNNING" forges a field. Not
`--json`: its shape differs between 22.05 and 24.11, and scontrol of 22.05 has none.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from hpc_resume.contract import ENV_PREFIX
from hpc_resume.errors import SchedulerError
from hpc_resume.schedulers import JobState

# With slurmctld away each command gives up by itself after MessageTimeout (10 s, at some sites 60).
TIMEOUT: Final = 120.0  # seconds

SEPARATOR: Final = "\x1f"  # unit separator: sbatch refuses it in names, and no path has it
NO_VALUE: Final = ("N/A", "None", "Unknown", "(null)", "INVALID")
SQUEUE_FIELDS: Final = (
    *("JobArrayID", "Name", "State", "Reason", "RestartCnt", "StartTime", "EndTime", "PreemptTime"),
    *("NodeList", "UserName", "WorkDir", "STDOUT", "BatchFlag", "Dependency"),
)
SACCT_FIELDS: Final = ("JobID", "JobName", "State", "Start", "End", "NodeList", "User", "WorkDir")

# What every command says, in four lines about DNS, on a machine that has Slurm's programs and no slurm.conf.
_NO_CLUSTER: Final = ("DNS SRV lookup failed", "Could not establish a configuration source")

# A person's taste in output: it would change what we parse.
_TASTE: Final = re.compile(r"(SQUEUE|SACCT|SCONTROL|SCANCEL|SINFO)_|SLURM_TIME_FORMAT$|SLURM_(SQUEUE|SACCT)_")
# Of the job that we are in, when a job submits a job: Slurm would take its sizes for the new one's.
_OF_A_JOB: Final = re.compile(r"(SLURM|SLURMD|SRUN)_")
_KEPT_IN_A_JOB: Final = "SLURM_CONF"
# sbatch obeys a variable before a line of the script. What job.yaml says must win, and these change what we rely on.
_OPTION_OF_VARIABLE: Final = {
    "ARRAY_INX": "array",
    "TIMELIMIT": "time",
    "NO_REQUEUE": "requeue",
    "JOB_NAME": "job-name",
}
_OURS: Final = frozenset(("array", "requeue", "signal", "open-mode", "job-name", "wait", "test-only", "parsable"))


def submit(script: str, *, directory: Path) -> str:
    """Hand a script to sbatch on its standard input. The id of the job (of an array: without a task).

    Raises SchedulerError with sbatch's own words when it refuses.
    """
    done = _sbatch("--parsable", script, directory)
    job_id = done.stdout.strip().partition(";")[0]  # 12;cluster where there are several
    if done.returncode or not job_id.isdigit():
        raise SchedulerError(f"sbatch refused the job: {_words(done)}")
    return job_id


def try_out(script: str, *, directory: Path) -> str:
    """Slurm's words on when and where it would start this script; nothing is queued.

    Raises SchedulerError with sbatch's own words when it would refuse.
    """
    done = _sbatch("--test-only", script, directory)
    if done.returncode:
        raise SchedulerError(f"sbatch would refuse the job: {_words(done)}")
    return _words(done)


def _sbatch(option: str, script: str, directory: Path) -> subprocess.CompletedProcess[str]:
    environment = submit_environment(os.environ, script_options(script))
    try:
        return _run(["sbatch", option, f"--chdir={directory}"], environment, text=script, patience=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise SchedulerError(
            f"sbatch did not answer within {TIMEOUT:.0f} s. The job may be in the queue all the same: look with "
            "`squeue --me` before you submit it again"
        ) from None


def cancel(job_ids: Sequence[str]) -> None:
    """`scancel`: silent about unknown and finished jobs, as Slurm is."""
    if job_ids:
        done = _ask(["scancel", *job_ids])
        if done.returncode:
            raise SchedulerError(f"scancel {' '.join(job_ids)}: {_words(done)}")


def jobs(job_ids: Sequence[str], *, patience: float = TIMEOUT) -> tuple[JobState, ...]:
    """From squeue (which remembers a finished job for MinJobAge, 5 minutes at most sites), then from accounting.

    `patience` is how many seconds each of the two may take.
    """
    if not job_ids:
        return ()
    found = {state.job_id: state for state in _squeue(f"--jobs={','.join(job_ids)}", patience=patience)}
    known = {*found, *(job_id.partition("_")[0] for job_id in found)}
    forgotten = [job_id for job_id in job_ids if job_id not in known]
    if forgotten:
        found |= {state.job_id: state for state in _sacct(forgotten, patience)}
    return tuple(found.values())


def signal_batch_shell(job_id: str, name: str) -> None:
    """Send the signal `name` (USR1) to the batch shell alone. Raises SchedulerError with scancel's words."""
    done = _ask(["scancel", "--batch", f"--signal={name}", job_id])
    if done.returncode or done.stderr.strip():
        raise SchedulerError(f"scancel --batch --signal={name} {job_id}: {_words(done)}")


def excluded_nodes(job_id: str, *, patience: float = TIMEOUT) -> str:
    """The nodes that a job in the queue is kept from, as Slurm writes them; empty when none, or unknown."""
    done = _ask(["squeue", "--noheader", "--array", "--states=all", f"--jobs={job_id}", "--format=%x"], patience)
    return _value(done.stdout.split("\n", maxsplit=1)[0]) if done.returncode == 0 else ""


def config(*, patience: float = TIMEOUT) -> str:
    """`scontrol show config`; empty when it fails."""
    done = _ask(["scontrol", "show", "config"], patience)
    return done.stdout if done.returncode == 0 else ""


def mine(name: str, *, patience: float = TIMEOUT) -> tuple[JobState, ...]:
    """The caller's own jobs of that name that are in the queue."""
    return tuple(state for state in _squeue("--me", f"--name={name}", patience=patience) if state.active)


def script_of(job_id: str) -> str:
    """The script that a queued job was submitted with; empty when Slurm does not know it any more."""
    done = _ask(["scontrol", "write", "batch_script", job_id, "-"])
    return done.stdout if done.returncode == 0 else ""


def _squeue(*which: str, patience: float) -> Iterator[JobState]:
    form = ",".join(f"{field}:{SEPARATOR}" for field in SQUEUE_FIELDS)
    done = _ask(["squeue", "--noheader", "--array", "--states=all", *which, f"--Format={form}"], patience)
    if done.returncode and "Invalid job id specified" not in done.stderr:
        raise SchedulerError(f"squeue: {_words(done)}")
    return parse_squeue(done.stdout)


def _sacct(job_ids: Sequence[str], patience: float) -> Iterator[JobState]:
    words = ["--noheader", "--array", "--allocations", "--parsable2", f"--delimiter={SEPARATOR}"]
    done = _ask(["sacct", *words, f"--jobs={','.join(job_ids)}", f"--format={','.join(SACCT_FIELDS)}"], patience)
    # Many clusters keep no accounting, or do not show it: what squeue forgot is then unknown, which is no error.
    return parse_sacct(done.stdout if done.returncode == 0 else "")


def parse_squeue(text: str) -> Iterator[JobState]:
    """The jobs in squeue's output, in our format; a line that is not of it is left out."""
    for line in text.split("\n"):
        values = [_value(part) for part in line.split(SEPARATOR)]
        if len(values) == len(SQUEUE_FIELDS) + 1:  # the last separator has nothing after it
            job_id, name, state, reason, restarts, start, end, preempt, nodes, *more, _ = values
            user, directory, output, flag, depends = more
            yield JobState(
                job_id=job_id,
                name=name,
                state=state,
                reason=reason,
                restarts=int(restarts) if restarts.isdigit() else 0,
                start_time=_epoch(start),
                end_time=_epoch(end),
                preempt_time=_epoch(preempt),
                nodes=nodes,
                user=user,
                directory=directory,
                output=output,
                batch_flag=int(flag) if flag.isdigit() else 0,
                dependency=depends,
            )


def parse_sacct(text: str) -> Iterator[JobState]:
    """The jobs in sacct's output, in our format."""
    for line in text.split("\n"):
        values = [_value(part) for part in line.split(SEPARATOR)]
        if len(values) == len(SACCT_FIELDS):
            job_id, name, state, start, end, nodes, user, directory = values
            yield JobState(
                job_id=job_id,
                name=name,
                state=state.partition(" ")[0],  # CANCELLED by 1000
                start_time=_epoch(start),
                end_time=_epoch(end),
                nodes=nodes,
                user=user,
                directory=directory,
            )


def script_options(script: str) -> frozenset[str]:
    """Names of the long options that a script's #SBATCH lines give."""
    return frozenset(re.findall(r"^#SBATCH --([a-z0-9-]+)", script, re.MULTILINE))


def query_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The user's environment without what changes the output of Slurm's commands."""
    return {name: value for name, value in environ.items() if not _TASTE.match(name)}


def submit_environment(environ: Mapping[str, str], options: frozenset[str]) -> dict[str, str]:
    """The environment for sbatch, which the job inherits: the user's own, less what would make it another job.

    SBATCH_* variables stay where the script leaves the choice open (an account, say), since that is what they are for.
    """
    in_a_job = "SLURM_JOB_ID" in environ

    def stays(name: str) -> bool:
        if name.startswith(ENV_PREFIX):
            return False
        if name.startswith("SBATCH_"):
            variable = name.removeprefix("SBATCH_")
            option = _OPTION_OF_VARIABLE.get(variable, variable.lower().replace("_", "-"))
            return option not in options | _OURS
        return name == _KEPT_IN_A_JOB or not (in_a_job and _OF_A_JOB.match(name))

    return {name: value for name, value in environ.items() if stays(name)}


def _ask(command: list[str], patience: float = TIMEOUT) -> subprocess.CompletedProcess[str]:
    try:
        return _run(command, query_environment(os.environ), patience=patience)
    except subprocess.TimeoutExpired:
        raise SchedulerError(
            f"{command[0]} did not answer within {patience:.0f} s: is slurmctld up (`scontrol ping`)?"
        ) from None


def _run(
    command: list[str], environment: Mapping[str, str], *, text: str = "", patience: float = TIMEOUT
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            env=environment,
            input=text,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=patience,
            check=False,
        )
    except FileNotFoundError:
        raise SchedulerError(
            f"no {command[0]} on PATH: submit from a login node of the cluster (some need `module load slurm`), "
            "or run the job on this machine with `hpc-resume run`"
        ) from None


def _words(done: subprocess.CompletedProcess[str]) -> str:
    """What a command said, without its own name before every line."""
    if any(words in done.stderr for words in _NO_CLUSTER):
        return "no Slurm cluster answers here (no slurm.conf, none in DNS): try on a login node, or set SLURM_CONF"
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    said = [re.sub(r"^\w+: (error|fatal): ", "", line) for line in lines]
    return "; ".join(said) or f"exit code {done.returncode}"


def _value(text: str) -> str:
    text = text.strip()
    return "" if text in NO_VALUE else text


def _epoch(text: str) -> float | None:
    """Slurm prints local times without an offset, and so does fromisoformat read them."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
