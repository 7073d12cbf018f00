"""What one cluster's slurm.conf says, and a block of ports that no other cluster of this machine has.

Everything a machine shares is derived from the block of ports: node names too, since cgroup v1 keeps a job under
/sys/fs/cgroup/freezer/slurm_<node>, where two clusters with a node `n1` would freeze each other's jobs.
"""

from __future__ import annotations

import getpass
import os
import random
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

FREEZER = Path("/sys/fs/cgroup/freezer")

# Below the ports that Linux gives to outgoing connections (32768 and up), so that none of those takes one of ours.
PORT_BLOCKS = range(17000, 31000, 10)
# For a cluster of more nodes than fit into one of those; apart from them, so that guards see all of their own kind.
WIDE_PORT_BLOCKS = range(10000, 17000, 100)
# In a block: one guard, slurmctld, then the nodes.
GUARD, CONTROLLER, FIRST_NODE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Shape:
    """The values of one slurm.conf that differ between clusters, or in the life of one."""

    directory: Path
    port: int  # first of its block
    first_job_id: int
    version: str  # of Slurm: "22.05.8"
    munge: bool  # else auth/none
    cgroup: bool  # processes tracked by cgroup, else by process group
    nodes: int = 3
    patience: int = 0  # GraceTime of one more preemptible partition, `patient`; 0: there is none
    kill_wait: int = 5  # seconds between SIGTERM and SIGKILL
    user_signal: bool = False  # --signal is delivered at the start of a preemption's grace time

    @property
    def node_names(self) -> tuple[str, ...]:
        """Unique on this machine while the ports are held."""
        return tuple(f"p{self.port}n{number}" for number in range(1, self.nodes + 1))


def shape_here(directory: Path, port: int, version: str, *, nodes: int = 3, patience: int = 0) -> Shape:
    """The shape this machine and this user allow."""
    root = os.geteuid() == 0
    return Shape(
        directory=directory,
        port=port,
        # A job's cgroup that a killed cluster left behind must not meet a new job of the same number.
        first_job_id=random.randrange(1000, 9_000_000, 1000),
        version=version,
        munge=root,
        # pgid loses what calls setsid, linuxproc orphans (jobs hang in CG); cgroup wants root and the v1 freezer.
        cgroup=root and os.access(FREEZER, os.W_OK),
        nodes=nodes,
        patience=patience,
    )


@contextmanager
def port_block(size: int) -> Iterator[int]:
    """The first port of a free block, guarded against other clusters until the block is left.

    The guard makes two clusters that start at the same moment choose differently; once the daemons listen, they are
    their own guard.
    """
    blocks = PORT_BLOCKS if size <= PORT_BLOCKS.step else WIDE_PORT_BLOCKS
    start = random.randrange(len(blocks))
    for index in range(len(blocks)):
        port = blocks[(start + index) % len(blocks)]
        with closing(socket.socket()) as guard:
            if _binds(guard, port) and all(_is_free(port + offset) for offset in range(1, size)):
                yield port
                return
    raise OSError(f"no {size} free ports in a row between {blocks.start} and {blocks.stop}")


def _binds(sock: socket.socket, port: int) -> bool:
    try:
        sock.bind(("0.0.0.0", port))
    except OSError:
        return False
    return True


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as sock:
        return _binds(sock, port)


def user_signal_line(version: str) -> str:
    """The setting changed its home: 22.05 takes the new spelling for a parse error, in every command."""
    year = int(version.partition(".")[0])
    return "PreemptParameters=send_user_signal" if year >= 23 else "SlurmctldParameters=preempt_send_user_signal"


def slurm_conf(shape: Shape) -> str:
    """The text of slurm.conf. Short times throughout: tests wait for them."""
    home = shape.directory
    auth = "munge" if shape.munge else "none"
    socket_of = f"socket={home}/munge/socket," if shape.munge else ""
    first = shape.port + FIRST_NODE
    patient = "PartitionName=patient Nodes=ALL MaxTime=UNLIMITED PriorityTier=1 PreemptMode=REQUEUE"
    patient = f"{patient} GraceTime={shape.patience}\n" if shape.patience else ""
    return f"""\
ClusterName=hpcresume
SlurmctldHost={socket.gethostname().split(".")[0]}(127.0.0.1)
SlurmctldPort={shape.port + CONTROLLER}
SlurmUser={getpass.getuser()}
SlurmdUser={getpass.getuser()}
AuthType=auth/{auth}
CredType=cred/{auth}
# cred_expire is also how long a requeued job waits: 5 s give 6 to 8 s instead of two minutes.
AuthInfo={socket_of}cred_expire=5
FirstJobId={shape.first_job_id}
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool/%n
SlurmctldPidFile={home}/pid/slurmctld
SlurmdPidFile={home}/pid/%n
SlurmctldLogFile={home}/log/slurmctld.log
SlurmdLogFile={home}/log/%n.log
JobCompType=jobcomp/filetxt
JobCompLoc={home}/log/jobcomp.log
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ProctrackType=proctrack/{"cgroup" if shape.cgroup else "pgid"}
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=100
# Nodes are as large as we say, whatever the machine has.
SlurmdParameters=config_overrides
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1,bf_resolution=1
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{user_signal_line(shape.version) if shape.user_signal else ""}
JobRequeue=1
KillWait={shape.kill_wait}
OverTimeLimit=0
CompleteWait=0
InactiveLimit=0
MinJobAge=600
# With 10 a node was drained while slurmctld was away.
UnkillableStepTimeout=60
MessageTimeout=10
SlurmctldTimeout=10
SlurmdTimeout=15
MaxArraySize=20001
MaxJobCount=50000
NodeName=p{shape.port}n[1-{shape.nodes}] NodeAddr=127.0.0.1 Port=[{first}-{first + shape.nodes - 1}] CPUs=8 RealMemory=6000
PartitionName=normal Nodes=ALL Default=YES MaxTime=UNLIMITED PriorityTier=5 PreemptMode=OFF
PartitionName=low Nodes=ALL MaxTime=UNLIMITED PriorityTier=1 PreemptMode=REQUEUE GraceTime=0
PartitionName=high Nodes=ALL MaxTime=UNLIMITED PriorityTier=10 PreemptMode=OFF
{patient}"""
