# What follows from the cause: one table, first match wins. `hpc-resume explain` reads the same lines.
# Part of the runtime that every rendered script carries; it has no placeholders and runs nothing by itself.

# cause: as found, or * for any. requeued: Slurm has put the job back by itself. named: requeue.on asks for it (a crash
# has only its budget, an operator's signal asks for itself). budget, progress, total: what is left of requeue.max.
# A dash matches anything. The reason's <...> are filled in.
HR_DECISIONS=(
  # cause    requeued named budget progress total decision reason
  'finished  -        -     -      -        -     finish   the training ended by itself'
  'config    -        -     -      -        -     stop     exit code 78: it would fail again the same way'
  'cancelled -        -     -      -        -     stop     cancelled by its owner'
  '*         yes      no    -      -        -     stop     Slurm has requeued it, and requeue.on does not name <cause>: the next start is refused'
  '*         yes      -     -      -        -     slurm    Slurm has requeued it by itself'
  '*         -        no    -      -        -     stop     requeue.on does not name <cause>'
  '*         -        -     no     -        -     stop     requeue.max.<budget> is used up (<count> of <max>)'
  '*         -        -     -      no       -     hold     no newer checkpoint in <stalled> attempts in a row (requeue.max.no_progress: <max_stalled>)'
  '*         -        -     -      -        no    stop     requeue.max.total is used up (<max_total>)'
  'no_work   -        -     -      -        -     requeue  did no work, not charged'
  '*         -        -     -      -        -     requeue  within the budgets (<count> of <max> after <budget>)'
)

# Counts in earlier attempts and this one: sets HR_COUNT_<budget> (earlier ends with that cause), HR_COUNT_NO_PROGRESS
# (in a row, up to this one) and HR_COUNT_SHORT (those of the same row that lasted less than a minute).
hr::count_attempts() {
  local file text cause ended seconds before after
  HR_COUNT_TIMEOUT=0 HR_COUNT_PREEMPTED=0 HR_COUNT_CRASH=0 HR_COUNT_NO_PROGRESS=0 HR_COUNT_SHORT=0
  for file in "$HR_DIRECTORY"/attempts/[0-9]*/exit.json; do
    hr::read_file "$file" || continue
    text=$REPLY
    hr::json_get "$text" cause || continue
    cause=$REPLY
    case $cause in
      timeout) HR_COUNT_TIMEOUT=$((HR_COUNT_TIMEOUT + 1)) ;;
      preempted | operator | unknown) HR_COUNT_PREEMPTED=$((HR_COUNT_PREEMPTED + 1)) ;;
      crash) HR_COUNT_CRASH=$((HR_COUNT_CRASH + 1)) ;;
    esac
    hr::json_get "$text" ended && ended=${REPLY%.*} || ended=0
    hr::json_get "$text" started && seconds=$((ended - ${REPLY%.*})) || seconds=0
    hr::json_get "$text" step_before || true
    before=$REPLY
    hr::json_get "$text" step_after || true
    after=$REPLY
    hr::json_get "$text" announced || true
    if [[ $REPLY == true ]]; then after=${after:-0}; fi
    hr::count_progress "$cause" "$seconds" "${before:-0}" "$after"
  done
  after=$HR_STEP_AFTER
  if hr::has_run; then after=${after:-0}; fi
  hr::count_progress "$HR_CAUSE" $((HR_ENDED - HR_STARTED)) "${HR_STEP_BEFORE:-0}" "$after"
}

# An attempt interrupted within its first `lead` seconds had no chance to advance and is not held against the job.
# A plain program, which publishes nothing, is bound only by its other budgets.
# Arguments: cause, seconds the attempt lasted, step before, step after (empty: a plain program).
hr::count_progress() {
  # An agent has no checkpoint of its own, and its next start goes on with whatever run is given to it.
  if [[ -n $HR_SWEEP && $1 != crash ]]; then
    HR_COUNT_NO_PROGRESS=0 HR_COUNT_SHORT=0
    return 0
  fi
  if [[ -n $4 && $4 != "$3" ]]; then
    HR_COUNT_NO_PROGRESS=0 HR_COUNT_SHORT=0
    return 0
  fi
  if [[ $1 == crash || (-n $4 && $1 != no_work && $2 -ge $HR_LEAD) ]]; then
    HR_COUNT_NO_PROGRESS=$((HR_COUNT_NO_PROGRESS + 1))
  fi
  if (($2 < 60)); then HR_COUNT_SHORT=$((HR_COUNT_SHORT + 1)); else HR_COUNT_SHORT=0; fi
}

# Adds yes to HR_FACTS when the arithmetic condition holds, else no. Arguments: condition.
hr::add_fact() {
  if (($1)); then HR_FACTS+=" yes"; else HR_FACTS+=" no"; fi
}

# Sets REPLY to the budgets that hold for this attempt, as JSON: `hpc-resume explain` tells by them what is left,
# whatever job.yaml says by then.
hr::limits() {
  REPLY="{\"timeout\":$HR_MAX_TIMEOUT,\"preempted\":$HR_MAX_PREEMPTED,\"crash\":$HR_MAX_CRASH"
  REPLY+=",\"no_progress\":$HR_MAX_NO_PROGRESS,\"total\":$HR_MAX_TOTAL}"
}

# Decides from the cause and the counts alone. Sets HR_FACTS (the table's columns), HR_DECISION and HR_REASON.
hr::decide() {
  local named=yes budget=$HR_CAUSE count=0 max=-1
  case $HR_CAUSE in
    timeout) count=$HR_COUNT_TIMEOUT max=$HR_MAX_TIMEOUT ;;
    crash) count=$HR_COUNT_CRASH max=$HR_MAX_CRASH ;;
    preempted | operator | unknown) count=$HR_COUNT_PREEMPTED max=$HR_MAX_PREEMPTED budget=preempted ;;
  esac
  if [[ $HR_CAUSE == @(timeout|preempted|node_fail) && " ${HR_REQUEUE_ON[*]} " != *" $HR_CAUSE "* ]]; then named=no; fi
  HR_FACTS=$HR_CAUSE
  hr::add_fact HR_SLURM_REQUEUED
  HR_FACTS+=" $named"
  hr::add_fact "max < 0 || count < max"
  hr::add_fact "HR_MAX_NO_PROGRESS < 0 || HR_COUNT_NO_PROGRESS <= HR_MAX_NO_PROGRESS"
  hr::add_fact "HR_MAX_TOTAL < 0 || HR_ATTEMPT <= HR_MAX_TOTAL"
  hr::look_up "$HR_FACTS"
  HR_REASON=${HR_REASON//<cause>/$HR_CAUSE}
  HR_REASON=${HR_REASON//<budget>/$budget}
  HR_REASON=${HR_REASON//<count>/$count}
  if ((max < 0)); then max=unlimited; fi
  HR_REASON=${HR_REASON//<max>/$max}
  HR_REASON=${HR_REASON//<stalled>/$HR_COUNT_NO_PROGRESS}
  HR_REASON=${HR_REASON//<max_stalled>/$HR_MAX_NO_PROGRESS}
  HR_REASON=${HR_REASON//<max_total>/$HR_MAX_TOTAL}
}

# Sets HR_DECISION and HR_REASON from the first line of the table that matches. Arguments: the facts, in its columns.
hr::look_up() {
  local line column
  local -a facts row
  read -r -a facts <<<"$1"
  for line in "${HR_DECISIONS[@]}"; do
    read -r -a row <<<"$line"
    for column in 0 1 2 3 4 5; do
      if [[ ${row[column]} != [-*] && ${row[column]} != "${facts[column]}" ]]; then continue 2; fi
    done
    HR_DECISION=${row[6]} HR_REASON=${row[*]:7}
    return 0
  done
}

# Sets REPLY to the seconds a requeued job should wait: a start that led nowhere within a minute, again and again, is
# tried less and less often (half a minute, a minute, ... half an hour).
hr::back_off() {
  local exponent=$((HR_COUNT_SHORT - 2))
  if ((exponent < 0)); then
    REPLY=0
  elif ((exponent > 5)); then
    REPLY=1800
  else
    REPLY=$((30 << exponent))
  fi
}
