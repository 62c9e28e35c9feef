"""On which engine the banks of ``tests.world`` stand: on memory, or each on a PostgreSQL database of its own.

``DISTRIBANK_TEST_ENGINE=postgres pytest …`` runs tests of protocol and API on real servers (``make test-postgres``).
They then take real time. What only memory can do, such as holding a flush back, is marked ``on_memory``.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from distribank.simulation import loop
from distribank.store import postgres_words as words
from distribank.store.memory import MemoryStore
from distribank.store.postgres import PostgresStore
from tests.postgres_server import drop, shared_server

ENGINE = os.environ.get("DISTRIBANK_TEST_ENGINE", "memory")
on_memory = pytest.mark.skipif(ENGINE != "memory", reason="it holds flushes back, or looks into the memory of a store")

Flushed = Callable[[float, int], None]


def run(story: Coroutine[Any, Any, None]) -> None:
    """Tell *story* in virtual time, or, on PostgreSQL, in real time."""
    if ENGINE == "memory":
        loop.run(story)
    else:
        asyncio.run(story)


class MortalStore(PostgresStore):
    """A replica that can die as a process does: its connections are cut, wherever it is."""

    on_flush: Flushed

    def crash(self, *, keep_in_flight: bool = False) -> None:
        """*keep_in_flight* is not this side's to say: a COMMIT that has been sent is carried out, or it is not."""
        self._on_broken = None
        self._break(RuntimeError("the process died"))
        for task in self._tasks:
            task.cancel()
        if self._writer is not None:
            self._writer.terminate()
        self._let_go()


def nobody_holds(store: MemoryStore | MortalStore) -> bool:
    """Whether no decision is under way or waits for its turn."""
    return len(store.locks) == 0 if isinstance(store, MemoryStore) else not (store._queue or store._under_way)


class Databases:
    """One database for each bank of a world, and the replicas that were opened on them."""

    def __init__(self) -> None:
        self._urls: dict[str, str] = {}
        self._stores: list[PostgresStore] = []
        self._directory = tempfile.TemporaryDirectory(prefix="distribank-world-")

    async def open(self, code: str, on_flush: Flushed, dead: Any = None) -> MortalStore:
        """One more replica of this bank; where *dead* has died, it is known to be dead, as after its lease."""
        if code not in self._urls:
            self._urls[code] = await shared_server().database()
        store = await MortalStore.open(
            self._urls[code],
            bank=code,
            marker=Path(self._directory.name) / code,
            now_ms=1_800_000_000_000,
            on_flush=on_flush,
        )
        assert isinstance(store, MortalStore)
        if dead is not None:
            await shared_server().execute(words.LEAVE, dead.replica, database=self._urls[code].rpartition("/")[2])
        self._stores.append(store)
        return store

    async def close(self) -> None:
        for store in self._stores:
            await store.close()
        for url in self._urls.values():
            await drop(url)
        self._directory.cleanup()


def in_memory(_code: str, on_flush: Flushed) -> MemoryStore:
    return MemoryStore(on_flush=on_flush)
