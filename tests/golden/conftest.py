"""`golden`: a text that must be what a file in this directory holds; `pytest tests/golden --update-golden` renews them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the goldens anew; the diff is to be reviewed")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    def check(path: Path, text: str) -> None:
        if request.config.getoption("--update-golden", default=False):
            path.write_text(text, encoding="utf-8", newline="")
        assert path.read_bytes().decode() == text, "pytest tests/golden --update-golden, then review the diff"

    return check
