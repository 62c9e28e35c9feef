"""A bank's database in another one: engine to engine, whole, and the same when it is added up anew."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from distribank.breakages import StoreUnusable
from distribank.core.ledger import Account
from distribank.ports import Queries
from distribank.store import copying, put, sqlite_files
from distribank.store.group import KEY_OF
from tests.postgres_server import drop, shared_server
from tests.stores import BANK, OnPostgres, OnSqlite
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


async def test_a_bank_moves_to_postgresql_and_back_with_everything(tmp_path: Path) -> None:
    place = OnSqlite(tmp_path)
    store = place.open()
    await store.write(sound_books())
    incarnation = store.incarnation
    await store.close()
    url = await shared_server().database()
    there = f"sqlite:///{tmp_path / 'back.db'}"
    told: list[tuple[str, int]] = []
    try:
        counted = []
        for source_url, target_url in ((f"sqlite:///{place.path}", url), (url, there)):
            async with (
                copying.opened(source_url, as_target=False) as source,
                copying.opened(target_url, as_target=True) as target,
            ):
                counted.append(await copying.copy(source, target, lambda table, done: told.append((table, done))))
        assert counted[0] == counted[1]
        assert (counted[0].customers, counted[0].findings) == (750, [])
        assert told
        back = OnSqlite(tmp_path)
        back.path = tmp_path / "back.db"
        first, second = apsw.Connection(str(place.path)), apsw.Connection(str(back.path))
        for table in copying.COLUMNS:
            sentence = copying.READ[table]
            assert sorted(first.execute(sentence)) == sorted(second.execute(sentence)), table
        assert sqlite_files.read_identity(second) == sqlite_files.read_identity(first)
        assert sqlite_files.read_identity(second).incarnation == incarnation
    finally:
        await drop(url)


async def test_every_kind_of_row_arrives_as_it_was(tmp_path: Path) -> None:
    place = OnSqlite(tmp_path)
    store = place.open()
    rows = shelf()
    await store.write(rows)
    await store.close()
    shared = OnPostgres(tmp_path)
    shared.url = await shared_server().database()
    try:
        async with (
            copying.opened(f"sqlite:///{place.path}", as_target=False) as source,
            copying.opened(shared.url, as_target=True) as target,
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
    finally:
        await shared.leave()


async def test_a_copy_that_does_not_balance_is_refused(tmp_path: Path) -> None:
    place = OnSqlite(tmp_path)
    store = place.open()
    rows = sound_books()
    rows = [
        replace(row, posted=row.posted + 1) if isinstance(row, Account) and row.posted == 250 else row for row in rows
    ]
    await store.write(rows)
    await store.close()
    with pytest.raises(StoreUnusable, match="do not balance"):
        async with (
            copying.opened(f"sqlite:///{place.path}", as_target=False) as source,
            copying.opened(f"sqlite:///{tmp_path / 'copy.db'}", as_target=True) as target,
        ):
            await copying.copy(source, target, lambda _table, _done: None)


async def test_a_bank_that_runs_does_not_move_and_nothing_moves_onto_what_is_there(tmp_path: Path) -> None:
    shared = OnPostgres(tmp_path)
    store = await shared.opened()
    try:
        await put(store, sound_books())
        with pytest.raises(StoreUnusable, match="a replica of this bank runs"):
            async with copying.opened(shared.url, as_target=False):
                pass
        with pytest.raises(StoreUnusable, match="give the bank an empty one"):
            async with copying.opened(shared.url, as_target=True) as target:
                await target.begin(copying.Identity(BANK, store.incarnation, 0, 0))
    finally:
        await store.close()
        await shared.leave()
