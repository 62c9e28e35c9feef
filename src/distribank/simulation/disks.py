"""A bank's simulated disk: it is slow as drawn, fails the n-th flush as told, and shows what lands on it.

The durable rows are a ``store.memory.Disk``; everything above it is the shipped group commit. A flush that fails may
have reached the disk or not; a crash may lose the flush that was under way, or keep it although nobody was told.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable
from random import Random

from distribank.breakages import DurabilityLost
from distribank.store.group import Group
from distribank.store.memory import Disk, MemoryStore

Landing = Callable[[Group], None]
"""Sees each group in the moment before it is durable."""


class SimulatedStore(MemoryStore):
    """*slow* is the longest that a flush may take, in seconds; *fail_at* the number of the flush that fails."""

    def __init__(
        self,
        disk: Disk | None,
        chance: Random,
        slow: float,
        on_landing: Landing,
        on_broken: Callable[[DurabilityLost], None],
    ) -> None:
        super().__init__(disk=disk, chance=chance, flush_gate=self._gate, on_broken=on_broken)
        self.slow = slow
        self.fail_at: int | None = None
        self.flushes = 0
        self.seen_failing = ""
        self._chance = chance
        self._on_landing = on_landing

    def crash(self, *, keep_in_flight: bool = False) -> MemoryStore:
        """As ``MemoryStore.crash``; what is kept is seen landing."""
        flushing = self._flushing
        if keep_in_flight and flushing is not None and self._broken is None and flushing is not self._landed:
            self._land(flushing)
        return super().crash(keep_in_flight=False)

    @property
    def is_flushing(self) -> bool:
        return self._flushing is not None

    def _gate(self) -> Future[None]:
        loop = asyncio.get_running_loop()
        gate: Future[None] = loop.create_future()
        self.flushes += 1
        end = _fail if self.flushes == self.fail_at else _open
        loop.call_later(self._chance.random() ** 3 * self.slow, end, gate)
        return gate

    def _passed(self, group: Group, done: Future[None], gate: Future[None]) -> None:
        if gate.exception() is not None and not self._gone:
            self.seen_failing = "written" if self._chance.random() < 0.5 else "not written"
            if self.seen_failing == "written":
                self._land(group)
        super()._passed(group, done, gate)

    def _land(self, group: Group) -> None:
        self._on_landing(group)
        super()._land(group)


def _open(gate: Future[None]) -> None:
    if not gate.done():
        gate.set_result(None)


def _fail(gate: Future[None]) -> None:
    if not gate.done():
        gate.set_exception(OSError("the disk failed"))
