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
  HR_CAUGHT=() HR_NOTED=0 HR_STRAYS=0 HR_PREVIOUS='' HR_CANCELLED=0 HR_INTERRUPTS=0
  HR_SIGNALS=0 HR_FIRST_SIGNAL='' HR_DELIVERED=0 HR_WARNED=0 HR_ESCALATED=0 HR_RANKS_WARNED=0 HR_TERMINATED=0
  HR_DEADLINE=0 HR_DEADLINE_FROM=''
  HR_SENTINEL='' HR_SENTINEL_TICKS='' HR_SUCCESSOR='' HR_FACTS=''
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

# Starts the command, unless a warning came first: then there is nothing to save, and it can be started again.
# Arguments: the command. Sets HR_CHILD and HR_CHILD_TICKS; or HR_CODE when nothing was started.
hr::start() {
  HR_CODE=0
  hr::export
  hr::note
  if ((HR_SIGNALS == 0)) && [[ -n $HR_SETUP ]]; then
    eval "$HR_SETUP" || HR_CODE=$?
    hr::note
    if ((HR_CODE != 0 && HR_SIGNALS == 0)); then
      hr::say "setup ended with code $HR_CODE: the command is not started"
      return 0
    fi
  fi
  if ((HR_SIGNALS > 0)); then
    HR_CODE=$((128 + HR_NUMBER))
    return 0
  fi
  hr::start_sentinels
  HR_CHILD_IS_SRUN=0
  if [[ ${1##*/} == srun ]]; then HR_CHILD_IS_SRUN=1; fi
  hr::hear_from_the_start "$@"
  set -- "${HR_WORDS[@]}"
  HR_CHILD_SINCE=$SECONDS
  exec {HR_PIPE}<> <(:)
  # A foreground command would hold back the trap until its end: run it beside, and wait.
  # An interactive shell announces a background command on stderr: not the command's own.
  exec {HR_STDERR}>&2
  {
    if [[ -t 0 ]]; then hr::keep "$@" </dev/null & else hr::keep "$@" <&0 & fi
  } 2>/dev/null
  HR_KEEPER=$!
  exec {HR_STDERR}>&-
  hr::start_ticks "$HR_KEEPER" && HR_KEEPER_TICKS=$REPLY
  HR_HEARD=
  until hr::hear_keeper && HR_CHILD=$REPLY; do
    hr::is_alive "$HR_KEEPER" "$HR_KEEPER_TICKS" || break
  done
  hr::start_ticks "$HR_CHILD" && HR_CHILD_TICKS=$REPLY
  hr::event started pid "$HR_CHILD"
  hr::record_child
  hr::heed # what arrived between the check above and now
}

# Sets HR_WORDS to the command, begun by us when it is Python: its own interpreter first installs the handlers and
# announces itself, then goes on as the training, so that a warning during a long import is heard. A python that has no
# hpc_resume executes the command as it was. hpc_resume/run/startup.py has the same text.
# Arguments: the command.
hr::hear_from_the_start() {
  local -i skip=0
  HR_WORDS=("$@")
  if [[ "${*:1:${#HR_LAUNCHER[@]}}" == "${HR_LAUNCHER[*]}" ]]; then skip=${#HR_LAUNCHER[@]}; fi
  local -a words=("${@:skip+1}")
  [[ ${words[0]##*/} =~ ^python(3(\.[0-9]+)?)?$ && $(type -t -- "${words[0]}") == file ]] || return 0
  HR_WORDS=("${@:1:skip}" "${words[0]}" -c 'import sys
if sys.path[:1] == [""]: del sys.path[0]
try:
    from hpc_resume.run.startup import main
except Exception:
    import os
    os.execvp(sys.argv[1], sys.argv[1:])
main(sys.argv[1:])
' "${words[@]}")
}

# What the training is told: contract.py says what each name means. A nested job must not take these for its own.
hr::export() {
  export HPC_RESUME_RUN_DIR=$HR_DIRECTORY HPC_RESUME_ATTEMPT=$HR_ATTEMPT HPC_RESUME_ATTEMPT_DIR=$HR_ATTEMPT_DIR
  export HPC_RESUME_SIGNAL=$HR_SIGNAL HPC_RESUME_LEAD=$HR_LEAD HPC_RESUME_KEEP=$HR_KEEP
  export HPC_RESUME_KEEP_EVERY=${HR_KEEP_EVERY#0} HPC_RESUME_SAVE_ASYNC=$HR_SAVE_ASYNC HPC_RESUME_FAST_DIR=$HR_FAST_DIR
  export HPC_RESUME_SAVE_AUTO=${HR_SAVE_AUTO#0} HPC_RESUME_BACKEND=$HR_BACKEND
  export HPC_RESUME_SAVE_STEPS=${HR_SAVE_STEPS#0} HPC_RESUME_SAVE_SECONDS=${HR_SAVE_SECONDS#0}
  export HPC_RESUME_JOB_ID=$HR_JOB_ID HPC_RESUME_RESTART_COUNT=$HR_RESTARTS HPC_RESUME_CAUSE=$HR_PREVIOUS_CAUSE
  export HPC_RESUME_END_TIME=${SLURM_JOB_END_TIME:-}
  # Since 22.05 srun no longer takes --cpus-per-task over from sbatch.
  if [[ -n ${SLURM_CPUS_PER_TASK:-} ]]; then export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; fi
  if ((${#HR_ENV[@]} > 0)); then export "${HR_ENV[@]}"; fi
}

# Runs the command as the only child of a shell of its own, and tells its PID and its exit code through HR_PIPE.
# A storm of trapped signals makes `wait` answer 138 for a child that ended with 3, and at times forget the code for
# good (-1; bash 5.2, measured). Nobody signals this shell; where Slurm does (proctrack/pgid) it goes on all the same.
# Arguments: the command.
hr::keep() {
  local code ticks='' last=none alive
  # What names this run is not for the jobs that the training may start.
  unset HPC_RESUME_RUN_KEY HPC_RESUME_SCHEDULER HPC_RESUME_ARRAY_TASK HPC_RESUME_CONTINUES
  trap : "$HR_SIGNAL" TERM URG # caught, not ignored: the command starts with the signals as they were
  "$@" {HR_PIPE}>&- 2>&"$HR_STDERR" {HR_STDERR}>&- <&0 &
  HR_CHILD=$!
  hr::start_ticks "$HR_CHILD" && ticks=$REPLY
  echo "$HR_CHILD" >&"$HR_PIPE"
  while :; do
    alive=0 code=0
    if hr::is_alive "$HR_CHILD" "$ticks"; then alive=1; fi
    wait "$HR_CHILD" 2>/dev/null || code=$?
    if ((alive)); then continue; fi
    if [[ $code == "$last" ]]; then break; fi # twice the same after its end: no signal's doing
    last=$code
  done
  echo "$code" >&"$HR_PIPE"
}

# Waits up to a second for a line from hr::keep, and sets REPLY to it. A signal ends the wait at once; one that comes
# right before it is heeded a second later. Returns 1 when there is no whole line yet.
hr::hear_keeper() {
  local status=0
  hr::read_for "$HR_PIPE" 1 || status=$?
  HR_HEARD+=$REPLY
  if ((status != 0)); then return 1; fi
  REPLY=$HR_HEARD HR_HEARD=
}

# Waits until the child is really gone; sets HR_CODE to its own exit code, after any number of signals.
hr::await_child() {
  [[ -n $HR_CHILD ]] || return 0
  until hr::hear_keeper && HR_CODE=$REPLY; do
    hr::heed
    if hr::is_alive "$HR_KEEPER" "$HR_KEEPER_TICKS"; then continue; fi
    if hr::hear_keeper; then
      HR_CODE=$REPLY
    else # the shell around it was killed: wait for the command all the same
      HR_CODE=137
      while hr::is_alive "$HR_CHILD" "$HR_CHILD_TICKS"; do
        hr::pause 0.2
        hr::heed
      done
    fi
    break
  done
  hr::note
  wait "$HR_KEEPER" 2>/dev/null || true
  exec {HR_PIPE}>&-
  hr::event gone code "$HR_CODE"
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
    finished) if ((HR_SIGNALS > 0 && HR_CODE > 128)); then HR_CODE=0; fi ;; # signalled after its end
    stopped) HR_CODE=$REPLY ;;
    crashed) if ((HR_CODE == 0)); then HR_CODE=$REPLY; fi ;;
  esac
}

# Writes exit.json, and the finished marker when the run is finished.
hr::note_exit() {
  local warned=false announced=false
  if ((HR_SIGNALS > 0)); then warned=true; fi
  if hr::has_ranks; then announced=true; fi
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
