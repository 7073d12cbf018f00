"""Which rows of the .wandb files a server lacks, and under which numbers: pure, and over any outages."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hpc_resume.trackers.wandb_leftovers import lacking
from hpc_resume.trackers.wandb_log import read_history

ONLINE, OFFLINE = False, True


def rows(*steps):
    return [{"_step": step, "of": step} for step in steps]


def numbers(logs, reached):
    return [number for number, _ in lacking(logs, reached)]


def test_of_an_attempt_that_lost_its_server_what_had_not_arrived():
    assert numbers([(ONLINE, rows(0, 1, 2, 3))], 2) == [2, 3]
    assert numbers([(ONLINE, rows(0, 1, 2, 3))], 4) == []
    assert numbers([(ONLINE, rows(0, 1, 2, 3))], 9) == []


def test_of_attempts_without_a_server_everything_one_after_the_other():
    logs = [(ONLINE, rows(0, 1, 2, 3)), (OFFLINE, rows(0, 1)), (OFFLINE, rows(0, 1, 2))]
    assert lacking(logs, 3) == [
        (3, {"_step": 3, "of": 3}),
        *((4 + index, row) for index, row in enumerate(rows(0, 1))),
        *((6 + index, row) for index, row in enumerate(rows(0, 1, 2))),
    ]


def test_who_numbers_steps_himself_has_each_once():
    """A training that says step= goes back to its checkpoint; W&B itself drops what goes backwards."""
    logs = [(OFFLINE, rows(*range(100))), (OFFLINE, rows(*range(80, 120)))]
    assert numbers(logs, 0) == list(range(120))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=6))
def test_any_outages_leave_each_row_once(attempts):
    """Each attempt but the last loses the server after some of its rows, or has none at all."""
    server, logs, logged = 0, [], 0
    for offline, count in attempts:
        first = 0 if offline else server
        here = [{"_step": first + index, "of": logged + index} for index in range(count)]
        logged += count
        if not offline:  # it has sent what was left before it logged anything of its own
            sent = lacking(logs, server)
            here = [{"_step": number, "of": row["of"]} for number, row in sent] + [
                {"_step": server + len(sent) + index, "of": row["of"]} for index, row in enumerate(here)
            ]
            logs = []
            server += len(here) // 2  # then the server was lost
        logs.append((offline, here))
    left = lacking(logs, server)
    assert [number for number, _ in left] == list(range(server, server + len(left)))
    assert [row["of"] for _, row in left] == list(range(logged - len(left), logged))
    assert server + len(left) == logged


def test_a_file_of_something_else_has_no_rows(tmp_path):
    assert read_history(tmp_path / "absent") == []
    (tmp_path / "other").write_bytes(b"#!/bin/sh\n" * 10)
    assert read_history(tmp_path / "other") == []
    (tmp_path / "torn").write_bytes(b":W&B\xe1\xbe\x00\x01\x02")
    assert read_history(tmp_path / "torn") == []
