"""Tests that drive a real browser: ``make test-browser``. They are not collected by ``make test``."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--screenshots DIR``: keep pictures of what the tests saw, as ``make screenshots`` does for the README."""
    parser.addoption("--screenshots", type=Path, default=None, metavar="DIR", help="write pictures of /docs there")


@pytest.fixture
def screenshots(request: pytest.FixtureRequest) -> Path | None:
    """The directory for pictures, if any are wanted."""
    directory: Path | None = request.config.getoption("--screenshots")
    return directory
