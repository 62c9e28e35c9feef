"""Transfer batches: up to a thousand transfers under one key, one after the other or all at once.

The batch is durable before its first transfer; each item has a key of its own, written with its decision. Whoever
runs a batch again, a crash or a retry, finds what is done and does only the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from distribank.bank.ordering import Ordering
from distribank.bank.rhythm import Moment, Rhythm
from distribank.bank.tasks import Tasks
from distribank.breakages import Busy, KeyInProgress, OutcomeUnknown, StoreAway
from distribank.core.batches import Batch, BatchItem, Mode, OnFailure, item_route
from distribank.core.holders import Holder
from distribank.core.idempotency import IdempotencyKey, KeyName, Retry, judge
from distribank.core.protocol import State, Transaction
from distribank.core.refusals import Code, Refusal
from distribank.core.transfer import check_legs
from distribank.ports import Queries

CONCURRENT_TRANSFERS: Final = 256
"""How many transfers of one concurrent batch are under way at once, at most."""

CONCURRENT_LEGS: Final = 512
"""How many legs these may have together: more would not get their votes before the deadline."""

PAGE: Final = 100
"""How many unfinished batches are read at once."""

RESULTS_AT_ONCE: Final = 50
"""Results that are gathered before others get their turn."""

MAX_RUNNING: Final = 100
"""Batches that run at a time; together with the transfers of each, this bounds what they have under way."""

LOOK_S: Final = 0.25
"""Between two looks at an item that another process of this bank had begun."""

NOT_RUN: Final = Refusal(Code.NOT_RUN, "an earlier transfer of this batch failed")

ItemResult = Transaction | Refusal | None
"""What became of one item: its transaction, why it never became one, or nothing yet."""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """A batch and, in the order given, what became of each transfer so far."""

    batch: Batch
    results: list[ItemResult]
    replayed: bool = False


class Batching:
    """The batches of one bank."""

    def __init__(self, rhythm: Rhythm, ordering: Ordering, tasks: Tasks) -> None:
        self._rhythm = rhythm
        self._store = rhythm.store
        self._ordering = ordering
        self._tasks = tasks
        self._running: dict[str, asyncio.Future[None]] = {}

    async def order(
        self,
        holder: Holder,
        items: Sequence[BatchItem],
        mode: Mode,
        on_failure: OnFailure,
        key: KeyName,
        wait: float,
    ) -> BatchResult:
        """Order a batch, and wait at most *wait* seconds for all of it. Raises ``Busy`` and ``KeyReused``."""
        new = Batch(self._rhythm.unique(), holder.holder_id, mode, on_failure, tuple(items), self._rhythm.wall_ms())

        async def begin(moment: Moment) -> Batch:
            named = await moment.done_under(key)
            if named is not None:
                batch = await moment.get(Batch, named.subject)
                assert batch is not None, f"key names batch {named.subject}, which is not in the store"
            else:
                batch = new
            landed = named is not None and batch.batch_id == new.batch_id  # unheard of, and this is run again
            if not landed and self._is_at_rest(batch) and len(self._running) >= MAX_RUNNING:
                raise Busy
            if named is None:
                moment.write([batch, key.names(batch.batch_id, batch.created_at)])
            return batch

        def start(batch: Batch) -> None:
            if batch.batch_id == new.batch_id or not self._store.shared:  # else whoever began it runs it
                self._start(batch, holder)

        batch = await self._rhythm.decide([key.lock], begin, start)
        replayed = batch.batch_id != new.batch_id
        await self._store.flushed()
        running = self._running.get(batch.batch_id)
        if running is not None:
            await asyncio.wait([running], timeout=wait)
        result = await self._result(batch.batch_id, replayed=replayed)
        if self._store.shared:
            await self._rhythm.decide((), _nothing)  # what was read may not have reached the standby: now it has
        return result

    async def batch_for(self, holder_id: str, batch_id: str) -> BatchResult | None:
        """This holder's batch as it stands."""
        batch = await self._store.get(Batch, batch_id)
        return await self._result(batch_id) if batch is not None and batch.holder_id == holder_id else None

    async def resume(self) -> None:
        """Take up every unfinished batch that nobody alive runs."""
        while page := await self._store.claim_batches(PAGE):
            for batch in page:
                holders = await self._store.find(Queries.HOLDER_BY_ID, batch.holder_id)
                assert holders, f"batch {batch.batch_id} belongs to nobody"
                self._start(batch, holders[0])

    def _start(self, batch: Batch, holder: Holder) -> None:
        """Run what is not done of *batch*, unless it is finished or runs already."""
        if self._is_at_rest(batch):
            self._running[batch.batch_id] = asyncio.get_running_loop().create_future()
            self._tasks.start(self._run(batch, holder), f"batch {batch.batch_id}")

    def _is_at_rest(self, batch: Batch) -> bool:
        """Whether *batch* has yet to be finished and nobody runs it."""
        return batch.finished_at is None and batch.batch_id not in self._running

    async def _run(self, batch: Batch, holder: Holder) -> None:
        """Run what is not done yet. The batch itself is durable before the first transfer begins."""
        try:
            await self._store.flushed()
            if batch.mode is Mode.SEQUENTIAL:
                await self._one_after_the_other(batch, holder)
            else:
                await self._all_at_once(batch, holder)
            await self._finish(replace(batch, finished_at=self._rhythm.wall_ms()))
        finally:
            self._running.pop(batch.batch_id).set_result(None)

    async def _finish(self, finished: Batch) -> None:
        async def finish(moment: Moment) -> None:
            moment.write([finished])

        while True:
            try:
                await self._rhythm.decide([f"batch:{finished.batch_id}"], finish)
                await self._store.flushed()
                return
            except StoreAway:  # nobody else runs it: it is finished once the database is back
                await asyncio.sleep(LOOK_S)

    async def _one_after_the_other(self, batch: Batch, holder: Holder) -> None:
        for index, item in enumerate(batch.items):
            result = await self._run_item(batch, index, item, holder)
            if batch.on_failure is OnFailure.STOP and not _succeeded(result):
                return

    async def _all_at_once(self, batch: Batch, holder: Holder) -> None:
        """Some workers take the next item each: so many that what is under way gets its votes in time."""
        most_legs = max(1, *(len(item.legs) for item in batch.items))
        workers = min(CONCURRENT_TRANSFERS, len(batch.items), max(1, CONCURRENT_LEGS // most_legs))
        waiting = enumerate(batch.items)

        async def work() -> None:
            for index, item in waiting:
                await self._run_item(batch, index, item, holder)

        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(work())

    async def _run_item(self, batch: Batch, index: int, item: BatchItem, holder: Holder) -> ItemResult:
        """One transfer, once: what its key names already is returned as it is."""
        refusal = check_legs(item.legs)
        if refusal is not None:
            return refusal
        key = KeyName(holder.holder_id, item_route(batch.batch_id), str(index), "")
        while True:
            try:
                done = await self._ordering.order_and_finish(holder, item.legs, item.description, key)
                if done.because is None or done.because.code is not Code.INTERRUPTED:
                    return done
            except (KeyInProgress, OutcomeUnknown, StoreAway):
                pass  # begun by a process that has stopped, or the database is out of reach: the key will tell
            await asyncio.sleep(LOOK_S)  # what another process has interrupted runs anew, under another id

    async def _result(self, batch_id: str, *, replayed: bool = False) -> BatchResult:
        batch = await self._store.get(Batch, batch_id)
        assert batch is not None, f"batch {batch_id} vanished"
        results = []
        for index, item in enumerate(batch.items):
            results.append(await self._item_result(batch, index, item))
            if index % RESULTS_AT_ONCE == 0:
                await asyncio.sleep(0)  # a store's reads need not wait for anything: let others in
        await self._store.flushed()
        return BatchResult(batch, results, replayed)

    async def _item_result(self, batch: Batch, index: int, item: BatchItem) -> ItemResult:
        """What this item's key names, unless a crash interrupted it: then it has yet to run, under another id."""
        refusal = check_legs(item.legs)
        if refusal is not None:
            return refusal
        key = await self._store.get(IdempotencyKey, batch.holder_id, item_route(batch.batch_id), str(index))
        known = await self._store.get(Transaction, key.subject) if key is not None else None
        if known is not None and judge(key, "", known.because) is not Retry.NEW:
            return known
        return NOT_RUN if batch.finished_at is not None else None


async def _nothing(_moment: Moment) -> None:
    """A decision that decides nothing: behind it, all that was read before it is durable."""


def _succeeded(result: ItemResult) -> bool:
    """Whether a sequential batch goes on behind this: not behind a refusal, nor behind an outcome still unknown."""
    return isinstance(result, Transaction) and result.state in (State.COMMITTING, State.ENDED)
