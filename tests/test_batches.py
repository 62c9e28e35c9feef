"""Batches: many transfers under one key, each atomic on its own; in order, at once, and across crashes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from distribank.bank import BatchResult, KeyName
from distribank.bank.batching import NOT_RUN, Batching
from distribank.breakages import Busy
from distribank.core.batches import Batch, BatchItem, Mode, OnFailure
from distribank.core.ledger import Account
from distribank.core.protocol import Commit, Message, Prepare, State, Transaction
from distribank.core.refusals import Code, Refusal
from distribank.ports import Queries
from distribank.simulation.people import make_legs
from tests.engines import ENGINE, on_memory
from tests.weather import Gate
from tests.world import PATIENCE, World, codes, world

A, B = codes(2)


def pay(*legs: tuple[str, str, int]) -> BatchItem:
    return BatchItem(make_legs(*legs), None)


async def batch(
    net: World,
    items: Sequence[BatchItem],
    mode: Mode = Mode.CONCURRENT,
    on_failure: OnFailure = OnFailure.CONTINUE,
    key: str = "batch",
    wait: float = 2 * PATIENCE,
) -> BatchResult:
    holder = await net.person(A)
    name = KeyName(holder.holder_id, "batches", key, f"{len(items)}")
    return await net.banks[A].bank.batching.order(holder, items, mode, on_failure, name, wait)


async def settled(net: World, ordered: Batch) -> list[str]:
    """Wait for the end of a batch and of its transfers, of which the ids: a crash's are delivered beside the batch."""

    async def finished() -> bool:
        kept = await net.stores[A].get(Batch, ordered.batch_id)
        assert kept is not None
        return kept.finished_at is not None

    await net.until(finished)
    result = await net.banks[A].bank.batching.batch_for(ordered.holder_id, ordered.batch_id)
    assert result is not None
    ids = [r.id for r in result.results if isinstance(r, Transaction)]
    for transaction in ids:
        await net.settle(transaction)
    return ids


def states(result: BatchResult) -> list[object]:
    return [r.state if isinstance(r, Transaction) else r.code if isinstance(r, Refusal) else r for r in result.results]


async def test_a_concurrent_batch_runs_every_transfer_and_answers_in_the_order_given() -> None:
    async with world(2) as net:
        a, b = await net.account(A, 10_000), await net.account(B)
        items = [pay((A, a, -i), (B, b, i)) for i in range(1, 101)]
        result = await batch(net, items)
        assert states(result) == [State.ENDED] * 100
        moved = [r.order.legs for r in result.results if isinstance(r, Transaction) and r.order]
        assert moved == [item.legs for item in items]
        assert result.batch.finished_at is not None
        assert await net.balance(B, b) == (5050, 5050)


async def test_a_batch_of_large_transfers_has_fewer_of_them_under_way() -> None:
    """Else they would miss the vote deadline together, and be refused for a load that the bank made itself."""
    async with world(2) as net:
        a, b = await net.account(A, 10_000), await net.account(B)
        most = 0

        async def count(_sender: str, _bank: str, _message: Message) -> str:
            nonlocal most
            most = max(most, net.banks[A].bank.coordinating.under_way)
            return "deliver"

        net.weather = count
        result = await batch(net, [pay(*[(A, a, -1), (B, b, 1)] * 32) for _ in range(20)])
        assert states(result) == [State.ENDED] * 20
        assert most == 8


async def test_a_sequential_batch_stops_or_goes_on_behind_a_failure_as_ordered() -> None:
    async with world(2) as net:
        a, b = await net.account(A, 100), await net.account(B)
        items = [pay((A, a, -60), (B, b, 60)), pay((A, a, -60), (B, b, 60)), pay((A, a, -40), (B, b, 40))]
        stopped = await batch(net, items, Mode.SEQUENTIAL, OnFailure.STOP, "stop")
        assert states(stopped) == [State.ENDED, State.ABORTED, Code.NOT_RUN]
        went_on = await batch(net, items[1:], Mode.SEQUENTIAL, OnFailure.CONTINUE, "go on")
        assert states(went_on) == [State.ABORTED, State.ENDED]
        assert await net.balance(B, b) == (100, 100)


async def test_an_unbalanced_item_fails_alone() -> None:
    async with world(1) as net:
        a, b = await net.account(A, 100), await net.account(A)
        result = await batch(net, [pay((A, a, -1), (A, b, 2)), pay((A, a, -1), (A, b, 1))])
        assert states(result) == [Code.UNBALANCED_TRANSFER, State.ENDED]
        odd = await batch(net, [pay(), pay(*[(A, a, -1), (A, b, 1)] * 300)], key="odd")
        assert states(odd) == [Code.UNBALANCED_TRANSFER, Code.TOO_MANY_LEGS]
        fine = await batch(net, [pay(), pay(*[(A, a, -1), (A, b, 1)] * 300), pay((A, a, -1), (A, b, 1))], key="fine")
        assert states(fine) == [Code.UNBALANCED_TRANSFER, Code.TOO_MANY_LEGS, State.ENDED]


@pytest.mark.parametrize("mode", list(Mode))
async def test_a_crash_in_the_middle_of_a_batch_repeats_none_and_forgets_none(mode: Mode) -> None:
    async with world(2) as net:
        a, b = await net.account(A, 10_000), await net.account(B)
        delivered = 0
        enough = asyncio.Event()

        async def thirty_commits(_sender: str, _bank: str, message: Message) -> str:
            nonlocal delivered
            delivered += isinstance(message, Commit)
            if delivered >= 30:
                enough.set()
            return "deliver"

        net.weather = thirty_commits
        items = [pay((A, a, -1), (B, b, 1)) for _ in range(100)]
        ordering = asyncio.create_task(batch(net, items, mode))
        await enough.wait()
        await net.crash(A)
        await asyncio.gather(ordering, return_exceptions=True)
        net.calm()
        await net.start(A)
        again = await batch(net, items, mode)
        assert again.replayed
        assert ENGINE != "memory" or states(again) == [State.ENDED] * 100
        ids = await settled(net, again.batch)
        ended = await batch(net, items, mode)
        assert states(ended) == [State.ENDED] * 100
        assert ids == [r.id for r in ended.results if isinstance(r, Transaction)]
        assert len(set(ids)) == 100
        assert await net.balance(B, b) == (100, 100)
        assert await net.check_books() == 10_000


async def test_what_waits_its_turn_in_a_batch_is_never_told_as_not_run() -> None:
    """Its holder would order it again, and pay twice."""
    async with world(2, vote_deadline=5) as net:
        a, b = await net.account(A, 100), await net.account(B)
        net.weather = gate = Gate(Prepare)
        items = [pay((A, a, -10), (B, b, 10)), pay((A, a, -20), (B, b, 20))]
        await batch(net, items, Mode.SEQUENTIAL, OnFailure.STOP, wait=0)
        await gate.reached.wait()
        assert states(await batch(net, items, Mode.SEQUENTIAL, OnFailure.STOP, wait=0)) == [State.PREPARING, None]
        gate.open.set()
        done = await batch(net, items, Mode.SEQUENTIAL, OnFailure.STOP)
        assert states(done) == [State.ENDED, State.ENDED]


@pytest.mark.parametrize("mode", list(Mode))
@on_memory
async def test_what_a_crash_interrupted_in_a_batch_is_not_told_as_aborted_and_a_retry_drives_it_on(
    mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(2, vote_deadline=5) as net:
        a, b = await net.account(A, 100), await net.account(B)
        net.weather = Gate(Prepare)
        items = [pay((A, a, -10), (B, b, 10)), pay((A, a, -20), (B, b, 20))]
        await batch(net, items, mode, OnFailure.STOP, wait=0)
        await net.weather.reached.wait()
        await net.stores[A].flushed()
        await net.crash(A)
        net.calm()
        with monkeypatch.context() as moment:  # between the log being read and the batch being taken up
            moment.setattr(Batching, "resume", lambda _self: asyncio.sleep(0))
            await net.start(A)
        (row,) = await net.stores[A].find(Queries.UNFINISHED_BATCHES)
        seen = await net.banks[A].bank.batching.batch_for(row.holder_id, row.batch_id)
        assert seen is not None
        assert seen.results == [None, None]
        done = await batch(net, items, mode, OnFailure.STOP)
        assert states(done) == [State.ENDED, State.ENDED]
        assert await net.balance(B, b) == (30, 30)


async def test_an_account_closed_while_a_batch_runs_stops_only_what_comes_behind() -> None:
    async with world(2) as net:
        a, b = await net.account(A, 100), await net.account(B)
        items = [pay((A, a, -100), (B, b, 100)), pay((A, a, -10), (B, b, 10)), pay((A, a, -10), (B, b, 10))]
        net.weather = gate = Gate(Commit)
        ordering = asyncio.create_task(batch(net, items, Mode.SEQUENTIAL, OnFailure.STOP))
        await gate.reached.wait()
        holder = await net.person(A)
        assert isinstance(await net.banks[A].bank.custody.close_account(holder.holder_id, a), Account)
        gate.open.set()
        done = await ordering
        assert states(done) == [State.ENDED, State.ABORTED, Code.NOT_RUN]
        stopped, left_out = done.results[1:]
        assert isinstance(stopped, Transaction)
        assert stopped.because is not None
        assert stopped.because.code is Code.ACCOUNT_CLOSED
        assert left_out == NOT_RUN
        assert await net.check_books() == 100


async def test_a_bank_with_too_many_batches_takes_no_more_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """New ones, and those that a retry would take up again; what is finished is still answered."""
    async with world(1) as net:
        a, b = await net.account(A, 100), await net.account(A)
        holder, batching = await net.person(A), net.banks[A].bank.batching
        items = [BatchItem(make_legs((A, a, -1), (A, b, 1)), None)]

        async def order(key: str) -> None:
            name = KeyName(holder.holder_id, "batches", key, "f")
            await batching.order(holder, items, Mode.CONCURRENT, OnFailure.STOP, name, 10)

        await order("finished")
        monkeypatch.setattr("distribank.bank.batching.MAX_RUNNING", 0)
        await order("finished")
        with pytest.raises(Busy):
            await order("new")
        monkeypatch.setattr(batching, "_is_at_rest", lambda _batch: True)
        with pytest.raises(Busy):
            await order("finished")
        assert await net.balance(A, b) == (1, 1)


async def test_a_batch_that_a_crash_interrupted_is_finished_though_nobody_asks_again() -> None:
    async with world(2) as net:
        a, b = await net.account(A, 100), await net.account(B)
        net.weather = gate = Gate(Commit)
        items = [pay((A, a, -1), (B, b, 1)) for _ in range(3)]
        ordering = [asyncio.create_task(batch(net, items, Mode.SEQUENTIAL))]
        await gate.reached.wait()
        (ordered,) = await net.stores[A].find(Queries.UNFINISHED_BATCHES)
        await net.crash(A)
        await asyncio.gather(*ordering, return_exceptions=True)
        net.calm()
        await net.start(A)
        await settled(net, ordered)
        assert await net.balance(B, b) == (3, 3)
