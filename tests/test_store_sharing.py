"""The promises of a store that several replicas share, each as a claim, shown of PostgreSQL and of the simulated one.

What only a lost connection can show is shown of the simulated one, whose manners are a test's to choose; both run the
same ``store.sharing``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from distribank.breakages import DurabilityLost, StoreAway
from distribank.core.clock import Floor
from distribank.core.idempotency import IdempotencyKey, KeyName
from distribank.core.ledger import Account, Book, Reservation
from distribank.core.protocol import State, Transaction
from distribank.ports import Unit
from distribank.store import put, sharing
from distribank.store.shared_memory import Away
from distribank.store.sharing import SharedStore
from tests.stores import (
    STAMP,
    InSharedMemory,
    OnPostgres,
    Place,
    account,
    batch,
    deposit,
    key,
    number,
    transaction,
    transaction_id,
    turn,
)

LEASE_S = 2.0
ACCOUNT = f"account:{number(1)}"
KEY = KeyName("h1", "/v1/transfers", "key-1", "f" * 64).lock


@dataclass
class Bank:
    """One database, and replicas on it."""

    place: Place
    replicas: list[Any] = field(default_factory=list)

    async def replica(self) -> Any:
        self.replicas.append(await self.place.opened())
        return self.replicas[-1]


@pytest.fixture(params=["postgres", "shared memory"])
async def bank(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bank]:
    monkeypatch.setattr(sharing, "LEASE_S", LEASE_S)
    monkeypatch.setattr(sharing, "BEAT_S", LEASE_S / 4)
    place = OnPostgres(tmp_path) if request.param == "postgres" else InSharedMemory()
    made = Bank(place)
    yield made
    for replica in made.replicas:
        await replica.close()
    await place.leave()


@pytest.fixture
async def simulated() -> AsyncIterator[Bank]:
    made = Bank(InSharedMemory())
    yield made
    for replica in made.replicas:
        await replica.close()


async def fall_silent(store: SharedStore) -> None:
    """As if this process were frozen: it does nothing any more."""
    for task in store._tasks:
        task.cancel()
    await asyncio.wait(store._tasks)


def wake_up(store: SharedStore) -> None:
    """It goes on as if nothing had been."""
    store._tasks = [asyncio.ensure_future(store._write())]
    store._tasks[0].add_done_callback(store._ended)


async def pay_in(unit: Unit) -> int:
    before = await unit.get(Account, number(1))
    assert before is not None
    await asyncio.sleep(0)
    unit.write(deposit(before, 1))
    return before.posted


# Rows -------------------------------------------------------------------------------------------------------------


async def test_decisions_of_two_replicas_over_one_row_are_taken_one_after_the_other(bank: Bank) -> None:
    one, other = await bank.replica(), await bank.replica()
    await put(one, deposit(account(1), 1))
    seen = await asyncio.gather(*(store.decide([ACCOUNT], pay_in) for store in (one, other) * 10))
    assert sorted(seen) == list(range(1, 21))
    assert (await other.recount()).findings == []


async def test_nobody_sees_what_is_not_committed(bank: Bank) -> None:
    one, other = await bank.replica(), await bank.replica()
    written, go_on = asyncio.Event(), asyncio.Event()

    async def write(unit: Unit) -> None:
        unit.write([account(1, posted=5)])
        await unit.settled()
        written.set()
        await go_on.wait()

    deciding = asyncio.ensure_future(one.decide([ACCOUNT], write))
    await written.wait()
    assert await other.get(Account, number(1)) is None
    go_on.set()
    await deciding
    assert await other.get(Account, number(1)) == account(1, posted=5)


async def test_books_are_added_to_once_in_a_write_and_behind_all_else(bank: Bank) -> None:
    """Else one write adds to a book, then to another, and the next one the other way round: both wait in a circle."""
    replicas = [await bank.replica(), await bank.replica()]
    books = ["position:00000002", "position:00000003"]
    settled, begun = [asyncio.Event(), asyncio.Event()], list[int]()

    def adding(which: int) -> Any:
        async def add(unit: Unit) -> None:
            begun.append(which)
            unit.write([Reservation(books[which], 1)])
            await unit.settled()
            settled[which].set()
            await settled[1 - which].wait()
            unit.write([Reservation(books[1 - which], 2)])

        return add

    await asyncio.gather(*(replicas[which].decide([], adding(which)) for which in (0, 1)))
    assert sorted(begun) == [0, 1], "one of them was run again"
    assert [await replicas[0].get(Book, name) for name in books] == [Book(name, 0, 3) for name in books]


async def test_a_key_that_two_replicas_claim_stands_for_one_thing(bank: Bank) -> None:
    one, other = await bank.replica(), await bank.replica()
    looked = [asyncio.Event(), asyncio.Event()]

    def claiming(which: int) -> Any:
        async def claim(unit: Unit) -> str:
            known = await unit.get(IdempotencyKey, "h1", "/v1/transfers", "key-1")
            looked[which].set()
            await looked[1 - which].wait()  # both have looked, and found nothing
            if known is None:
                unit.write([known := replace(key(1, 5), subject=f"from {which}")])
            return str(known.subject)

        return claim

    said = await asyncio.gather(one.decide([KEY], claiming(0)), other.decide([KEY], claiming(1)))
    assert said[0] == said[1]


async def test_a_book_that_nobody_has_written_to_yet_is_had_alone_like_any_other(bank: Bank) -> None:
    """Where there is a cap on what a peer may owe, the first two transfers with it would else pass it together."""
    one, other = await bank.replica(), await bank.replica()

    async def reserve(unit: Unit) -> int:
        before = await unit.get(Book, "position:00000002") or Book("position:00000002")
        await asyncio.sleep(0.05)
        unit.write([Reservation("position:00000002", 10)])
        return before.reserved

    seen = await asyncio.gather(*(store.decide(["book:position:00000002"], reserve) for store in (one, other)))
    assert sorted(seen) == [0, 10]


async def look_for(unit: Unit, serial: int) -> IdempotencyKey | None:
    return await unit.get(IdempotencyKey, "h1", "/v1/transfers", f"key-{serial}")


def lock_of(serial: int) -> str:
    return KeyName("h1", "/v1/transfers", f"key-{serial}", "").lock


async def test_many_of_whom_one_meets_another_row_at_each_attempt_are_all_decided(bank: Bank) -> None:
    """A holder sends the same keys to two replicas, with other content: what one decides together meets the other's."""
    one, other = await bank.replica(), await bank.replica()
    met: list[Any] = []

    async def claim(unit: Unit, serial: int) -> str:
        known = await look_for(unit, serial)
        if known is None:
            if not any(write is unit._together for write in met):  # type: ignore[attr-defined]
                met.append(unit._together)  # type: ignore[attr-defined]
                await put(other, [replace(key(serial, 5), subject="theirs")])
            unit.write([known := key(serial, 5)])
        return known.subject

    serials = range(3 * sharing.MET)
    said = await asyncio.gather(*(one.decide([lock_of(n)], lambda unit, n=n: claim(unit, n)) for n in serials))
    assert said == ["theirs" for _ in serials]
    assert bank.place.broken == []


async def test_one_who_meets_another_row_at_each_attempt_is_decided(bank: Bank) -> None:
    one, other = await bank.replica(), await bank.replica()
    serials = range(3 * sharing.MET)

    async def claim(unit: Unit) -> int:
        missing = [n for n in serials if await look_for(unit, n) is None]
        if missing:
            await put(other, [key(missing[0], 5)])
        unit.write([key(n, 5) for n in missing])
        return len(missing)

    assert await one.decide([lock_of(n) for n in serials], claim) == 0
    assert bank.place.broken == []


async def test_one_who_meets_rows_that_no_attempt_finds_stops_the_bank_behind_what_was_before_it(bank: Bank) -> None:
    one, other = await bank.replica(), await bank.replica()
    runs: list[int] = []

    async def bug(unit: Unit) -> None:
        runs.append(serial := 100 + len(runs))
        assert await look_for(unit, serial) is None  # without having named it
        await put(other, [key(serial, 5)])
        unit.write([key(serial, 5)])

    async def claim(unit: Unit, serial: int) -> None:
        unit.write([key(serial, 5)])

    others = [asyncio.ensure_future(one.decide([lock_of(n)], lambda unit, n=n: claim(unit, n))) for n in range(6)]
    await asyncio.sleep(0)
    with pytest.raises(DurabilityLost):
        await one.decide([lock_of(9)], bug)
    await asyncio.gather(*others)
    assert sharing.MET < len(runs) < 2 * sharing.MET + 1
    assert len(bank.place.broken) == 1


async def test_a_write_is_as_short_as_its_names_are_few(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "NAMES", 10)
    store = await bank.replica()
    named = [3, 3, 4, 1, 25, 3]
    decided = [store.decide([lock_of(n) for n in range(many)], look_at_nothing) for many in named]
    await asyncio.gather(*decided)
    assert bank.place.flushes == [3, 1, 1, 1]


async def look_at_nothing(_unit: Unit) -> None:
    """A decision that takes no time."""


async def test_others_have_their_turn_between_the_bodies_of_one_write(
    simulated: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "BREATH_S", 0.0)
    store = await simulated.replica()
    turns: list[str] = []

    async def compute(_unit: Unit) -> None:
        asyncio.get_running_loop().call_soon(turns.append, "another's")
        time.sleep(0.001)  # noqa: ASYNC251 - it computes
        turns.append("its own")

    await asyncio.gather(*(store.decide((), compute) for _ in range(3)))
    assert turns[:5] == ["its own", "another's", "its own", "another's", "its own"]
    assert simulated.place.flushes == [3]


# Stamps -----------------------------------------------------------------------------------------------------------


async def floor_over(store: SharedStore, *names: str) -> int:
    async def look(unit: Unit) -> int:
        return unit.floor

    return await store.decide(names, look)


async def test_a_decision_is_stamped_above_what_another_replica_wrote_of_its_rows(bank: Bank) -> None:
    one, other = await bank.replica(), await bank.replica()
    await put(one, deposit(account(1), 1))
    assert await floor_over(other, ACCOUNT) == STAMP + 1
    await put(one, [transaction(1, State.COMMITTING, commit_at=STAMP + 9)])
    assert await floor_over(other, f"transaction:{transaction_id(1)}") == STAMP + 9
    assert await floor_over(other) < STAMP
    assert await other.greatest_stamp() == STAMP + 9


async def test_whatever_is_decided_behind_a_floor_is_stamped_above_it(bank: Bank) -> None:
    one, other = await bank.replica(), await bank.replica()

    async def raise_floor(unit: Unit) -> None:
        unit.write([Floor(STAMP + 50)])

    await one.decide(["clock"], raise_floor)
    assert await floor_over(other) == STAMP + 50


async def test_a_floor_waits_for_the_decisions_that_are_under_way(bank: Bank) -> None:
    one, other = await bank.replica(), await bank.replica()
    looked, go_on = asyncio.Event(), asyncio.Event()

    async def decide(unit: Unit) -> None:
        looked.set()
        await go_on.wait()
        unit.write([account(1)])

    async def raise_floor(unit: Unit) -> None:
        unit.write([Floor(STAMP + 50)])

    deciding = asyncio.ensure_future(one.decide([ACCOUNT], decide))
    await looked.wait()
    raising = asyncio.ensure_future(other.decide(["clock"], raise_floor))
    await asyncio.sleep(0.1)
    assert not raising.done()
    go_on.set()
    await asyncio.gather(deciding, raising)


async def test_a_replica_that_joins_starts_above_every_stamp(bank: Bank) -> None:
    one = await bank.replica()
    await put(one, deposit(account(1), 1))
    await one.close()
    bank.replicas.clear()
    assert (await bank.replica()).last_stamp == STAMP + 1


# Who drives what --------------------------------------------------------------------------------------------------


async def test_what_a_living_replica_drives_is_left_to_it_and_what_it_leaves_is_taken_once(bank: Bank) -> None:
    one, other, third = await bank.replica(), await bank.replica(), await bank.replica()
    await put(one, [transaction(1), transaction(2, State.ENDED), batch(1)])
    await asyncio.sleep(LEASE_S * 1.5)
    assert (await other.claim(9), await other.claim_batches(9)) == ([], [])
    await one.close()
    assert [row.id for row in await other.claim(9)] == [transaction_id(1)]
    assert [row.batch_id for row in await other.claim_batches(9)] == ["batch-1"]
    assert (await third.claim(9), await third.claim_batches(9)) == ([], [])


async def test_a_replica_that_was_thought_dead_writes_nothing_more_and_stops(bank: Bank) -> None:
    one = await bank.replica()
    await put(one, [transaction(1), account(1)])
    await fall_silent(one)
    other = await bank.replica()
    assert await other.claim(9) == []  # it has not been silent for long
    await asyncio.sleep(LEASE_S * 1.5)
    assert [row.id for row in await other.claim(9)] == [transaction_id(1)]
    wake_up(one)
    with pytest.raises(DurabilityLost, match="silent"):
        await put(one, [account(1, posted=5)])
    assert await other.get(Account, number(1)) == account(1)
    assert len(bank.place.broken) == 1


async def test_a_replica_that_was_out_of_reach_itself_buries_nobody_yet(simulated: Bank) -> None:
    lease, sharing.LEASE_S = sharing.LEASE_S, LEASE_S  # type: ignore[misc]
    try:
        one, other = await simulated.replica(), await simulated.replica()
        await put(one, [transaction(1)])
        simulated.replicas.remove(one)
        await fall_silent(one)
        other._steady_since = asyncio.get_running_loop().time() + LEASE_S  # as its beat notes that nobody answers it
        assert await other.claim(9) == []
        await asyncio.sleep(LEASE_S * 1.5)
        assert await other.claim(9) == []
        await asyncio.sleep(LEASE_S)
        assert [row.id for row in await other.claim(9)] == [transaction_id(1)]
    finally:
        sharing.LEASE_S = lease  # type: ignore[misc]


async def test_a_replica_that_was_silent_and_that_nobody_buried_goes_on(bank: Bank) -> None:
    one = await bank.replica()
    await put(one, [transaction(1)])
    await fall_silent(one)
    await asyncio.sleep(LEASE_S * 1.5)
    wake_up(one)
    assert await one.claim(9) == []
    await put(one, [account(1)])


# Lost connections -------------------------------------------------------------------------------------------------


async def once(unit: Unit) -> str:
    """Pay in under a key: what runs it again finds that it was done."""
    known = await unit.get(IdempotencyKey, "h1", "/v1/transfers", "key-1")
    if known is not None:
        return "found"
    before = await unit.get(Account, number(1))
    assert before is not None
    unit.write([*deposit(before, 1), key(1, 5)])
    return "done"


@pytest.mark.parametrize(("fate", "said"), [("unheard of", "found"), ("lost", "done"), ("unsure", "found")])
async def test_a_decision_whose_commit_is_not_heard_of_is_run_again_and_done_once(
    simulated: Bank, fate: str, said: str
) -> None:
    store = await simulated.replica()
    await put(store, deposit(account(1), 1))
    fates = [fate]
    store.server.manners.fate = lambda: fates.pop() if fates else ""
    followed: list[str] = []
    assert await store.decide([ACCOUNT, KEY], once, followed.append) == said
    assert followed == [said]
    assert (await store.recount()).customers == 2


async def test_what_has_landed_unheard_of_is_followed_though_its_caller_went_and_its_write_met_another(
    simulated: Bank,
) -> None:
    store, other = await simulated.replica(), await simulated.replica()
    await put(store, deposit(account(1), 1))
    fates = ["unheard of"]
    store.server.manners.fate = lambda: fates.pop() if fates else ""
    runs: list[int] = []

    async def meet(unit: Unit) -> None:
        runs.append(len(runs))
        if len(runs) == 2 and await look_for(unit, 2) is None:
            paying.cancel()
            await put(other, [key(2, 5)])
            unit.write([key(2, 5)])

    followed: list[str] = []
    meeting = asyncio.ensure_future(store.decide([], meet))
    paying = asyncio.ensure_future(store.decide([ACCOUNT, KEY], once, followed.append))
    await meeting
    await store.decide([], look_at_nothing)
    assert (len(runs), followed) == (3, ["found"])


async def test_a_loss_without_words_is_named_by_its_kind(
    simulated: Bank, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = await simulated.replica()
    lost, begin = [Away()], store._begin

    async def fail_once() -> Any:
        if lost:
            raise lost.pop()
        return await begin()

    monkeypatch.setattr(store, "_begin", fail_once)
    await put(store, [account(1)])
    assert "the database is out of reach (Away)" in caplog.text


async def test_what_became_of_a_decision_whose_server_stays_away_is_unknown(
    simulated: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For however long it stays away: behind that, all that may have been done is found."""
    store = await simulated.replica()
    await put(store, [transaction(1)])
    store.server.manners.fate = lambda: "unheard of"
    with monkeypatch.context() as moment:
        moment.setattr(sharing, "AWAY_S", 0.1)
        with pytest.raises(StoreAway):
            await put(store, [transaction(2)])
    monkeypatch.setattr(sharing, "LEASE_S", 0.1)
    await asyncio.sleep(0.5)
    store.server.manners.fate = lambda: ""
    assert await store.get(Transaction, transaction_id(2)) == transaction(2)
    everything = [transaction_id(1), transaction_id(2)]
    assert [row.id for row in await store.claim(9)] == everything  # whatever it drives
    assert await store.claim(9) == []


async def test_a_commit_that_lands_late_is_waited_for_before_what_it_may_have_left_is_asked_for(
    simulated: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await simulated.replica()
    manners = store.server.manners
    monkeypatch.setattr(manners, "commit", lambda: 1.0)
    monkeypatch.setattr(manners, "keep", lambda: True)
    monkeypatch.setattr(sharing, "AWAY_S", 0.0)
    putting = asyncio.ensure_future(put(store, [transaction(1)]))
    await turn(50)
    assert store.is_flushing
    store.cut_off(0.2)
    with pytest.raises(StoreAway):
        await putting
    await asyncio.sleep(0.3)
    assert store.disk.rows[Transaction] == {}
    assert [row.id for row in await store.claim(9)] == [transaction_id(1)]


async def test_what_is_being_written_is_not_among_what_a_replica_may_drive_unheard_of(simulated: Bank) -> None:
    store = await simulated.replica()
    landed: list[Any] = []
    store.server.manners.landing = landed.append
    store.server.manners.statement = lambda: (
        0.3 if landed and landed.pop() else 0.01
    )  # COMMIT's answer is long on its way
    begun = asyncio.Event()

    async def begin(unit: Unit) -> None:
        unit.write([transaction(1)])
        begun.set()

    told: list[None] = []
    writing = asyncio.ensure_future(store.decide((), begin, told.append))
    await begun.wait()
    claimed: list[Any] = []
    while not told:
        store._unheard[Transaction] = 1
        claimed += await store.claim(9)
        await asyncio.sleep(0)
    await writing
    assert claimed == []
    store._unheard[Transaction] = 1
    assert [row.id for row in await store.claim(9)] == [transaction_id(1)]


async def test_what_was_taken_without_hearing_of_it_is_taken_again(simulated: Bank) -> None:
    one, other = await simulated.replica(), await simulated.replica()
    await put(one, [transaction(1), batch(1)])
    await one.close()
    simulated.replicas.remove(one)
    taken, taking = [], other.server.take

    def lose_the_answer(*of: Any, **more: Any) -> list[Any]:
        found = taking(*of, **more)
        taken.append(found)
        if len(taken) in (1, 3):
            other.cut_off(0.05)
        return found

    other.server.take = lose_the_answer
    assert [row.id for row in await other.claim(9)] == [transaction_id(1)]
    assert [row.batch_id for row in await other.claim_batches(9)] == ["batch-1"]


async def test_who_waits_hears_of_it_when_another_task_finds_that_the_replica_is_buried(simulated: Bank) -> None:
    one = await simulated.replica()
    running = asyncio.Event()

    async def stay(_unit: Unit) -> None:
        running.set()
        await asyncio.Event().wait()

    async def go_on(unit: Unit) -> None:
        await asyncio.sleep(0.05)
        unit.write([account(1)])

    deciding = asyncio.ensure_future(one.decide([ACCOUNT], go_on))
    await asyncio.sleep(0.01)
    one.server.bury(one.replica)
    one._break(sharing.Fenced())
    with pytest.raises(DurabilityLost):
        await asyncio.wait_for(deciding, 5)
