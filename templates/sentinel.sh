# A step of one task per node that hears what the batch shell does not. At the start of a grace time Slurm signals the
# tasks of steps only (22.05 to 26.05, measured); a job without a step hears nothing until the grace time is over.
# Part of the runtime that every rendered script carries; it has no placeholders and runs nothing by itself.

# Starts the sentinels, once per attempt, beside the training. Without srun, or where steps are refused, says so once
# and goes on: the warning then comes as late as Slurm tells the batch shell.
# Globals: sets HR_SENTINEL, the srun's pid, and HR_SENTINEL_TICKS; both empty when there is none.
hr::start_sentinels() {
  HR_SENTINEL='' HR_SENTINEL_TICKS=''
  [[ $HR_SCHEDULER == slurm ]] || return 0
  if ! command -v srun >/dev/null; then
    hr::say "no srun on this node: a grace time will be heard of only at its end"
    return 0
  fi
  mkdir -m 700 "$HR_ATTEMPT_DIR/sentinels" || return 0
  # --overlap: it shares the training's CPUs and memory, and holds no GPU. --exact or a CPU of its own would take them.
  srun --overlap --nodes="${SLURM_JOB_NUM_NODES:-1}" --ntasks="${SLURM_JOB_NUM_NODES:-1}" --ntasks-per-node=1 \
    --cpus-per-task=1 --mem=0 --gres=none --mpi=none --kill-on-bad-exit=0 --quiet --input=none --job-name=sentinel \
    --output=none --error="$HR_ATTEMPT_DIR/sentinels/error" \
    bash -c "$(hr::sentinel_text)" 2>"$HR_ATTEMPT_DIR/sentinels/refused" &
  HR_SENTINEL=$!
  hr::start_ticks "$HR_SENTINEL" && HR_SENTINEL_TICKS=$REPLY
}

# Prints the sentinel's whole program: the few functions and facts that it needs.
hr::sentinel_text() {
  declare -p HR_ATTEMPT_DIR HR_SIGNAL HR_BOOT_ID
  declare -f hr::sentinel hr::sentinel_hears hr::end_signal hr::reset_host hr::event hr::now hr::read_file hr::json_get \
    hr::json_object hr::json_string hr::write_file hr::say hr::start_ticks hr::is_alive hr::signal_record hr::find_outside hr::signal_ranks
  echo hr::sentinel
}

# What a sentinel does: stands by. Its record says that it hears.
hr::sentinel() {
  local sleeper
  hr::reset_host
  HR_SHELL_PID=$BASHPID HR_CHILD_IS_SRUN=0 HR_HEARD=0
  trap 'hr::sentinel_hears TERM' TERM
  trap 'hr::sentinel_hears "$HR_SIGNAL"' "$HR_SIGNAL"
  trap 'kill "$sleeper" 2>/dev/null; exit 0' "$(hr::end_signal)"
  sleep infinity &
  sleeper=$!
  hr::json_object pid "$BASHPID" host: "$HR_HOST" step: "${SLURM_STEP_ID:-}"
  hr::write_file "$HR_ATTEMPT_DIR/sentinels/$HR_HOST.json" "$REPLY"
  while :; do
    wait "$sleeper" || true
    if ! kill -0 "$sleeper" 2>/dev/null; then # where a signal reaches the whole step, the sleep dies of it
      sleep infinity &
      sleeper=$!
    fi
  done
}

# Passes a warning on: to the processes of this node that announced themselves, and, the first time, to the batch
# shell if it lives here, which knows what to do about a training that has not. Arguments: the signal that came.
hr::sentinel_hears() {
  hr::event received signal "\"$1\"" sentinel true
  hr::signal_ranks "$HR_SIGNAL" || true
  if ((! HR_HEARD)); then
    HR_HEARD=1
    hr::signal_record "$HR_ATTEMPT_DIR/attempt.json" "$HR_SIGNAL" || true
  fi
}

# Hands a warning to the sentinels: srun passes USR1 and USR2 on to every task of its step, on every node.
hr::tell_sentinels() {
  if hr::is_alive "$HR_SENTINEL" "$HR_SENTINEL_TICKS"; then kill -s "$HR_SIGNAL" "$HR_SENTINEL" 2>/dev/null || true; fi
}

# Prints the signal that ends a sentinel: srun passes on USR1 and USR2 (a TERM makes it kill its tasks, which would
# show up as a failed step), and one of them is the warning.
hr::end_signal() {
  if [[ $HR_SIGNAL == USR1 ]]; then echo USR2; else echo USR1; fi
}

# Ends the sentinels, and says once why there were none. An srun that is still starting its step loses the signal
# (seen with a training that crashed at once): ask again, and TERM it in the end.
hr::stop_sentinels() {
  local tries
  [[ -n $HR_SENTINEL ]] || return 0
  for ((tries = 0; tries < 50; tries++)); do
    hr::is_alive "$HR_SENTINEL" "$HR_SENTINEL_TICKS" || break
    kill -s "$(if ((tries < 20)); then hr::end_signal; else echo TERM; fi)" "$HR_SENTINEL" 2>/dev/null || true
    hr::pause 0.1
  done
  if ((tries == 0)) && hr::read_file "$HR_ATTEMPT_DIR/sentinels/refused" && [[ -n $REPLY ]]; then
    hr::say "there was no sentinel step: ${REPLY%%$'\n'*}"
  fi
  HR_SENTINEL=''
}
