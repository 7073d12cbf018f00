"""From a job.yaml to a verdict: the two runs in a temporary directory, shown while they run, kept when they differ."""

from __future__ import annotations

import shlex
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from hpc_resume.errors import CommandLineError, HpcResumeError
from hpc_resume.launch.job_file import JobFile, read_job
from hpc_resume.launch.launchers import choose, starts_its_own
from hpc_resume.launch.plan import decide
from hpc_resume.observe.progress import live_line
from hpc_resume.schedulers import local
from hpc_resume.verify.report import check_place, write_report
from hpc_resume.verify.trial import run_trial
from hpc_resume.verify.verdict import Settings, Verdict, judge


@dataclass(frozen=True, slots=True)
class Request:
    """What the person asked for."""

    file: Path
    interruptions: int
    seed: int
    tolerance: float
    metrics: tuple[str, ...]
    report: Path | None


def verify(request: Request, say: Callable[[str], None]) -> Verdict:
    """Run, compare, and write the report. Raises HpcResumeError when a run does not finish or cannot be compared."""
    if request.report is not None:
        check_place(request.report)
    job_file = read_job(request.file)
    command = job_file.job.command
    settings = Settings(
        str(request.file),
        decide(job_file.job).digest,
        command if isinstance(command, str) else shlex.join(command),
        request.interruptions,
        request.seed,
        request.tolerance,
        request.metrics,
        choose(job_file.job.launcher, command, job_file.job.slurm).ranks and not starts_its_own(command),
    )
    directory = Path(tempfile.mkdtemp(prefix="hpc-resume-verify-"))
    try:
        verdict = _both_runs(job_file, settings, directory, say)
        if request.report is not None:
            write_report(verdict, request.report)
            say(f"wrote {request.report}")
    except (KeyboardInterrupt, CommandLineError):  # nothing in it that anybody would look for
        shutil.rmtree(directory, ignore_errors=True)
        raise
    except HpcResumeError:
        say(f"what has run is kept in {directory}")
        raise
    if verdict.equal:
        shutil.rmtree(directory, ignore_errors=True)
    else:
        say(f"both runs are kept in {directory}")
    return verdict


def _both_runs(job_file: JobFile, settings: Settings, directory: Path, say: Callable[[str], None]) -> Verdict:
    began = time.monotonic()
    with ExitStack() as lines:

        def show(what: str) -> local.Watcher:
            lines.close()
            say(f"{what} run of {settings.job}")
            return lines.enter_context(live_line())

        trial = run_trial(job_file, directory, settings.interruptions, settings.seed, show)
    return judge(trial, settings, time.monotonic() - began)
