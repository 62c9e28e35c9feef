"""Databases of older versions: opened by this one, they have all that was in them, and this version's schema."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest

from distribank.core.heuristics import Heuristic
from distribank.core.ledger import Account, Book, BookEntry, Entry, EntryKind, Hold
from distribank.core.protocol import State, Transaction
from distribank.ports import Queries, Row
from distribank.store import sqlite, sqlite_files
from distribank.store.group import ADDED, KEY_OF, Group, Recent
from distribank.store.rows import writes_of
from distribank.store.sqlite_files import INSERT_META, MIGRATIONS, SCHEMA_VERSION
from tests.stores import (
    BANK,
    INCARNATION,
    PEER,
    STAMP,
    OnSqlite,
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
    number,
    record,
    tombstone,
    transaction,
    transaction_id,
)

OLDER = range(1, SCHEMA_VERSION)


def older_schema(version: int) -> str:
    """``schema.sql`` as *version* had it; no table of any has changed its columns since."""
    return (Path(__file__).parent / "fixtures" / f"schema_{version}.sql").read_text()


def kept() -> list[Row]:
    """Something of every kind that version 1 kept."""
    first, second = deposit(account(1), 500), deposit(account(2), 250)
    held = account(1, posted=500, held=100, open_holds=1, changes=2)
    states = (State.PREPARING, State.COMMITTING, State.ENDED, State.ABORTED)
    return [
        *first[1:],
        *second,
        held,
        hold(number(1), transaction_id(1), 2),
        *(transaction(n, state) for n, state in enumerate(states, 1)),
        tombstone(7),
        *(record(transaction_id(1), n) for n in (1, 2)),
        *(holder(1), consent(1), key(1, 5), batch(1)),
        Book("cash", -750),
    ]


def of_an_older_version(place: OnSqlite, rows: list[Row], version: int = 1) -> None:
    """Leave a database as *version* wrote it."""
    writer = apsw.Connection(str(place.path))
    writer.execute(older_schema(version))
    writer.execute(INSERT_META, (BANK, INCARNATION, 0))
    group = Group()
    for row in rows:
        if type(row) in ADDED:
            group.added[type(row)].append(row)
        else:
            group.puts[type(row)][KEY_OF[type(row)](row)] = row
    writer.execute("BEGIN")
    for sentence, written in writes_of(group, {kind: Recent() for kind in KEY_OF}):
        writer.executemany(sentence, written)
    writer.execute("COMMIT")
    writer.close()


@pytest.fixture
def place(tmp_path: Path) -> OnSqlite:
    return OnSqlite(tmp_path)


def schema_of(connection: apsw.Connection) -> dict[str, Any]:
    """Each table's and index's own words, however they are spaced; a renamed table's name stands in quotes."""
    found = connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
    return {name: " ".join(sql.replace('"', "").split()) for name, sql in found}


def test_every_older_version_leads_to_the_next() -> None:
    assert set(MIGRATIONS) == set(range(1, SCHEMA_VERSION))


@pytest.mark.parametrize("version", OLDER)
async def test_a_database_of_an_older_version_has_everything_after_the_migration(place: OnSqlite, version: int) -> None:
    rows = kept()
    of_an_older_version(place, rows, version)
    store = place.open()
    assert store.incarnation == INCARNATION
    for row in rows:
        if type(row) in KEY_OF:
            name = KEY_OF[type(row)](row)
            assert await store.get(type(row), *(name if isinstance(name, tuple) else (name,))) == row
    assert await store.find(Queries.ENTRIES_SINCE, number(1)) == [r for r in rows[:1] if isinstance(r, Entry)]
    assert len(await store.find(Queries.RECORDS_OF, transaction_id(1))) == 2
    assert len(await store.find(Queries.UNFINISHED)) == 2
    assert len(await store.find(Queries.TRANSACTIONS_OF, "h1", "ended", "aborted")) == 2
    counted = await store.recount()
    assert (counted.customers, counted.books["cash"], counted.findings) == (750, -750, [])
    await store.close()


@pytest.mark.parametrize("version", OLDER)
async def test_a_migrated_database_has_the_schema_of_a_new_one(place: OnSqlite, version: int) -> None:
    of_an_older_version(place, kept(), version)
    await place.open().close()
    fresh = apsw.Connection(":memory:")
    fresh.execute((Path(sqlite.__file__).parent / "schema.sql").read_text())
    migrated = apsw.Connection(str(place.path))
    assert schema_of(migrated) == schema_of(fresh)
    for pragma in ("user_version", "application_id"):
        assert migrated.pragma(pragma) == fresh.pragma(pragma)
    assert migrated.execute("PRAGMA foreign_key_check").fetchall() == []
    assert migrated.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    migrated.close()


async def test_a_migrated_database_takes_what_version_1_did_not_know(place: OnSqlite) -> None:
    of_an_older_version(place, kept())
    store = place.open()
    forced = replace(transaction(9, State.FORCED_COMMIT), id=transaction_id(9, PEER))
    corrected = replace(entry(number(2), 2, 5, 255), operation=f"{forced.id}.correction", kind=EntryKind.CORRECTION)
    await store.write(
        [
            *(forced, heuristic(9), corrected, account(2, posted=255, changes=2)),
            BookEntry(corrected.operation, "suspense", -5, corrected.stamp),
        ]
    )
    await store.close()
    store = place.open()
    assert await store.get(Transaction, forced.id) == forced
    assert await store.get(Heuristic, forced.id) == heuristic(9)
    assert (await store.find(Queries.ENTRIES_SINCE, number(2)))[-1] == corrected
    await store.close()


async def test_what_version_2_left_in_suspense_is_found_and_assigned(place: OnSqlite) -> None:
    guess = damaging(9)
    suspended = BookEntry(f"{guess.transaction}.correction", "suspense", -1, STAMP)
    position = BookEntry(suspended.operation, f"position:{PEER}", 1, STAMP)
    of_an_older_version(place, [*kept(), Book("suspense", -1), Book(position.book, 1), suspended, position, guess], 2)
    store = place.open()
    assert await store.find(Queries.SUSPENDED) == [guess]
    assigned = assignment(1, account=None, change=None)
    await store.write([assigned, *(BookEntry(assigned.operation, name, n, STAMP) for name, n in OUT_OF_CASH)])
    await store.close()
    store = place.open()
    assert await store.find(Queries.ASSIGNMENTS) == [assigned]
    counted = await store.recount()
    assert (counted.books["suspense"], counted.books["cash"], counted.findings) == (0, -751, [])
    await store.close()


OUT_OF_CASH = (("suspense", 1), ("cash", -1))


async def test_a_migration_that_is_cut_short_leaves_version_1(place: OnSqlite, monkeypatch: pytest.MonkeyPatch) -> None:
    of_an_older_version(place, kept())
    whole = sqlite_files._script("from_1_to_2.sql")
    script = whole.replace("CREATE TABLE heuristic", "CREATE TABLE entry")
    with monkeypatch.context() as cut:
        cut.setattr(sqlite_files, "_script", lambda _name: script)
        with pytest.raises(sqlite_files.StoreUnusable):
            place.open()
    left = apsw.Connection(str(place.path))
    assert left.pragma("user_version") == 1
    assert "correction" not in schema_of(left)["entry"]
    left.close()
    store = place.open()
    assert (await store.recount()).findings == []
    assert await store.get(Hold, number(1), transaction_id(1)) is not None
    assert await store.get(Account, number(2)) is not None
    assert record(transaction_id(1), 1) in await store.find(Queries.RECORDS_OF, transaction_id(1))
    await store.close()
