"""The cluster that all other Slurm tests stand on: quick, alone, and gone without a trace."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cluster as module
import cluster_processes as processes
import pexpect
import pytest
from cluster import Cluster, ClusterError, wait_for
from cluster_conf import FREEZER

STUBBORN = "#!/bin/bash\ntrap '' TERM USR1\nwhile :; do sleep 0.1; done\n"


def await_job_process(cluster):
    # Slurm says RUNNING before the batch shell exists.
    wait_for(lambda: [p for p in processes.find(cluster.conf) if p.role == "job"], 10, "a job's process")


def test_up_in_two_seconds_and_down_leaves_no_process_and_no_file():
    started = time.monotonic()
    cluster = Cluster().up()
    seconds = time.monotonic() - started
    cluster.sbatch(script=STUBBORN, cwd=cluster.directory)
    await_job_process(cluster)
    nodes = cluster.nodes
    assert {p.role for p in processes.find(cluster.conf)} >= {"slurmctld", "slurmd", "slurmstepd", "job"}
    cluster.down()
    assert seconds < 2
    assert processes.find(cluster.conf) == []
    assert not cluster.directory.exists()
    assert not [node for node in nodes if (FREEZER / f"slurm_{node}").exists()]


def test_a_job_runs_on_a_node_with_its_own_name(cluster, tmp_path):
    job = cluster.sbatch("-w", cluster.nodes[1], "-o", "out", script="#!/bin/bash\nhostname\n", cwd=tmp_path)
    assert cluster.wait_state(job, "COMPLETED", seconds=15)["NodeList"] == cluster.nodes[1]
    if os.geteuid() == 0:  # a host name of its own needs a UTS namespace
        assert (tmp_path / "out").read_text().strip() == cluster.nodes[1]


def test_two_clusters_side_by_side_do_not_see_each_other(cluster, tmp_path):
    with Cluster() as other:
        assert not set(other.nodes) & set(cluster.nodes)
        ours = cluster.sbatch(script=STUBBORN, cwd=tmp_path)
        theirs = other.sbatch(script=STUBBORN, cwd=tmp_path)
        cluster.wait_state(ours, "RUNNING", seconds=10)
        other.wait_state(theirs, "RUNNING", seconds=10)
        assert (cluster.queue(), other.queue()) == ([ours], [theirs])
    assert cluster.state(ours) == "RUNNING"


def test_a_preempted_job_comes_back_within_seconds(cluster, tmp_path):
    low = cluster.sbatch("-p", "low", "--exclusive", "-N3", "--requeue", script=STUBBORN, cwd=tmp_path)
    cluster.wait_state(low, "RUNNING", seconds=10)
    high = cluster.sbatch("-p", "high", "--exclusive", "-N3", script="#!/bin/bash\nsleep 0.1\n", cwd=tmp_path)
    cluster.wait_state(high, "COMPLETED", seconds=20)
    wait_for(lambda: cluster.show(low)["Restarts"] == "1" and cluster.state(low) == "RUNNING", 20, "the second run")


def test_the_user_signal_setting_reaches_the_batch_shell_at_grace_start(cluster, tmp_path):
    cluster.set_user_signal(True)
    cluster.set_grace("low", 30)
    script = "#!/bin/bash\ntrap 'echo USR1' USR1\ntrap 'echo TERM' TERM\necho up\nwhile :; do sleep 0.05; done\n"
    out = tmp_path / "out"
    cluster.sbatch("-p", "low", "--exclusive", "-N3", "--signal=B:USR1@60", "-o", "out", script=script, cwd=tmp_path)
    wait_for(lambda: out.exists() and "up" in out.read_text(), 10, "the job to be up")
    cluster.sbatch("-p", "high", "--exclusive", "-N3", script="#!/bin/bash\n", cwd=tmp_path)
    wait_for(lambda: "USR1\n" in out.read_text(), 10, "USR1")  # without the setting: TERM, after the grace time


def test_a_killed_node_and_a_stopped_controller_come_back_and_the_job_runs_on(cluster, tmp_path):
    job = cluster.sbatch(script=STUBBORN, cwd=tmp_path)
    await_job_process(cluster)
    node = cluster.show(job)["NodeList"]
    cluster.kill_node(node)
    alive = processes.find(cluster.conf)
    assert node not in {p.node for p in alive}
    assert "job" in {p.role for p in alive}, "a killed slurmd leaves its jobs alive"
    cluster.stop_controller()
    assert cluster._run("scontrol", "ping").returncode
    cluster.start_controller()
    cluster.start_node(node)
    assert cluster.state(job) == "RUNNING"


def test_restore_ends_jobs_that_ignore_signals_and_undoes_every_setting(cluster, tmp_path):
    cluster.set_kill_wait(60)  # what Slurm's own way would take
    cluster.sbatch("--array=0-3", script=STUBBORN, cwd=tmp_path)
    await_job_process(cluster)
    cluster.set_grace("low", 30)
    cluster.set_user_signal(True)
    cluster.kill_node(cluster.nodes[2])
    started = time.monotonic()
    cluster.restore()
    assert time.monotonic() - started < 30
    assert cluster.queue() == []
    assert "GraceTime=0" in cluster.check("scontrol", "show", "partition", "low")
    assert "user_signal" not in cluster.check("scontrol", "show", "config")


def test_down_refuses_a_directory_that_is_no_cluster(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ClusterError, match="not empty"):
        Cluster(tmp_path).up()
    with pytest.raises(ClusterError, match="no cluster in"):
        Cluster(tmp_path).down()
    assert (tmp_path / "thesis.txt").exists()


def test_completions_tell_every_run_of_a_requeued_job(cluster, tmp_path):
    script = '#!/bin/bash\n[ "${SLURM_RESTART_COUNT:-0}" = 1 ] || { scontrol requeue $SLURM_JOB_ID; sleep 20; }\n'
    job = cluster.sbatch("--requeue", script=script, cwd=tmp_path)
    cluster.wait_state(job, "COMPLETED", seconds=25)
    runs = [run["JobState"] for run in cluster.completions() if run["JobId"] == job]
    assert (len(runs), runs[-1]) == (2, "COMPLETED"), Path(cluster.directory / "log" / "jobcomp.log").read_text()


@pytest.mark.parametrize("end", ["exit", "Ctrl-D", "hang-up"])
def test_a_persons_shell_has_a_cluster_that_ends_with_it(end):
    shell = pexpect.spawn(sys.executable, [module.__file__, "shell"], encoding="utf-8", timeout=90)
    shell.expect(r"other terminals join it with: export SLURM_CONF=(/\S+)\r\n")
    said = shell.match[1]
    shell.expect_exact("ends the cluster and its jobs")
    shell.expect_exact("(slurm)")
    shell.sendline("sh -c 'echo g\"oi\"ng; exec sleep 30'")
    shell.expect_exact("going")
    shell.sendintr()  # Ctrl-C is the shell's: neither it nor the cluster ends
    shell.sendline("sbatch --wrap 'sleep 60' -o /dev/null; echo CONF=$SLURM_CONF.")
    shell.expect(r"Submitted batch job")
    shell.expect(r"CONF=(/\S+)\.\r\n")
    conf = Path(shell.match[1])
    assert (said, conf.is_file()) == (str(conf), True)
    shell.expect_exact("(slurm)")  # Ctrl-D before the prompt is lost
    assert processes.find(conf)
    {"exit": lambda: shell.sendline("exit"), "Ctrl-D": shell.sendeof, "hang-up": lambda: shell.kill(signal.SIGHUP)}[
        end
    ]()
    shell.expect(pexpect.EOF)
    shell.wait()
    assert not conf.exists()
    assert processes.find(conf) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="any other user shows it in every test here")
def test_any_user_can_have_a_cluster_of_their_own():
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    pythons = [sys.executable, "/usr/bin/python3"]  # the first may live under /root
    python = next(p for p in pythons if not subprocess.run([*nobody, p, "-c", "0"], check=False).returncode)
    home = Path(tempfile.mkdtemp())
    try:
        for path in Path(module.__file__).parent.glob("cluster*.py"):
            shutil.copy(path, home)
        os.chown(home, 65534, 65534)
        steps = 'sbatch --wait -Q -o out --wrap "id -u"; cat out; scontrol show config | grep -E "^(AuthType|ProctrackType)"'
        done = subprocess.run(
            [*nobody, python, home / "cluster.py", "shell"],
            input=steps,
            env={"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        shutil.rmtree(home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["65534", "AuthType", "=", "auth/none", "ProctrackType", "=", "proctrack/pgid"]
