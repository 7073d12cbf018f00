# The requeue: a ladder of ways, each looked at afterwards; and what a job that goes back into the queue takes along.
# Part of the runtime that every rendered script carries; it has no placeholders and runs nothing by itself.

# Carries out HR_DECISION in Slurm. Where nothing helps the decision becomes stop, and the reason says what was tried.
hr::act() {
  case $HR_DECISION in
    requeue) hr::requeue ;;
    hold)
      if hr::requeue_by_scontrol requeuehold; then hr::comment "held: $HR_REASON"; else hr::give_up; fi
      ;;
    slurm)
      hr::take_along
      if hr::is_forgotten; then hr::requeue; fi
      ;;
    stop) hr::comment "stopped: $HR_REASON" ;;
  esac
}

# The ladder: this very job again; else a successor that inherits the run.
hr::requeue() {
  local said='' reason=$HR_REASON tries
  if [[ $HR_REQUEUE_METHOD != successor ]]; then
    for ((tries = 0; tries < 5; tries++)); do
      hr::requeue_by_scontrol requeue || break
      hr::take_along
      if ! hr::is_forgotten; then
        HR_REASON=$reason
        return 0
      fi
      HR_REASON="slurmctld forgets each requeue"
    done
    said=$HR_REASON
  fi
  if [[ $HR_REQUEUE_METHOD != scontrol ]]; then
    if hr::submit_successor; then return 0; fi
    said+=${said:+; }$HR_REASON
  fi
  HR_REASON=$said
  hr::give_up
}

# Tells whether slurmctld no longer knows of a requeue that it has confirmed: it saves its state up to five seconds
# later, and one that is killed before comes back without. The end of this shell would then be the end of the job, FAILED
# (22.05, measured). So the last thing of all is one more look, which waits for slurmctld while it is away: for ten
# minutes, or until Slurm's KILL, KillWait after the requeue.
hr::is_forgotten() {
  local job until=$((SECONDS + 600))
  while ((SECONDS < until)); do
    if job=$(hr::show_job 60) && hr::job_field "$job" Restarts; then
      ((${REPLY:-0} <= HR_RESTARTS)) || return 1
      hr::event forgotten
      hr::say "slurmctld has forgotten the requeue of job $HR_JOB_ID: once more"
      return 0
    fi
    hr::pause 1
  done
  return 1
}

# No way back into the queue was left: says so where people look.
hr::give_up() {
  HR_DECISION=stop
  hr::note_exit
  hr::comment "not requeued: $HR_REASON"
  hr::say "not requeued; continue it with: hpc-resume submit JOB.yaml --resume $HR_KEY"
}

# Puts words into the job's comment, which squeue, scontrol and sacct show. Arguments: words.
hr::comment() {
  [[ $HR_SCHEDULER == slurm ]] || return 0
  timeout 20 scontrol update "JobId=$HR_JOB_ID" "Comment=hpc_resume: $1" >/dev/null 2>&1 || true
}

# Gives a requeued job what it takes along: when it may start, and which nodes it avoids.
# Slurm holds a requeued job back for the life of a credential (two minutes). StartTime=now is overwritten when the
# job has completed; a time that is then still to come stays (measured, 22.05).
hr::take_along() {
  local delay nodes
  if [[ $HR_CAUSE == no_work ]]; then return 0; fi # what it waits for needs the two minutes
  hr::back_off
  delay=$((REPLY > 5 ? REPLY : 5))
  timeout 20 scontrol update "JobId=$HR_JOB_ID" "StartTime=now+$delay" >/dev/null 2>&1 || true
  if ((delay > 5)); then hr::say "$HR_COUNT_SHORT short attempts in a row without progress: the next one waits $delay s"; fi
  hr::failed_nodes
  nodes=$REPLY
  if [[ -n $nodes ]] && timeout 20 scontrol update "JobId=$HR_JOB_ID" "ExcNodeList=$nodes" >/dev/null 2>&1; then
    hr::event excluded nodes "\"$nodes\""
    hr::say "node $nodes ended this run twice in a row without a word: it is left out for a day"
  fi
}

# Sets REPLY to the nodes to avoid, with commas: those on which two attempts in a row ended without a word, in the
# last day, and those that the job avoids already.
hr::failed_nodes() {
  local directory text host started last='' nodes='' now
  printf -v now '%(%s)T' -1
  for directory in "$HR_DIRECTORY"/attempts/[0-9]*; do
    hr::read_file "$directory/attempt.json" || continue
    text=$REPLY
    hr::json_get "$text" host || continue
    host=$REPLY
    hr::json_get "$text" started && started=${REPLY%.*} || started=0
    if [[ -e $directory/exit.json || $directory == "$HR_ATTEMPT_DIR" ]]; then
      last=
    elif [[ $host == "$last" ]]; then
      if ((now - started < 86400)) && [[ ,$nodes, != *",$host,"* ]]; then nodes+=${nodes:+,}$host; fi
    else
      last=$host
    fi
  done
  REPLY=$nodes
  if [[ -n $nodes ]] && hr::job_field "$(hr::show_job)" ExcNodeList && [[ $REPLY != '(null)' ]]; then
    REPLY=$nodes,$REPLY
  elif [[ -n $nodes ]]; then
    REPLY=$nodes
  fi
}

# Submits this script again, to start when this job has ended, on the same run: for clusters where a job cannot be
# requeued, or scontrol is not at hand. Options from sbatch's command line are lost but for what Slurm tells the job.
# Returns 0 when the successor is in the queue; else sets HR_REASON.
hr::submit_successor() {
  local answer key=$HR_KEY
  local -a words=(--parsable "--dependency=afterany:$HR_JOB_ID" "--chdir=$PWD")
  if ((! ${HR_MAIN:-0})) || ! [[ -r $0 ]]; then
    HR_REASON="a sourced script cannot be submitted again"
    return 1
  fi
  if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then
    words+=("--array=$SLURM_ARRAY_TASK_ID")
    key=${key%"_$SLURM_ARRAY_TASK_ID"}
  fi
  words+=(${SLURM_JOB_PARTITION:+"--partition=$SLURM_JOB_PARTITION"} ${SLURM_JOB_ACCOUNT:+"--account=$SLURM_JOB_ACCOUNT"})
  words+=("--export=ALL,HPC_RESUME_CONTINUES=$key")
  answer=$(hr::in_clean_environment timeout 60 sbatch "${words[@]}" "$0" 2>&1) || {
    HR_REASON="sbatch refused a successor: $answer"
    return 1
  }
  HR_SUCCESSOR=${answer%%;*}
  if ! timeout 20 squeue -h -j "$HR_SUCCESSOR" -o %T >/dev/null 2>&1; then
    HR_REASON="the successor $HR_SUCCESSOR is not in the queue"
    return 1
  fi
  HR_REASON="successor job $HR_SUCCESSOR goes on when this one has ended"
  hr::note_exit
  hr::comment "$HR_REASON"
}

# Runs a command without this job's own SLURM_ and SBATCH_ variables: a job must not inherit another's CPU binding.
hr::in_clean_environment() (
  local name
  for name in "${!SLURM_@}" "${!SBATCH_@}"; do
    if [[ $name != SLURM_CONF ]]; then unset "$name"; fi
  done
  "$@"
)

# Puts this very job back into the queue, free or held, and looks whether that took. Slurm answers with a TERM to this
# shell and, KillWait later, a KILL; the exit code no longer matters to it. While slurmctld is away scontrol blocks or
# fails: try again, for ten minutes at most.
# Arguments: requeue or requeuehold. Returns 0 when the job is in the queue again; else sets HR_REASON.
hr::requeue_by_scontrol() {
  local answer delay=1 until=$((SECONDS + 600))
  while :; do
    hr::may_requeue "$(hr::show_job)" || return 1
    answer=$(timeout 120 scontrol "$1" "$HR_JOB_ID" 2>&1) || answer=${answer:-no answer}
    hr::is_requeued && return 0
    case $answer in
      *disabled* | *nvalid\ job* | *ermission* | *not\ supported* | *"command not found"*)
        HR_REASON="scontrol $1 $HR_JOB_ID: $answer"
        return 1
        ;;
    esac
    if ((SECONDS >= until)); then
      HR_REASON="scontrol $1 $HR_JOB_ID did not take in ten minutes: $answer"
      return 1
    fi
    hr::say "scontrol $1 $HR_JOB_ID: ${answer:-no effect yet}; trying again in $delay s"
    hr::pause "$delay"
    delay=$((delay < 16 ? delay * 2 : 30))
  done
}

# Tells whether this job can and should go back: it is a batch job, and nobody has cancelled it meanwhile.
# Arguments: scontrol's line, empty when Slurm does not answer. Sets HR_REASON when not.
hr::may_requeue() {
  local HR_CAUSE='' HR_EVIDENCE='' HR_SLURM_REQUEUED=0
  if hr::job_field "$1" BatchFlag && [[ $REPLY == 0 ]]; then
    HR_REASON="an interactive allocation cannot be requeued"
    return 1
  fi
  if hr::find_cause_in_slurm "$1" && [[ $HR_CAUSE == cancelled ]]; then
    HR_REASON="cancelled by its owner meanwhile ($HR_EVIDENCE)"
    return 1
  fi
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
