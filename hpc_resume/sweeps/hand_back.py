"""`python -m hpc_resume.sweeps.hand_back RUN_DIRECTORY SIGNUM`: put the run of WANDB_RUN_ID back into its sweep.

Under the run's lease: who has it meanwhile goes on, and nothing is touched (exit 75).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hpc_resume.contract import EXIT_NO_WORK, SIGNAL_BASE
from hpc_resume.durable import make_directory
from hpc_resume.run import lease as leases
from hpc_resume.run.environment import read_environment
from hpc_resume.run.rundir import RunDir

_SECONDS = 20  # for each of W&B's answers


def main(directory: str, signum: int) -> int:
    """The exit code."""
    run_dir = RunDir(Path(directory))
    make_directory(run_dir.path)
    environment = read_environment(os.environ)
    lease = leases.take(run_dir, leases.Claimant(environment.job_id, environment.restart_count))
    if lease is None:
        return EXIT_NO_WORK
    try:
        if run_dir.finished() is None:
            _hand_back(SIGNAL_BASE + signum)
    finally:
        lease.release()
    return 0


def _hand_back(code: int) -> None:
    import wandb  # noqa: PLC0415 - only under the lease

    run = wandb.init(resume="allow", settings=wandb.Settings(init_timeout=_SECONDS, finish_timeout=_SECONDS))
    run.mark_preempting()
    run.finish(exit_code=code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
