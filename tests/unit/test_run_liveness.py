"""What an observer may conclude: from its own looks alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_resume.run import filesystem, job_state
from hpc_resume.run.liveness import Watch


def looks(times: list[float], signs: list[bytes], period: float = 10.0) -> Watch:
    watch = Watch(0)
    for now, sign in zip(times, signs, strict=True):
        watch = watch.look(3, sign, now, period)
    return watch


def test_silence_of_less_than_two_periods_is_death():
    steps = [i * 1.25 for i in range(15)]
    assert looks(steps, [b"7"] * 15).is_dead(10.0)
    assert not looks(steps[:-1], [b"7"] * 14).is_dead(10.0)
    assert steps[-1] < 20


def test_a_changed_sign_is_life_whatever_it_says():
    watch = looks([0.0, 1.0, 2.0], [b"7", b"7", b"6"])
    assert watch.changed
    assert watch.silent == 0


def test_time_in_which_nothing_could_be_seen_does_not_count():
    """The observer was stopped, or the file server was away for both."""
    watch = looks([0.0, 1.0, 3600.0], [b"7", b"7", b"7"])
    assert watch.silent == 1.0 + 2.5
    assert not watch.is_dead(10.0)


def test_another_owner_is_watched_anew():
    watch = looks([0.0, 15.0], [b"7", b"7"]).look(4, b"7", 16.0, 10.0)
    assert (watch.generation, watch.silent, watch.changed) == (4, 0.0, False)


@pytest.mark.parametrize(
    ("text", "over"),
    [
        ("", True),
        ("RUNNING|0|\n", False),
        ("RUNNING|1|\n", True),
        ("PENDING|1|\n", True),
        ("COMPLETING|1|\n", False),
        ("SUSPENDED|0|\n", False),
        ("CANCELLED|0|\n", True),
        ("RUNNING|0|\nPENDING|0|\n", None),
        ("nonsense\n", None),
    ],
)
def test_what_squeue_says_of_a_start_of_a_job(text, over):
    assert job_state.parse_over(text, 0) is over


@pytest.mark.parametrize(
    ("text", "answering"),
    [("mix\n", True), ("drng\n", True), ("idle\nmix\n", True), ("down*\n", False), ("mix*\n", False), ("", False)],
)
def test_a_node_that_does_not_answer_is_no_witness(text, answering):
    assert job_state.is_answering(text) is answering


MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:25 / /home rw shared:2 - nfs4 server:/home rw,local_lock=none
31 30 0:26 / /home/with\\040space rw - tmpfs none rw
32 22 0:27 / /data rw master:1 - lustre mds:/data rw
"""


@pytest.mark.parametrize(
    ("path", "kind", "local"),
    [
        ("/var/x", "ext4", True),
        ("/home/me/runs", "nfs4", False),
        ("/home/with space/a", "tmpfs", True),
        ("/homes", "ext4", True),
        ("/data/x", "lustre", False),
    ],
)
def test_the_mount_that_a_path_is_below(path, kind, local):
    assert filesystem.kind(Path(path), MOUNTS) == kind
    assert filesystem.is_node_local(kind) is local
