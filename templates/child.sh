# The training as a child: what it is told, how it is begun, who keeps its exit code, and the wait until it is gone.
# Part of the runtime that every rendered script carries; it has no placeholders and runs nothing by itself.

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
  HR_CHILD_IS_AGENT=0
  if hr::is_agent "$@"; then HR_CHILD_IS_AGENT=1; fi
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
    if hr::is_alive "$HR_KEEPER" "$HR_KEEPER_TICKS"; then continue; fi
    if hr::hear_last; then HR_CHILD=$REPLY; else HR_CODE=137; fi
    break
  done
  [[ -n $HR_CHILD ]] || return 0
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
  export HPC_RESUME_SAVE_AUTO=${HR_SAVE_AUTO#0} HPC_RESUME_BACKEND=$HR_BACKEND HPC_RESUME_CHECKSUMS=$HR_CHECKSUMS
  export HPC_RESUME_RESHARD=${HR_RESHARD#0}
  hr::export_rendezvous
  export HPC_RESUME_WANDB=$HR_WANDB HPC_RESUME_MIRROR=$HR_MIRROR
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

# As hr::hear_keeper, from a keeper that has ended: a look that a signal has cut short says nothing.
hr::hear_last() {
  local tries caught
  for ((tries = 0; tries < 50; tries++)); do
    caught=${#HR_CAUGHT[@]}
    if hr::hear_keeper; then return 0; fi
    if ((${#HR_CAUGHT[@]} == caught)); then return 1; fi
  done
  return 1
}

# Waits until the child is really gone; sets HR_CODE to its own exit code, after any number of signals.
hr::await_child() {
  [[ -n $HR_CHILD ]] || return 0
  until hr::hear_keeper && HR_CODE=$REPLY; do
    hr::heed
    if hr::is_alive "$HR_KEEPER" "$HR_KEEPER_TICKS"; then continue; fi
    if hr::hear_last; then
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
