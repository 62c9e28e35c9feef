"""The promises of ``ports.Store``, each as a claim, shown of every engine alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from distribank.breakages import DurabilityLost
from distribank.core.clock import Floor
from distribank.core.heuristics import AccountDamage, Damage, Verdict
from distribank.core.holders import Counter, Holder
from distribank.core.idempotency import IdempotencyKey, KeyName
from distribank.core.ledger import (
    Account,
    AccountHolder,
    Book,
    BookEntry,
    Company,
    HolderRole,
    HoldState,
    Reservation,
)
from distribank.core.ledger import Hold as HoldRow
from distribank.core.protocol import FORCED, RecordKind, Role, State, Transaction
from distribank.core.restoration import PartFate
from distribank.core.transfer import Direction, Leg
from distribank.ports import Queries, Query, Row, Store, Unit
from distribank.store import group
from tests.stores import (
    BANK,
    PEER,
    STAMP,
    Alone,
    InMemory,
    InSharedMemory,
    LoneWorld,
    OnPostgres,
    OnSqlite,
    Place,
    World,
    account,
    assignment,
    batch,
    consent,
    damaging,
    deposit,
    entry,
    heuristic,
    hold,
    holder,
    key,
    lost,
    number,
    record,
    restoration,
    supplied,
    told,
    tombstone,
    transaction,
    transaction_id,
    turn,
)

THIRD = "00000003"


@pytest.fixture(params=["sqlite", "memory", "postgres", "shared memory"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """A store of any engine."""
    async with a_world(request.param, tmp_path) as made:
        yield made


@pytest.fixture(params=["sqlite", "memory"])
async def alone(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LoneWorld]:
    """A store of an engine that has its rows to itself: it queues, and flushes when it can."""
    async with a_world(request.param, tmp_path) as made:
        assert isinstance(made, LoneWorld)
        yield made


@asynccontextmanager
async def a_world(engine: str, directory: Path) -> AsyncIterator[World]:
    engines: dict[str, Callable[[Path], Place]]
    engines = {"sqlite": OnSqlite, "memory": InMemory, "postgres": OnPostgres, "shared memory": InSharedMemory}
    place = engines[engine](directory)
    store = await place.opened()
    world = LoneWorld(place, store) if isinstance(place, Alone) else World(place, store)
    try:
        yield world
    finally:
        place.failure = None
        if isinstance(place, Alone):
            place.let_flush()
        await world.store.close()
        await place.leave()


async def test_every_engine_is_a_store(world: World) -> None:
    store: Store = world.store
    assert len(store.incarnation) == 32


# Seeing what is queued --------------------------------------------------------------------------------------------


async def test_a_queued_row_is_seen_at_once(alone: LoneWorld) -> None:
    alone.place.hold()
    alone.write([account(1, posted=5)])
    assert await alone.store.get(Account, number(1)) == account(1, posted=5)


async def test_a_row_is_seen_while_it_is_being_flushed(alone: LoneWorld) -> None:
    alone.place.hold()
    alone.write([account(1, posted=5)])
    await turn()
    assert await alone.store.get(Account, number(1)) == account(1, posted=5)


async def test_what_is_queued_hides_what_is_being_flushed(alone: LoneWorld) -> None:
    alone.place.hold()
    alone.write([account(1, posted=5)])
    await turn()
    alone.write([account(1, posted=7)])
    assert await alone.store.get(Account, number(1)) == account(1, posted=7)


async def test_lists_show_only_what_is_durable(alone: LoneWorld) -> None:
    alone.place.hold()
    written = alone.write([Book("cash", 5)])
    await turn()
    assert await alone.store.find(Queries.BOOKS) == []
    alone.place.let_flush()
    await written
    assert await alone.store.find(Queries.BOOKS) == [Book("cash", 5)]


async def test_what_was_never_written_is_none(world: World) -> None:
    assert await world.store.get(Account, number(1)) is None
    assert await world.store.get(HoldRow, number(1), transaction_id(1)) is None
    assert await world.store.get(IdempotencyKey, "h1", "/v1/transfers", "key-1") is None


ROWS: list[tuple[Any, tuple[str, ...]]] = [
    (account(1, posted=5, held=3, incoming=2, open_holds=2, changes=4), (number(1),)),
    (replace(account(2), company=Company("12345678000195", "Padaria Ltda", number(2))), (number(2),)),
    (batch(1), ("batch-1",)),
    (assignment(1, account=None, change=None), ("assignment-1",)),
    (assignment(1, account=None, change=None, transaction=transaction_id(1, PEER)), ("assignment-1",)),
    (Book("position:00000002", -7, 3), ("position:00000002",)),
    (Company("12345678000195", "Padaria Ltda", number(2)), ("12345678000195",)),
    (consent(1), ("consent-1",)),
    (Counter("account", 7), ("account",)),
    (heuristic(1), (transaction_id(1, PEER),)),
    (
        heuristic(
            1,
            truth=Verdict.ABORT,
            truth_at=9,
            matched=False,
            damage=Damage((AccountDamage(number(1), Direction.CREDIT, 500, 499),), PEER, -500, 1),
        ),
        (transaction_id(1, PEER),),
    ),
    (holder(1), (f"{1:011d}",)),
    (key(1, 5), ("h1", "/v1/transfers", "key-1")),
    (lost(1, PartFate.COMMITTED, PartFate.PREPARED), (transaction_id(1),)),
    (replace(lost(1, PartFate.ABORTED), participants=(), counterparties=()), (transaction_id(1),)),
    (restoration(1), (f"{1:032x}",)),
    (restoration(1, without=(PEER,), told=(told(PEER), told("00000003", None))), (f"{1:032x}",)),
    (supplied(1), (transaction_id(1, PEER),)),
    (supplied(1, -7, reason="her receipt", accounts=()), (transaction_id(1, PEER),)),
    (transaction(1), (transaction_id(1),)),
    (tombstone(2), (transaction_id(2, PEER),)),
]


@pytest.mark.parametrize(("row", "name"), ROWS, ids=lambda part: type(part).__name__)
async def test_a_row_of_any_kind_is_read_back_by_its_key_after_a_restart(
    world: World, row: Any, name: tuple[str, ...]
) -> None:
    await world.write([row])
    store = await world.reopen()
    assert await store.get(type(row), *name) == row


async def test_a_hold_is_known_by_account_and_transaction(world: World) -> None:
    placed = hold(number(1), transaction_id(1), 1)
    await world.write([account(1, posted=100, held=100), transaction(1), placed])
    store = await world.reopen()
    assert await store.get(HoldRow, number(1), transaction_id(1)) == placed


# Deciding ---------------------------------------------------------------------------------------------------------


async def test_decisions_over_one_row_are_taken_one_after_the_other(world: World) -> None:
    await world.write(deposit(account(1), 1))

    async def pay_in(unit: Unit) -> int:
        before = await unit.get(Account, number(1))
        assert before is not None
        await asyncio.sleep(0)  # whoever had not the account to themselves would have their turn now
        unit.write(deposit(before, 1))
        return before.posted

    names = [f"account:{number(1)}"]
    seen = await asyncio.gather(*(world.store.decide(names, pay_in) for _ in range(20)))
    assert sorted(seen) == list(range(1, 21))
    await world.store.flushed()
    counted = await world.store.recount()
    assert (counted.customers, counted.findings) == (21, [])


async def test_what_a_decision_wrote_it_reads_and_so_does_the_next(world: World) -> None:
    async def first(unit: Unit) -> Account | None:
        unit.write([account(1, posted=5)])
        return await unit.get(Account, number(1))

    async def second(unit: Unit) -> Account | None:
        return await unit.get(Account, number(1))

    names = [f"account:{number(1)}"]
    told = await asyncio.gather(world.store.decide(names, first), world.store.decide(names, second))
    assert told == [account(1, posted=5)] * 2


async def test_a_decision_that_raises_writes_nothing_and_disturbs_nobody(world: World) -> None:
    async def refuse(_unit: Unit) -> None:
        raise ZeroDivisionError

    async def write(unit: Unit) -> None:
        unit.write([account(2)])

    refused, written = await asyncio.gather(
        world.store.decide([f"account:{number(1)}"], refuse),
        world.store.decide([f"account:{number(2)}"], write),
        return_exceptions=True,
    )
    assert isinstance(refused, ZeroDivisionError)
    assert written is None
    assert await (await world.reopen()).get(Account, number(2)) == account(2)


async def test_what_follows_a_decision_follows_though_nobody_waits_any_more(world: World) -> None:
    followed: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    running = asyncio.Event()

    async def write(unit: Unit) -> str:
        unit.write([account(1)])
        running.set()
        return "decided"

    waiting = asyncio.ensure_future(world.store.decide([f"account:{number(1)}"], write, followed.set_result))
    await running.wait()
    waiting.cancel()
    assert await asyncio.wait_for(followed, 10) == "decided"
    await world.store.flushed()
    assert await world.store.get(Account, number(1)) == account(1)


async def test_lists_within_a_decision_show_all_that_was_decided_before_once_it_is_settled(world: World) -> None:
    async def add(unit: Unit) -> None:
        unit.write([assignment(1, account=None, change=None)])

    async def look(unit: Unit) -> int:
        await unit.settled()
        return len(await unit.find(Queries.ASSIGNMENTS))

    _, seen = await asyncio.gather(world.store.decide(["book:suspense"], add), world.store.decide(["book:cash"], look))
    assert seen == 1


async def test_what_is_locked_by_every_kind_of_name_can_be_read_and_written(world: World) -> None:
    names = [
        *("clock", f"account:{number(1)}", f"transaction:{transaction_id(1)}", f"holder:{1:011d}", "counter:account"),
        *("company:12345678000195", "batch:batch-1", "book:cash", KeyName("h1", "/v1/transfers", "key-1", "f").lock),
    ]

    async def write(unit: Unit) -> None:
        for row, name in ROWS[:1] + ROWS[11:14]:
            assert await unit.get(type(row), *name) is None
            unit.write([row])
        unit.write([Floor(STAMP + 77)])

    await world.store.decide(names, write)
    store = await world.reopen()
    for row, name in ROWS[:1] + ROWS[11:14]:
        assert await store.get(type(row), *name) == row
    assert store.last_stamp == STAMP + 77


async def test_what_was_left_unfinished_is_claimed_once(world: World) -> None:
    await world.write([transaction(1), transaction(2, State.COMMITTING), transaction(3, State.ENDED), batch(1)])
    store = await world.reopen()
    pages = [await store.claim(1) for _ in range(3)]
    assert [[row.id for row in page] for page in pages] == [[transaction_id(1)], [transaction_id(2)], []]
    assert [[row.batch_id for row in await store.claim_batches(5)] for _ in range(2)] == [["batch-1"], []]


# Atomic, in order, together ---------------------------------------------------------------------------------------


async def test_what_waits_together_is_flushed_together(alone: LoneWorld) -> None:
    first = [alone.write([account(n)]) for n in range(1, 4)]
    await asyncio.gather(*first)
    assert alone.place.flushes == [3]


async def test_what_arrives_during_a_flush_travels_with_the_next(alone: LoneWorld) -> None:
    alone.place.hold()
    first = alone.write([account(1)])
    await turn()
    later = [alone.write([account(n)]) for n in (2, 3)]
    alone.place.let_flush()
    await asyncio.gather(first, *later)
    assert alone.place.flushes == [1, 2]


async def test_the_last_of_several_writes_of_one_row_wins(alone: LoneWorld) -> None:
    writes = [alone.write([account(1, posted=posted)]) for posted in (1, 2, 3)]
    await asyncio.gather(*writes)
    assert alone.store.stats.rows == 1
    assert await (await alone.reopen()).get(Account, number(1)) == account(1, posted=3)


async def test_a_write_is_durable_as_a_whole_or_not_at_all(alone: LoneWorld) -> None:
    await alone.write(deposit(account(1), 5))
    with pytest.raises(DurabilityLost):
        await alone.write([Counter("account", 9), account(2), *deposit(account(1), 5)[1:]])  # posted once already
    store = await alone.reopen()
    assert await store.get(Account, number(2)) is None
    assert await store.get(Counter, "account") is None


async def test_a_write_that_fails_while_it_is_queued_leaves_nothing(alone: LoneWorld) -> None:
    def rows() -> Any:
        yield account(1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        alone.write(rows())
    assert await (await alone.reopen()).get(Account, number(1)) is None


async def test_an_empty_write_is_durable_like_any_other(alone: LoneWorld) -> None:
    await asyncio.wait_for(alone.write([]), 5)


async def test_a_holder_of_an_account_can_be_added(world: World) -> None:
    opened = account(1)
    await world.write([opened])
    partner = AccountHolder("h2", f"{2:011d}", "João Souza", HolderRole.CO_HOLDER)
    joint = replace(opened, holders=(*opened.holders, partner), approval=2)
    await world.write([joint])
    store = await world.reopen()
    assert await store.get(Account, number(1)) == joint
    assert await store.find(Queries.ACCOUNTS_OF_HOLDER, "h2") == [joint]


async def test_a_transaction_is_read_back_as_each_state_left_it(world: World) -> None:
    prepared = transaction(1)
    ended = transaction(1, State.ENDED)
    await world.write([prepared])
    await world.write([ended])
    assert await (await world.reopen()).get(Transaction, prepared.id) == ended


async def test_book_entries_and_reservations_add_up_in_their_book(world: World) -> None:
    world.write([BookEntry("op-1", "cash", -5, STAMP), Reservation("cash", 9)])
    await world.write([BookEntry("op-2", "cash", -2, STAMP)])
    await world.write([Reservation("cash", -4)])
    assert await world.store.get(Book, "cash") == Book("cash", -7, 5)
    assert await (await world.reopen()).get(Book, "cash") == Book("cash", -7, 5)


@pytest.mark.parametrize(
    "again",
    [
        [entry(number(1), 1, 5, 5)],
        [entry(number(1), 2, 5, 10, operation=f"deposit-{number(1)}-1")],
        [BookEntry(f"deposit-{number(1)}-1", "cash", -5, STAMP)],
    ],
    ids=["same change", "same leg", "same book entry"],
)
async def test_posting_twice_stops_the_bank(world: World, again: list[Row]) -> None:
    await world.write(deposit(account(1), 5))
    with pytest.raises(DurabilityLost):
        await world.write(again)
    assert len(world.place.broken) == 1


# When it is durable -----------------------------------------------------------------------------------------------


async def test_a_write_is_not_done_before_it_is_durable(alone: LoneWorld) -> None:
    alone.place.hold()
    written = alone.write([transaction(1)])
    await turn()
    assert not written.done()
    assert not alone.store.is_durable(transaction_id(1))
    alone.place.let_flush()
    await written
    assert alone.store.is_durable(transaction_id(1))


async def test_a_queued_transaction_is_not_durable_yet(alone: LoneWorld) -> None:
    alone.write([transaction(1)], lazy=True)
    assert not alone.store.is_durable(transaction_id(1))


async def test_a_lazy_write_causes_no_flush_of_its_own(alone: LoneWorld) -> None:
    written = alone.write([account(1)], lazy=True)
    await turn()
    assert not written.done()
    assert alone.place.flushes == []


async def test_a_lazy_write_rides_along_with_the_next(alone: LoneWorld) -> None:
    lazy = alone.write([account(1)], lazy=True)
    await alone.write([account(2)])
    assert lazy.done()
    assert alone.place.flushes == [2]


async def test_a_lazy_write_is_flushed_when_its_time_is_up(alone: LoneWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "LAZY_SECONDS", 0.001)
    await asyncio.wait_for(alone.write([account(1)], lazy=True), 5)
    assert alone.place.flushes == [1]


async def test_a_lazy_write_may_wait_a_second_and_no_longer() -> None:
    assert group.LAZY_SECONDS == 1.0


async def test_with_nothing_queued_the_barrier_is_open(alone: LoneWorld) -> None:
    alone.place.hold()
    await asyncio.wait_for(alone.store.flushed(), 5)
    assert alone.place.flushes == []


async def test_the_barrier_waits_for_lazy_writes_too(alone: LoneWorld) -> None:
    lazy = alone.write([account(1)], lazy=True)
    await alone.store.flushed()
    assert lazy.done()


async def test_the_barrier_waits_for_the_flush_under_way(alone: LoneWorld) -> None:
    alone.place.hold()
    alone.write([account(1)])
    await turn()
    barrier = asyncio.ensure_future(alone.store.flushed())
    await turn()
    assert not barrier.done()
    alone.place.let_flush()
    await barrier


async def test_giving_up_on_a_write_does_not_undo_it_nor_disturb_the_others(alone: LoneWorld) -> None:
    alone.place.hold()
    first, second = alone.write([account(1)]), alone.write([account(2)])
    first.cancel()
    alone.place.let_flush()
    await second
    assert await (await alone.reopen()).get(Account, number(1)) == account(1)


async def test_closing_makes_what_is_queued_durable(alone: LoneWorld) -> None:
    alone.write([account(1)], lazy=True)
    alone.write([account(2)])
    store = await alone.reopen()
    assert await store.get(Account, number(1)) == account(1)
    assert await store.get(Account, number(2)) == account(2)


async def test_a_closed_store_takes_nothing_more(alone: LoneWorld) -> None:
    await alone.store.close()
    await alone.store.close()
    with pytest.raises(DurabilityLost):
        alone.write([account(1)])


# A flush that fails (pitfall 26) ----------------------------------------------------------------------------------


async def test_a_failed_flush_fails_everyone_who_waits(alone: LoneWorld) -> None:
    alone.place.failure = OSError(5, "Input/output error")
    alone.place.hold()
    flushing = alone.write([account(1)])
    await turn()
    queued, barrier = alone.write([account(2)]), asyncio.ensure_future(alone.store.flushed())
    await turn()
    alone.place.let_flush()
    for waiting in (flushing, queued, barrier):
        with pytest.raises(DurabilityLost, match="Input/output error"):
            await waiting


async def test_after_a_failed_flush_nothing_is_ever_written_or_read_again(alone: LoneWorld) -> None:
    alone.place.failure = OSError(5, "Input/output error")
    with pytest.raises(DurabilityLost):
        await alone.write([account(1)])
    alone.place.failure = None  # the disk would take it now: it is not asked
    with pytest.raises(DurabilityLost):
        alone.write([account(2)])
    for refused in (
        alone.store.flushed(),
        alone.store.get(Account, number(1)),
        alone.store.find(Queries.BOOKS),
        alone.store.recount(),
        alone.store.collect(1, 1, 1),
    ):
        with pytest.raises(DurabilityLost):
            await refused
    assert alone.place.flushes == []


async def test_a_failed_flush_is_told_once(alone: LoneWorld) -> None:
    alone.place.failure = OSError(5, "Input/output error")
    alone.write([account(1)])
    alone.write([account(2)])
    await turn(10)
    (lost,) = alone.place.broken
    assert isinstance(lost.__cause__, OSError)


async def test_a_failed_flush_leaves_no_trace_where_it_never_reached_the_disk(alone: LoneWorld) -> None:
    alone.place.failure = OSError(5, "Input/output error")
    with pytest.raises(DurabilityLost):
        await alone.write([account(1)])
    alone.place.failure = None
    assert await (await alone.reopen()).get(Account, number(1)) is None


# Which database this is -------------------------------------------------------------------------------------------


async def test_the_incarnation_outlives_the_process(world: World) -> None:
    incarnation = world.store.incarnation
    store = await world.reopen()
    assert store.incarnation == incarnation
    assert store.reaches_back_to == 0


async def test_a_lost_disk_begins_another_incarnation(world: World) -> None:
    incarnation = world.store.incarnation
    await world.store.close()
    await world.place.lose_disk()
    world.store = await world.place.opened()
    assert world.store.incarnation != incarnation


async def test_the_last_stamp_is_the_greatest_of_any_row(world: World) -> None:
    assert world.store.last_stamp == 0
    await world.write([record(transaction_id(1), 1), BookEntry("op", "cash", 1, STAMP + 2)])
    assert (await world.reopen()).last_stamp == STAMP + 2
    await world.write([transaction(1, State.COMMITTING, commit_at=STAMP + 9, prepared_at=STAMP + 3)])
    assert (await world.reopen()).last_stamp == STAMP + 9
    released = hold(number(1), transaction_id(1), 1, state=HoldState.RELEASED, resolved_at=STAMP + 11)
    await world.write([account(1), released])
    await world.write([record(transaction_id(2), 4)])
    assert (await world.reopen()).last_stamp == STAMP + 11


# Lists ------------------------------------------------------------------------------------------------------------


@dataclass
class Listing:
    """One query over the rows of ``shelf``: the serials that it shows, in order, and by what a page continues."""

    query: Query[Any]
    key: tuple[str, ...]
    shows: list[Any]
    after: Callable[[Any], tuple[Any, ...]]


def begun(row: Transaction) -> tuple[int, str]:
    return row.begun_at, row.id


def shelf() -> list[Row]:
    joint = account(3)
    joint = replace(joint, holders=(*account(1).holders, *joint.holders))
    entries = [entry(number(1), n, 10, 10 * n, posted_at=100 * n) for n in range(1, 6)]
    states = [State.PREPARING, State.COMMITTING, State.ENDED, State.ABORTED, State.PREPARING, State.ENDED]
    return [
        *(holder(n) for n in (1, 2, 3)),
        *(account(1), account(2), joint),
        *entries,
        *(transaction(n, state) for n, state in enumerate(states, 1)),
        tombstone(7),
        *(hold(number(1), transaction_id(n), 10 + n) for n in (1, 5)),
        hold(number(1), transaction_id(2), 20, state=HoldState.POSTED, resolved_at=STAMP),
        hold(number(2), transaction_id(1), 3),
        *(consent(n) for n in (1, 2, 3)),
        consent(4, holder_id="h2"),
        *(record(transaction_id(1), n) for n in (3, 1, 2)),
        *(batch(1), batch(2, finished_at=9), batch(3)),
        *(heuristic(n) for n in (2, 3, 1)),
        *(damaging(5), damaging(4), damaging(6, to_suspense=0)),
        *(assignment(n) for n in (2, 1)),
        assignment(3, account=None, change=None),
        *(lost(n, PartFate.PREPARED) for n in (2, 3, 1)),
        *(supplied(n, n) for n in (2, 1)),
        supplied(3),
        supplied(4, accounts=(AccountDamage(number(1), Direction.CREDIT, 5, 4),)),
        *peers_transactions(),
        *(Book(name) for name in ("position:b", "cash", "position:a")),
    ]


def peers_transactions() -> list[Row]:
    """What a third bank coordinates, in which this one takes part, whatever became of it."""
    states = {8: State.PREPARED, 9: State.COMMITTED, 10: State.ABORTED}
    return [
        replace(
            transaction(n, State.PREPARING, participants=(BANK,), votes=(), subjects=()),
            id=transaction_id(n, THIRD),
            role=Role.PARTICIPANT,
            state=state,
            commit_at=STAMP + n if state is State.COMMITTED else None,
        )
        for n, state in states.items()
    ]


LISTINGS = [
    Listing(Queries.HOLDER_BY_ID, ("h2",), [f"{2:011d}"], lambda row: (row.cpf,)),
    Listing(Queries.ACCOUNTS_OF_HOLDER, ("h1",), [number(1), number(3)], lambda row: (row.number,)),
    Listing(Queries.ENTRIES_OF_ACCOUNT, (number(1), "200", "500"), [4, 3, 2], lambda row: (row.change,)),
    Listing(Queries.ENTRIES_SINCE, (number(1),), [1, 2, 3, 4, 5], lambda row: (row.change,)),
    Listing(Queries.HOLDS_SINCE, (number(1),), [11, 15, 20], lambda row: (row.change,)),
    Listing(
        Queries.PLACED_HOLDS,
        (),
        [(number(1), transaction_id(1)), (number(1), transaction_id(5)), (number(2), transaction_id(1))],
        lambda row: (row.account, row.transaction),
    ),
    Listing(
        Queries.CONSENTS_ON_ACCOUNT, (number(1),), [f"consent-{n}" for n in range(1, 5)], lambda row: (row.consent_id,)
    ),
    Listing(
        Queries.CONSENTS_OF_HOLDER,
        ("h1",),
        [(n, f"consent-{n}") for n in (3, 2, 1)],
        lambda row: (row.created_at, row.consent_id),
    ),
    Listing(
        Queries.UNFINISHED,
        (),
        [(n, transaction_id(n)) for n in (1, 2, 5)] + [(8, transaction_id(8, THIRD))],
        begun,
    ),
    Listing(
        Queries.TRANSACTIONS_OF,
        (number(1), "ended", "aborted", "committed"),
        [(n, transaction_id(n)) for n in (6, 4, 3)],
        begun,
    ),
    Listing(Queries.TRANSACTIONS_OF, ("h1", "preparing"), [(n, transaction_id(n)) for n in (5, 1)], begun),
    Listing(Queries.TRANSACTIONS_OF, ("h2", "preparing"), [], begun),
    Listing(Queries.RECORDS_OF, (transaction_id(1),), [STAMP + n for n in (1, 2, 3)], lambda row: (row.stamp,)),
    Listing(Queries.UNFINISHED_BATCHES, (), ["batch-1", "batch-3"], lambda row: (row.batch_id,)),
    Listing(
        Queries.HEURISTICS,
        (),
        [(n, transaction_id(n, PEER)) for n in (6, 5, 4, 3, 2, 1)],
        lambda row: (row.decided_at, row.transaction),
    ),
    Listing(
        Queries.SUSPENDED,
        (),
        [(n, 0, transaction_id(n, PEER)) for n in (5, 4)],
        lambda row: (row.truth_at, 0, row.transaction),
    ),
    Listing(
        Queries.ASSIGNMENTS,
        (),
        [(n, STAMP + n, f"assignment-{n}") for n in (3, 2, 1)],
        lambda row: (row.assigned_at, row.stamp, row.assignment_id),
    ),
    Listing(
        Queries.BEGUN_SINCE,
        ("5",),
        [(5, transaction_id(5)), (6, transaction_id(6)), (7, transaction_id(7, PEER))]
        + [(n, transaction_id(n, THIRD)) for n in (8, 9, 10)],
        begun,
    ),
    Listing(
        Queries.LOST,
        (),
        [(n, transaction_id(n)) for n in (3, 2, 1)],
        lambda row: (row.begun_at, row.transaction),
    ),
    Listing(
        Queries.SUPPLIED_IN_SUSPENSE,
        (),
        [(n, 0, transaction_id(n, PEER)) for n in (4, 2, 1)],
        lambda row: (row.at, 0, row.transaction),
    ),
    Listing(Queries.BOOKS, (), ["cash", "position:a", "position:b"], lambda row: (row.name,)),
]


@pytest.mark.parametrize("listing", LISTINGS, ids=lambda listing: listing.query.name)
async def test_a_query_lists_what_it_says_in_its_order_page_by_page(world: World, listing: Listing) -> None:
    rows = shelf()
    await world.write(rows)
    whole = await world.store.find(listing.query, *listing.key)
    shown = [after[0] if len(after := listing.after(row)) == 1 else after for row in whole]
    assert shown == listing.shows
    assert all(row in rows for row in whole)
    paged: list[Any] = []
    after: tuple[Any, ...] = ()
    while page := await world.store.find(listing.query, *listing.key, limit=2, after=after):
        paged += page
        after = listing.after(page[-1])
    assert paged == whole


@pytest.mark.parametrize(
    "query",
    [Queries.SUSPENDED, Queries.ASSIGNMENTS, Queries.SUPPLIED_IN_SUSPENSE],
    ids=lambda query: query.name,
)
async def test_what_moved_suspense_goes_on_after_whatever_moved_it(world: World, query: Query[Any]) -> None:
    """The three lists are read as one, so that the place after which one goes on may be a row of another."""
    await world.write(shelf())
    (after,) = (listing.after for listing in LISTINGS if listing.query is query)
    whole = await world.store.find(query)
    place = (4, STAMP + 4, "assignment-4")
    expected = [row for row in whole if after(row) < place]
    assert expected
    assert await world.store.find(query, after=place) == expected


def test_every_query_of_the_port_is_shown() -> None:
    named = {query.name for query in vars(Queries).values() if isinstance(query, Query)}
    assert named == {listing.query.name for listing in LISTINGS}


# Recount ----------------------------------------------------------------------------------------------------------


def sound_books() -> list[Row]:
    """Cash paid in on two accounts, one hold for a transfer under way, and room reserved for what a peer will owe."""
    first = [row for row in deposit(account(1), 500) if not isinstance(row, Account)]
    held = account(1, posted=500, held=100, incoming=0, open_holds=1, changes=2)
    legs = (Leg(1, PEER, number(9), Direction.DEBIT, 70), Leg(2, "00000001", number(1), Direction.CREDIT, 70))
    inflow = transaction(2)
    assert inflow.order is not None
    inflow = replace(inflow, order=replace(inflow.order, legs=legs))
    return [
        *first,
        held,
        hold(number(1), transaction_id(1), 2),
        transaction(1),
        *deposit(account(2), 250),
        inflow,
        Reservation(f"position:{PEER}", 70),
    ]


async def test_sound_books_are_counted_without_a_finding(world: World) -> None:
    await world.write(sound_books())
    counted = await world.store.recount()
    assert counted.findings == []
    assert (counted.customers, counted.entries, counted.holds) == (750, 2, 1)
    assert counted.books == {"cash": -750, f"position:{PEER}": 0}


DAMAGE: list[tuple[str, list[Row], str]] = [
    ("posted", [account(2, posted=251, changes=1)], "account 00000002-0: posted is 251, its entries sum to 250"),
    (
        "balance after",
        [entry(number(2), 2, 5, 256), BookEntry(f"deposit-{number(2)}-2", "cash", -5, STAMP)],
        "change 2 says balance 256, its entries up to there sum to 255",
    ),
    (
        "held",
        [account(1, posted=500, held=99, open_holds=1, changes=2)],
        "held, incoming and open holds are (99, 0, 1)",
    ),
    ("orphan", [transaction(1, State.ABORTED)], f"a hold is placed for {transaction_id(1)}, which is not unfinished"),
    ("book", [Book("cash", -749)], "book cash: balance is -749, its entries sum to -750"),
    ("reserved", [Reservation(f"position:{PEER}", 1)], "reserved is 71, open transactions would let the peer owe 70"),
    ("unbalanced", [BookEntry("op-9", "cash", 3, STAMP)], "operation op-9: its entries sum to 3, not to zero"),
]


@pytest.mark.parametrize(("damage", "finding"), [d[1:] for d in DAMAGE], ids=[d[0] for d in DAMAGE])
async def test_a_recount_finds_planted_damage(world: World, damage: list[Row], finding: str) -> None:
    await world.write(sound_books())
    await world.write(damage)
    assert any(finding in found for found in (await world.store.recount()).findings)


async def test_a_participants_inflow_is_reserved_until_it_is_posted(world: World) -> None:
    prepared = replace(transaction(3, State.PREPARED), role=Role.PARTICIPANT, id=transaction_id(3, PEER))
    assert prepared.order is not None
    own = (Leg(1, "00000001", number(1), Direction.CREDIT, 40),)
    prepared = replace(prepared, order=replace(prepared.order, legs=own))
    await world.write([prepared, Reservation(f"position:{PEER}", 40)])
    assert (await world.store.recount()).findings == []


@pytest.mark.parametrize("state", FORCED)
async def test_a_forced_part_is_unfinished_reserves_nothing_and_is_never_collected(world: World, state: State) -> None:
    forced = replace(transaction(3, state), role=Role.PARTICIPANT, id=transaction_id(3, PEER))
    await world.write([forced, heuristic(3)])
    assert (await world.store.recount()).findings == []
    assert await world.store.find(Queries.UNFINISHED) == [forced]
    assert await world.store.collect(protocol_before=10**15, keys_before=0, limit=100) == 0
    assert await world.store.get(Transaction, forced.id) == forced


# Collection -------------------------------------------------------------------------------------------------------


def old_state() -> list[Row]:
    """A finished transfer, an unfinished one and a tombstone, each with its log; the transfers with holds."""
    ended, open_still, dead = transaction(1, State.ENDED), transaction(2), tombstone(3)
    return [
        account(1, posted=100, held=100, open_holds=1),
        *(ended, open_still, dead),
        *(record(ended.id, n, kind) for n, kind in enumerate((RecordKind.BEGUN, RecordKind.DECIDED, RecordKind.ENDED))),
        record(open_still.id, 5, RecordKind.BEGUN),
        record(dead.id, 6, RecordKind.RESOLVED),
        hold(number(1), ended.id, 1, state=HoldState.POSTED, resolved_at=STAMP),
        hold(number(1), open_still.id, 2),
        *(key(1, 5), key(2, 50)),
    ]


async def test_collection_deletes_what_is_finished_and_old(world: World) -> None:
    await world.write(old_state())
    gone = await world.store.collect(protocol_before=10, keys_before=10, limit=100)
    store = await world.reopen()
    assert gone == 3 + 1 + 1 + 1 + 1  # three log lines and a hold; a tombstone and its line; a key
    assert await store.get(Transaction, transaction_id(3, PEER)) is None
    assert await store.get(HoldRow, number(1), transaction_id(1)) is None
    assert await store.find(Queries.RECORDS_OF, transaction_id(1)) == []
    assert await store.get(IdempotencyKey, "h1", "/v1/transfers", "key-1") is None


async def test_collection_never_touches_transfers_nor_what_is_unfinished(world: World) -> None:
    await world.write(old_state())
    await world.store.collect(protocol_before=10, keys_before=10, limit=100)
    assert await world.store.get(Transaction, transaction_id(1)) == transaction(1, State.ENDED)
    assert await world.store.get(Transaction, transaction_id(2)) == transaction(2)
    assert await world.store.get(HoldRow, number(1), transaction_id(2)) is not None
    assert len(await world.store.find(Queries.RECORDS_OF, transaction_id(2))) == 1
    assert len(await world.store.find(Queries.TRANSACTIONS_OF, number(1), "ended", "preparing")) == 2


async def test_a_commit_that_somebody_has_yet_to_acknowledge_is_never_collected(world: World) -> None:
    """However long ago it was decided (pitfall 13)."""
    await world.write([transaction(1, State.COMMITTING, decided_at=1), record(transaction_id(1), 1)])
    assert await world.store.collect(protocol_before=10, keys_before=10, limit=100) == 0
    assert len(await world.store.find(Queries.RECORDS_OF, transaction_id(1))) == 1


async def test_collection_leaves_what_is_young(world: World) -> None:
    await world.write(old_state())
    assert await world.store.collect(protocol_before=1, keys_before=5, limit=100) == 0
    assert await world.store.get(Transaction, transaction_id(3, PEER)) == tombstone(3)


async def test_collection_is_bounded_and_goes_on_where_it_stopped(world: World) -> None:
    await world.write(old_state())
    counts = [await world.store.collect(protocol_before=10, keys_before=10, limit=2) for _ in range(5)]
    assert max(counts) <= 2
    assert sum(counts) == 7


async def test_what_was_collected_is_forgotten_in_memory_too(world: World) -> None:
    await world.write(old_state())
    assert await world.store.get(Transaction, transaction_id(3, PEER)) is not None
    await world.store.collect(protocol_before=10, keys_before=10, limit=100)
    assert await world.store.get(Transaction, transaction_id(3, PEER)) is None


# More rows than are remembered ------------------------------------------------------------------------------------


async def test_rows_that_are_no_longer_remembered_are_read_and_written_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "REMEMBERED", 1)
    await world.write([*(account(n, posted=n) for n in range(1, 6)), transaction(1)])
    await world.write([Holder(f"{n:011d}", f"h{n}", "Ana", "hash", 1) for n in range(3)])
    for n in range(1, 6):
        assert await world.store.get(Account, number(n)) == account(n, posted=n)
    await world.write([*(account(n, posted=10 * n) for n in range(1, 6)), transaction(1, State.COMMITTING)])
    store = await world.reopen()
    for n in range(1, 6):
        assert await store.get(Account, number(n)) == account(n, posted=10 * n)
    assert await store.get(Transaction, transaction_id(1)) == transaction(1, State.COMMITTING)
