from __future__ import annotations

import shutil
import subprocess

import pytest

from hpc_resume.launch.sbatch_options import OPTIONS, OWNED, complaints, options


def told(section: dict[str, object]) -> list[str]:
    return [f"{'.'.join(map(str, path))}: {message}" for path, message, _ in complaints(section)]


@pytest.mark.parametrize("name", sorted(OWNED))
def test_an_option_of_ours_is_refused_with_the_key_that_does_it(name):
    for section in ({name: "x"}, {"extra": {name: "x"}}, {"extra": {f"--{name.replace('_', '-')}": "x"}}):
        (message,) = told(section)
        assert "is not yours to set here: " in message
        assert OWNED[name] in message


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"partiton": "a"}, "did you mean partition?"),
        ({"cpus-per-task": "4"}, "did you mean cpus_per_task?"),
        ({"gpus_per_nodes": "4"}, "did you mean gpus_per_node?"),
        ({"cpus": "4"}, "did you mean cpus_per_task?"),
        ({"queue": "low"}, "did you mean partition?"),
        ({"zzz": "4"}, "any other sbatch option goes under `slurm.extra`"),
        ({"partition": ""}, "has no value"),
        ({"partition": ["a"]}, "must be one value"),
        ({"mem": "16GB"}, "did you mean 16G?"),
        ({"time": "1h"}, "must be a Slurm time"),
        ({"array": "9-0"}, "counts nothing"),
        ({"cpus_per_task": "0"}, "must be at least 1"),
        ({"cpus_per_task": "four"}, "must be a whole number"),
        ({"gpus": "a100:two"}, "a number of GPUs or type:number"),
        ({"nodes": "two"}, "a number of nodes"),
        ({"contiguous": "yes"}, "'yes': must be true or false"),
        ({"kill_on_invalid_dep": "true"}, "must be yes or no"),
        ({"oom_kill_step": "2"}, "must be 0 or 1"),
        ({"comment": "a\nb"}, "a line break cannot stand in an #SBATCH line"),
        ({"comment": "a\x07b"}, "U+0007 cannot stand in an #SBATCH line"),
        ({"extra": "constraint"}, "must be a mapping of sbatch options"),
        ({"extra": {"x y": "1"}}, "must be the long name of an sbatch option"),
        ({"extra": {"new": "a\nb"}}, "a line break cannot stand"),
        ({"extra": {"new": ["a"]}}, "must be one value"),
        ({"extra": {"array": "0-3"}}, "write it as slurm.array"),
        ({"extra": {"--array": "0-3"}}, "write it as slurm.array"),
        ({"mem": "1G", "extra": {"mem": "2G"}}, "given twice: also as slurm.mem"),
        ({"extra": {"gpus-per-node": "x"}}, "a number of GPUs"),
    ],
)
def test_an_option_that_sbatch_would_refuse_is_refused(section, words):
    (message,) = told(section)
    assert words in message


@pytest.mark.parametrize(
    "section",
    [
        {"gpus": "a100:2"},
        {"gpus_per_node": "nvidia_a100_80gb_pcie:1,h100:2"},
        {"nodes": "1"},
        {"exclusive": "user"},
        {"nice": "100"},
        {"extra": {"extra": "sbatch's own"}},
        {"extra": {"a-new-option": "x y"}},
        {"extra": ""},
        {"comment": "ä 'x' \"y\" # z"},
    ],
)
def test_an_option_that_sbatch_takes_is_taken(section):
    assert told(section) == []


def test_options_keep_the_order_of_the_file_and_a_flag_that_is_false_is_left_out():
    section = {
        "mem": "1G",
        "extra": {"constraint": "a", "new-flag": "true", "old": "false", "n": "0"},
        "exclusive": "true",
        "contiguous": "false",
        "hold": "TRUE",
        "nice": "true",
        "cpus_per_task": "3",
    }
    assert [(option.name, option.value) for option in options(section)] == [
        ("mem", "1G"),
        ("exclusive", None),
        ("hold", None),
        ("nice", None),
        ("cpus-per-task", "3"),
        ("constraint", "a"),
        ("new-flag", None),
        ("n", "0"),
    ]


@pytest.mark.skipif(not shutil.which("man") or not shutil.which("sbatch"), reason="no manual of sbatch here")
def test_every_long_option_of_the_sbatch_on_this_machine_is_known():
    manual = subprocess.run(
        ["man", "sbatch"], capture_output=True, text=True, env={"MANWIDTH": "200", "PATH": "/usr/bin:/bin"}, check=False
    )
    if manual.returncode:
        pytest.skip("no manual of sbatch here")
    import re

    listed = set(re.findall(r"^ {7}(?:-\w, *)?--([a-z0-9-]+)", re.sub(r".\x08", "", manual.stdout), re.MULTILINE))
    assert len(listed) > 80
    assert {name.replace("-", "_") for name in listed} <= {*OPTIONS, *OWNED}
