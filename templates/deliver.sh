# The way of a warning: the trap, the delivery to exactly the processes that announced themselves, the last resort.
# Part of the runtime that every rendered script carries; it has no placeholders and runs nothing by itself.

# Sets the trap of one signal. It only records, and everything else happens in the main flow, which comes round at every
# caught signal: functions and forks inside a trap nest without end in a storm, and bash 5.2 dies of that (SIGSEGV), or
# forgets what it waits for. Arguments: signal name without SIG.
hr::trap() {
  # shellcheck disable=SC2064 # the name is meant to be filled in now
  trap "HR_CAUGHT+=($1)" "$1"
}

# Takes note of what has been caught since the last time, and passes on what has to be. Called wherever time passes.
hr::heed() {
  hr::note
  hr::deliver
}

# Takes note of what has been caught until now: counts, remembers the first, hears requests. What comes meanwhile is for
# the next time: signals that come faster than they are counted would keep the main flow here for as long as they come.
hr::note() {
  local signal caught=${#HR_CAUGHT[@]}
  while ((HR_NOTED < caught)); do
    signal=${HR_CAUGHT[HR_NOTED]}
    HR_NOTED=$((HR_NOTED + 1))
    if [[ $signal == URG ]]; then hr::pass_save_request; else hr::count_signal "$signal"; fi
  done
}

# Ctrl-C at a terminal asks to save and stop; a second one stops hard (a background command of a shell without job
# control ignores INT, so it reaches only us). Arguments: signal name without SIG.
hr::count_signal() {
  local asked=false
  if [[ $1 == "$HR_SIGNAL" ]] && hr::is_stray; then
    HR_STRAYS=1
    hr::event stray signal "\"$1\""
    hr::say "SIG$1 was meant for attempt ${HR_PREVIOUS}, which had ended: ignored"
    return 0
  fi
  HR_SIGNALS=$((HR_SIGNALS + 1))
  HR_FIRST_SIGNAL=${HR_FIRST_SIGNAL:-$1}
  HR_LAST_SIGNAL=$1
  if [[ $1 == INT ]]; then HR_CANCELLED=1 HR_INTERRUPTS=$((HR_INTERRUPTS + 1)); fi
  if ((HR_SIGNALS > 100)); then return 0; fi # a storm: counted, no longer listed
  if hr::find_request "$HR_ATTEMPT_DIR"; then asked=true; fi
  hr::event received signal "\"$1\"" count "$HR_SIGNALS" asked "$asked"
}

# Tells whether a warning is the one that `hpc-resume poke` sent to the attempt before: Slurm tries a signal again that
# meets a job which is just being requeued, and it hit the next attempt 12 s later (measured). Once; never when that
# attempt has heard it, or this one was asked for something itself.
hr::is_stray() {
  local directory=$HR_DIRECTORY/attempts/$HR_PREVIOUS text asked
  [[ $HR_SCHEDULER == slurm && -n $HR_PREVIOUS ]] && ((! HR_STRAYS)) || return 1
  ! hr::find_request "$HR_ATTEMPT_DIR" && hr::find_request "$directory" && [[ $REPLY != cancel ]] || return 1
  hr::read_file "$directory/control.json" && text=$REPLY
  hr::json_get "$text" t && asked=${REPLY%.*} || return 1
  printf -v text '%(%s)T' -1
  ((asked <= HR_STARTED && text - asked < 60)) || return 1
  ! grep -qs '"asked":true' "$directory"/events/*.jsonl
}

# Sets REPLY to the end that an attempt's owner has asked for: cancel, stop, requeue. Fails when there is none; a save
# is no end. Arguments: directory of the attempt.
hr::find_request() {
  hr::read_file "$1/control.json" && hr::json_get "$REPLY" request && [[ $REPLY != save ]]
}

# Passes on URG, which `hpc-resume poke save` sends: the training saves at its next boundary and goes on. A signal of
# its own, since two of one number can melt into one, and the warning would be the one that is lost; and nothing dies of
# URG. Without a request for this very attempt it means nothing.
hr::pass_save_request() {
  [[ -n $HR_ATTEMPT_DIR ]] && hr::read_file "$HR_ATTEMPT_DIR/control.json" || return 0
  hr::json_get "$REPLY" request && [[ $REPLY == save ]] || return 0
  hr::event save_requested
  hr::signal_ranks URG || true
}

# Passes on what has arrived since the last delivery.
hr::deliver() {
  [[ -n $HR_CHILD ]] || return 0
  while ((HR_DELIVERED < HR_SIGNALS)); do
    HR_DELIVERED=$HR_SIGNALS
    if ((! HR_WARNED)); then
      HR_WARNED=1
      hr::tell_deadline
      hr::tell_sentinels
      hr::warn
      hr::ask_deadline
    elif ((HR_INTERRUPTS > 1)); then
      hr::terminate
    elif [[ $HR_LAST_SIGNAL == TERM && $HR_FIRST_SIGNAL != TERM ]] && ((! HR_ESCALATED)); then
      HR_ESCALATED=1
      hr::tell_deadline # another signal than the first escalates; the same one again changes nothing
      hr::signal_ranks TERM || true
      hr::ask_deadline
    fi
    hr::see_it_through
  done
}

# Tells the training when the end comes, as far as that is known without asking anybody: warning.json.
# A second, different signal can only bring it nearer.
hr::tell_deadline() {
  local now wait=$HR_LEAD
  printf -v now '%(%s)T' -1
  if [[ $HR_LAST_SIGNAL == TERM ]]; then wait=30; fi # Slurm's default KillWait
  hr::set_deadline $((now + wait)) "$HR_LAST_SIGNAL"
}

# Asks Slurm when the end comes, after the warning is on its way: slurmctld may not answer. After TERM it is KillWait;
# before it EndTime, which also says when a grace time ends. `--signal` is early, and a person's signal ends nothing.
hr::ask_deadline() {
  local job end now
  [[ $HR_SCHEDULER == slurm ]] || return 0
  printf -v now '%(%s)T' -1
  if [[ $HR_LAST_SIGNAL == TERM ]]; then
    hr::find_kill_wait
    hr::set_deadline $((now + HR_KILL_WAIT)) KillWait replace
  elif job=$(hr::show_job 5) && hr::job_field "$job" EndTime &&
    end=$(date -d "$REPLY" +%s 2>/dev/null) && [[ -n $end ]] && ((end > now)); then
    hr::set_deadline "$end" EndTime replace
  fi
}

# Arguments: epoch seconds, where they come from, `replace` when they are truer than what was told before.
hr::set_deadline() {
  if ((HR_DEADLINE > 0 && $1 >= HR_DEADLINE)) && [[ ${3:-} != replace ]]; then return 0; fi
  HR_DEADLINE=$1 HR_DEADLINE_FROM=$2
  hr::now
  hr::json_object t "$REPLY" signal: "$HR_SIGNAL" deadline "$HR_DEADLINE" source: "$HR_DEADLINE_FROM"
  hr::write_file "$HR_ATTEMPT_DIR/warning.json" "$REPLY" || true
}

# After the warning: signals again who has not acknowledged it, three times in all and spread over half of the time;
# at the very end kills a training that nothing else has moved (C code that lets nobody run), so that there is time to
# requeue it. Ends with the child, or when another signal has come.
hr::see_it_through() {
  local tries=1 since=$SECONDS now gap nap=0.1
  while hr::is_alive "$HR_CHILD" "$HR_CHILD_TICKS" && ((HR_DELIVERED == HR_SIGNALS)); do
    hr::pause "$nap"
    hr::note
    if ((SECONDS - since > 5)); then nap=0.25; fi
    hr::has_ranks || continue
    if ((! HR_RANKS_WARNED)); then # ready only now, behind a wrapper that has taken the signal for itself
      hr::signal_ranks "$HR_SIGNAL" || true
      continue
    fi
    printf -v now '%(%s)T' -1
    gap=$(((HR_DEADLINE - now) / 6))
    if ((tries <= 3 && SECONDS - since >= (gap < 1 ? 1 : gap))) && hr::has_silent_ranks; then
      since=$SECONDS
      tries=$((tries + 1))
      hr::ask_again "$tries"
    fi
    if ((now >= HR_DEADLINE)); then
      HR_TERMINATED=1
      hr::event killed pid "$HR_CHILD"
      hr::say "the training has not left by itself, and its time is over: it is killed, to go on from its last checkpoint"
      hr::signal_ranks KILL || true
      if ((! HR_CHILD_IS_SRUN)); then hr::signal_family KILL; fi # srun would take the step with it; Slurm does that itself
      return 0
    fi
  done
}

# Arguments: which time this is.
hr::ask_again() {
  if (($1 <= 3)); then
    hr::signal_ranks "$HR_SIGNAL" silent || true
  else
    hr::event unacknowledged tries 3
    hr::say "the training was signalled three times and has not heard it: is it in C code that keeps Python from running?"
  fi
}

# Tells whether a process of this host that has announced itself has not acknowledged the warning. One without an
# events file of its own (another implementation) cannot.
hr::has_silent_ranks() {
  local record
  for record in "$HR_ATTEMPT_DIR"/pids/*.json; do
    if hr::is_silent "$record"; then return 0; fi
  done
  return 1
}

# Arguments: record file.
hr::is_silent() {
  local text host log
  [[ $1 != *.child.json ]] && hr::read_file "$1" || return 1
  text=$REPLY
  hr::json_get "$text" host && host=$REPLY || return 1
  hr::json_get "$text" pid || return 1
  log=$HR_ATTEMPT_DIR/events/$host.$REPLY.jsonl
  [[ $host == "$HR_HOST" && -e $log ]] && ! grep -q '"event": "received"' "$log"
}

# Tells whether any process has announced itself.
hr::has_ranks() {
  local record
  for record in "$HR_ATTEMPT_DIR"/pids/*.json; do
    if [[ -e $record && $record != *.child.json ]]; then return 0; fi
  done
  return 1
}

# Tells whether any process has opened a run. One that only has our handlers is a plain program, or was still importing.
hr::has_run() {
  local record
  for record in "$HR_ATTEMPT_DIR"/pids/*.json; do
    if [[ $record == *.child.json ]] || ! hr::read_file "$record"; then continue; fi
    if ! { hr::json_get "$REPLY" opened && [[ $REPLY == false ]]; }; then return 0; fi
  done
  return 1
}

# Signals every process of this attempt that has announced itself; with `silent` only those that have not acknowledged
# the warning. Arguments: signal, optionally `silent`. Returns 1 when there is none.
hr::signal_ranks() {
  local record status found=1 elsewhere=0
  for record in "$HR_ATTEMPT_DIR"/pids/*.json; do
    if [[ $record == *.child.json ]]; then continue; fi
    if [[ ${2:-} == silent ]] && ! hr::is_silent "$record"; then continue; fi
    status=0
    hr::signal_record "$record" "$1" || status=$?
    case $status in
      0) found=0 HR_RANKS_WARNED=1 ;;
      2) [[ -e $record ]] && elsewhere=1 ;;
    esac
  done
  if ((elsewhere)) && hr::reaches_elsewhere "$1"; then found=0; fi
  return "$found"
}

# Tells whether a signal has got to the ranks of other nodes: their sentinels, told already, signal exactly them. Without
# sentinels srun hands USR1 on to every task, on every node; TERM would make it kill them at once, and an agent would die
# of it. Arguments: signal.
hr::reaches_elsewhere() {
  if hr::is_alive "$HR_SENTINEL" "$HR_SENTINEL_TICKS"; then return 0; fi
  ((HR_CHILD_IS_SRUN && ! HR_CHILD_IS_AGENT)) && [[ $1 != URG ]] && hr::signal_child "$HR_SIGNAL"
}

# Signals our child, if it still is that process. Arguments: signal.
hr::signal_child() {
  hr::is_alive "$HR_CHILD" "$HR_CHILD_TICKS" || return 1
  kill -s "$1" "$HR_CHILD" 2>/dev/null && hr::event sent signal "\"$1\"" pid "$HR_CHILD"
}

# Delivers the warning. A training that has not announced itself is still starting, or is a plain program: one that
# handles the signal, or has run for longer than the lead, gets it from our own record of it; another has half of the
# time that is left to get ready, and is then terminated: there was nothing to save.
hr::warn() {
  local patience=$((HR_LEAD / 2)) since=$SECONDS said=0
  hr::signal_ranks "$HR_SIGNAL" && return 0
  if [[ $HR_FIRST_SIGNAL == TERM ]]; then
    hr::find_kill_wait
    patience=$((HR_KILL_WAIT / 2))
  elif [[ $HR_FIRST_SIGNAL == INT ]] || { hr::find_request "$HR_ATTEMPT_DIR" && [[ $REPLY == @(cancel|stop) ]]; }; then
    patience=$((patience < 5 ? patience : 5)) # somebody waits for it to end
  fi
  while hr::is_alive "$HR_CHILD" "$HR_CHILD_TICKS"; do
    hr::signal_ranks "$HR_SIGNAL" && return 0
    if ((! HR_CHILD_IS_AGENT)) && {
      ((SECONDS - HR_CHILD_SINCE >= HR_LEAD || (HR_CHILD_IS_SRUN && SECONDS - since >= patience))) ||
        { ((! HR_CHILD_IS_SRUN)) && hr::catches "$HR_CHILD" "$HR_SIGNAL"; }
    }; then
      hr::signal_child "$HR_SIGNAL"
      return 0
    fi
    if ((SECONDS - since >= patience || HR_INTERRUPTS > 1)); then
      hr::say "the training has not got ready in $patience s: it is terminated, with nothing to save"
      hr::terminate
      return 0
    fi
    if ((! said)); then
      said=1
      hr::say "warned before the training got ready: it has $patience s to do so"
    fi
    hr::pause 0.1
    hr::note
  done
}

# Ends our child and all its descendants with TERM.
hr::terminate() {
  HR_TERMINATED=1
  hr::event terminated pid "$HR_CHILD"
  hr::signal_family TERM
}

# Signals our child, then its descendants as they were before: a shell whose child died first would go on with its next
# command, or end with a code of its own. Each is checked before its signal. Arguments: signal.
hr::signal_family() {
  local one
  local -a family=()
  for one in $(hr::descendants "$HR_CHILD"); do
    if hr::start_ticks "$one"; then family+=("$one $REPLY"); fi
  done
  hr::signal_child "$1" || true
  for one in "${family[@]}"; do
    if hr::is_alive "${one% *}" "${one#* }"; then kill -s "$1" "${one% *}" 2>/dev/null || true; fi
  done
}

# Prints the descendants of a process, the deepest first. Arguments: pid.
hr::descendants() {
  local child
  hr::read_file "/proc/$1/task/$1/children" || return 0
  for child in $REPLY; do
    hr::descendants "$child"
    echo "$child"
  done
}

# Sets HR_KILL_WAIT to the seconds between Slurm's TERM and its KILL; 30 is Slurm's default.
# Where a signal goes to the whole process group (proctrack/pgid) it also ends a `$(...)` that has just been forked, and
# arithmetic on its empty output would end this script: nothing here, and no decision, calculates with such output.
hr::find_kill_wait() {
  local config=
  HR_KILL_WAIT=30
  if [[ $HR_SCHEDULER == slurm ]]; then config=$(timeout 5 scontrol show config 2>/dev/null) || config=; fi
  if [[ $config =~ KillWait[[:space:]]*=[[:space:]]*([0-9]+) ]]; then HR_KILL_WAIT=${BASH_REMATCH[1]}; fi
}
