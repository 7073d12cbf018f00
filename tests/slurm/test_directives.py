"""#SBATCH lines as sbatch itself reads them: not bash, not YAML, a parser of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hpc_resume.launch.job_file import read_job
from hpc_resume.launch.plan import decide
from hpc_resume.launch.render import render
from hpc_resume.launch.shell_text import directive

GOLDEN = Path(__file__).parent.parent / "golden"

VALUES = [
    "plain",
    "two words",
    "a#b",
    "#start",
    "it's",
    'say "hi"',
    "both ' and \"",
    "back\\slash",
    "end\\",
    "\\",
    '"',
    '\\"',
    "  spaces around  ",
    "é ü 日本 🚀",
    "$HOME `x` $(y)",
    "a=b",
    "-x",
    ":colon",
    "%x-%j",
    "a;b|c&d<e>f",
    "~/x*?[y]{z}",
]


def job_of(cluster, script: str, directory: Path) -> dict[str, str]:
    """What Slurm made of `script`; the job is never started."""
    job = cluster.sbatch("--hold", script=script, cwd=directory)
    text = cluster.check("scontrol", "show", "job", job)
    cluster.check("scancel", job)
    # One field to a line, or several with a space between; a value with spaces has a line of its own.
    return dict(re.findall(r"(?:^|\s)([A-Z][\w:/]*)=((?:(?<=Comment=).*)|\S*)", text, re.MULTILINE))


@pytest.mark.parametrize("value", VALUES)
def test_any_text_comes_back_from_sbatch(cluster, tmp_path, value):
    script = f"#!/bin/bash\n{directive('comment', value)}\n#SBATCH --job-name=after\ntrue\n"
    job = job_of(cluster, script, tmp_path)
    assert job["Comment"] in (value, f"{value} ")  # scontrol of 22.05 writes a space behind it
    assert job["JobName"] == "after"


def test_text_of_the_job_is_never_read_as_a_directive(cluster, tmp_path):
    """awkward.yaml has `#SBATCH --uid=0` at the start of a line in its setup and as a word of its command."""
    script = (GOLDEN / "awkward.sbatch").read_text()
    assert "\n#SBATCH --uid=0\n" in script
    job = job_of(cluster, script.replace("--uid=0", "--job-name=stolen"), tmp_path)
    assert job["JobName"] == "awkward"
    assert job["Comment"].rstrip() == 'spaces, "quotes", a # and a \\'


def test_the_options_of_a_job_reach_slurm(cluster, tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(
        f"""\
name: all
command: true
slurm:
  partition: low
  time: 1-02:03:00
  nodes: 1
  ntasks: 1
  cpus_per_task: 2
  mem: 300M
  exclude: {cluster.nodes[2]}
  nice: 7
  begin: now+1hour
  dependency: singleton
  contiguous: true
  array: 0-3%2
  output: logs/%x.out
  extra: {{mincpus: 2, spread-job: true}}
preemption: {{signal: USR2, lead: 90s}}
requeue: {{on: []}}
"""
    )
    job = job_of(cluster, render(decide(read_job(path).job)), tmp_path)
    wanted = {
        "JobName": "all",
        "Partition": "low",
        "TimeLimit": "1-02:03:00",
        "NumCPUs": "2",
        "MinMemoryNode": "300M",
        "ExcNodeList": cluster.nodes[2],
        "Nice": "7",
        "Dependency": "singleton(unfulfilled)",
        "Contiguous": "1",
        "ArrayTaskThrottle": "2",
        "MinCPUsNode": "2",
        "Requeue": "0",
        "StdOut": f"{tmp_path}/logs/all.out",
    }
    assert {key: job.get(key) for key in wanted} == wanted
