#!/bin/bash
# A script of one's own around a program of one's own. Sourcing the rendered script runs nothing; hr::launch gives the
# program what every job of hpc_resume has: traps, a PID file, exact delivery of the warning, its true exit code, and
# the requeue.
#
#   hpc-resume render -o job.sbatch      # once, and after each change of job.yaml
#   sbatch mine.sh                       # or, without Slurm: bash mine.sh
#
#SBATCH --signal=B:USR1@60 --requeue --open-mode=append
set -euo pipefail

source ./job.sbatch

echo "before: module load, data staging, whatever there is"
code=0
hr::launch ./simulate.sh 50 || code=$?
echo "after: the program ended with $code"
exit "$code"
