"""A backup as a file, and its way back: what is copied, what is refused, what is put aside, what a crash leaves."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

from distribank.breakages import StoreInUse, StoreUnusable
from distribank.core.batches import Batch
from distribank.core.holders import Counter
from distribank.core.ledger import Account, Book
from distribank.core.restoration import NUMBERS_LEFT_OUT, Restoration
from distribank.store import backup, sqlite_files
from distribank.store.backup import Backup, Restored, put_back, take
from tests.stores import (
    BANK,
    PEER,
    STAMP,
    OnSqlite,
    account,
    batch,
    deposit,
    hold,
    number,
    record,
    restoration,
    told,
    transaction,
    transaction_id,
)
from tests.test_migration import of_an_older_version

DAY_MS = 86_400_000
NOW = (STAMP >> 16) + DAY_MS


def silent(_what: str, _share: float | None) -> None: ...


@pytest.fixture
def place(tmp_path: Path) -> OnSqlite:
    directory = tmp_path / "bank"
    directory.mkdir()
    return OnSqlite(directory)


async def filled(place: OnSqlite) -> None:
    """A database with something in it, closed."""
    store = place.open()
    held = account(2, posted=250, held=100, open_holds=1, changes=2)
    await store.write([*deposit(account(1), 500), *deposit(account(2), 250)])
    await store.write([held, hold(number(2), transaction_id(1), 2), transaction(1), record(transaction_id(1), 3)])
    await store.write([batch(1), Counter("account", 2)])
    await store.close()


def taken(place: OnSqlite, name: str = "copy", bank: str = BANK, at: int = NOW - 1000) -> Backup:
    return take(place.path, place.path.parent.parent / name, bank, at, silent)


def back(place: OnSqlite, file: Path, **changes: Any) -> Restored:
    given: dict[str, Any] = {"bank": BANK, "peers": [PEER], "without": (), "retention_ms": 7 * DAY_MS, "now_ms": NOW}
    given |= changes
    chance = random.Random(1)  # noqa: S311 - repeatable, not secret
    return put_back(
        file,
        place.path,
        place.marker,
        given["bank"],
        given["peers"],
        given["without"],
        given["retention_ms"],
        given["now_ms"],
        chance,
        silent,
    )


async def test_a_backup_is_one_private_file_that_adds_up(place: OnSqlite) -> None:
    await filled(place)
    made = taken(place)
    assert (made.bank, made.customers, made.books, made.entries, made.holds) == (BANK, 750, {"cash": -750}, 2, 1)
    assert (made.taken_at, made.stamp, made.findings) == (NOW - 1000, STAMP + 3, [])
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    assert made.size == made.path.stat().st_size
    assert [file.name for file in made.path.parent.iterdir() if file.is_file()] == ["copy"]
    plain = sqlite3.connect(made.path)
    assert plain.execute("PRAGMA journal_mode").fetchall() == [("delete",)], "it needs no other file"
    assert plain.execute("SELECT taken_at FROM backup").fetchall() == [(NOW - 1000,)]
    plain.close()


async def test_it_is_the_picture_of_one_moment_while_the_bank_writes(
    place: OnSqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between any two pages that are copied, a deposit becomes durable; the copy has none of them, or all of one."""
    monkeypatch.setattr(backup, "PAGES_AT_ONCE", 1)
    store = place.open()
    present = account(1)
    await store.write([present])
    loop = asyncio.get_running_loop()

    async def one_more() -> None:
        nonlocal present
        rows = deposit(present, 5)
        assert isinstance(rows[0], Account)
        present = rows[0]
        await store.write(rows)

    for _ in range(40):
        await one_more()
    before = present.posted
    steps = 0

    def report(what: str, _share: float | None) -> None:
        nonlocal steps
        if what == "copying":
            steps += 1
            asyncio.run_coroutine_threadsafe(one_more(), loop).result()

    made = await asyncio.to_thread(take, place.path, place.path.parent.parent / "copy", BANK, NOW, report)
    assert steps > 10
    assert made.customers == before == -made.books["cash"]
    assert present.posted == before + 5 * steps, "and nobody waited for it"
    assert made.findings == []
    await store.close()


async def test_a_bank_stops_while_it_is_backed_up_and_starts_once_that_has_ended(
    place: OnSqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_files, "BUSY_MS", 50)
    await filled(place)
    store = place.open()
    await store.write(deposit(account(3), 5))
    reader = sqlite_files.open_reader(place.path, None)
    reader.execute("BEGIN")
    reader.execute("SELECT one FROM meta").fetchall()
    await store.write(deposit(account(4), 7))
    await store.close()
    assert place.broken == []
    with pytest.raises(StoreUnusable, match="a backup perhaps"):
        place.open()
    reader.close()
    store = place.open()
    assert await store.get(Account, number(4)) is not None
    await store.close()


async def test_a_backup_never_replaces_anything_and_leaves_nothing_half_written(place: OnSqlite) -> None:
    await filled(place)
    target = place.path.parent.parent / "copy"
    target.write_text("mine")
    with pytest.raises(StoreUnusable, match="never replaces anything"):
        taken(place)
    assert target.read_text() == "mine"
    target.unlink()

    def late(what: str, _share: float | None) -> None:
        if what.startswith("adding"):
            target.write_text("somebody else's")

    with pytest.raises(StoreUnusable, match="never replaces anything"):
        take(place.path, target, BANK, NOW, late)
    assert target.read_text() == "somebody else's"
    assert [file.name for file in target.parent.iterdir() if file.is_file()] == ["copy"]


async def test_books_that_are_wrong_are_copied_all_the_same_and_named(place: OnSqlite) -> None:
    store = place.open()
    await store.write([account(1, posted=5)])
    await store.close()
    assert taken(place).findings == [f"account {number(1)}: posted is 5, its entries sum to 0"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda place: place.path.unlink(), "there is no database"),
        (lambda place: place.path.write_bytes(b"nothing"), "cannot be used"),
        (lambda place: ran(place.path, "PRAGMA application_id = 7"), "not written by distribank"),
        (lambda place: ran(place.path, "PRAGMA user_version = 99"), "newer version"),
        (lambda place: ran(place.path, "PRAGMA user_version = 4"), "of an older version"),
        (lambda place: ran(place.path, "UPDATE meta SET bank = '00000009'"), "belongs to bank 00000009"),
    ],
)
async def test_what_is_no_database_of_this_bank_is_not_backed_up(
    place: OnSqlite, spoil: Callable[[OnSqlite], None], words: str
) -> None:
    await filled(place)
    spoil(place)
    with pytest.raises(StoreUnusable, match=words):
        taken(place)
    assert not list(place.path.parent.parent.glob("*copy*"))


async def test_a_directory_that_is_missing_is_named(place: OnSqlite) -> None:
    await filled(place)
    with pytest.raises(StoreUnusable, match="there is no directory"):
        taken(place, "missing/copy")


def ran(path: Path, sentence: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(sentence)
    connection.commit()
    connection.close()


# Putting one back -------------------------------------------------------------------------------------------------


async def test_a_restored_database_has_another_name_and_says_what_it_lacks(place: OnSqlite) -> None:
    await filled(place)
    store = place.open()
    before = store.incarnation
    await store.close()
    made = taken(place)
    store = place.open()
    await store.write(deposit(account(3), 70))
    await store.close()
    done = back(place, made.path, without=[PEER])
    assert done.restoration == Restoration(done.restoration.incarnation, STAMP + 3, NOW - 1000, NOW, (PEER,))
    store = place.open()
    assert (store.incarnation, store.reaches_back_to) == (done.restoration.incarnation, NOW)
    assert store.incarnation != before
    assert store.last_stamp == STAMP + 3
    assert await store.get(Restoration, store.incarnation) == done.restoration
    assert await store.get(Account, number(3)) is None
    counted = await store.recount()
    assert (counted.customers, counted.findings) == (750, [])
    assert place.marker.read_text().startswith(store.incarnation)
    assert stat.S_IMODE(place.path.stat().st_mode) == 0o600
    await store.close()
    assert done.aside is not None
    aside = sqlite3.connect(done.aside)
    assert aside.execute("SELECT count(*) FROM account").fetchall() == [(3,)]
    aside.close()


async def test_what_would_be_done_twice_is_not_gone_on_with(place: OnSqlite) -> None:
    """A batch of the backup may have been run since, and a number been given: neither is done again."""
    await filled(place)
    back(place, taken(place).path)
    store = place.open()
    left = await store.get(Batch, "batch-1")
    assert left is not None
    assert left.finished_at == NOW
    assert await store.claim_batches(10) == []
    assert await store.get(Counter, "account") == Counter("account", 2 + NUMBERS_LEFT_OUT)
    await store.close()


async def test_the_write_ahead_log_of_a_bank_that_was_killed_is_put_aside_with_it(place: OnSqlite) -> None:
    """Beside another database it would be taken for that one's."""
    await filled(place)
    made = taken(place)
    with_log = apsw.Connection(str(place.path))
    with_log.execute("PRAGMA journal_mode = WAL")
    with_log.execute("INSERT INTO counter (name, value) VALUES ('x', 1)")
    assert place.path.with_name("bank.db-wal").stat().st_size > 0
    done = back(place, made.path)
    assert not place.path.with_name("bank.db-wal").exists()
    assert done.aside is not None
    assert done.aside.with_name(done.aside.name + "-wal").exists()
    with_log.close()
    store = place.open()
    assert await store.get(Counter, "x") is None
    await store.close()


async def test_a_lost_disk_is_restored_where_there_is_nothing_to_put_aside(place: OnSqlite) -> None:
    await filled(place)
    made = taken(place)
    await place.lose_disk()
    assert back(place, made.path).aside is None
    store = place.open()
    assert await store.get(Account, number(1)) is not None
    await store.close()


async def test_a_running_bank_is_not_replaced(place: OnSqlite) -> None:
    await filled(place)
    made = taken(place)
    store = place.open()
    with pytest.raises(StoreInUse):
        back(place, made.path)
    await store.close()


@pytest.mark.parametrize(
    ("spoil", "changes", "words"),
    [
        (lambda file: file.unlink(), {}, "there is no backup"),
        (lambda file: ran(file, "DROP TABLE backup"), {}, "is no backup"),
        (lambda file: ran(file, "PRAGMA user_version = 99"), {}, "newer version"),
        (lambda file: ran(file, "PRAGMA application_id = 7"), {}, "not written by distribank"),
        (lambda file: file.write_bytes(file.read_bytes()[:-8192]), {}, "damaged|cannot be used"),
        (lambda file: ran(file, "INSERT INTO account_holder VALUES ('x', 0, 'h', 'c', 'n', 'titular')"), {}, "damaged"),
        (lambda _: None, {"bank": "00000009"}, "belongs to bank"),
        (lambda _: None, {"retention_ms": 1000}, "must not return to service"),
        (lambda _: None, {"now_ms": NOW - 61_001}, "yet to come"),
    ],
)
async def test_what_must_not_return_to_service_is_refused_and_nothing_has_changed(
    place: OnSqlite, spoil: Callable[[Path], None], changes: dict[str, Any], words: str
) -> None:
    await filled(place)
    made = taken(place)
    spoil(made.path)
    before = {file.name: file.read_bytes() for file in place.path.parent.iterdir() if file.suffix != ".lock"}
    with pytest.raises(StoreUnusable, match=words):
        back(place, made.path, **changes)
    after = {file.name: file.read_bytes() for file in place.path.parent.iterdir() if file.suffix != ".lock"}
    assert after == before


async def test_no_bank_serves_from_a_backup(place: OnSqlite) -> None:
    await filled(place)
    made = taken(place)
    place.path.write_bytes(made.path.read_bytes())
    with pytest.raises(StoreUnusable, match="distribank restore"):
        place.open()


async def test_a_backup_of_an_older_version_is_brought_up_to_date(place: OnSqlite) -> None:
    rows = [*deposit(account(1), 500)[1:], account(1, posted=500, changes=1), Book("cash", -500)]
    of_an_older_version(place, rows, 4)
    ran(place.path, "CREATE TABLE backup (one INTEGER PRIMARY KEY, taken_at INTEGER NOT NULL)")
    ran(place.path, f"INSERT INTO backup VALUES (1, {NOW - 1000})")  # noqa: S608 - a number
    file = place.path.parent.parent / "old"
    place.path.rename(file)
    back(place, file)
    store = place.open()
    assert (await store.recount()).customers == 500
    await store.close()


async def test_a_gap_that_was_still_open_in_the_backup_stays_open(place: OnSqlite) -> None:
    await filled(place)
    first = back(place, taken(place).path)
    second = taken(place, "second", at=NOW + 500_000)
    again = back(place, second.path, now_ms=NOW + 600_000)
    assert (again.restoration.taken_at, again.restoration.stamp) == (NOW - 1000, STAMP + 3)
    store = place.open()
    await store.write([restoration(1), Restoration(again.restoration.incarnation, STAMP, 1, 2, (), (told(PEER),))])
    await store.close()
    third = taken(place, "third", at=NOW + 700_000)
    assert back(place, third.path, now_ms=NOW + 800_000).restoration.taken_at == NOW + 700_000
    assert first.aside is not None


@pytest.mark.parametrize("step", ["write_marker", "link", "set aside"])
async def test_a_crash_in_the_middle_leaves_nothing_that_serves_what_it_must_not(
    place: OnSqlite, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    await filled(place)
    made = taken(place)

    class PowerCut(BaseException):
        pass

    def cut(*_: Any, **__: Any) -> None:
        raise PowerCut

    with monkeypatch.context() as patched:
        if step == "write_marker":
            patched.setattr(backup, "write_marker", cut)
        elif step == "link":
            patched.setattr(os, "link", cut)
        else:
            patched.setattr(backup, "_set_aside", cut)
        with pytest.raises(PowerCut):
            back(place, made.path)
    if step == "write_marker":
        store = place.open()  # nothing has been touched yet
        await store.close()
    else:
        with pytest.raises(StoreUnusable, match="not the latest database"):
            place.open()
    with suppress(FileNotFoundError):
        back(place, made.path, now_ms=NOW + 5)
    store = place.open()
    assert await store.get(Account, number(1)) is not None
    await store.close()
