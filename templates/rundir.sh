# Which run this is, its directory, this attempt in it, and whether the attempt may start.
# Part of the runtime that every rendered script carries; it has no placeholders and runs nothing by itself.

# Names the run and this start of it. A shell's second launch, after one that has finished, is another run of the same
# job: name-12, then name-12-2. When the job is started again the first has nothing to do, and the second goes on.
# Sets HR_SCHEDULER HR_JOB_ID HR_RESTARTS HR_KEY HR_DIRECTORY.
hr::identify() {
  local task=${SLURM_ARRAY_TASK_ID:-} number=1
  if [[ ${HPC_RESUME_SCHEDULER:-} == local ]]; then
    HR_SCHEDULER=local HR_JOB_ID=${HPC_RESUME_JOB_ID:-} HR_RESTARTS=${HPC_RESUME_RESTART_COUNT:-0}
    HR_KEY=${HPC_RESUME_RUN_KEY:?}
    task=${HPC_RESUME_ARRAY_TASK:-}
  elif [[ -n ${SLURM_JOB_ID:-} ]]; then
    HR_SCHEDULER=slurm HR_RESTARTS=${SLURM_RESTART_COUNT:-0} # unset in the first run of a job
    HR_JOB_ID=$SLURM_JOB_ID
    # The task that Slurm starts last has the array's own id as its job id: requeueing that would rerun the array.
    if [[ -n $task ]]; then HR_JOB_ID=${SLURM_ARRAY_JOB_ID}_$task; fi
    HR_KEY=${HR_RUN_KEY:-$HR_NAME-${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}}
    HR_KEY=${HPC_RESUME_CONTINUES:-$HR_KEY} # the successor of a job that could not be requeued
  else
    HR_SCHEDULER=none HR_JOB_ID='' HR_RESTARTS=0 task=
    HR_KEY=$HR_RUN_KEY
  fi
  HR_PARENT=$HR_RUN_DIR
  if [[ $HR_PARENT != /* ]]; then HR_PARENT=$PWD/$HR_PARENT; fi
  if [[ -z $HR_KEY ]]; then # a plain `bash job.sbatch`: the first of its runs that is neither finished nor at work
    while HR_DIRECTORY=$HR_PARENT/$HR_NAME-local-$number && hr::is_taken; do number=$((number + 1)); done
    HR_KEY=$HR_NAME-local-$number
  fi
  HR_KEY+=${task:+_$task}
  if ((HR_FINISHED > 0)) && [[ $HR_SCHEDULER != none ]]; then HR_KEY+=-$((HR_FINISHED + 1)); fi
  HR_DIRECTORY=$HR_PARENT/$HR_KEY
}

# Tells whether the run in HR_DIRECTORY is somebody else's, or finished, or its newest attempt's launcher still lives on
# this host.
hr::is_taken() {
  local newest text pid
  [[ -d $HR_DIRECTORY && ! -O $HR_DIRECTORY ]] && return 0
  [[ -e $HR_DIRECTORY/finished.json ]] && return 0
  hr::newest_attempt
  [[ ! -e $HR_DIRECTORY/attempts/$REPLY/exit.json ]] || return 1
  hr::read_file "$HR_DIRECTORY/attempts/$REPLY/attempt.json" || return 1
  text=$REPLY
  hr::json_get "$text" boot_id && [[ $REPLY == "$HR_BOOT_ID" ]] || return 1
  hr::json_get "$text" pid && pid=$REPLY || return 1
  hr::json_get "$text" start_ticks && hr::is_alive "$pid" "$REPLY"
}

# Makes the run directory, mode 0700. Returns 78 when it cannot be used.
hr::enter() {
  if ! mkdir -p "$HR_PARENT" || ! { [[ -d $HR_DIRECTORY ]] || mkdir -m 700 "$HR_DIRECTORY"; }; then
    hr::say "cannot make the run directory $HR_DIRECTORY: set run_dir in job.yaml to a directory you can write"
    return 78
  fi
  if [[ -L $HR_DIRECTORY || -L $HR_DIRECTORY/attempts || ! -O $HR_DIRECTORY ]]; then
    hr::say "$HR_DIRECTORY, or attempts in it, is a link or belongs to somebody else: refused"
    return 78
  fi
  [[ -e $HR_DIRECTORY/finished.json ]] && return 0
  if ! { [[ -d $HR_DIRECTORY/attempts ]] || mkdir -m 700 "$HR_DIRECTORY/attempts"; } ||
    ! [[ -w $HR_DIRECTORY/attempts ]]; then
    hr::say "cannot write to the run directory $HR_DIRECTORY (permission, quota or space?)"
    return 78
  fi
}

# Sets REPLY to the name of the newest attempt's directory, empty when there is none.
hr::newest_attempt() {
  local directory newest=
  for directory in "$HR_DIRECTORY"/attempts/[0-9]*; do
    if [[ -d $directory ]]; then newest=${directory##*/}; fi
  done
  REPLY=$newest
}

# Takes the next attempt's directory (mkdir is the claim) and writes who we are. Returns 78 when it cannot.
hr::begin_attempt() {
  local limits ticks=0
  hr::newest_attempt
  HR_ATTEMPT=$((10#${REPLY:-0})) HR_PREVIOUS=$REPLY
  until
    HR_ATTEMPT=$((HR_ATTEMPT + 1))
    printf -v HR_ATTEMPT_DIR '%s/attempts/%04d' "$HR_DIRECTORY" "$HR_ATTEMPT"
    mkdir -m 700 "$HR_ATTEMPT_DIR" 2>/dev/null
  do
    if ! [[ -d $HR_ATTEMPT_DIR ]]; then
      hr::say "cannot make $HR_ATTEMPT_DIR (no space, quota or permission?)"
      HR_ATTEMPT_DIR=''
      return 78
    fi
  done
  mkdir -m 700 "$HR_ATTEMPT_DIR/pids" "$HR_ATTEMPT_DIR/events" || return 78
  (umask 077 && : >>"$HR_ATTEMPT_DIR/events/$HR_HOST.$HR_SHELL_PID.jsonl") || return 78
  printf -v HR_STARTED '%(%s)T' -1
  hr::read_step
  HR_STEP_BEFORE=$REPLY
  if ! [[ -e $HR_DIRECTORY/run.json ]]; then
    hr::json_object key: "$HR_KEY" name: "$HR_NAME" spec_digest: "$HR_SPEC_DIGEST" created "$HR_STARTED"
    hr::write_file "$HR_DIRECTORY/run.json" "$REPLY" || return 78
  fi
  hr::limits && limits=$REPLY
  hr::start_ticks "$HR_SHELL_PID" && ticks=$REPLY
  hr::json_object hpc_resume: "$HR_VERSION" attempt "$HR_ATTEMPT" job_id: "$HR_JOB_ID" restart_count "$HR_RESTARTS" \
    scheduler: "$HR_SCHEDULER" host: "$HR_HOST" pid "$HR_SHELL_PID" start_ticks "$ticks" boot_id: "$HR_BOOT_ID" \
    pid_ns "$HR_PID_NS" started "$HR_STARTED" lead "$HR_LEAD" requeue_on: "${HR_REQUEUE_ON[*]}" max "$limits"
  hr::write_file "$HR_ATTEMPT_DIR/attempt.json" "$REPLY" || return 78
}

# Sets REPLY to the step of the newest published checkpoint, empty when there is none.
hr::read_step() {
  hr::read_file "$HR_DIRECTORY/latest" || true
  if [[ $REPLY =~ ^step-([0-9]+) ]]; then REPLY=$((10#${BASH_REMATCH[1]})); else REPLY=; fi
}

# Slurm requeues by itself after a preemption or a node failure, past our budgets: look at them again at the start.
# An attempt without exit.json was ended without a word: by its node, or by a KILL to its batch shell. A job that was
# stopped and is requeued by hand is started: somebody asked for it.
hr::is_admitted() {
  local text requeued=yes
  HR_PREVIOUS_CAUSE=
  if [[ -n $HR_PREVIOUS ]]; then
    HR_PREVIOUS_CAUSE=node_fail
    if hr::read_file "$HR_DIRECTORY/attempts/$HR_PREVIOUS/exit.json" && text=$REPLY && hr::json_get "$text" cause; then
      HR_PREVIOUS_CAUSE=$REPLY
      hr::json_get "$text" facts && read -r _ requeued _ <<<"$REPLY"
    fi
  fi
  ((HR_RESTARTS > 0)) || return 0
  if ((HR_MAX_TOTAL >= 0 && HR_ATTEMPT > HR_MAX_TOTAL + 1)); then
    HR_REASON="requeue.max.total is used up ($HR_MAX_TOTAL)"
    return 1
  fi
  if [[ $requeued == yes && $HR_PREVIOUS_CAUSE == @(preempted|node_fail) ]] &&
    [[ " ${HR_REQUEUE_ON[*]} " != *" $HR_PREVIOUS_CAUSE "* ]]; then
    HR_REASON="Slurm has requeued it, and requeue.on does not name $HR_PREVIOUS_CAUSE"
    return 1
  fi
}
