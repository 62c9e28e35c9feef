"""What only a shared store promises: replicas, their leases, fencing, and a server that comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from random import SystemRandom
from typing import Any

import asyncpg
import pytest

from distribank.breakages import DurabilityLost, StoreAway, StoreUnusable
from distribank.core.clock import Floor
from distribank.core.ledger import Account
from distribank.core.protocol import State, Transaction
from distribank.core.restoration import Restoration
from distribank.ports import Unit
from distribank.store import postgres_backup, postgres_opening, put, sharing
from distribank.store import postgres_words as words
from distribank.store.postgres import READERS, PostgresStore
from tests.postgres_server import Server, shared_server
from tests.processes import until
from tests.stores import (
    STAMP,
    OnPostgres,
    account,
    batch,
    deposit,
    number,
    record,
    tombstone,
    transaction,
    transaction_id,
)

FIXTURES = Path(__file__).parent / "fixtures"
NAMES = [f"account:{number(1)}"]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[OnPostgres]:
    made = OnPostgres(tmp_path)
    yield made
    await made.leave()


@pytest.fixture
async def two(place: OnPostgres) -> AsyncIterator[list[PostgresStore]]:
    """Two replicas of one bank."""
    replicas = [await place.opened(), await place.opened()]
    yield replicas
    for replica in replicas:
        await replica.close()


async def pay_in(unit: Unit) -> int:
    before = await unit.get(Account, number(1))
    assert before is not None
    unit.write(deposit(before, 1))
    return before.posted


async def in_database(place: OnPostgres, sentence: str, *bound: Any) -> None:
    await shared_server().execute(sentence, *bound, database=place.url.rpartition("/")[2])


# Replicas ---------------------------------------------------------------------------------------------------------


async def test_two_replicas_lose_no_update_of_one_account(two: list[PostgresStore]) -> None:
    await put(two[0], deposit(account(1), 1))
    seen = await asyncio.gather(*(two[n % 2].decide(NAMES, pay_in) for n in range(100)))
    assert sorted(seen) == list(range(1, 101))
    counted = await two[1].recount()
    assert (counted.customers, counted.findings) == (101, [])


async def test_a_vote_and_a_tombstone_at_two_replicas_at_once_are_one_of_the_two(two: list[PostgresStore]) -> None:
    """Tombstone and vote share one unique key: whoever comes second finds what the first wrote, and runs again."""
    for serial in range(10):
        first = tombstone(serial)
        second = replace(first, digest="other")

        async def put_if_missing(unit: Unit, row: Transaction) -> Transaction:
            known = await unit.get(Transaction, row.id)
            if known is not None:
                return known
            unit.write([row])
            return row

        told = await asyncio.gather(
            two[0].decide([f"transaction:{first.id}"], lambda unit, row=first: put_if_missing(unit, row)),
            two[1].decide([f"transaction:{first.id}"], lambda unit, row=second: put_if_missing(unit, row)),
        )
        assert told[0] == told[1] == await two[0].get(Transaction, first.id)


async def test_what_one_replica_decides_is_stamped_behind_what_another_has_written_of_the_same_account(
    two: list[PostgresStore],
) -> None:
    await put(two[0], [*deposit(account(1), 1), record(transaction_id(1), 500)])

    async def look(unit: Unit) -> int:
        return unit.floor

    assert await two[1].decide(NAMES, look) >= STAMP + 500
    assert await two[1].greatest_stamp() == STAMP + 500


async def test_what_one_replica_decides_is_stamped_behind_a_floor_that_another_has_raised(
    two: list[PostgresStore],
) -> None:
    async def raise_floor(unit: Unit) -> None:
        unit.write([Floor(STAMP + 900)])

    async def look(unit: Unit) -> int:
        return unit.floor

    await two[0].decide(["clock"], raise_floor)
    assert await two[1].decide([], look) == STAMP + 900


async def test_whoever_raises_the_floor_waits_for_the_decisions_under_way(two: list[PostgresStore]) -> None:
    deciding, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(unit: Unit) -> None:
        deciding.set()
        await go_on.wait()
        unit.write([record(transaction_id(1), 1)])

    async def raise_floor(unit: Unit) -> None:
        unit.write([Floor(STAMP + 2)])

    under_way = asyncio.ensure_future(two[0].decide([], slowly))
    await deciding.wait()
    raising = asyncio.ensure_future(two[1].decide(["clock"], raise_floor))
    await asyncio.sleep(0.3)
    assert not raising.done()
    go_on.set()
    await asyncio.gather(under_way, raising)


# Leases and fencing -----------------------------------------------------------------------------------------------


async def test_what_a_living_replica_drives_is_not_claimed_and_what_a_buried_one_drove_is(
    place: OnPostgres, two: list[PostgresStore]
) -> None:
    await put(two[0], [transaction(1), transaction(2, State.COMMITTING), transaction(3, State.ENDED)])
    assert await two[1].claim(10) == []
    await in_database(place, words.LEAVE, two[0].replica)
    assert [row.id for row in await two[1].claim(10)] == [transaction_id(1), transaction_id(2)]
    assert await two[1].claim(10) == []


async def test_a_replica_that_closes_leaves_what_it_drives_to_the_others_at_once(two: list[PostgresStore]) -> None:
    await put(two[0], [transaction(1)])
    await two[0].close()
    assert [row.id for row in await two[1].claim(10)] == [transaction_id(1)]


async def test_a_buried_replica_writes_nothing_more_and_stops(place: OnPostgres, two: list[PostgresStore]) -> None:
    await put(two[0], deposit(account(1), 1))
    await in_database(place, words.LEAVE, two[0].replica)
    with pytest.raises(DurabilityLost, match="another replica has taken over"):
        await two[0].decide(NAMES, pay_in)
    assert len(place.broken) == 1
    with pytest.raises(DurabilityLost):
        await two[0].get(Account, number(1))
    found = await two[1].get(Account, number(1))
    assert found is not None
    assert found.posted == 1


async def test_an_idle_replica_stays_alive_and_a_silent_one_is_buried_after_its_lease(
    place: OnPostgres, two: list[PostgresStore]
) -> None:
    await put(two[0], [transaction(1)])
    two[0]._tasks[1].cancel()  # it says no more that it is alive
    begun = asyncio.get_running_loop().time()
    while not await two[1].claim(10):
        await asyncio.sleep(0.2)
        assert asyncio.get_running_loop().time() - begun < sharing.LEASE_S + 5
    assert asyncio.get_running_loop().time() - begun > sharing.LEASE_S - sharing.BEAT_S - 0.5
    await put(two[1], [record(transaction_id(1), 1)])  # whoever went on saying so is alive


async def test_a_replica_that_reads_at_length_says_that_it_is_alive(
    two: list[PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "LEASE_S", 2.0)
    monkeypatch.setattr(sharing, "BEAT_S", 0.25)
    await put(two[0], [transaction(1)])
    reading = [asyncio.ensure_future(two[0]._reading(sleep_there)) for _ in range(READERS)]
    for _ in range(8):
        assert await two[1].claim(9) == []
        await asyncio.sleep(0.5)
    assert not any(each.done() for each in reading)
    await asyncio.gather(*reading)


async def sleep_there(connection: Any) -> None:
    await connection.execute("SELECT pg_sleep(6)")


async def test_a_database_at_which_every_commit_waits_for_long_costs_no_replica(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when its standby is started again: nobody can say that it is alive, and nobody is dead."""
    monkeypatch.setattr(sharing, "LEASE_S", 1.0)
    monkeypatch.setattr(sharing, "BEAT_S", 0.25)
    server = Server().make().start()
    place = OnPostgres(tmp_path)
    try:
        place.url = server.url()
        two = [await place.opened(), await place.opened()]
        await put(two[0], [transaction(1)])
        looking = asyncio.ensure_future(look_on(two))
        await asyncio.sleep(2)
        await standby_is(server, "nobody")
        await asyncio.sleep(3)
        await standby_is(server, "")
        await asyncio.sleep(3)
        looking.cancel()
        assert place.broken == []
        await put(two[1], [transaction(2)])
        for store in two:
            await store.close()
    finally:
        server.stop()


async def look_on(stores: list[PostgresStore]) -> None:
    """As their recovery does, whether or not the look before has ended."""
    async with asyncio.TaskGroup() as group:
        while True:
            for store in stores:
                group.create_task(store.claim(9))
            await asyncio.sleep(0.25)


async def standby_is(server: Server, name: str) -> None:
    """Every COMMIT waits from now on until the standby of that name has it."""
    await server.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
    await server.execute("SELECT pg_reload_conf()")


# Which server this is ---------------------------------------------------------------------------------------------


async def test_a_primary_that_was_replaced_is_not_read_from_when_it_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "AWAY_S", 0.5)
    primary = Server().make().start()
    standby = Server().follow(primary, "standby").start()
    place = OnPostgres(tmp_path)
    try:
        await standby_is(primary, "standby")
        place.url = primary.url("postgres", standby)
        store = await place.opened()
        await put(store, [account(1)])
        primary.kill()
        standby.promote()
        monkeypatch.setattr(sharing, "AWAY_S", 60.0)
        await put(store, [account(2)])
        monkeypatch.setattr(sharing, "AWAY_S", 0.5)
        await standby_is(primary.start(), "")
        await standby.execute(f"SELECT pg_terminate_backend({store._writer.get_server_pid()})")
        await store._readers.expire_connections()
        with pytest.raises(StoreAway):
            await store.get(Account, number(2))
        with pytest.raises(StoreAway):
            await put(store, [account(3)])
        primary.stop()
        monkeypatch.setattr(sharing, "AWAY_S", 60.0)
        assert await store.get(Account, number(2)) == account(2)
        await put(store, [account(3)])
        await store.close()
    finally:
        standby.stop()
        primary.stop()


async def test_a_server_that_comes_to_flush_no_more_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sharing, "AWAY_S", 0.5)
    server = Server().make().start()
    place = OnPostgres(tmp_path)
    try:
        place.url = server.url()
        store = await place.opened()
        await put(store, [account(1)])
        await server.execute("ALTER ROLE postgres SET synchronous_commit = off")
        await server.execute(f"SELECT pg_terminate_backend({store._writer.get_server_pid()})")
        with pytest.raises(StoreAway):
            await put(store, [account(2)])
        assert "synchronous_commit = off: set it to on" in caplog.text
        await server.execute("ALTER ROLE postgres RESET synchronous_commit")
        await put(store, [account(2)])
        await store.close()
    finally:
        server.stop()


async def test_a_bank_whose_connections_lose_their_time_outs_on_the_way_does_not_start(
    place: OnPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_time_outs(url: str) -> dict[str, Any]:
        settings = settings_of(url)
        return {**settings, "server_settings": {"application_name": "a pooler's"}}

    settings_of = postgres_opening.settings_of
    monkeypatch.setattr(postgres_opening, "settings_of", without_time_outs)
    with pytest.raises(StoreUnusable, match="drops the settings of a connection"):
        await place.opened()


# A connection that is lost ----------------------------------------------------------------------------------------


class Cut(PostgresStore):
    """A replica whose connection is cut right behind a COMMIT that it has sent, as often as it is told."""

    cuts = 0

    async def _begin(self) -> Any:
        connection = await super()._begin()
        return Cutting(connection, self) if self.cuts else connection


class Cutting:
    def __init__(self, connection: Any, store: Cut) -> None:
        self._connection = connection
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def execute(self, sentence: str, *bound: Any) -> Any:
        said = await self._connection.execute(sentence, *bound)
        if sentence == "COMMIT":
            self._store.cuts -= 1
            self._connection.terminate()
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        return said


async def test_a_commit_that_nobody_heard_of_is_settled_by_writing_and_done_once(place: OnPostgres) -> None:
    await (await place.opened()).close()
    store = await Cut.open(place.url, bank="00000001", marker=place.marker, now_ms=1)
    assert isinstance(store, Cut)
    runs: list[int] = []

    async def begin(unit: Unit) -> bool:
        runs.append(1)
        if await unit.get(Transaction, transaction_id(1)) is not None:
            return False
        unit.write([transaction(1), record(transaction_id(1), 1)])
        return True

    store.cuts = 2
    followed: list[bool] = []
    assert await store.decide([f"transaction:{transaction_id(1)}"], begin, followed.append) is False
    assert (len(runs), followed) == (3, [False])
    assert store.cuts == 0
    await store.close()


async def test_what_is_not_decided_in_time_is_unknown_and_claimed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "AWAY_S", 0.5)
    server = Server().make().start()
    try:
        await server.execute("CREATE DATABASE bank")
        store = await PostgresStore.open(server.url("bank"), bank="00000001", marker=tmp_path / "marker", now_ms=1)
        await put(store, [transaction(1)])
        server.kill()
        with pytest.raises(StoreAway):
            await put(store, [transaction(2)])
        with pytest.raises(StoreAway):
            await store.get(Transaction, transaction_id(1))
        monkeypatch.setattr(sharing, "LEASE_S", 0.1)
        assert not store.within_reach
        monkeypatch.undo()
        server.start()
        assert [row.id for row in await store.claim(10)] == [transaction_id(1)]  # all that it drives, once
        assert await store.claim(10) == []
        await put(store, [transaction(2)])
        assert store.within_reach
        await store.close()
    finally:
        server.stop()


async def test_a_write_that_met_anothers_is_run_again_over_the_same_connection(
    two: list[PostgresStore],
) -> None:
    await put(two[0], deposit(account(1), 1))
    writer = two[0]._writer
    await writer.execute("SET lock_timeout = 100")
    missing: list[bool] = []

    async def meet(unit: Unit) -> None:
        missing.append(await unit.get(Transaction, tombstone(2).id) is None)
        if missing == [True]:
            await put(two[1], [tombstone(2)])
        if missing[-1]:
            unit.write([tombstone(2)])

    await two[0].decide([f"transaction:{tombstone(2).id}"], meet)
    assert missing == [True, False]
    taken = asyncio.Event()

    async def keep(_unit: Unit) -> None:
        taken.set()
        await asyncio.sleep(0.5)

    keeping = asyncio.ensure_future(two[1].decide(NAMES, keep))
    await taken.wait()
    assert await two[0].decide(NAMES, pay_in) == 1
    await keeping
    assert two[0]._writer is writer


async def test_where_the_connection_that_met_anothers_is_lost_the_next_attempt_has_a_new_one(
    two: list[PostgresStore],
) -> None:
    await put(two[0], deposit(account(1), 1))
    runs: list[int] = []

    async def meet(unit: Unit) -> int:
        runs.append(1)
        if len(runs) == 1:
            two[0]._writer.terminate()
            raise asyncpg.DeadlockDetectedError
        return await pay_in(unit)

    assert await two[0].decide(NAMES, meet) == 1
    assert len(runs) == 2


async def test_a_role_that_may_not_sign_in_for_a_while_is_a_database_that_is_away(place: OnPostgres) -> None:
    """As where its password is changed before the bank knows the new one."""
    await (await place.opened()).close()
    await shared_server().execute("CREATE ROLE teller LOGIN SUPERUSER")
    address, place.url = place.url, place.url.replace("postgres@", "teller@", 1)
    store = await place.opened()
    place.url = address
    try:
        await put(store, deposit(account(1), 1))
        await shared_server().execute("ALTER ROLE teller NOLOGIN")
        store._writer.terminate()
        paying = asyncio.ensure_future(store.decide(NAMES, pay_in))
        await asyncio.sleep(0.5)
        assert not paying.done()
        await shared_server().execute("ALTER ROLE teller LOGIN")
        assert await paying == 1
        assert place.broken == []
    finally:
        await store.close()
        await shared_server().execute("DROP ROLE teller")


@pytest.mark.parametrize("error", [asyncpg.InvalidPasswordError, asyncpg.InvalidCatalogNameError])
async def test_whatever_the_server_has_against_who_signs_in_may_pass(
    place: OnPostgres, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    store = await place.opened()
    refused, connect = [error("no")] * 2, asyncpg.connect

    async def refuse(*address: str, **settings: Any) -> Any:
        if refused:
            raise refused.pop()
        return await connect(*address, **settings)

    monkeypatch.setattr(asyncpg, "connect", refuse)
    await put(store, deposit(account(1), 1))
    assert (refused, place.broken) == ([], [])
    await store.close()


# Which database this is -------------------------------------------------------------------------------------------


async def test_two_replicas_that_start_at_once_make_one_schema(place: OnPostgres) -> None:
    place.url = await shared_server().database()
    stores = await asyncio.gather(*(place.opened() for _ in range(4)))
    assert len({store.incarnation for store in stores}) == 1
    for store in stores:
        await store.close()


async def test_another_banks_database_is_refused(place: OnPostgres, tmp_path: Path) -> None:
    await (await place.opened()).close()
    with pytest.raises(StoreUnusable, match="belongs to bank 00000001, not to 00000009"):
        await place.opened(bank="00000009", marker=tmp_path / "other")


async def test_a_database_with_other_tables_is_refused(place: OnPostgres) -> None:
    place.url = await shared_server().database()
    await in_database(place, "CREATE TABLE something (x int)")
    with pytest.raises(StoreUnusable, match="tables of another program"):
        await place.opened()


async def test_a_newer_schema_is_refused(place: OnPostgres) -> None:
    await (await place.opened()).close()
    await in_database(place, words.SET_VERSION, 99)
    with pytest.raises(StoreUnusable, match="a newer version of distribank"):
        await place.opened()


async def test_an_old_copy_is_refused_and_a_restored_one_is_followed(place: OnPostgres) -> None:
    await (await place.opened()).close()
    await in_database(place, "UPDATE meta SET incarnation = $1", "f" * 32)
    with pytest.raises(StoreUnusable, match="an old copy has forgotten promises"):
        await place.opened()
    named = place.marker.read_text().splitlines()[0]
    await in_database(place, words.SET_EARLIER, named)
    store = await place.opened()  # another replica's restore made it
    assert place.marker.read_text().splitlines()[0] == store.incarnation == "f" * 32
    await store.close()


async def test_a_server_that_does_not_flush_is_refused(tmp_path: Path) -> None:
    server = Server(fsync="off").make().start()
    try:
        with pytest.raises(StoreUnusable, match="fsync = off"):
            await PostgresStore.open(server.url(), bank="00000001", marker=tmp_path / "marker", now_ms=1)
    finally:
        server.stop()


async def test_a_server_that_cannot_be_reached_is_named_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match=r"127\.0\.0\.1:1/bank") as refused:
        await PostgresStore.open(
            "postgresql://bank:secret@127.0.0.1:1/bank", bank="00000001", marker=tmp_path / "m", now_ms=1
        )
    assert "secret" not in str(refused.value)


async def test_a_server_that_says_nothing_is_named_with_what_broke_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def say_nothing(**_settings: Any) -> None:
        raise TimeoutError

    monkeypatch.setattr(asyncpg, "connect", say_nothing)
    with pytest.raises(StoreUnusable, match="cannot be used: TimeoutError; check"):
        await PostgresStore.open("postgresql://127.0.0.1:1/bank", bank="00000001", marker=tmp_path / "m", now_ms=1)


OLDER = {4: "postgres_schema_4.sql"}


def test_every_released_schema_is_kept_and_leads_to_the_next() -> None:
    assert OLDER.keys() == postgres_opening.MIGRATIONS.keys() == set(range(4, postgres_opening.SCHEMA_VERSION))


@pytest.mark.parametrize("version", OLDER)
async def test_an_older_database_is_migrated_with_its_data_once(place: OnPostgres, version: int) -> None:
    place.url = await shared_server().database()
    await in_database(place, (FIXTURES / OLDER[version]).read_text())
    await in_database(place, words.INSERT_META, version, "00000001", "a" * 32, 0)
    await in_database(place, "INSERT INTO counter (name, value) VALUES ('account', 7)")
    stores = await asyncio.gather(place.opened(), place.opened())
    assert {store.incarnation for store in stores} == {"a" * 32}
    await put(stores[0], [*deposit(account(1), 5)])
    assert (await stores[1].recount()).customers == 5
    for store in stores:
        await store.close()
    fresh = OnPostgres(place.marker.parent / "fresh")
    fresh.marker.parent.mkdir()
    await (await fresh.opened()).close()
    assert await schema_of(place) == await schema_of(fresh)
    await fresh.leave()


async def test_a_migration_takes_its_time_and_who_starts_meanwhile_waits_for_it(
    place: OnPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.url = (await shared_server().database()).replace("?", "?statement_timeout=2000&")
    await in_database(place, (FIXTURES / OLDER[4]).read_text())
    await in_database(place, words.INSERT_META, 4, "00000001", "a" * 32, 0)
    script = postgres_opening._script
    monkeypatch.setattr(postgres_opening, "_script", lambda name: f"{script(name)}; SELECT pg_sleep(3)")
    monkeypatch.setattr(postgres_opening, "COMMAND_S", 2.0)
    monkeypatch.setattr(postgres_opening, "LOCK_WAIT_MS", 500)
    migrating = asyncio.create_task(place.opened())
    sleeping = "SELECT count(*) AS found FROM pg_stat_activity WHERE wait_event = 'PgSleep'"

    async def sleeps() -> bool:
        return [row["found"] for row in await shared_server().fetch(sleeping)] == [1]

    await until(sleeps, "the first one migrates")
    stores = await asyncio.gather(migrating, place.opened())
    assert {store.incarnation for store in stores} == {"a" * 32}
    for store in stores:
        await store.close()


async def schema_of(place: OnPostgres) -> list[tuple[Any, ...]]:
    """Columns and indexes, however they came to be."""
    database = place.url.rpartition("/")[2]
    columns = await shared_server().fetch(
        "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns"
        " WHERE table_schema = current_schema() ORDER BY 1, 2",
        database,
    )
    indexes = await shared_server().fetch(
        "SELECT tablename, indexname FROM pg_indexes WHERE schemaname = current_schema() ORDER BY 1, 2", database
    )
    return [tuple(row) for row in (*columns, *indexes)]


def test_a_sentence_with_a_password_in_it_is_never_said() -> None:
    assert postgres_opening.place_of("postgresql://me:secret@db:5432/bank") == "postgresql://db:5432/bank"


# Backups ----------------------------------------------------------------------------------------------------------


def quiet(_what: str, _part: float | None) -> None:
    """Nobody watches."""


async def test_a_backup_is_one_picture_of_a_bank_that_runs_and_goes_back_into_an_empty_database(
    place: OnPostgres, tmp_path: Path
) -> None:
    store = await place.opened()
    await put(store, [*deposit(account(1), 1), transaction(1), batch(1)])
    stop = asyncio.Event()

    async def pay_on() -> None:
        while not stop.is_set():
            await store.decide(NAMES, pay_in)

    async with asyncio.TaskGroup() as group:
        paying = [group.create_task(pay_on()) for _ in range(4)]
        made = await asyncio.to_thread(postgres_backup.take, place.url, tmp_path / "backup", "00000001", 5_000, quiet)
        stop.set()
    assert len(paying) == 4
    assert made.findings == []
    assert 1 <= made.customers == -made.books["cash"] == made.entries
    incarnation = store.incarnation
    await store.close()
    place.url = await shared_server().database()
    restored = await asyncio.to_thread(
        postgres_backup.put_back,
        *(
            tmp_path / "backup",
            place.url,
            place.marker,
            "00000001",
            ["00000002"],
            [],
            10**9,
            6_000,
            SystemRandom(),
            quiet,
        ),
    )
    store = await place.opened()
    assert store.incarnation == restored.incarnation != incarnation
    assert store.reaches_back_to == 6_000
    counted = await store.recount()
    assert (counted.customers, counted.findings) == (made.customers, [])
    assert await store.get(Restoration, store.incarnation) == restored
    assert [row.id for row in await store.claim(5)] == [transaction_id(1)]
    assert await store.claim_batches(5) == []
    await store.close()
    with pytest.raises(StoreUnusable, match="give the bank an empty one"):
        await asyncio.to_thread(
            postgres_backup.put_back,
            *(tmp_path / "backup", place.url, place.marker, "00000001", [], [], 10**9, 7_000, SystemRandom(), quiet),
        )
