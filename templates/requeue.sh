# Why the training ended, what follows, and the requeue: evidence, cause, decision, action, in this order.
# Part of the runtime that every rendered script carries; it has no placeholders and runs nothing by itself.

# Sets REPLY to the value of one field of `scontrol show job -o` output. Arguments: output, field.
hr::job_field() {
  local pattern="(^|[[:space:]])$2=([^[:space:]]*)"
  REPLY=
  [[ $1 =~ $pattern ]] && REPLY=${BASH_REMATCH[2]}
}

# Prints what Slurm says of this job, as one line. An array task is asked for by its own name: the last-started task
# shares its job id with the whole array. SLURM_TIME_FORMAT would change the times.
hr::show_job() {
  env -u SLURM_TIME_FORMAT timeout "${1:-20}" scontrol show job -o "$HR_JOB_ID" 2>/dev/null
}

# Sets HR_CAUSE, HR_EVIDENCE and HR_SLURM_REQUEUED from the exit code, the signals seen and what Slurm says.
# Globals: HR_CODE HR_OUTCOME HR_SIGNALS HR_CANCELLED HR_SCHEDULER HR_JOB_ID.
hr::find_cause() {
  local job=
  HR_SLURM_REQUEUED=0
  if ((HR_CODE == 0)); then
    HR_CAUSE=finished HR_EVIDENCE="exit code 0"
    if ((HR_SIGNALS > 0)) && [[ $HR_OUTCOME != finished ]]; then
      hr::say "the command ended with 0 after a warning: taken as finished. A program that wants to come back leaves with 128+signal"
    fi
    return 0
  fi
  if [[ $HR_SCHEDULER == slurm ]]; then job=$(hr::show_job) || job=; fi
  if ((HR_CANCELLED)); then
    HR_CAUSE=cancelled HR_EVIDENCE="asked for by its owner"
  elif hr::find_cause_in_slurm "$job"; then
    :
  elif ((HR_CODE == 75)); then
    HR_CAUSE=no_work HR_EVIDENCE="exit code 75"
  elif ((HR_CODE == 78)); then
    HR_CAUSE=config HR_EVIDENCE="exit code 78"
  elif hr::was_stopped; then
    hr::find_cause_of_warning "$job"
  else
    HR_CAUSE=crash HR_EVIDENCE="exit code $HR_CODE without a warning"
  fi
}

# Tells whether the training left because of a warning: it says so, or it ends with the code of a warning's signal, or
# it was warned and does not call its end a crash.
hr::was_stopped() {
  [[ $HR_OUTCOME == stopped ]] && return 0
  [[ $HR_OUTCOME == crashed ]] && return 1
  ((HR_SIGNALS > 0 || HR_CODE == 128 + $(kill -l TERM) || HR_CODE == 128 + $(kill -l "$HR_SIGNAL")))
}

# Reads the cause from the job's state while it is being ended. Measured on 22.05 from a TERM trap: a cancelled job
# shows COMPLETING with its restart count unchanged, a requeued one COMPLETING with the count already raised, a
# timed-out one Reason=TimeLimit. Newer versions show the base state.
# Arguments: scontrol's line. Returns 1 when the state says nothing.
hr::find_cause_in_slurm() {
  local state restarts
  [[ -n $1 ]] || return 1
  hr::job_field "$1" JobState && state=$REPLY || return 1
  hr::job_field "$1" Restarts && restarts=${REPLY:-0}
  hr::job_field "$1" Reason || true
  HR_EVIDENCE="JobState=$state Reason=$REPLY Restarts=$restarts"
  if ((restarts > HR_RESTARTS)); then
    HR_CAUSE=preempted HR_SLURM_REQUEUED=1
  elif [[ $REPLY == TimeLimit || $state == TIMEOUT* ]]; then
    HR_CAUSE=timeout
  elif [[ $state == PREEMPTED* ]]; then
    HR_CAUSE=preempted
  elif [[ $state == CANCELLED* || $state == COMPLETING* ]]; then
    HR_CAUSE=cancelled
  else
    return 1
  fi
}

# The job still runs, so the warning came early: from a grace time, from --signal before the time limit, or from a
# person. --signal is checked every 30 s and comes up to that much early (measured; the manual says 60).
# Arguments: scontrol's line, empty outside Slurm.
hr::find_cause_of_warning() {
  local end
  HR_CAUSE=operator HR_EVIDENCE="signal ${HR_FIRST_SIGNAL:-to the training itself}, code $HR_CODE"
  if hr::job_field "$1" PreemptTime && [[ $REPLY != None ]]; then
    HR_CAUSE=preempted HR_EVIDENCE+=", PreemptTime=$REPLY"
  elif hr::job_field "$1" EndTime && end=$(date -d "$REPLY" +%s 2>/dev/null); then
    HR_EVIDENCE+=", EndTime=$REPLY"
    if ((end - HR_ENDED <= HR_LEAD + 60)); then HR_CAUSE=timeout; fi
  fi
}

# Counts in earlier attempts: sets HR_COUNT_<budget> (ends with that cause) and HR_COUNT_NO_PROGRESS (in a row, up to
# this one). An attempt interrupted within its first `lead` seconds had no chance to advance and is not held against it.
hr::count_attempts() {
  local file text cause ended
  HR_COUNT_TIMEOUT=0 HR_COUNT_PREEMPTED=0 HR_COUNT_CRASH=0 HR_COUNT_NO_PROGRESS=0
  for file in "$HR_DIRECTORY"/attempts/[0-9]*/exit.json; do
    hr::read_file "$file" || continue
    text=$REPLY
    hr::json_get "$text" cause || continue
    cause=$REPLY
    case $cause in
      timeout) HR_COUNT_TIMEOUT=$((HR_COUNT_TIMEOUT + 1)) ;;
      preempted | operator) HR_COUNT_PREEMPTED=$((HR_COUNT_PREEMPTED + 1)) ;;
      crash) HR_COUNT_CRASH=$((HR_COUNT_CRASH + 1)) ;;
    esac
    hr::json_get "$text" ended && ended=${REPLY%.*} || ended=0
    hr::json_get "$text" started || REPLY=0
    hr::count_progress "$cause" $((ended - ${REPLY%.*})) \
      "$(hr::json_get "$text" step_before && echo "$REPLY")" "$(hr::json_get "$text" step_after && echo "$REPLY")"
  done
  hr::count_progress "$HR_CAUSE" $((HR_ENDED - HR_STARTED)) "$HR_STEP_BEFORE" "$HR_STEP_AFTER"
}

# Arguments: cause, seconds the attempt lasted, step before, step after (empty: the program publishes nothing).
hr::count_progress() {
  if [[ -n $4 && $4 != "$3" ]]; then
    HR_COUNT_NO_PROGRESS=0
  elif [[ $1 == crash || (-n $4 && $1 != no_work && $2 -ge $HR_LEAD) ]]; then
    HR_COUNT_NO_PROGRESS=$((HR_COUNT_NO_PROGRESS + 1))
  fi
}

# Decides what follows, from the cause and the budgets alone. Sets HR_DECISION and HR_REASON.
hr::decide() {
  local count max
  HR_DECISION=stop
  case $HR_CAUSE in
    finished) HR_DECISION=finish HR_REASON="done" && return 0 ;;
    config) HR_REASON="it would fail again the same way" && return 0 ;;
    cancelled) HR_REASON="cancelled by its owner" && return 0 ;;
    no_work) HR_DECISION=requeue HR_REASON="did no work, not charged" && return 0 ;;
    timeout) count=$HR_COUNT_TIMEOUT max=$HR_MAX_TIMEOUT ;;
    crash) count=$HR_COUNT_CRASH max=$HR_MAX_CRASH ;;
    *) count=$HR_COUNT_PREEMPTED max=$HR_MAX_PREEMPTED ;;
  esac
  if ((HR_SLURM_REQUEUED)); then
    HR_DECISION=slurm HR_REASON="Slurm has requeued it already"
  elif [[ $HR_CAUSE == timeout || $HR_CAUSE == preempted ]] && [[ " ${HR_REQUEUE_ON[*]} " != *" $HR_CAUSE "* ]]; then
    HR_REASON="requeue.on does not name $HR_CAUSE"
  elif ((max >= 0 && count >= max)); then
    HR_REASON="requeue.max.$HR_CAUSE is used up ($count of $max)"
  elif ((HR_MAX_NO_PROGRESS >= 0 && HR_COUNT_NO_PROGRESS > HR_MAX_NO_PROGRESS)); then
    HR_REASON="no newer checkpoint in $HR_COUNT_NO_PROGRESS attempts in a row (requeue.max.no_progress: $HR_MAX_NO_PROGRESS)"
  elif ((HR_MAX_TOTAL >= 0 && HR_ATTEMPT > HR_MAX_TOTAL)); then
    HR_REASON="requeue.max.total is used up ($HR_MAX_TOTAL)"
  else
    HR_DECISION=requeue HR_REASON="requeue $((count + 1)) after $HR_CAUSE"
  fi
}

# Puts this very job back into the queue, and looks whether that took. Slurm answers with a TERM to this shell and,
# KillWait later, a KILL; the exit code no longer matters to it. While slurmctld is away scontrol blocks or fails: try
# again, for ten minutes at most. A job that was left out of the queue says how to continue it.
# Returns 0 when the job is in the queue again; else sets HR_REASON.
hr::requeue_slurm() {
  local answer delay=1 until=$((SECONDS + 600))
  if hr::job_field "$(hr::show_job)" BatchFlag && [[ $REPLY == 0 ]]; then
    HR_REASON="an interactive allocation cannot be requeued"
    return 1
  fi
  while :; do
    answer=$(timeout 120 scontrol requeue "$HR_JOB_ID" 2>&1) || answer=${answer:-no answer}
    hr::is_requeued && return 0
    case $answer in
      *disabled* | *nvalid\ job* | *ermission* | *not\ supported* | *"command not found"*)
        HR_REASON="scontrol requeue $HR_JOB_ID: $answer"
        return 1
        ;;
    esac
    if ((SECONDS >= until)); then
      HR_REASON="scontrol requeue $HR_JOB_ID did not take in ten minutes: $answer"
      return 1
    fi
    hr::say "scontrol requeue $HR_JOB_ID: ${answer:-no effect yet}; trying again in $delay s"
    hr::pause "$delay"
    delay=$((delay < 16 ? delay * 2 : 30))
  done
}

# Looks, for up to five seconds, whether Slurm counts one more start of this job than we are.
hr::is_requeued() {
  local job tries
  for ((tries = 0; tries < 10; tries++)); do
    if job=$(hr::show_job 10) && hr::job_field "$job" Restarts && ((${REPLY:-0} > HR_RESTARTS)); then
      hr::job_field "$job" JobState || true
      hr::event requeued state "\"$REPLY\""
      return 0
    fi
    [[ -n $job ]] || return 1
    hr::pause 0.5
  done
  return 1
}

# Sleeps so that a trap runs at once; the sleep itself never outlives the pause.
# Arguments: seconds.
hr::pause() {
  local sleeper ticks=
  sleep "$1" &
  sleeper=$!
  hr::start_ticks "$sleeper" && ticks=$REPLY
  wait "$sleeper" 2>/dev/null || true
  if hr::is_alive "$sleeper" "$ticks"; then kill "$sleeper" 2>/dev/null || true; fi
}
