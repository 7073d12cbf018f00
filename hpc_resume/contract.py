"""Every name that bash, the launch side and the run side share: variables, file names, exit codes, the format version.

Nothing here computes. `templates/runtime.sh` spells the same names; tests/contracts holds the two together.
`python -m hpc_resume.contract` prints the exit-code table that README shows.
"""

from __future__ import annotations

from typing import Final

VERSION: Final = "0.1.0"

# Version of every file below. A reader accepts unknown keys of its own version and refuses a newer one.
FORMAT_VERSION: Final = 1

# --- exit codes: what a training's code tells the batch shell (and sacct, and W&B) --------------------------------

EXIT_FINISHED: Final = 0
EXIT_NO_WORK: Final = 75  # sysexits EX_TEMPFAIL: did no work (held elsewhere, start refused); not charged
EXIT_CONFIG: Final = 78  # sysexits EX_CONFIG: will fail again the same way; never requeued
EXIT_USAGE: Final = 2  # the command line was wrong (argparse, click and typer use 2)
SIGNAL_BASE: Final = 128  # 128+signum: stopped for that signal, what is on disk is resumable

EXIT_TABLE: Final = (
    ("0", "finished", "writes the finished marker; a later start of the same run exits 0 at once"),
    ("128+signum", "stopped for that signal; the state on disk is resumable", "requeues within the budget"),
    ("75", "did no work (held elsewhere, start refused)", "requeues, not charged"),
    ("78", "will fail again the same way (configuration)", "never requeues, says why"),
    ("other", "crash", "requeues only within `max.crash`, else stops"),
)

# --- environment: what the batch shell (or the local scheduler) tells the training ---------------------------------

ENV_PREFIX: Final = "HPC_RESUME_"
ENV_RUN_DIR: Final = "HPC_RESUME_RUN_DIR"  # this run's own directory, absolute
ENV_ATTEMPT: Final = "HPC_RESUME_ATTEMPT"  # 1, 2, ...
ENV_ATTEMPT_DIR: Final = "HPC_RESUME_ATTEMPT_DIR"  # set only under a launcher: then the launcher owns run.json,
#                                                    attempt.json, exit.json and finished.json, else the training does
ENV_SIGNAL: Final = "HPC_RESUME_SIGNAL"  # the warning signal's name without SIG: "USR1"
ENV_LEAD: Final = "HPC_RESUME_LEAD"  # whole seconds between the warning and the end
ENV_SAVE_STEPS: Final = "HPC_RESUME_SAVE_STEPS"  # save every so many steps; empty or unset: not by steps
ENV_SAVE_SECONDS: Final = "HPC_RESUME_SAVE_SECONDS"  # save every so many seconds; empty or unset: not by time
ENV_SAVE_AUTO: Final = "HPC_RESUME_SAVE_AUTO"  # 1: as often as the ledger and the cost of a save suggest
ENV_BACKEND: Final = "HPC_RESUME_BACKEND"  # the format of every state_dict; empty: each by its content
ENV_DRILL: Final = "HPC_RESUME_DRILL"  # steps, with commas, at which the training warns itself; 0: none, a reference
ENV_KEEP: Final = "HPC_RESUME_KEEP"  # checkpoints kept, at least 2
ENV_KEEP_EVERY: Final = "HPC_RESUME_KEEP_EVERY"  # and of every so many steps the first; empty or 0: no others
ENV_SAVE_ASYNC: Final = "HPC_RESUME_SAVE_ASYNC"  # 1: a save costs the training a copy in memory, and is written behind
ENV_FAST_DIR: Final = "HPC_RESUME_FAST_DIR"  # a directory of the node that takes a save first; empty: none
ENV_CHECKSUMS: Final = "HPC_RESUME_CHECKSUMS"  # 0: a start compares sizes and does not read every byte
ENV_WANDB: Final = "HPC_RESUME_WANDB"  # job.yaml's `wandb:` as one line of JSON; empty: none
ENV_RESHARD: Final = "HPC_RESUME_RESHARD"  # 1: a checkpoint of another number of ranks is loaded where its format can
ENV_MIRROR: Final = "HPC_RESUME_MIRROR"  # where published checkpoints are kept a second time: wandb; empty: nowhere
ENV_END_TIME: Final = "HPC_RESUME_END_TIME"  # epoch seconds at which the allocation ends; empty: unknown
ENV_JOB_ID: Final = "HPC_RESUME_JOB_ID"  # 123, 123_4 (array task), local-...; empty: none
ENV_RESTART_COUNT: Final = "HPC_RESUME_RESTART_COUNT"  # 0 in the first start of a job
ENV_RUNS: Final = "HPC_RESUME_RUNS"  # parent of the run directories, for a sweep's runs: each is keyed by its W&B id
ENV_WARNING_FILE: Final = "HPC_RESUME_WARNING_FILE"  # where an agent's launcher says when the end comes
ENV_ALLOCATION: Final = "HPC_RESUME_ALLOCATION"  # the attempt that an agent's processes belong to; nobody outlives it
ENV_LOCKS: Final = "HPC_RESUME_LOCKS"  # kernel or log: what keeps two processes apart; unset: by the file system
ENV_HEARTBEAT: Final = "HPC_RESUME_HEARTBEAT"  # seconds between two signs of life of a lease's owner
ENV_CAUSE: Final = "HPC_RESUME_CAUSE"  # why the attempt before this one ended; empty in the first

# what a scheduler may tell the batch shell, when it is not Slurm
ENV_SCHEDULER: Final = "HPC_RESUME_SCHEDULER"  # "local": requeue by writing the decision into exit.json
ENV_RUN_KEY: Final = "HPC_RESUME_RUN_KEY"  # the run to start or continue, without the array task's suffix
ENV_ARRAY_TASK: Final = "HPC_RESUME_ARRAY_TASK"  # the array task's index; unset: not an array

# --- the run directory: <run_dir>/<key>/ ---------------------------------------------------------------------------

RUN_FILE: Final = "run.json"  # who and what; written once, by who creates the run
FINISHED_FILE: Final = "finished.json"  # written by the launcher, or by rank 0 where there is none
LOCK_FILE: Final = "run.lock"  # one process at a time continues a run
LEASE_DIR: Final = "lease"  # 00000003: the third process that continues the run; .base: the step it went on from
LATEST_FILE: Final = "latest"  # one line: the name of the newest published checkpoint
CHECKPOINTS_DIR: Final = "checkpoints"
STEP_PREFIX: Final = "step-"  # step-00001200: the state after 1200 completed steps
STEP_DIGITS: Final = 8
MANIFEST_FILE: Final = "manifest.json"
ATTEMPTS_DIR: Final = "attempts"
ATTEMPT_DIGITS: Final = 4

# attempts/0003/
ATTEMPT_FILE: Final = "attempt.json"  # job id, restart count, host, launcher's pid; by the launcher (else rank 0)
PIDS_DIR: Final = "pids"  # <host>.<rank>.json by each rank, <host>.child.json by the launcher
EVENTS_DIR: Final = "events"  # <host>.<pid>.jsonl, one writer each
OUTCOME_FILE: Final = "outcome.json"  # what the training says of itself: finished, stopped, crashed; by rank 0
EXIT_FILE: Final = "exit.json"  # what the launcher saw and decided
WARNING_FILE: Final = "warning.json"  # {"t", "signal", "deadline", "source"}: when the end comes; by the launcher
STACKS_PREFIX: Final = "stacks."  # stacks.<host>.<pid>.txt: where every thread was when no boundary came
RENDEZVOUS_FILE: Final = "rendezvous.json"  # where rank 0 listens, and the secret of the ranks; by rank 0
DEPARTURES_DIR: Final = "departures"  # <rank>.json by a rank that left before it had met the others
CONTROL_FILE: Final = "control.json"  # what the owner asks of this attempt; by `hpc-resume cancel` and `poke`
METRICS_FILE: Final = "metrics.jsonl"  # run.log(); by rank 0
HAND_FILE: Final = "hand.json"  # the sweep's run that this agent has in hand; by the agent
BATCHES_FILE: Final = "batches.jsonl"  # run.log(batch=ids), only in a drill; by rank 0

# <run_dir>/.sweep-<id>/: what the agents of one sweep share
SWEEP_PREFIX: Final = ".sweep-"
FLEETS_DIR: Final = "fleets"  # <job>/: its lease, and resumed.json once `wandb sweep --resume` was run for that fleet
STARTS_DIR: Final = "starts"  # one file for every start that the token bucket has let through

# What outcome.json says under "outcome".
OUTCOME_FINISHED: Final = "finished"
OUTCOME_STOPPED: Final = "stopped"
OUTCOME_CRASHED: Final = "crashed"

# What exit.json says under "cause" and "decision".
CAUSES: Final = (
    "finished",  # the training's own end
    "timeout",  # the time limit, or its warning
    "preempted",  # Slurm wants the nodes back
    "node_fail",  # no word: the node, or the batch shell itself, is gone
    "operator",  # signalled by a person: scancel -s
    "cancelled",  # ended by a person: scancel, hpc-resume cancel, Ctrl-C
    "crash",  # the training's own failure
    "config",  # exit 78
    "no_work",  # exit 75
    "unknown",  # stopped by a signal, and Slurm did not say why
)
REQUEUE_CAUSES: Final = ("preempted", "timeout", "node_fail")  # what requeue.on may name; crash has max.crash
DECISIONS: Final = (
    "finish",
    "requeue",
    "slurm",  # it has requeued the job by itself already
    "hold",  # back in the queue, held until somebody has looked
    "stop",
)

# --- the rendered script's one block of assignments, in its order; runtime.sh reads these and no others -------------

SCRIPT_VARIABLES: Final = (
    ("HR_VERSION", "version of hpc_resume that rendered the script"),
    ("HR_SPEC_DIGEST", "first 12 hex digits of the SHA-256 of the plan's values"),
    ("HR_NAME", "name of the job"),
    ("HR_RUN_DIR", "parent of the run directories"),
    ("HR_RUN_KEY", "run to continue, without the array task's suffix; empty: named after the job"),
    ("HR_LAUNCHER", "array: words before the command; empty: started by the batch shell itself"),
    ("HR_RANKS", "1: many processes, which meet at MASTER_ADDR and MASTER_PORT"),
    ("HR_COMMAND", "array: the command's words"),
    ("HR_SWEEP", "W&B sweep that the command is an agent of; empty: a training"),
    ("HR_SETUP", "bash to evaluate before the command"),
    ("HR_ENV", "array: NAME=value to export"),
    ("HR_SIGNAL", "the warning signal, without SIG"),
    ("HR_LEAD", "whole seconds between the warning and the end"),
    ("HR_REQUEUE_ON", "array of causes after which the job goes back into the queue"),
    ("HR_REQUEUE_METHOD", "auto: scontrol requeue, else a successor; or one of the two alone"),
    ("HR_MAX_TIMEOUT", "budget of requeues after a time-out; -1: unlimited"),
    ("HR_MAX_PREEMPTED", "the same after a preemption"),
    ("HR_MAX_CRASH", "the same after a crash"),
    ("HR_MAX_NO_PROGRESS", "attempts in a row that may end without a newer checkpoint; -1: unlimited"),
    ("HR_MAX_TOTAL", "attempts of the run beyond the first; -1: unlimited"),
    ("HR_SAVE_STEPS", "save every so many steps; 0: not by steps"),
    ("HR_SAVE_SECONDS", "save every so many seconds; 0: not by time"),
    ("HR_SAVE_AUTO", "1: as often as the ledger and the cost of a save suggest"),
    ("HR_BACKEND", "format of the checkpoints; empty: each component's by its content"),
    ("HR_KEEP", "checkpoints kept"),
    ("HR_KEEP_EVERY", "and of every so many steps the first; 0: no others"),
    ("HR_SAVE_ASYNC", "1: saves are written behind the training; 0: not; empty: as the code says"),
    ("HR_FAST_DIR", "directory of the node that takes a save first; empty: none"),
    ("HR_RESHARD", "1: a checkpoint of another number of ranks is loaded where its format can"),
    ("HR_CHECKSUMS", "1: a start reads every byte of the checkpoint that it loads; 0: it compares sizes"),
    ("HR_WANDB", "the `wandb:` section as one line of JSON; empty: none"),
    ("HR_MIRROR", "where published checkpoints are kept a second time; empty: nowhere"),
    ("HR_STAGGER_MS", "milliseconds between the starts of two array tasks; 0: none"),
    ("HR_STAGGER_JITTER_MS", "upper bound of the random part, milliseconds"),
    ("HR_STAGGER_WIDTH", "how many tasks start together (the array's %N); 0: all"),
)


def main() -> None:
    """Print the exit-code table in Markdown, as README shows it."""
    print("| code | meaning | what the batch shell does |\n|---|---|---|")
    for row in EXIT_TABLE:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
