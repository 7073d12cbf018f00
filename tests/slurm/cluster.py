"""A real Slurm cluster without systemd in a directory of its own: up in well under two seconds, gone without a trace.

munged (for root; any other user gets auth/none), slurmctld and three slurmd, with the partitions low (preempted by
requeue), normal and high. Several clusters live side by side on one machine. Only the standard library is needed.

    with Cluster() as cluster:
        job = cluster.sbatch(script="#!/bin/bash\\nhostname\\n", cwd=tmp_path)
        cluster.wait_state(job, "COMPLETED", seconds=10)

`python tests/slurm/cluster.py shell` (`make slurm`) gives a person the same cluster; `up DIR` and `down DIR` are for
scripts.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Self, TypeVar

import cluster_processes as processes
from cluster_conf import FIRST_NODE, FREEZER, Shape, port_block, shape_here, slurm_conf

T = TypeVar("T")
PATIENCE = 3  # a slow machine is no failure, and a deadline costs nothing when it is not reached

ACTIVE = "PENDING,CONFIGURING,RUNNING,SUSPENDED,COMPLETING,REQUEUED,REQUEUE_HOLD,SPECIAL_EXIT,STOPPED"
# Of a job that a test runs in, or of a person's taste: neither may reach our commands.
FOREIGN = re.compile(r"(SLURM|SLURMD|SBATCH|SQUEUE|SCONTROL|SINFO|SACCT|SRUN|SALLOC|SCANCEL|MUNGE)_")
WITH_SBIN = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


class ClusterError(Exception):
    """A daemon or a command of Slurm failed; its own words are in the message."""


def installed() -> bool:
    """Whether this machine has the programs that a cluster needs."""
    return all(shutil.which(name, path=WITH_SBIN) for name in ("slurmctld", "slurmd", "sbatch"))


def wait_for(predicate: Callable[[], T], seconds: float, what: str, interval: float = 0.05) -> T:
    """The first true answer of `predicate`; AssertionError naming `what` and the last answer after PATIENCE * `seconds`."""
    seconds *= PATIENCE
    deadline = time.monotonic() + seconds
    while True:
        answer = predicate()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s for {what}; last answer: {answer!r}")
        time.sleep(interval)


class Cluster:
    """One cluster, up between `__enter__` and `__exit__` (or `up` and `down`)."""

    def __init__(self, directory: Path | None = None, *, nodes: int = 3, patience: int = 0) -> None:
        """Live in `directory`, which must be new or empty, or in a temporary one that `down` deletes.

        `patience`: seconds of GraceTime of a fourth partition, `patient`; without it there is none.
        """
        self.directory = (directory or Path(tempfile.mkdtemp(prefix="slurm-"))).resolve()
        self.conf = self.directory / "etc" / "slurm.conf"
        inherited = {name: value for name, value in os.environ.items() if not FOREIGN.match(name)}
        # For every command that is to talk to this cluster, and the mark by which its processes are known.
        self.env = {**inherited, "SLURM_CONF": str(self.conf), "PATH": WITH_SBIN}
        self._size, self._patience = nodes, patience
        self._shape: Shape | None = None
        self._grace: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self.up()

    def __exit__(self, *_: object) -> None:
        self.down()

    # --- life ---------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> Shape:
        if self._shape is None:
            raise ClusterError("the cluster is not up")
        return self._shape

    @property
    def nodes(self) -> tuple[str, ...]:
        return self.shape.node_names

    def up(self) -> Self:
        """Write the configuration, start every daemon, return when all nodes are idle. All or nothing."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if any(self.directory.iterdir()):
            raise ClusterError(f"{self.directory} is not empty; a cluster makes its own files there")
        try:
            self._start_all()
        except BaseException:
            self.down()
            raise
        return self

    def _start_all(self) -> None:
        self.directory.chmod(0o755)
        for name in ("etc", "log", "pid", "state", "spool", "munge"):
            (self.directory / name).mkdir(mode=0o755)
        self.conf.touch()
        with port_block(FIRST_NODE + self._size) as port:
            version = self.check("slurmctld", "-V").split()[-1]
            self._configure(shape_here(self.directory, port, version, nodes=self._size, patience=self._patience))
            if self.shape.munge:
                self._start_munge()
            self.start_controller()
            for node in self.nodes:
                (self.directory / "spool" / node).mkdir(mode=0o755)
                self.start_node(node)
            self._await_nodes()

    def down(self) -> None:
        """End every process of this cluster and delete its directory. Also right for one that never came up.

        Raises ClusterError for a directory that is not a cluster's.
        """
        if not self.conf.exists():
            raise ClusterError(f"no cluster in {self.directory}: {self.conf} does not exist")
        nodes = [entry.name for entry in (self.directory / "spool").glob("*")]
        self._end("slurmd")  # first: it would restart nothing, but report the deaths that follow
        self._end("slurmctld", "slurmscriptd")
        for _ in range(10):  # a dying job can fork while its processes are being listed
            if not self._end("slurmstepd", "job"):
                break
        self._end("munged")
        for node in nodes:
            _remove_cgroup(FREEZER / f"slurm_{node}")
        shutil.rmtree(self.directory, ignore_errors=True)
        self._shape = None

    def _configure(self, shape: Shape) -> None:
        self._shape = shape
        self.conf.write_text(slurm_conf(shape))
        (self.conf.parent / "cgroup.conf").write_text("CgroupAutomount=no\nCgroupPlugin=autodetect\n")

    def _start_munge(self) -> None:
        home = self.directory / "munge"
        key = home / "key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        files = {"socket": home / "socket", "key-file": key, "pid-file": self.directory / "pid" / "munged"}
        files |= {"log-file": self.directory / "log" / "munged.log", "seed-file": home / "seed"}
        self._start("munged", "munged", "--force", *(f"--{name}={path}" for name, path in files.items()))

    def start_controller(self) -> None:
        self._start("slurmctld", "slurmctld", "-f", str(self.conf))
        wait_for(lambda: self._run("scontrol", "ping").returncode == 0, 10, "slurmctld to answer")

    def start_node(self, node: str) -> None:
        """Start `node`'s slurmd; as root in a UTS namespace, so that `hostname` in a job answers the node's name."""
        slurmd = ("slurmd", "-N", node, "-f", str(self.conf))
        if os.geteuid() == 0:
            slurmd = ("unshare", "--uts", "sh", "-c", 'hostname "$1"; shift; exec "$@"', "sh", node, *slurmd)
        self._start(node, *slurmd)

    def kill_controller(self) -> None:
        """Kill -9, as when its machine dies: forgets the last seconds, even whole jobs (saved every 5 s or so)."""
        self._end("slurmctld", "slurmscriptd")

    def stop_controller(self) -> None:
        """SIGTERM: all state is saved. The outage that a running job sees is the same as after `kill_controller`."""
        self._end("slurmctld", sig=signal.SIGTERM)

    def kill_node(self, node: str) -> None:
        """Kill -9 of the node's slurmd alone: its jobs live on, as they do when slurmd crashes."""
        self._end("slurmd", node=node)

    def _start(self, name: str, *command: str) -> None:
        with (self.directory / "log" / f"{name}.out").open("w+") as out:
            done = subprocess.run(
                command, env=self.env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=90, check=False
            )
            out.seek(0)
            if done.returncode:
                raise ClusterError(f"{name} did not start (exit {done.returncode}): {out.read().strip()}")

    def _end(self, *roles: str, node: str = "", sig: signal.Signals = signal.SIGKILL) -> bool:
        found = [p for p in processes.find(self.conf) if p.role in roles and (not node or p.node == node)]
        processes.end(found, self.conf, sig)
        return bool(found)

    def _await_nodes(self) -> None:
        def idle() -> bool:
            return self.check("sinfo", "-h", "-p", "normal", "-t", "idle", "-o", "%D").strip() == str(len(self.nodes))

        wait_for(idle, 20, f"{len(self.nodes)} idle nodes; see {self.directory}/log", interval=0.01)

    # --- commands -----------------------------------------------------------------------------------------------

    def _run(self, *command: str, text: str | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=self.env, cwd=cwd, input=text or "", capture_output=True, text=True, timeout=90, check=False
        )

    def check(self, *command: str, text: str | None = None, cwd: Path | None = None) -> str:
        """The standard output of a command that must succeed; ClusterError with its own words otherwise."""
        done = self._run(*command, text=text, cwd=cwd)
        if done.returncode:
            raise ClusterError(f"{' '.join(command)}: exit {done.returncode}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def sbatch(self, *options: str, script: str | Path, cwd: Path) -> str:
        """Submit a script (its text, or its file) from `cwd`; the job's id."""
        text, files = (None, [str(script)]) if isinstance(script, Path) else (script, [])
        return self.check("sbatch", "--parsable", *options, *files, text=text, cwd=cwd).split(";")[0].strip()

    def show(self, job: str) -> dict[str, str]:
        """`scontrol show job` of one job or array task."""
        line = self.check("scontrol", "show", "job", "-o", job).splitlines()[0]
        return dict(re.findall(r"(?:^| )([A-Za-z][\w/:]*)=(.*?)(?= [A-Za-z][\w/:]*=|$)", line))

    def state(self, job: str) -> str:
        return self.show(job)["JobState"]

    def wait_state(self, job: str, *states: str, seconds: float) -> dict[str, str]:
        """Wait until the job is in one of `states`; what `show` then says."""
        shown: dict[str, str] = {}

        def reached() -> bool:
            shown.update(self.show(job))
            return shown["JobState"] in states

        try:
            wait_for(reached, seconds, "")
        except AssertionError:
            raise AssertionError(f"waited {seconds:g} s for {' or '.join(states)}; job {job}: {shown}") from None
        return shown

    def queue(self) -> list[str]:
        """Ids of all jobs that are not over (array tasks as 12_3)."""
        return self.check("squeue", "-h", "-r", "-t", ACTIVE, "-o", "%i").split()

    def completions(self) -> list[dict[str, str]]:
        """One entry for every run of every job that ended, requeued ones included, oldest first."""
        log = self.directory / "log" / "jobcomp.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [dict(re.findall(r"(\w+)=(.*?)(?= \w+=|$)", line)) for line in lines]

    # --- settings that tests change -----------------------------------------------------------------------------

    def set_grace(self, partition: str, seconds: int) -> None:
        """Seconds between the decision to preempt a job of `partition` and its SIGTERM."""
        self.check("scontrol", "update", f"PartitionName={partition}", f"GraceTime={seconds}")
        self._grace[partition] = seconds

    def set_kill_wait(self, seconds: int = 5) -> None:
        """Seconds between the SIGTERM and the SIGKILL of a job that is ended; Slurm's own default is 30."""
        if self.shape.kill_wait != seconds:
            self._configure(replace(self.shape, kill_wait=seconds))
            self.check("scontrol", "reconfigure")

    def set_user_signal(self, wanted: bool) -> None:
        """Whether a preempted job's --signal is delivered at the start of its grace time."""
        if self.shape.user_signal != wanted:
            self._configure(replace(self.shape, user_signal=wanted))
            self.check("scontrol", "reconfigure")

    def restore(self) -> None:
        """End all jobs, bring back what was killed, undo all settings: as after `up`."""
        alive = {(process.role, process.node) for process in processes.find(self.conf)}
        if ("slurmctld", "") not in alive:
            self.start_controller()
        for node in self.nodes:
            if ("slurmd", node) not in alive:
                self.start_node(node)
        self.cancel_all()
        for partition in [name for name, seconds in self._grace.items() if seconds]:
            self.set_grace(partition, 0)
        self.set_user_signal(False)
        self.set_kill_wait()
        down = self.check("sinfo", "-h", "-N", "-p", "normal", "-t", "down,drain,fail", "-o", "%N").split()
        if down:
            self._run("scontrol", "update", f"NodeName={','.join(down)}", "State=RESUME")
        self._await_nodes()

    def cancel_all(self) -> None:
        """End every job at once, also one that ignores SIGTERM, and wait until queue and process table are empty."""

        patience = time.monotonic() + 2

        def gone() -> bool:
            jobs = self.queue()
            if jobs:
                self._run("scancel", *jobs)
            self._end("job")  # after scancel, so that the deaths are a cancellation and nothing is requeued
            if time.monotonic() > patience:
                self._end("slurmstepd")  # one whose slurmd was killed in the middle of a launch waits for ever
            return not jobs and not any(process.role == "slurmstepd" for process in processes.find(self.conf))

        wait_for(gone, 20, "all jobs to be gone")


def _remove_cgroup(top: Path) -> None:
    # Children first; a cgroup directory is removed by rmdir though it shows files.
    for directory, _, _ in os.walk(top, topdown=False):
        with suppress(OSError):
            Path(directory).rmdir()


# --- for a person -------------------------------------------------------------------------------------------------


def shell() -> int:
    """An interactive shell on a new cluster, which ends with it; the shell's exit status."""
    with Cluster() as cluster:
        rc = cluster.directory / "bashrc"
        rc.write_text('[ -r ~/.bashrc ] && . ~/.bashrc\nPS1="(slurm) ${PS1-\\$ }"\n')
        print(f"nodes {', '.join(cluster.nodes)}; partitions low (preemptible), normal, high", file=sys.stderr)
        print(f"sinfo, sbatch, squeue ... work here; logs and slurm.conf are in {cluster.directory}", file=sys.stderr)
        print(f"other terminals join it with: export SLURM_CONF={shlex.quote(str(cluster.conf))}", file=sys.stderr)
        print("exit or Ctrl-D ends the cluster and its jobs", file=sys.stderr)
        # The shell gets Ctrl-C too and knows what to do; a handler, unlike SIG_IGN, is not inherited by it.
        signal.signal(signal.SIGINT, lambda *_: None)
        return subprocess.run(["bash", "--rcfile", str(rc)], env=cluster.env, check=False).returncode


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("shell", help="a shell on a new cluster, which ends with it")
    commands.add_parser("up", help="start a cluster in DIR and leave it").add_argument("directory", type=Path)
    commands.add_parser("down", help="end the cluster in DIR").add_argument("directory", type=Path)
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    if not installed():
        print("Slurm is not installed; on Debian: apt-get install slurm-wlm munge", file=sys.stderr)
        return 1
    try:
        if options.command == "shell":
            return shell()
        cluster = Cluster(options.directory)
        if options.command == "down":
            cluster.down()
            return 0
        print(f"export SLURM_CONF={cluster.up().conf}")
    except (ClusterError, OSError, AssertionError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
