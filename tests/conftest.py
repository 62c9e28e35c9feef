"""Which tests run in virtual time: those of banks in one process, so that no deadline depends on a busy machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

from tests.virtual_time import VirtualLoop

IN_VIRTUAL_TIME = {
    "tests.test_adversity",
    "tests.test_heuristics",
    "tests.test_pitfalls",
    "tests.test_suspense_routes",
    "tests.test_transfers",
}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    module = item.getparent(pytest.Module)
    if module is None or module.obj.__name__ not in IN_VIRTUAL_TIME:
        return {"real time": asyncio.new_event_loop}
    return {"virtual time": VirtualLoop}
