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

# Prints the sentinel's whole program: the runtime and what this attempt knows, without what is the training's alone (a
# command line is for everybody to see).
hr::sentinel_text() {
  local name
  local -a functions
  mapfile -t functions < <(compgen -A function hr::)
  for name in "${!HR_@}"; do
    if [[ $name != HR_@(ENV|SETUP|COMMAND|LAUNCHER|WORDS|NEVER|PIPE|STDERR) ]]; then declare -p "$name"; fi
  done
  declare -f "${functions[@]}"
  echo hr::sentinel
}

# What a sentinel does: stands by. Its record says that it hears. It looks three times a second whether the batch shell of
# this host lives, without a process and without the shared file system.
hr::sentinel() {
  hr::reset_host
  HR_SHELL_PID=$BASHPID HR_CHILD_IS_SRUN=0 HR_HEARD=0 HR_MAIN=0 HR_CHILD_IS_AGENT=0 HR_SENTINEL='' HR_SENTINEL_TICKS=''
  trap 'hr::sentinel_hears TERM' TERM
  trap 'hr::sentinel_hears "$HR_SIGNAL"' "$HR_SIGNAL"
  trap 'exit 0' "$(hr::end_signal)"
  hr::find_shell
  hr::json_object pid "$BASHPID" host: "$HR_HOST" step: "${SLURM_STEP_ID:-}"
  hr::write_file "$HR_ATTEMPT_DIR/sentinels/$HR_HOST.json" "$REPLY"
  while :; do
    hr::pause 0.3
    if [[ -z $HR_WATCHED ]] || hr::is_alive "$HR_WATCHED" "$HR_WATCHED_TICKS"; then continue; fi
    HR_WATCHED=
    if ! [[ -e $HR_ATTEMPT_DIR/exit.json ]]; then hr::stand_in; fi
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

# Sets HR_WATCHED and HR_WATCHED_TICKS to the batch shell, if it is on this very host; else HR_WATCHED is empty.
hr::find_shell() {
  local text
  HR_WATCHED='' HR_WATCHED_TICKS=''
  hr::read_file "$HR_ATTEMPT_DIR/attempt.json" || return 0
  text=$REPLY
  hr::json_get "$text" host && [[ $REPLY == "$HR_HOST" ]] || return 0
  hr::json_get "$text" boot_id && [[ $REPLY == "$HR_BOOT_ID" ]] || return 0
  hr::json_get "$text" pid_ns && [[ $REPLY == "$HR_PID_NS" ]] || return 0
  hr::json_get "$text" start_ticks && HR_WATCHED_TICKS=$REPLY || return 0
  hr::json_get "$text" pid && HR_WATCHED=$REPLY || return 0
}

# Decides in the place of a batch shell that was killed. Slurm takes such a job for failed a second later, and ends its
# steps: a requeue from here is taken before and after (22.05, measured). At once: the srun of this step is being ended
# with the shell, and one that gets a TERM has its tasks killed. A training in a step of its own hears Slurm's TERM.
hr::stand_in() {
  if hr::job_field "$(hr::show_job)" StdErr && [[ -f $REPLY && -w $REPLY ]]; then exec 2>>"$REPLY"; fi
  hr::say "the batch shell was killed: its sentinel decides"
  HR_SHELL_LOST=1 HR_SIGNALS=1 HR_CODE=137
  hr::conclude
  exit 0
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
