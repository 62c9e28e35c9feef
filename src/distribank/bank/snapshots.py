"""This bank's part in a network-wide snapshot: its clock, its books at one stamp, and on which side transactions lie.

Before anything is answered about a stamp, the clock is past it, durably: whatever is voted on or decided from then on
lies behind the cut, restarts included. What had been promised by then is waited for, within bounds, and named if its
outcome is still unknown. Nothing is locked, and nobody waits for a snapshot.
"""

from __future__ import annotations

import asyncio
from typing import Final

from distribank.bank.rhythm import Moment, Rhythm
from distribank.core import snapshot
from distribank.core.clock import Floor, too_far_ahead
from distribank.core.protocol import (
    ClockRead,
    Cut,
    Refused,
    Side,
    Sides,
    Snapshot,
    Transaction,
    Violation,
    coordinator_of,
    incarnation_of,
)
from distribank.ports import Queries

WAIT_S: Final = 1.0
"""How long outcomes that may lie on the cut are waited for."""
LOOK_S: Final = 0.02
"""Between two looks at them."""
PAGE: Final = 1000


class Snapshots:
    """What one bank answers to an auditor."""

    def __init__(self, rhythm: Rhythm) -> None:
        self._rhythm = rhythm
        self._store = rhythm.store
        self._adding_up = asyncio.Lock()
        """Books are added up once at a time: it is work, and any bank of the roster may ask for it."""

    async def answer(self, question: Snapshot) -> ClockRead | Cut | Sides | Refused:
        """Whatever *question* asks for; the asker's clock has been merged already."""
        if question.at is None:
            return ClockRead(max(self._rhythm.now().stamp, await self._store.greatest_stamp()))
        if too_far_ahead(question.at, self._rhythm.wall_ms()):
            return Refused(Violation.CLOCK_AHEAD, "this stamp is too far ahead to be believed")
        await self._pass(question.at)
        if question.transactions:
            return Sides(question.at, {each: await self._side(each, question.at) for each in question.transactions})
        return await self._cut(question.at)

    async def _pass(self, at: int) -> None:
        """The clock is past *at*, durably, and so is whatever had been decided before."""
        self._rhythm.hear(at)

        async def raise_floor(moment: Moment) -> None:
            moment.write([Floor(at)])

        await self._rhythm.decide(["clock"], raise_floor)
        await self._store.flushed()

    async def _cut(self, at: int) -> Cut:
        await self._wait_for(at)
        async with self._adding_up:
            counted = await self._store.recount(at)
        open_parts = [
            snapshot.part_of(self._rhythm.code, known)
            for known in counted.unfinished
            if snapshot.may_be_on(known, at, self._store.incarnation)
        ]
        return Cut(
            at,
            counted.customers,
            counted.books,
            counted.entries,
            tuple(open_parts),
            tuple(guess.transaction for guess in counted.guesses),
            tuple(counted.findings),
        )

    async def _wait_for(self, at: int) -> None:
        """Wait until nothing that was promised by *at* is open any more, for ``WAIT_S`` at most: no more can come."""
        waited_for = await self._open_at(at)
        until = asyncio.get_running_loop().time() + WAIT_S
        while waited_for and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(LOOK_S)
            waited_for = [each for each in waited_for if await self._is_open(each, at)]
        await self._store.flushed()

    async def _open_at(self, at: int) -> list[str]:
        found: list[str] = []
        after: tuple[int | str, ...] = ()
        while page := await self._store.find(Queries.UNFINISHED, limit=PAGE, after=after):
            after = (page[-1].begun_at, page[-1].id)
            found += [known.id for known in page if snapshot.may_be_on(known, at, self._store.incarnation)]
        return found

    async def _is_open(self, transaction: str, at: int) -> bool:
        known = await self._store.get(Transaction, transaction)
        return known is not None and snapshot.may_be_on(known, at, self._store.incarnation)

    async def _side(self, transaction: str, at: int) -> Side:
        coordinates = coordinator_of(transaction) == self._rhythm.code
        known = await self._store.get(Transaction, transaction)
        ours = coordinates and incarnation_of(transaction) == self._store.incarnation
        return snapshot.side_of(known, ours, at, self._store.incarnation)
