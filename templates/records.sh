# Facts on disk, as bash writes and reads them: JSON lines, PID records, events. One writer each, written atomically.
# Part of the runtime that every rendered script carries; it has no placeholders and runs nothing by itself.

# Sets REPLY to "$1" as a JSON string.
# Arguments: text.
hr::json_string() {
  local text=$1 char code i
  text=${text//\\/\\\\}
  text=${text//\"/\\\"}
  text=${text//$'\n'/\\n}
  text=${text//$'\t'/\\t}
  text=${text//$'\r'/\\r}
  if [[ $text == *[[:cntrl:]]* ]]; then
    REPLY=
    for ((i = 0; i < ${#text}; i++)); do
      char=${text:i:1}
      if [[ $char == [[:cntrl:]] ]]; then
        printf -v code '%d' "'$char"
        printf -v char '\\u%04x' "$code"
      fi
      REPLY+=$char
    done
    text=$REPLY
  fi
  REPLY="\"$text\""
}

# Sets REPLY to a JSON object of this format version. Arguments: key value pairs. The value of a key that ends with a
# colon is text and is quoted; another is JSON as it is, null when empty.
hr::json_object() {
  local key value object='{"version":1'
  while (($# >= 2)); do
    key=$1 value=${2:-null}
    if [[ $key == *: ]]; then
      hr::json_string "$2"
      key=${key%:} value=$REPLY
    fi
    object+=",\"$key\":$value"
    shift 2
  done
  REPLY=$object'}'
}

# Sets REPLY to the value of a key in one line of flat JSON, without quotes; fails when the key is not there or null.
# Arguments: JSON text, key. Only for keys that hold numbers or plain words: escapes are not undone.
hr::json_get() {
  local pattern="\"$2\": ?(\"([^\"]*)\"|-?[0-9.]+|true|false)"
  REPLY=
  [[ $1 =~ $pattern ]] || return 1
  REPLY=${BASH_REMATCH[1]}
  if [[ $REPLY == \"* ]]; then REPLY=${BASH_REMATCH[2]}; fi
}

# Sets REPLY to the content of a small file, without a fork; fails when it cannot be read.
# Arguments: path.
hr::read_file() {
  REPLY=
  { IFS= read -r -d '' REPLY <"$1"; } 2>/dev/null || [[ -n $REPLY ]]
}

# Replaces a file by a whole new one: written beside it, synced, renamed. Nobody ever reads half of it.
# Arguments: path, text. Returns non-zero, and says why on stderr, when the text is not safely there.
hr::write_file() {
  local temporary="$1.tmp.$BASHPID"
  if (
    umask 077
    printf '%s\n' "$2" >"$temporary" && sync "$temporary" && mv -f "$temporary" "$1"
  ); then
    return 0
  fi
  rm -f "$temporary"
  hr::say "could not write $1 (no space, quota or permission?)"
  return 1
}

# Sets REPLY to the time in seconds since 1970, with a fraction. EPOCHREALTIME came with bash 5; 4.4 is our floor.
hr::now() {
  if [[ -n ${EPOCHREALTIME:-} ]]; then
    REPLY=${EPOCHREALTIME/,/.}
  else
    REPLY=$(date +%s.%N)
  fi
}

# Words for the person: stderr, which under sbatch is the job's log.
hr::say() {
  printf 'hpc_resume: %s\n' "$*" >&2
}

# Appends one event to this shell's own file.
# Globals: HR_ATTEMPT_DIR HR_HOST; HR_AT, when it happened, if not now.
# Arguments: name, then key value pairs; the values are JSON already.
hr::event() {
  local line
  [[ -n ${HR_ATTEMPT_DIR:-} ]] || return 0
  hr::now
  line="{\"t\":${HR_AT:-$REPLY},\"event\":\"$1\""
  shift
  while (($# >= 2)); do
    line+=",\"$1\":$2"
    shift 2
  done
  { printf '%s}\n' "$line" >>"$HR_ATTEMPT_DIR/events/$HR_HOST.$HR_SHELL_PID.jsonl"; } 2>/dev/null || true
}

# Sets REPLY to a process's start time in clock ticks since boot; fails when the process is gone or a zombie.
# The command name in /proc/PID/stat may hold spaces, parentheses and newlines: cut after the last ")".
# Arguments: pid.
hr::start_ticks() {
  local -a fields
  hr::read_file "/proc/$1/stat" || return 1
  read -r -a fields <<<"${REPLY##*) }" # fields[0] is field 3 of proc(5): the state
  REPLY=${fields[19]:-}
  [[ -n $REPLY && ${fields[0]} != [ZXx] ]]
}

# Tells whether a process still is the one that was recorded.
# Arguments: pid, start ticks.
hr::is_alive() {
  local ticks=${2:-}
  [[ -n $ticks ]] && hr::start_ticks "$1" && [[ $REPLY == "$ticks" ]]
}

# Tells whether a process has installed a handler for a signal (SigCgt in /proc/PID/status).
# Arguments: pid, signal name without SIG.
hr::catches() {
  local number mask
  number=$(kill -l "$2") || return 1
  hr::read_file "/proc/$1/status" || return 1
  [[ $REPLY =~ SigCgt:[[:space:]]*([0-9a-f]+) ]] || return 1
  mask=$((16#${BASH_REMATCH[1]}))
  (((mask >> (number - 1)) & 1))
}

# Writes the launcher's own record of its child, in the form of the training's records.
# Globals: HR_CHILD HR_CHILD_TICKS HR_ATTEMPT_DIR HR_HOST HR_BOOT_ID HR_JOB_ID HR_RESTARTS HR_SIGNAL.
hr::record_child() {
  hr::json_object pid "$HR_CHILD" start_ticks "${HR_CHILD_TICKS:-0}" boot_id: "$HR_BOOT_ID" host: "$HR_HOST" \
    rank: child job_id: "$HR_JOB_ID" restart_count "$HR_RESTARTS" signal: "$HR_SIGNAL"
  hr::write_file "$HR_ATTEMPT_DIR/pids/$HR_HOST.child.json" "$REPLY"
}

# Signals the process of one PID record, if it is still that very process on this very boot of this host.
# Arguments: record file, signal. Returns 0 signalled; 1 gone or not ours; 2 it lives on another host.
hr::signal_record() {
  local text pid ticks ns=0
  hr::read_file "$1" || return 1
  text=$REPLY
  hr::json_get "$text" pid_ns && ns=$REPLY
  if ((ns == HR_PID_NS)); then ns=0; fi
  hr::json_get "$text" boot_id && local boot=$REPLY || return 1
  # A container may have a host name of its own: the boot tells it from another host.
  hr::json_get "$text" host || return 2
  [[ $REPLY == "$HR_HOST" ]] || { ((ns != 0)) && [[ $boot == "$HR_BOOT_ID" ]]; } || return 2
  [[ $boot == "$HR_BOOT_ID" ]] || return 1
  hr::json_get "$text" pid && [[ $REPLY =~ ^[1-9][0-9]*$ ]] || return 1
  pid=$REPLY
  hr::json_get "$text" start_ticks || return 1
  ticks=$REPLY
  if ((ns != 0)); then
    hr::find_outside "$pid" "$ticks" "$ns" && pid=$REPLY || return 1
  fi
  hr::now
  local HR_AT=$REPLY # the other side may have written that it heard before we write that we sent
  hr::is_alive "$pid" "$ticks" && kill -s "$2" "$pid" 2>/dev/null || return 1
  hr::event sent signal "\"$2\"" pid "$pid"
}

# Sets REPLY to the pid that a process of an inner PID namespace (a container's) has out here; fails when there is none.
# Start ticks are the same from every namespace. A namespace that we may not look at is no reason against it.
# Arguments: pid inside, start ticks, inode of its namespace.
hr::find_outside() {
  local file pid inode
  while IFS= read -r file; do
    pid=${file#/proc/}
    pid=${pid%/status}
    inode=$(stat -Lc %i "/proc/$pid/ns/pid" 2>/dev/null) || inode=$3
    if [[ $inode == "$3" ]] && hr::is_alive "$pid" "$2"; then
      REPLY=$pid
      return 0
    fi
  done < <(grep -lE "^NSpid:[[:space:]].*[[:space:]]$1\$" /proc/[0-9]*/status 2>/dev/null)
  return 1
}

# Reads a line from a descriptor, but only for so long, and not beyond a caught signal: outside posix mode `read` goes
# on after a trap. What had come of an unfinished line is in REPLY.
# Arguments: descriptor, seconds. Returns non-zero without a whole line.
hr::read_for() {
  local status=0
  REPLY=
  set -o posix
  read -r -t "$2" -u "$1" 2>/dev/null || status=$?
  set +o posix
  return "$status"
}

# Sleeps without a process of its own, at most until a signal is caught: reads where nothing is ever written. A signal
# that comes right before is noticed only afterwards: keep it short.
# Arguments: seconds.
hr::pause() {
  local REPLY
  if [[ -z ${HR_NEVER:-} ]]; then exec {HR_NEVER}<> <(:); fi
  hr::read_for "$HR_NEVER" "$1" || true
}
