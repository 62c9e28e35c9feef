"""A bank's database in another one: engine to engine, whole, and the same when it is added up anew."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import apsw
import asyncpg
import pytest

from distribank.breakages import DurabilityLost, StoreInUse, StoreUnusable
from distribank.core.ledger import Account
from distribank.ports import Queries, Recount, Row
from distribank.store import copying, postgres_copying, postgres_opening, put, sqlite_files
from distribank.store.group import KEY_OF
from distribank.store.marker import write_marker
from tests.postgres_server import shared_server
from tests.processes import until
from tests.stores import BANK, OnPostgres, OnSqlite, account, deposit
from tests.test_store_contract import shelf, sound_books

STORE = Path(copying.__file__).parent


def columns_in(script: str) -> dict[str, list[str]]:
    """Each table of a schema and its columns, as they are written there."""
    tables = re.findall(r"CREATE TABLE (\w+) \((.*?)\n\)", (STORE / script).read_text(), re.S)
    found = {}
    for name, body in tables:
        lines = [line.strip() for line in body.splitlines()]
        found[name] = [
            line.split()[0] for line in lines if re.match(r"[a-z_]+ (TEXT|INTEGER|BIGINT|BOOLEAN|TIMESTAMPTZ)", line)
        ]
    return found


ADDED = {
    "meta": {"version", "earlier"},
    "account": {"last_stamp"},
    "transfer": {"driver"},
    "batch": {"driver"},
    "replica": {"id", "expires_at", "buried", "last_stamp"},
}
"""What PostgreSQL's schema has besides: see its first lines."""


def test_both_engines_have_the_same_tables_and_columns_but_for_what_is_named() -> None:
    embedded, shared = columns_in("schema.sql"), columns_in("postgres_schema.sql")
    assert shared.keys() - embedded.keys() == {"replica"}
    for table, columns in embedded.items():
        assert [name for name in shared[table] if name not in ADDED.get(table, set())] == columns


def test_what_is_copied_is_every_column_of_every_table() -> None:
    embedded = columns_in("schema.sql")
    del embedded["meta"]
    assert {table: list(columns) for table, columns in copying.COLUMNS.items()} == embedded


@pytest.fixture
async def shared(tmp_path: Path) -> AsyncIterator[OnPostgres]:
    """An empty database on PostgreSQL."""
    made = OnPostgres(tmp_path)
    made.url = await shared_server().database()
    yield made
    await made.leave()


@pytest.fixture(params=[OnSqlite, OnPostgres])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OnSqlite | OnPostgres]:
    """Where a bank is, on either engine."""
    made: OnSqlite | OnPostgres = request.param(tmp_path)
    yield made
    await made.leave()


def url_of(place: OnSqlite | OnPostgres) -> str:
    return place.url if isinstance(place, OnPostgres) else f"sqlite:///{place.path}"


async def moved(source: OnSqlite | OnPostgres, target: OnSqlite | OnPostgres, *, bank: str = BANK) -> Recount:
    """Move *bank*; what both databases add up to."""
    async with (
        copying.leaving(url_of(source), bank, source.marker, copying.place_of(url_of(target))) as read,
        copying.entering(url_of(target)) as written,
    ):
        return await copying.copy(read, written, lambda _table, _done: None)


async def filled(place: OnSqlite | OnPostgres, rows: list[Row]) -> str:
    """The incarnation of the database at *place*, which has *rows* from now on."""
    store = await place.opened()
    await put(store, rows)
    await store.close()
    return store.incarnation


async def test_a_bank_moves_to_postgresql_and_back_with_everything(tmp_path: Path, shared: OnPostgres) -> None:
    place, back = OnSqlite(tmp_path), OnSqlite(tmp_path)
    back.path = tmp_path / "back.db"
    incarnation = await filled(place, sound_books())
    counted = [await moved(place, shared), await moved(shared, back)]
    assert counted[0] == counted[1]
    assert (counted[0].customers, counted[0].findings) == (750, [])
    first, second = apsw.Connection(str(place.path)), apsw.Connection(str(back.path))
    for table in copying.COLUMNS:
        sentence = copying.READ[table]
        assert sorted(first.execute(sentence)) == sorted(second.execute(sentence)), table
    assert sqlite_files.read_identity(second) == sqlite_files.read_identity(first)
    store = await back.opened()
    assert store.incarnation == incarnation
    await store.close()
    for left, to in ((place, copying.place_of(shared.url)), (shared, str(back.path))):
        with pytest.raises(StoreUnusable, match=re.escape(f"{copying.place_of(url_of(left))} to {to}")):
            await left.opened()
        with pytest.raises(StoreUnusable, match="bank 00000001 has moved"):
            await moved(left, OnSqlite(tmp_path / "again"))


async def test_every_kind_of_row_arrives_as_it_was(tmp_path: Path, shared: OnPostgres) -> None:
    place = OnSqlite(tmp_path)
    rows = shelf()
    await filled(place, rows)
    async with (
        copying.leaving(url_of(place), BANK, place.marker, "there") as source,
        copying.entering(shared.url) as target,
    ):
        await copying.carry(source, target, lambda _table, _done: None)
    there = await shared.opened()
    for row in rows:
        if type(row) in KEY_OF:
            name = KEY_OF[type(row)](row)
            assert await there.get(type(row), *(name if isinstance(name, tuple) else (name,))) == row
    assert len(await there.find(Queries.ENTRIES_SINCE, "00000001-0")) == 5
    assert {row.id for row in await there.claim(100)} == {row.id for row in await there.find(Queries.UNFINISHED)}
    await there.close()


async def test_a_move_that_is_refused_leaves_the_bank_where_it_was(
    tmp_path: Path, place: OnSqlite | OnPostgres
) -> None:
    """Its books do not balance, and both databases, added up anew, say so."""
    broken = [
        replace(row, posted=row.posted + 1) if isinstance(row, Account) and row.posted == 250 else row
        for row in sound_books()
    ]
    incarnation = await filled(place, broken)
    with pytest.raises(StoreUnusable, match="do not balance"):
        await moved(place, elsewhere(tmp_path))
    store = await place.opened()
    assert store.incarnation == incarnation
    await put(store, deposit(account(7), 5))
    await store.close()


async def test_a_bank_that_runs_does_not_move(tmp_path: Path, place: OnSqlite | OnPostgres) -> None:
    store = await place.opened()
    await put(store, sound_books())
    with pytest.raises((StoreInUse, StoreUnusable), match=r"served by another process|a replica of this bank runs"):
        await moved(place, elsewhere(tmp_path))
    await put(store, deposit(account(7), 5))
    await store.close()


async def test_nothing_moves_onto_what_is_there(tmp_path: Path, shared: OnPostgres) -> None:
    place = OnSqlite(tmp_path)
    await filled(place, sound_books())
    place.marker.unlink()  # both are this bank's
    await filled(shared, sound_books())
    place.marker.unlink()
    with pytest.raises(StoreUnusable, match="give the bank an empty one"):
        await moved(place, shared)
    place.marker.unlink()
    with pytest.raises(StoreUnusable, match="is there already; name another file"):
        await moved(shared, place)


async def test_what_a_bank_must_not_serve_from_does_not_move(tmp_path: Path, place: OnSqlite | OnPostgres) -> None:
    await filled(place, sound_books())
    with pytest.raises(StoreUnusable, match="belongs to bank 00000001, not to 00000009"):
        await moved(place, elsewhere(tmp_path), bank="00000009")
    write_marker(place.marker, "f" * 32, "elsewhere")
    with pytest.raises(StoreUnusable, match="an old copy has forgotten promises"):
        await moved(place, elsewhere(tmp_path))


async def test_a_replica_that_was_frozen_while_its_bank_moved_writes_nothing_more(
    tmp_path: Path, shared: OnPostgres
) -> None:
    frozen = await shared.opened()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(frozen.close)
        await put(frozen, sound_books())
        frozen._tasks[1].cancel()  # it says no more that it is alive
        schema = shared.url.rpartition("/")[2]
        await shared_server().execute("UPDATE replica SET expires_at = clock_timestamp()", database=schema)
        counted = await moved(shared, elsewhere(tmp_path))
        with pytest.raises(DurabilityLost, match="another replica has taken over"):
            await put(frozen, deposit(account(7), 5))
        async with postgres_copying.reading(shared.url) as source:
            assert await source.recount() == counted


async def test_who_starts_while_the_bank_moves_waits_and_is_refused(shared: OnPostgres) -> None:
    await filled(shared, sound_books())
    async with copying.leaving(shared.url, BANK, shared.marker, "there"):
        starting = asyncio.create_task(shared.opened())
        waiting = "SELECT count(*) AS found FROM pg_stat_activity WHERE wait_event_type = 'Lock'"

        async def waits() -> bool:
            return [row["found"] for row in await shared_server().fetch(waiting)] == [1]

        await until(waits, "it waits for the row that says whose database this is")
    with pytest.raises(StoreUnusable, match="has moved from"):
        await starting


async def test_a_bank_that_is_moved_twice_at_once_moves_once(shared: OnPostgres) -> None:
    await filled(shared, sound_books())
    barrier = asyncio.Barrier(2)
    moves: list[str] = []

    async def leave(to: str) -> None:
        await barrier.wait()
        async with copying.leaving(shared.url, BANK, shared.marker, to):
            moves.append(to)

    ended = await asyncio.gather(leave("here"), leave("there"), return_exceptions=True)
    assert len(moves) == 1
    [refused] = [error for error in ended if error is not None]
    assert isinstance(refused, StoreUnusable)
    assert "has moved from" in str(refused)


async def test_who_starts_on_the_present_schema_waits_for_no_backup(shared: OnPostgres) -> None:
    await filled(shared, sound_books())
    async with postgres_copying.reading(shared.url):
        await (await shared.opened()).close()


async def test_a_long_pause_of_one_side_does_not_end_the_other(
    shared: OnPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bank's own connections are ended by the server when they pause in a transaction, and what they ask has to be
    answered soon; these wait for each other."""
    await filled(shared, sound_books())
    monkeypatch.setattr(postgres_opening, "IDLE_IN_TRANSACTION_MS", 1)
    monkeypatch.setattr(postgres_opening, "COMMAND_S", 0.000_1)
    async with copying.leaving(shared.url, BANK, shared.marker, "there") as source:
        await asyncio.sleep(0.05)
        assert (await source.recount()).customers == 750


async def test_a_server_that_says_nothing_is_named_with_what_was_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(**_settings: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(asyncpg, "connect", never)
    with pytest.raises(StoreUnusable, match="db/bank cannot be used: TimeoutError"):
        async with postgres_copying.reading("postgresql://db/bank"):
            pass


def elsewhere(directory: Path) -> OnSqlite:
    """A place of its own, where nothing is yet."""
    made = directory / "elsewhere"
    made.mkdir(exist_ok=True)
    return OnSqlite(made)
