"""No test depends on how busy the machine is: banks in one process run in virtual time, properties have no deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from distribank.simulation.loop import SimulatedLoop

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

IN_VIRTUAL_TIME = {
    "tests.test_adversity",
    "tests.test_batches",
    "tests.test_heuristics",
    "tests.test_pitfalls",
    "tests.test_suspense_routes",
    "tests.test_transfers",
}


class InPlace(SimulatedLoop):
    """What would be a thread's work (a password's hash) is done on the spot."""

    def run_in_executor(self, _executor: Any, work: Callable[..., Any], *args: Any) -> Any:
        done = self.create_future()
        done.set_result(work(*args))
        return done


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    module = item.getparent(pytest.Module)
    if module is None or module.obj.__name__ not in IN_VIRTUAL_TIME:
        return {"real time": asyncio.new_event_loop}
    return {"virtual time": InPlace}
