"""`server`: a W&B server on the loopback, for the real client; every test in this directory is marked `wandb`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loopback import Loopback
from trainings import TRAIN, Training

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("wandb")
            if item.get_closest_marker("timeout") is None:  # two clients in turn, on a machine with no time to spare
                item.add_marker(pytest.mark.timeout(240))


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as running:
        yield running


@pytest.fixture
def train(server: Loopback, tmp_path: Path) -> Iterator[Callable[..., Training]]:
    """Start a training against `server`; whatever is still there at the end is ended by PID."""
    started: list[Training] = []

    def start(*words: str, source: str = TRAIN, home: str = "", **more: str) -> Training:
        more = {"HPC_RESUME_RUN_DIR": str(tmp_path / "run")} | more
        started.append(Training(server, tmp_path / home, source, *words, **more))
        return started[-1]

    yield start
    for training in started:
        training.end()
