# Many ranks: where they meet, and what starts them.
# Part of the runtime that every rendered script carries; it has no placeholders and runs nothing by itself.

# Exports MASTER_ADDR and MASTER_PORT, which PyTorch's ranks meet by: the node of rank 0, and a port that nothing on it
# has open. It depends on the job's own id (each array task has one), so jobs that start together on one node differ, and
# it lies below the ports that the kernel gives to outgoing connections.
# Globals: HR_RANKS HR_SCHEDULER HR_HOST.
hr::export_rendezvous() {
  local node='' address=127.0.0.1
  local -i port tries
  ((HR_RANKS)) || return 0
  if ((${SLURM_JOB_NUM_NODES:-1} > 1)); then
    address=$HR_HOST
    node=$(timeout 10 scontrol show node -o "${SLURMD_NODENAME:-$HR_HOST}" 2>/dev/null) || node=
    if hr::job_field "$node" NodeAddr && [[ -n $REPLY ]]; then address=$REPLY; fi
  fi
  port=$((10000 + ${SLURM_JOB_ID:-$HR_SHELL_PID} % 20000))
  for ((tries = 0; tries < 100; tries++)); do
    hr::is_port_open "$port" || break
    port=$((10000 + (port - 9900) % 20000))
  done
  export MASTER_ADDR=$address MASTER_PORT=$port
}

# Tells whether anything on this host uses a TCP port. Arguments: port.
hr::is_port_open() {
  local hex
  printf -v hex '%04X' "$1"
  grep -qsE "^ *[0-9]+: [0-9A-F]+:$hex " /proc/net/tcp /proc/net/tcp6
}

# Tells whether a command is an agent that starts the ranks itself (torchrun, accelerate, mpirun): it dies of a warning
# that is meant for them, or kills them for it. Looks no further than the training's own file.
# Arguments: the command's words.
hr::is_agent() {
  local word
  for word; do
    case ${word##*/} in
      torchrun | accelerate | mpirun | mpiexec | deepspeed | torch.distributed.run | torch.distributed.launch) return 0 ;;
      *.py) return 1 ;;
    esac
  done
  return 1
}
