# hr::launch runs one attempt of a run: traps first, the command in the background, warnings forwarded to exactly the
# processes that announced themselves, the wait until it is really gone, and what follows. Sourcing runs nothing.

# What a rendered script does when it is executed.
hr::main() {
  HR_MAIN=1
  hr::launch "${HR_LAUNCHER[@]}" "${HR_COMMAND[@]}"
  exit "$?"
}

# Runs a command as one attempt of the run; without arguments the command of job.yaml.
# Arguments: command and its words. Returns the training's own exit code: see the table in README.
# The caller's shell options, traps and IFS are as before afterwards.
hr::launch() {
  local - IFS=$' \t\n' traps code=0
  set +o errexit +o nounset +o noclobber +o noglob +o monitor
  (($# > 0)) || set -- "${HR_LAUNCHER[@]}" "${HR_COMMAND[@]}"
  traps=$(trap -p "$HR_SIGNAL" TERM INT URG)
  hr::reset
  # Never trap CONT: Slurm sends it right before USR1 and TERM, and bash loses one of two trapped signals that arrive
  # together during `wait` (94 of 100, bash 5.2). For the same reason whichever of USR1 and TERM comes is enough.
  hr::trap "$HR_SIGNAL"
  hr::trap TERM
  hr::trap INT
  hr::trap URG # poke save
  hr::attempt "$@" || code=$?
  if ((! ${HR_MAIN:-0})); then
    trap - "$HR_SIGNAL" TERM INT URG
    eval "$traps"
  fi
  return "$code"
}

# The state of one attempt, before anything has happened.
hr::reset() {
  HR_FINISHED=${HR_FINISHED:-0} # runs that this shell has seen finished
  HR_SHELL_PID=$BASHPID HR_ATTEMPT_DIR='' HR_CHILD='' HR_CHILD_TICKS='' HR_CODE=0 HR_OUTCOME=''
  HR_CAUGHT=() HR_NOTED=0 HR_STRAYS=0 HR_SHELL_LOST=0 HR_PREVIOUS='' HR_CANCELLED=0 HR_INTERRUPTS=0
  HR_SIGNALS=0 HR_FIRST_SIGNAL='' HR_DELIVERED=0 HR_WARNED=0 HR_ESCALATED=0 HR_RANKS_WARNED=0 HR_TERMINATED=0
  HR_DEADLINE=0 HR_DEADLINE_FROM=''
  HR_SENTINEL='' HR_SENTINEL_TICKS='' HR_CHILD_IS_AGENT=0 HR_SUCCESSOR='' HR_FACTS=''
  HR_NUMBER=$(kill -l "$HR_SIGNAL")
  HR_NUMBER_TERM=$(kill -l TERM)
  hr::reset_host
}

# Names this host and this boot of it. $HOSTNAME would be the submit host's: Slurm hands the environment on.
hr::reset_host() {
  hr::read_file /proc/sys/kernel/hostname
  HR_HOST=${REPLY%$'\n'}
  hr::read_file /proc/sys/kernel/random/boot_id
  HR_BOOT_ID=${REPLY%$'\n'}
  HR_PID_NS=$(stat -Lc %i /proc/self/ns/pid 2>/dev/null) || HR_PID_NS=0
}

# One attempt from the run directory to the decision. Arguments: the command. Returns the training's own code.
hr::attempt() {
  hr::identify
  hr::enter || return "$?"
  if [[ -e $HR_DIRECTORY/finished.json ]]; then
    HR_FINISHED=$((HR_FINISHED + 1))
    hr::say "run $HR_KEY is finished: nothing to do"
    return 0
  fi
  hr::begin_attempt || return "$?"
  if ! hr::is_admitted; then
    HR_CODE=75 HR_CAUSE=no_work HR_EVIDENCE="start refused" HR_DECISION=stop
    hr::note_exit
    hr::say "attempt $HR_ATTEMPT of $HR_KEY is not started: $HR_REASON"
    return 75
  fi
  hr::stagger
  hr::start "$@"
  hr::await_child
  hr::stop_sentinels
  hr::end_orphans
  hr::conclude
  return "$HR_CODE"
}

# Spreads the starts of an array's tasks. Tasks that the array's %N keeps from starting together share a place.
hr::stagger() {
  local place delay nap
  [[ -n ${SLURM_ARRAY_TASK_ID:-} ]] && ((HR_STAGGER_MS > 0)) || return 0
  place=$(((SLURM_ARRAY_TASK_ID - ${SLURM_ARRAY_TASK_MIN:-0}) / ${SLURM_ARRAY_TASK_STEP:-1}))
  if ((HR_STAGGER_WIDTH > 0)); then place=$((place % HR_STAGGER_WIDTH)); fi
  # Seeded by array, task and restart: after a mass requeue the same tasks do not meet again.
  delay=$(
    RANDOM=$(((${SLURM_ARRAY_JOB_ID:-0} * 7919 + SLURM_ARRAY_TASK_ID * 31 + HR_RESTARTS) % 32768))
    echo $((place * HR_STAGGER_MS + RANDOM * (HR_STAGGER_JITTER_MS + 1) / 32768))
  )
  delay=${delay:-0} # the subshell may have been ended by a signal to the whole group
  hr::event staggered milliseconds "$delay"
  while ((delay > 0 && ${#HR_CAUGHT[@]} == 0)); do
    printf -v nap '%d.%03d' $((delay >= 1000)) $((delay < 1000 ? delay : 0))
    hr::pause "$nap"
    delay=$((delay - 1000))
  done
}

# The training is gone: find why, decide, write it down, act. Sets HR_CODE to the training's own code.
hr::conclude() {
  printf -v HR_ENDED '%(%s)T' -1
  hr::hear_outcome
  hr::read_step
  HR_STEP_AFTER=$REPLY
  hr::read_request
  hr::find_cause
  hr::count_attempts
  hr::decide
  if [[ $HR_DECISION == @(requeue|hold) && $HR_SCHEDULER == none ]]; then
    HR_DECISION=stop HR_REASON="no scheduler: start it again and it goes on from there"
  fi
  hr::note_exit # before the requeue: Slurm answers that with a TERM and a KILL
  if [[ $HR_SCHEDULER == slurm ]]; then hr::act; fi
  hr::say "attempt $HR_ATTEMPT of $HR_KEY: code $HR_CODE, $HR_CAUSE" \
    "($HR_EVIDENCE)${HR_STEP_AFTER:+, published step $HR_STEP_AFTER}; $HR_DECISION: $HR_REASON"
}

# Sets HR_REQUEST to the end that the owner asked of this attempt, if any: cancel, stop, requeue.
hr::read_request() {
  HR_REQUEST=
  hr::find_request "$HR_ATTEMPT_DIR" || return 0
  HR_REQUEST=$REPLY
  if [[ $HR_REQUEST == @(cancel|stop) ]]; then HR_CANCELLED=1; fi
}

# What the training says of itself is truer than the code that came through a pipe or a wrapper.
hr::hear_outcome() {
  local text
  if ((HR_CODE < 0)); then HR_CODE=255; fi # bash has forgotten it (-1)
  if ! hr::read_file "$HR_ATTEMPT_DIR/outcome.json"; then
    # What we have ended has not finished, whatever the wrapper around it makes of that.
    if ((HR_TERMINATED && HR_CODE == 0)); then HR_CODE=$((128 + HR_NUMBER_TERM)); fi
    return 0
  fi
  text=$REPLY
  hr::json_get "$text" outcome && HR_OUTCOME=$REPLY
  hr::json_get "$text" code && [[ $REPLY =~ ^[0-9]+$ ]] || return 0
  case $HR_OUTCOME in
    # Signalled after its end; torchrun and its kind make a code of their own of that.
    finished) if ((HR_SIGNALS > 0 && (HR_CODE > 128 || HR_CHILD_IS_AGENT))); then HR_CODE=0; fi ;;
    stopped) HR_CODE=$REPLY ;;
    crashed) if ((HR_CODE == 0)); then HR_CODE=$REPLY; fi ;;
  esac
}

# Writes exit.json, and the finished marker when the run is finished.
hr::note_exit() {
  local warned=false announced=false
  if ((HR_SIGNALS > 0)); then warned=true; fi
  if hr::has_run; then announced=true; fi
  hr::json_object code "$HR_CODE" cause: "$HR_CAUSE" evidence: "$HR_EVIDENCE" decision: "$HR_DECISION" \
    reason: "$HR_REASON" facts: "$HR_FACTS" successor "$HR_SUCCESSOR" step_before "$HR_STEP_BEFORE" \
    step_after "${HR_STEP_AFTER:-}" announced "$announced" warned "$warned" started "$HR_STARTED" \
    ended "${HR_ENDED:-$HR_STARTED}"
  hr::write_file "$HR_ATTEMPT_DIR/exit.json" "$REPLY" || true
  if [[ $HR_DECISION == finish ]]; then
    HR_FINISHED=$((HR_FINISHED + 1))
    hr::json_object attempt "$HR_ATTEMPT" step "$HR_STEP_AFTER" t "$HR_ENDED"
    hr::write_file "$HR_DIRECTORY/finished.json" "$REPLY" || true
  fi
}
