# Nothing is left behind: what carries this attempt in its environment and outlives the training is ended, and named.
# Part of the runtime that every rendered script carries; it has no placeholders and runs nothing by itself.

# Ends what the training has left: TERM, a wait, KILL; each process checked before each signal. Costs one look at /proc.
# Globals: HR_ATTEMPT_DIR HR_SHELL_PID.
hr::end_orphans() {
  local tries
  HR_ORPHANS=()
  hr::find_orphans
  # A helper of the training (W&B's, a data loader's) may just be ending by itself.
  for ((tries = 0; tries < 5 && ${#HR_ORPHANS[@]} > 0; tries++)); do
    hr::pause 0.1
    hr::keep_living
  done
  ((${#HR_ORPHANS[@]} > 0)) || return 0
  hr::say "ends what the training has left behind: $(hr::name_orphans)"
  hr::event orphans count "${#HR_ORPHANS[@]}"
  hr::signal_orphans TERM
  for ((tries = 0; tries < 20 && ${#HR_ORPHANS[@]} > 0; tries++)); do
    hr::pause 0.1
    hr::keep_living
  done
  ((${#HR_ORPHANS[@]} > 0)) || return 0
  hr::find_orphans # one that was told to end may have started another
  hr::signal_orphans KILL
  for ((tries = 0; tries < 10 && ${#HR_ORPHANS[@]} > 0; tries++)); do
    hr::pause 0.1
    hr::keep_living
  done
  if ((${#HR_ORPHANS[@]} > 0)); then hr::say "could not end: $(hr::name_orphans)"; fi
}

# Sets HR_ORPHANS to "pid ticks" of every process of this attempt that is neither ours nor an ancestor of ours. A job
# that the training has submitted carries the attempt too, until its own script starts: it has another job id.
hr::find_orphans() {
  local file pid mine
  HR_ORPHANS=()
  mine=" $(hr::ancestors "$BASHPID") "
  while IFS= read -r file; do
    pid=${file#/proc/}
    pid=${pid%/environ}
    if [[ $mine == *" $pid "* ]]; then continue; fi
    if [[ $HR_SCHEDULER == slurm ]] && ! grep -qzFx "SLURM_JOB_ID=${SLURM_JOB_ID:-}" "$file" 2>/dev/null; then continue; fi
    if hr::start_ticks "$pid"; then HR_ORPHANS+=("$pid $REPLY"); fi
  done < <(grep -lzFx -e "HPC_RESUME_ATTEMPT_DIR=$HR_ATTEMPT_DIR" -e "HPC_RESUME_ALLOCATION=$HR_ATTEMPT_DIR" \
    /proc/[0-9]*/environ 2>/dev/null)
}

# Forgets those that have ended.
hr::keep_living() {
  local one
  local -a living=()
  for one in "${HR_ORPHANS[@]}"; do
    if hr::is_alive "${one% *}" "${one#* }"; then living+=("$one"); fi
  done
  HR_ORPHANS=("${living[@]}")
}

# Signals each that still is the one that was found. Arguments: signal.
hr::signal_orphans() {
  local one
  for one in "${HR_ORPHANS[@]}"; do
    if hr::is_alive "${one% *}" "${one#* }"; then kill -s "$1" "${one% *}" 2>/dev/null || true; fi
  done
}

# Prints their names and pids.
hr::name_orphans() {
  local one name names=
  for one in "${HR_ORPHANS[@]}"; do
    hr::read_file "/proc/${one% *}/comm" && name=${REPLY%$'\n'} || name='?'
    names+=", $name (${one% *})"
  done
  echo "${names#, }"
}

# Prints a process and its ancestors. Arguments: pid.
hr::ancestors() {
  local pid=$1 pids=
  local -a fields
  while ((pid > 0)); do
    pids+=" $pid"
    hr::read_file "/proc/$pid/stat" || break
    read -r -a fields <<<"${REPLY##*) }" # fields[1] is field 4 of proc(5): the parent
    pid=${fields[1]}
  done
  echo "$pids"
}
