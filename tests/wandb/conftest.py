"""`server`: a W&B server on the loopback, for the real client; every test in this directory is marked `wandb`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import Loopback

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("wandb")


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as running:
        yield running
