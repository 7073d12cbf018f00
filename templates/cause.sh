# Why the training ended: the evidence, and the cause that follows from it.
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
  if ((HR_CODE == 0)) && hr::is_given_up; then HR_CODE=1; fi
  if ((HR_CODE == 0)); then
    HR_CAUSE=finished HR_EVIDENCE="exit code 0"
    if ((HR_SIGNALS > 0)) && [[ $HR_OUTCOME != finished ]]; then
      hr::say "the command ended with 0 after a warning: taken as finished. A program that wants to come back leaves with 128+signal"
    fi
    return 0
  fi
  if [[ $HR_SCHEDULER == slurm ]]; then
    # Asked more than once: a cancelled job that is taken for a warned one would come back.
    job=$(hr::show_job) || job=$(hr::show_job) || job=
  fi
  if ((HR_CANCELLED)); then
    HR_CAUSE=cancelled HR_EVIDENCE="asked for by its owner"
  elif hr::find_cause_in_slurm "$job"; then
    :
  elif ((HR_SHELL_LOST)); then
    HR_CAUSE=node_fail HR_EVIDENCE="the batch shell was killed${HR_EVIDENCE:+, $HR_EVIDENCE}"
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

# Tells whether srun ended with 0 though the training has not: so it does when Slurm gives a node up ("Node failure on
# n1", 22.05), while the training may live on there. One that has opened a run says so when it has finished.
hr::is_given_up() {
  ((HR_CHILD_IS_SRUN)) && [[ -z $HR_OUTCOME ]] || return 1
  if [[ $HR_SCHEDULER == slurm ]] && hr::job_field "$(hr::show_job)" Restarts && ((${REPLY:-0} > HR_RESTARTS)); then
    return 0
  fi
  hr::has_run
}

# Tells whether the training left because of a warning: it says so, or it ends with the code of a warning's signal, or
# it was warned and does not call its end a crash.
hr::was_stopped() {
  [[ $HR_OUTCOME == stopped ]] && return 0
  [[ $HR_OUTCOME == crashed ]] && return 1
  ((HR_SIGNALS > 0 || HR_CODE == 128 + HR_NUMBER_TERM || HR_CODE == 128 + HR_NUMBER))
}

# Reads the cause from the job's state while it is being ended. Measured on 22.05 from a TERM trap: a cancelled job
# shows COMPLETING with its restart count unchanged, a requeued one COMPLETING with the count already raised, a
# timed-out one Reason=TimeLimit, and one that is preempted in a partition with PreemptMode=CANCEL differs from a
# cancelled one only in PreemptTime. Newer versions show the base state.
# Arguments: scontrol's line. Returns 1 when the state says nothing.
hr::find_cause_in_slurm() {
  local state restarts reason
  [[ -n $1 ]] || return 1
  hr::job_field "$1" JobState && state=$REPLY || return 1
  hr::job_field "$1" Restarts && restarts=${REPLY:-0}
  hr::job_field "$1" Reason || true
  reason=$REPLY
  HR_EVIDENCE="JobState=$state Reason=$reason Restarts=$restarts"
  if ((restarts > HR_RESTARTS)); then
    HR_CAUSE=preempted HR_SLURM_REQUEUED=1
  elif [[ $reason == TimeLimit || $state == TIMEOUT* ]]; then
    HR_CAUSE=timeout
  elif [[ $state == PREEMPTED* ]] || hr::is_cancelled_by_preemption "$1"; then
    HR_CAUSE=preempted
  elif [[ $state == NODE_FAIL* ]]; then
    HR_CAUSE=node_fail
  elif [[ $reason == @(JobLaunchFailure|NonZeroExitCode|RaisedSignal*|OutOfMemory) ]]; then
    return 1 # only a killed batch shell's sentinel sees this: the job ends by its own fault
  elif [[ $state == CANCELLED* || $state == COMPLETING* ]]; then
    HR_CAUSE=cancelled
  else
    return 1
  fi
}

# Tells whether a job that is being ended without a requeue has been preempted, where preemption cancels.
# Arguments: scontrol's line.
hr::is_cancelled_by_preemption() {
  local partition
  hr::job_field "$1" PreemptTime && [[ $REPLY != @(None|) ]] || return 1
  HR_EVIDENCE+=" PreemptTime=$REPLY"
  hr::job_field "$1" Partition || return 1
  partition=$(timeout 10 scontrol show partition -o "$REPLY" 2>/dev/null) || return 1
  [[ $partition == *PreemptMode=*CANCEL* ]]
}

# The job still runs, so the warning came early: from a grace time, from --signal before the time limit, or from a
# person. --signal is checked every 30 s and comes up to that much early (measured; the manual says 60).
# Arguments: scontrol's line, empty outside Slurm.
hr::find_cause_of_warning() {
  local end
  HR_CAUSE=operator HR_EVIDENCE="signal ${HR_FIRST_SIGNAL:-to the training itself}, code $HR_CODE"
  if [[ -n $HR_REQUEST ]]; then
    HR_EVIDENCE+=", asked for by hpc-resume poke $HR_REQUEST"
  elif hr::job_field "$1" PreemptTime && [[ $REPLY != None ]]; then
    HR_CAUSE=preempted HR_EVIDENCE+=", PreemptTime=$REPLY"
  elif hr::job_field "$1" EndTime && end=$(date -d "$REPLY" +%s 2>/dev/null); then
    HR_EVIDENCE+=", EndTime=$REPLY"
    if ((end - HR_ENDED <= HR_LEAD + 60)); then HR_CAUSE=timeout; fi
  elif [[ $HR_SCHEDULER == slurm && -z $1 ]]; then # charged as a preemption; the requeue asks first who ended it
    HR_CAUSE=unknown HR_EVIDENCE+=", and no answer from slurmctld"
  fi
}
