#!/bin/bash
# A plain program that knows nothing of hpc_resume: it counts, saves when it gets USR1, and leaves with 138 = 128 + 10,
# which says "stopped, can go on". Its state is in the run directory, which it is told of.
state=${HPC_RESUME_RUN_DIR:-.}/count
count=$(cat "$state" 2>/dev/null || echo 0)

save() {
  echo "$count" >"$state.new" && mv "$state.new" "$state" # whole or not at all
  echo "saved at $count"
  exit 138
}
trap save USR1

while ((count < ${1:-50})); do
  sleep "${STEP_SECONDS:-0.1}" # bash runs the trap when this ends
  count=$((count + 1))
done
echo "done at $count"
