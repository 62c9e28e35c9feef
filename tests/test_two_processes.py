"""A bank of two processes over one database: what is run again because its COMMIT was not heard of is done once.

The four traces that two processes can break are stories (``tests/test_stories.py``); here stands what a campaign of
the simulation has found since, each as small as it gets.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from distribank import recovery
from distribank.bank import BatchResult, KeyName, TransferResult, batching
from distribank.breakages import DurabilityLost, OutcomeUnknown, StoreAway
from distribank.core.batches import Batch, BatchItem, Mode, OnFailure
from distribank.core.clock import stamp_at
from distribank.core.consents import Consent
from distribank.core.heuristics import Heuristic, Verdict
from distribank.core.ledger import SUSPENSE, Book, EntryKind, position_book
from distribank.core.protocol import Commit, Inquire, Message, Prepare, State, Transaction
from distribank.core.refusals import Refusal
from distribank.core.transfer import Direction
from distribank.ports import Queries
from distribank.simulation.people import make_legs
from distribank.store import sharing
from distribank.store.memory import Disk
from distribank.store.shared_memory import SharedMemory, SharedMemoryStore
from tests.restores import backup, put_back
from tests.weather import Gate, in_state, losing, nothing_about_outcomes
from tests.world import CPFS, World, codes, world

A, B = codes(2)
A1, A2 = f"{A}#1", f"{A}#2"


@pytest.fixture
async def net() -> AsyncIterator[World]:
    async with world(2, shared=(A,)) as made:
        yield made


def not_heard_of(net: World, times: int = 1) -> None:
    """The next COMMITs at A land, and nobody hears of it."""
    fates = ["unheard of"] * times
    net.servers[A].manners.fate = lambda: fates.pop() if fates else ""


async def test_a_transfer_whose_beginning_was_not_heard_of_is_driven_all_the_same(net: World) -> None:
    here, there = await net.account(A, 500), await net.account(B)
    not_heard_of(net)
    done = await net.transfer(A, (A, here, -300), (B, there, 300))
    assert done.transaction.state in (State.COMMITTING, State.ENDED)
    assert await net.balance(A, here) == (200, 200)


async def test_a_decision_that_was_not_heard_of_is_announced(net: World) -> None:
    here, there = await net.account(A, 500), await net.account(B)
    gate = net.weather = Gate(Prepare)
    ordered = asyncio.ensure_future(net.transfer(A, (A, here, -300), (B, there, 300)))
    await gate.reached.wait()
    not_heard_of(net)
    gate.open.set()
    done = await ordered
    await net.settle(done.transaction.id)
    assert await net.balance(B, there) == (300, 300)


async def test_a_vote_that_was_not_heard_of_is_given_again(net: World) -> None:
    here, there = await net.account(B, 500), await net.account(A)
    gate = net.weather = Gate(Prepare)
    ordered = asyncio.ensure_future(net.transfer(B, (B, here, -300), (A, there, 300)))
    await gate.reached.wait()
    not_heard_of(net, 2)
    gate.open.set()
    done = await ordered
    await net.settle(done.transaction.id)
    assert await net.balance(A, there) == (300, 300)


async def test_a_part_that_was_forced_unheard_of_is_told_to_be_forced(net: World) -> None:
    here, there = await net.account(B, 500), await net.account(A)
    net.weather = losing(Commit, "lose request")
    done = await net.transfer(B, (B, here, -300), (A, there, 300), wait=0.1)
    not_heard_of(net)
    forced = await net.banks[A1].bank.participating.force(done.transaction.id, Verdict.COMMIT, "she waits")
    assert isinstance(forced, Heuristic)
    again = await net.banks[A2].bank.participating.force(done.transaction.id, Verdict.COMMIT, "she waits")
    assert isinstance(again, Refusal)


async def test_what_a_process_takes_to_be_its_own_and_drives_is_not_aborted(net: World) -> None:
    here, there = await net.account(A, 500), await net.account(B)
    gate = net.weather = Gate(Prepare)
    ordered = asyncio.ensure_future(net.transfer(A, (A, here, -300), (B, there, 300)))
    await gate.reached.wait()
    store = net.banks[A1].bank.store
    assert isinstance(store, SharedMemoryStore)
    store._unheard[Transaction] = 1  # as where a decision was given up
    assert await net.banks[A1].recovery._claim() == 1
    gate.open.set()
    assert (await ordered).transaction.state in (State.COMMITTING, State.ENDED)


async def test_a_database_that_is_away_is_no_bug_and_what_was_under_way_is_finished(
    net: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sharing, "AWAY_S", 0.1)
    monkeypatch.setattr(recovery, "CLAIM_EVERY", 0.1)
    here, there = await net.account(A, 500), await net.account(B)
    gate = net.weather = Gate(Prepare)
    ordered = asyncio.ensure_future(net.transfer(A, (A, here, -300), (B, there, 300)))
    await gate.reached.wait()
    for name in (A1, A2):
        store = net.banks[name].bank.store
        assert isinstance(store, SharedMemoryStore)
        store.cut_off(1.0)
    gate.open.set()
    with pytest.raises(OutcomeUnknown):
        await ordered
    (identity,) = net.servers[A].disk.rows[Transaction]
    await asyncio.sleep(1.0)
    await net.settle(identity)
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []


async def test_what_begins_behind_the_end_of_its_process_is_left_to_the_other(net: World) -> None:
    here, there = await net.account(A, 500), await net.account(B)
    one = net.banks[A1]
    store = one.bank.store
    assert isinstance(store, SharedMemoryStore)
    broken: list[DurabilityLost] = []
    store._on_broken = broken.append
    committing = asyncio.Event()

    def slowly() -> float:
        committing.set()
        return 0.5

    net.servers[A].manners.commit = slowly
    ordered = asyncio.ensure_future(net.transfer(A, (A, here, -300), (B, there, 300)))
    await committing.wait()
    ordered.cancel()
    one.stop.set()
    await one.stopped
    await store.close()
    assert broken == []
    net.stores[A] = net.banks[A2].bank.store
    (identity,) = net.servers[A].disk.rows[Transaction]
    await net.settle(identity)


async def test_an_account_whose_opening_was_not_heard_of_is_opened_once(net: World) -> None:
    await net.person(A)
    not_heard_of(net)
    number = await net.account(A)
    holder = await net.person(A)
    assert [each.number for each in await net.stores[A].find(Queries.ACCOUNTS_OF_HOLDER, holder.holder_id)] == [number]


async def test_a_holder_whose_registration_was_not_heard_of_is_registered(net: World) -> None:
    not_heard_of(net)
    holder = await net.person(A)
    assert holder.cpf == CPFS[0]


async def test_a_consent_that_was_not_heard_of_keeps_what_was_used_of_it_since(net: World) -> None:
    number = await net.account(A)
    server, notes = net.servers[A], list[str]()

    def use_it(what: str) -> None:
        """In the moment in which it has landed, somebody who has heard of it uses it."""
        notes.append(what)
        for key, consent in server.disk.rows[Consent].items():
            server.disk.rows[Consent][key] = replace(consent, used=7)

    server.manners.note = use_it
    not_heard_of(net)
    consent = await net.consent(A, number, B)
    known = await net.stores[A].get(Consent, consent)
    assert notes == ["commit landed unheard of"]
    assert known is not None
    assert known.used == 7


async def test_a_decision_is_stamped_later_than_what_another_process_wrote_whatever_its_clock_says(net: World) -> None:
    number = await net.account(A, 500)
    fast = net.banks[A1].bank.rhythm
    fast.hear(stamp_at(net.clock.wall_ms() + 30_000))
    await net.cash(A, number, 100)
    net.front[A] = A2
    await net.cash(A, number, 600, kind=EntryKind.WITHDRAWAL)
    entries = await net.stores[A].find(Queries.ENTRIES_SINCE, number)
    assert [entry.amount for entry in entries] == [500, 100, 600]
    assert entries[1].stamp < entries[2].stamp


async def interrupted(net: World) -> tuple[asyncio.Task[TransferResult], str, tuple[tuple[str, str, int], ...]]:
    """A transfer that its process still drives, and that has just been aborted as if nobody did."""
    here, there = await net.account(A, 500), await net.account(B)
    gate = net.weather = Gate(Prepare)
    legs = ((A, here, -300), (B, there, 300))
    ordered = asyncio.ensure_future(net.transfer(A, *legs, key="rent"))
    await gate.reached.wait()
    (identity,) = net.servers[A].disk.rows[Transaction]
    await net.banks[A2].bank.coordinating.restart(identity)
    gate.open.set()
    return ordered, identity, legs


async def test_who_was_told_that_a_transfer_was_interrupted_is_told_so_again(net: World) -> None:
    ordered, identity, legs = await interrupted(net)
    told = await ordered
    assert (told.transaction.id, told.transaction.state) == (identity, State.ABORTED)
    again = await net.transfer(A, *legs, key="rent")
    assert (again.transaction.id, again.replayed) == (identity, True)


async def test_nobody_is_told_of_an_interrupted_transfer_whose_key_has_run_anew(net: World) -> None:
    ordered, identity, legs = await interrupted(net)
    net.front[A] = A2
    anew = await net.transfer(A, *legs, key="rent")
    assert anew.transaction.id != identity
    with pytest.raises(OutcomeUnknown):
        await ordered


async def test_an_answer_to_an_order_is_what_a_decision_of_its_own_has_seen(
    net: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is only read may not have reached the standby, and be lost in a failover."""
    here, there = await net.account(A, 500), await net.account(B)
    get, ahead = SharedMemoryStore.get, {State.PREPARING: State.COMMITTING}

    async def read(store: SharedMemoryStore, kind: type[Any], *key: str) -> Any:
        row = await get(store, kind, *key)
        return replace(row, state=ahead.get(row.state, State.ABORTED)) if isinstance(row, Transaction) else row

    async def order() -> State:
        return (await net.transfer(A, (A, here, -300), (B, there, 300), key="rent", wait=0.1)).transaction.state

    gate = net.weather = Gate(Prepare)
    with monkeypatch.context() as patched:
        patched.setattr(SharedMemoryStore, "get", read)
        assert [await order(), await order()] == [State.PREPARING, State.PREPARING]
    gate.open.set()
    (identity,) = net.servers[A].disk.rows[Transaction]
    await net.settle(identity)
    monkeypatch.setattr(SharedMemoryStore, "get", read)
    assert await order() is State.ENDED


async def test_an_answer_to_a_batch_waits_for_what_it_has_read(net: World, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = await net.account(A, 500), await net.account(A)
    holder, bank = await net.person(A), net.at(A).bank
    items = [BatchItem(make_legs((A, here, -300), (A, there, 300)), None)]
    key = KeyName(holder.holder_id, "batches", "wages", "")
    result, written = bank.batching._result, list[int]()

    async def read(batch_id: str, *, replayed: bool = False) -> BatchResult:
        found = await result(batch_id, replayed=replayed)
        written.append(bank.store.stats.flushes)
        return found

    monkeypatch.setattr(bank.batching, "_result", read)
    await bank.batching.order(holder, items, Mode.SEQUENTIAL, OnFailure.STOP, key, 5)
    assert [bank.store.stats.flushes] == [each + 1 for each in written]


async def test_an_id_that_was_aborted_unheard_of_is_never_used_again(net: World) -> None:
    here, there = await net.account(A, 500), await net.account(B)
    server, aborting = net.servers[A], list[asyncio.Task[object]]()

    def abort(_what: str) -> None:
        (identity,) = server.disk.rows[Transaction]
        aborting.append(asyncio.ensure_future(net.banks[A2].bank.coordinating.restart(identity)))

    server.manners.note = abort
    not_heard_of(net)
    told = await net.transfer(A, (A, here, -300), (B, there, 300), key="rent")
    assert told.transaction.state is State.ABORTED
    assert len(aborting) == 1
    again = await net.transfer(A, (A, here, -300), (B, there, 300), key="rent")
    assert (again.transaction.id, again.replayed) == (told.transaction.id, True)


async def test_an_item_of_a_batch_that_was_interrupted_runs_anew(net: World) -> None:
    here, there = await net.account(A, 500), await net.account(B)
    holder = await net.person(A)
    gate = net.weather = Gate(Prepare)
    items = [BatchItem(make_legs((A, here, -300), (B, there, 300)), None)]
    key = KeyName(holder.holder_id, "batches", "wages", "")
    one = net.banks[A1].bank
    ordered = asyncio.ensure_future(one.batching.order(holder, items, Mode.SEQUENTIAL, OnFailure.STOP, key, 5))
    await gate.reached.wait()
    (identity,) = net.servers[A].disk.rows[Transaction]
    await net.banks[A2].bank.coordinating.restart(identity)
    gate.open.set()
    (done,) = (await ordered).results
    assert isinstance(done, Transaction)
    assert (done.id != identity, done.state) in ((True, State.COMMITTING), (True, State.ENDED))


async def test_a_batch_that_landed_unheard_of_is_run_though_too_many_run_by_now(
    net: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = await net.account(A, 500), await net.account(A)
    holder = await net.person(A)
    items = [BatchItem(make_legs((A, here, -300), (A, there, 300)), None)]
    key = KeyName(holder.holder_id, "batches", "wages", "")
    net.servers[A].manners.note = lambda _what: monkeypatch.setattr(batching, "MAX_RUNNING", 0)
    not_heard_of(net)
    batch = net.at(A).bank.batching
    done = await batch.order(holder, items, Mode.SEQUENTIAL, OnFailure.STOP, key, 5)
    assert (done.batch.finished_at is not None, batching.MAX_RUNNING) == (True, 0)
    assert await net.balance(A, there) == (300, 300)


async def test_a_batch_is_run_to_its_end_though_the_database_is_away_for_long(
    net: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "AWAY_S", 0.1)
    here, there = await net.account(A, 500), await net.account(B)
    holder = await net.person(A)
    gate = net.weather = Gate(Prepare)
    items = [BatchItem(make_legs((A, here, -100), (B, there, 100)), None)] * 3
    key = KeyName(holder.holder_id, "batches", "wages", "")
    one = net.banks[A1].bank
    ordered = asyncio.ensure_future(one.batching.order(holder, items, Mode.CONCURRENT, OnFailure.CONTINUE, key, 20))
    await gate.reached.wait()
    store = one.store
    assert isinstance(store, SharedMemoryStore)
    store.cut_off(0.5)
    gate.open.set()
    net.calm()
    done = await net.banks[A2].bank.batching.order(holder, items, Mode.CONCURRENT, OnFailure.CONTINUE, key, 0)
    assert done.batch.finished_at is None
    with suppress(StoreAway):
        await ordered

    async def finished() -> bool:
        return (await store.get(Batch, done.batch.batch_id)).finished_at is not None  # type: ignore[union-attr]

    await net.until(finished)


async def payments_both_ways(net: World) -> tuple[str, str]:
    """An account at A and one at B, each of which has paid the other: with a cap, A's position has been locked."""
    here, there = await net.account(A, 500), await net.account(B, 500)
    for payer, payee in (((A, here), (B, there)), ((B, there), (A, here))):
        done = await net.transfer(payer[0], (*payer, -100), (*payee, 100))
        await net.settle(done.transaction.id)
    return here, there


@pytest.fixture
async def capped() -> AsyncIterator[World]:
    """The same with a cap. The server sees to it that whoever writes to a book has locked it, once anybody has."""
    async with world(2, shared=(A,), position_cap=10_000) as made:
        yield made


async def test_under_a_cap_commits_lock_the_positions_that_they_write_to(capped: World) -> None:
    here, there = await payments_both_ways(capped)
    assert await capped.balance(A, here) == await capped.balance(B, there) == (500, 500)
    assert capped.servers[A].named == {"cash", position_book(B)}


async def test_under_a_cap_aborts_lock_the_positions_that_they_write_to(capped: World) -> None:
    here, there = await payments_both_ways(capped)
    refused = await capped.transfer(A, (A, here, -100), (B, "00000099-9", 100))
    assert refused.transaction.state is State.ABORTED
    capped.weather = losing(Prepare, "lose answer")
    late = await capped.transfer(B, (A, here, 100), (B, there, -100))
    await capped.settle(late.transaction.id)
    known = await capped.state(A, late.transaction.id)
    assert known is not None
    assert known.state is State.ABORTED
    assert capped.servers[A].disk.rows[Book][position_book(B)].reserved == 0


async def test_under_a_cap_what_was_left_in_doubt_locks_the_positions_that_it_writes_to(capped: World) -> None:
    here, there = await payments_both_ways(capped)
    gate = capped.weather = Gate(Prepare)
    ordered = asyncio.ensure_future(capped.transfer(A, (A, here, -100), (B, there, 100)))
    await gate.reached.wait()
    begun = [row.id for row in capped.servers[A].disk.rows[Transaction].values() if row.state is State.PREPARING]
    await capped.banks[A2].bank.coordinating.restart(*begun)
    gate.open.set()
    assert (await ordered).transaction.state is State.ABORTED
    capped.weather = losing(Commit, "lose request")
    told = await capped.transfer(B, (A, here, 100), (B, there, -100), wait=0.1)
    forced = await capped.transfer(B, (A, here, 100), (B, there, -100), wait=0.1)
    guess = await capped.banks[A1].bank.participating.force(forced.transaction.id, Verdict.ABORT, "she waits")
    assert isinstance(guess, Heuristic)
    for each in (told, forced):  # by inquiry
        await capped.until(partial(in_state, capped, A, each.transaction.id, State.COMMITTED))
    assert await capped.balance(A, here) == (700, 700)


@pytest.mark.parametrize("lost", [Commit, Inquire], ids=["told by inquiry", "told by message"])
async def test_a_correction_locks_suspense_which_it_may_write_to(lost: type[Message]) -> None:
    async with world(2, shared=(B,)) as net:
        here, there = await net.account(A), await net.account(B, 100)
        await net.consent(B, there, A)
        bank = net.at(B).bank
        nothing = await bank.assigning.assign(Direction.CREDIT, 1, there, "she called", None, net.key(), "")
        assert nothing.refusal is not None  # but whoever assigns has locked the book
        net.weather = nothing_about_outcomes
        done = await net.transfer(A, (A, here, 30), (B, there, -30), wait=0.1)
        await net.until(partial(in_state, net, A, done.transaction.id, State.COMMITTING))
        assert isinstance(await bank.participating.force(done.transaction.id, Verdict.ABORT, "she waits"), Heuristic)
        await net.cash(B, there, 100, kind=EntryKind.WITHDRAWAL)
        net.weather = losing(lost, "lose request")
        await net.until(partial(in_state, net, B, done.transaction.id, State.COMMITTED))
        assert net.servers[B].disk.rows[Book][SUSPENSE].balance == -30


async def restored(net: World, taken: Disk) -> None:
    """A dies with both of its processes and comes back on the backup *taken*; its books are locked now and then."""
    for name in (A1, A2):
        await net.crash(name)
    net.servers[A] = SharedMemory(disk=put_back(net, A, taken))
    net.servers[A].named |= {position_book(B), SUSPENSE}
    del net.stores[A]
    for name in (A1, A2):
        await net.start(name)


async def test_what_is_posted_anew_locks_the_books_that_it_writes_to(capped: World) -> None:
    here, there = await capped.account(A), await capped.account(B, 500)
    taken = await backup(capped, A)
    done = await capped.transfer(B, (A, here, 100), (B, there, -100))
    await capped.settle(done.transaction.id)
    later = await capped.account(A)  # which the backup does not know
    done = await capped.transfer(B, (A, later, 100), (B, there, -100))
    await capped.settle(done.transaction.id)
    await restored(capped, taken)
    assert await capped.balance(A, here) == (100, 100)
    assert capped.servers[A].disk.rows[Book][SUSPENSE].balance == 100


async def test_what_was_settled_unheard_of_is_told_to_everyone_all_the_same(capped: World) -> None:
    here, there = await capped.account(A, 500), await capped.account(B, 500)
    taken = await backup(capped, A)
    done = await capped.transfer(A, (A, here, -100), (B, there, 100))
    await capped.settle(done.transaction.id)
    await restored(capped, taken)
    not_heard_of(capped)
    legs = [(here, Direction.DEBIT, 60)]
    settled = await capped.at(A).bank.restoring.settle(done.transaction.id, "her receipt", legs)
    assert not isinstance(settled, Refusal)
    await capped.settle(done.transaction.id)
    assert await capped.balance(A, here) == (440, 440)
    assert capped.servers[A].disk.rows[Book][SUSPENSE].balance == -40
