"""A sample of the survival matrix, another one with every change of SEED; `make survival` plays all of it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from cluster import Cluster
from survival_cells import GRACE, Cell, cells
from survival_play import play

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(480)]

SEED = 1
# Not in the sample: launchers that not every machine has, and what waits for half a minute of Slurm's own.
SLOW = {"time limit", "kill slurmd", "kill slurmctld"}
QUICK = [cell for cell in cells() if cell.launcher not in ("uv", "torchrun") and cell.interruption not in SLOW]


def sample() -> list[Cell]:
    """One cell of every quick interruption, and two more."""
    chance = random.Random(SEED)
    one_each = [
        chance.choice([cell for cell in QUICK if cell.interruption == interruption])
        for interruption in dict.fromkeys(cell.interruption for cell in QUICK)
    ]
    return [*one_each, *chance.sample([cell for cell in QUICK if cell not in one_each], 2)]


def test_a_sample_of_the_matrix_holds(tmp_path: Path) -> None:
    chosen = sample()
    assert len({cell.interruption for cell in chosen}) == 8
    with Cluster(nodes=len(chosen) + 6, patience=GRACE) as cluster:
        played = play(cluster, tmp_path / "cells", chosen)
    assert [one.cell for one in played] == chosen
    bad = [f"{one.cell.name}: {one.verdict.text} {one.facts}" for one in played if not one.verdict.good]
    assert not bad, "\n".join(bad)
