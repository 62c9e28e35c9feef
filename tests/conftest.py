"""No test depends on how busy the machine is: banks in one process run in virtual time, properties have no deadline."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from distribank.network import processes
from distribank.simulation.loop import SimulatedLoop
from tests.engines import ENGINE

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

if "PYTEST_XDIST_WORKER" in os.environ:  # a port that is free is not free any more once another worker's bank has it
    place, count = (
        int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")),
        int(os.environ["PYTEST_XDIST_WORKER_COUNT"]),
    )
    every = len(processes._FREE_PORTS) // count
    processes._FREE_PORTS = processes._FREE_PORTS[place * every : (place + 1) * every]  # type: ignore[misc]

IN_VIRTUAL_TIME = {
    "tests.hostile.test_bad_bodies",
    "tests.hostile.test_stolen_tokens",
    "tests.hostile.test_tampering",
    "tests.test_account_routes",
    "tests.test_adversity",
    "tests.test_authority",
    "tests.test_batches",
    "tests.test_docs",
    "tests.test_documentation",
    "tests.test_heuristic_routes",
    "tests.test_heuristics",
    "tests.test_languages",
    "tests.test_linked_accounts",
    "tests.test_metrics",
    "tests.test_pitfalls",
    "tests.test_plans",
    "tests.test_problems",
    "tests.test_restoration_routes",
    "tests.test_resupply",
    "tests.test_showing",
    "tests.test_sign_in",
    "tests.test_snapshots",
    "tests.test_strict_bodies",
    "tests.test_suspense_routes",
    "tests.test_throttle",
    "tests.test_tokens",
    "tests.test_traces",
    "tests.test_transfer_routes",
    "tests.test_transfers",
    "tests.test_two_processes",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    twice = [name for name, times in Counter(item.nodeid for item in items).items() if times > 1]
    if twice:
        raise pytest.UsageError(f"pytest-xdist would run only one of those that share an id: {twice}")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"virtual time": InPlace} if in_virtual_time(item) else {"real time": asyncio.new_event_loop}


def in_virtual_time(item: pytest.Item) -> bool:
    module = item.getparent(pytest.Module)
    return ENGINE == "memory" and module is not None and module.obj.__name__ in IN_VIRTUAL_TIME


class InPlace(SimulatedLoop):
    """What would be a thread's work (a password's hash, a file's bytes) is done on the spot."""

    def run_in_executor(self, _executor: Any, work: Callable[..., Any], *args: Any) -> Any:
        done = self.create_future()
        done.set_result(work(*args))
        return done


@pytest.fixture(autouse=True)
def files_are_read_in_place(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """anyio, which Starlette reads static files by, has threads of its own."""
    if in_virtual_time(request.node):

        async def run_sync(work: Callable[..., Any], *args: Any, **_options: Any) -> Any:
            return work(*args)

        monkeypatch.setattr("anyio.to_thread.run_sync", run_sync)
