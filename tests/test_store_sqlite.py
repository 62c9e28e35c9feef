"""What only the embedded engine can get wrong: its files, its schema, its durability on a real and a failing disk."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distribank.breakages import DurabilityLost, Misconfigured, StoreInUse, StoreUnusable
from distribank.core.batches import Batch
from distribank.core.consents import Consent
from distribank.core.heuristics import AccountDamage, Heuristic
from distribank.core.holders import Counter, Holder
from distribank.core.idempotency import IdempotencyKey
from distribank.core.ledger import Account, Book, Company, Hold, HoldState
from distribank.core.protocol import FORCED, State, Transaction
from distribank.core.restoration import Lost, Restoration, Supplied
from distribank.core.suspense import Assignment
from distribank.core.transfer import Order
from distribank.ports import Queries
from distribank.store import open_store, sqlite
from distribank.store import rows_ledger as ledger
from distribank.store import rows_transfers as transfers
from distribank.store.columns import dumps
from distribank.store.group import KEY_OF, Group, Recent
from distribank.store.rows import ADD, PUT, READ, writes_of
from distribank.store.rows_queries import QUESTIONS, parameters_of
from distribank.store.rows_transfers import COLLECTABLE
from distribank.store.sqlite import SqliteStore
from distribank.store.sqlite_files import SCHEMA_VERSION
from tests.stores import (
    BANK,
    STAMP,
    OnSqlite,
    account,
    deposit,
    entry,
    hold,
    number,
    transaction,
)


@pytest.fixture
def place(tmp_path: Path) -> OnSqlite:
    return OnSqlite(tmp_path)


async def made(place: OnSqlite) -> None:
    """Leave a database behind, closed."""
    await place.open().close()


# Rows and columns -------------------------------------------------------------------------------------------------

whole = st.integers(0, 2**63 - 1)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def plausible(kind: type) -> st.SearchStrategy[Any]:
    """Any rows of *kind* that the schema's checks let pass."""
    if kind is Account:
        return st.builds(bounded, st.from_type(Account), whole, whole)
    if kind is Transaction:
        return st.builds(told, st.from_type(Transaction), st.none() | st.from_type(Order), whole)
    return st.from_type(kind).map(BOUNDED.get(kind, lambda row: row))


def bounded(any_account: Account, some: int, more: int) -> Account:
    company = any_account.company
    return replace(
        any_account,
        company=replace(company, account=any_account.number) if company else None,
        closed_at=None,
        held=min(some, more),
        posted=max(some, more),
    )


def told(any_transaction: Transaction, order: Order | None, at: int) -> Transaction:
    state = any_transaction.state
    if order is None or state not in STORED:
        state = State.ABORTED
    return replace(any_transaction, state=state, order=order, commit_at=at)


STORED = (State.PREPARING, State.COMMITTING, State.ENDED, State.PREPARED, State.COMMITTED, State.ABORTED, *FORCED)
BOUNDED: dict[type, Callable[[Any], Any]] = {
    Hold: lambda hold: replace(hold, resolved_at=None if hold.state is HoldState.PLACED else hold.change),
    Heuristic: lambda row: replace(
        row,
        truth_at=None if row.truth is None else row.decided_at,
        matched=None if row.truth is None else row.truth is row.decision,
    ),
    Supplied: lambda row: replace(row, accounts=tuple(_small(each) for each in row.accounts), unnamed=row.at // 2),
    Assignment: lambda row: replace(row, change=None if row.account is None else row.stamp),
    Consent: lambda consent: replace(consent, max_total=None, max_per_transfer=consent.max_per_transfer + 1),
}


def _small(damage: AccountDamage) -> AccountDamage:
    return replace(damage, wanted=damage.wanted % 1000, corrected=damage.corrected % 1000)


st.register_type_strategy(int, st.integers(1, 2**63 - 2))
st.register_type_strategy(str, words)


@pytest.mark.parametrize("kind", READ, ids=lambda kind: kind.__name__)
def test_any_row_is_read_back_equal_whether_it_is_new_or_replaces_another(kind: type) -> None:
    connection = schema()

    @given(plausible(kind), plausible(kind))
    def read_back(first: Any, second: Any) -> None:
        same_key = {name.name: getattr(first, name.name) for name in fields(first) if name.name in KEYS[kind]}
        if kind is Account and second.company is not None:
            same_key["company"] = replace(second.company, account=first.number)
        second = replace(second, **same_key)
        connection.execute("BEGIN")
        try:
            for known, row in ((None, first), (first, second), (None, first)):
                assert written(connection, kind, row, known) == row
        finally:
            connection.execute("ROLLBACK")

    read_back()


KEYS: dict[type, tuple[str, ...]] = {
    Account: ("number",),
    Assignment: ("assignment_id",),
    Batch: ("batch_id",),
    Book: ("name",),
    Company: ("cnpj",),
    Consent: ("consent_id",),
    Counter: ("name",),
    Heuristic: ("transaction",),
    Hold: ("account", "transaction"),
    Holder: ("cpf", "holder_id"),
    IdempotencyKey: ("owner", "route", "key"),
    Lost: ("transaction",),
    Restoration: ("incarnation",),
    Supplied: ("transaction",),
    Transaction: ("id", "begun_at", "subjects"),  # the last two never change
}


def schema() -> apsw.Connection:
    connection = apsw.Connection(":memory:")
    connection.execute((Path(sqlite.__file__).parent / "schema.sql").read_text())
    return connection


def written(connection: apsw.Connection, kind: type, row: Any, known: Any) -> Any:
    """*row* as the database has it after writing it, *known* being remembered as durable before."""
    group, recent = Group(), {kind: Recent() for kind in KEY_OF}
    name = KEY_OF[kind](row)
    group.puts[kind][name] = row
    if known is not None:
        recent[kind].update({name: known})
    for sentence, rows in writes_of(group, recent):
        connection.executemany(sentence, rows)
    sentence, row_of = READ[kind]
    return row_of(connection.execute(sentence, name if isinstance(name, tuple) else (name,)).fetchall()[0])


# The schema's second line of defence ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        account(1, posted=-1),
        account(1, posted=5, held=6),
        replace(account(1, posted=5), closed_at=9),
        Book("position:00000002", 0, -1),
        transaction(1, State.COMMITTING, commit_at=None),
        transaction(1, State.COMMITTING, order=None),
        transaction(1, State.PREPARING, vote_by=2**63),
    ],
    ids=["overdraft", "held more than posted", "closed with money", "reserved", "no stamp", "no order", "65 bits"],
)
async def test_a_row_that_breaks_a_rule_of_the_ledger_stops_the_bank(place: OnSqlite, row: Any) -> None:
    store = place.open()
    with pytest.raises(DurabilityLost):
        await store.write([row])
    await store.close()


@pytest.mark.parametrize(
    "row",
    [entry(number(1), 1, 0, 0), entry(number(1), 1, 5, -5), entry(number(7), 1, 5, 5)],
    ids=["amount of zero", "negative balance", "no such account"],
)
async def test_an_entry_that_cannot_be_stops_the_bank(place: OnSqlite, row: Any) -> None:
    store = place.open()
    with pytest.raises(DurabilityLost):
        await store.write([account(1), row])
    await store.close()


async def test_money_can_be_read_in_the_tables_by_anyone_with_sqlite(place: OnSqlite) -> None:
    store = place.open()
    await store.write(deposit(account(1), 500))
    await store.close()
    reader = sqlite3.connect(place.path)
    assert reader.execute("SELECT account, amount, balance_after FROM entry").fetchall() == [(number(1), 500, 500)]
    assert reader.execute("SELECT name, balance FROM book").fetchall() == [("cash", -500)]
    reader.close()


WITHOUT_KEY = {
    *("placed_holds", "unfinished", "unfinished_batches", "heuristics", "suspended", "assignments", "books"),
    *("lost", "supplied_in_suspense"),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_query_is_answered_by_an_index_in_its_own_order(name: str) -> None:
    key = {
        "entries_of_account": ("a", "1", "2"),
        "transactions_of": ("h", "ended"),
        "begun_since": ("1",),
    }.get(name, ("x",))
    if name in WITHOUT_KEY:
        key = ()
    explained = schema().execute("EXPLAIN QUERY PLAN " + QUESTIONS[name].sentence, parameters_of(name, key, (), 10))
    steps = [str(step[3]) for step in explained]
    assert not [s for s in steps if "TEMP B-TREE FOR ORDER" in s and "json_group_array" not in s], steps
    assert not [s for s in steps if s.startswith("SCAN") and "USING" not in s and "json_each" not in s], steps


def test_what_may_be_collected_is_found_by_an_index() -> None:
    explained = schema().execute("EXPLAIN QUERY PLAN " + COLLECTABLE, (1, 1))
    assert [str(step[3]) for step in explained] == ["SEARCH transfer USING INDEX transfer_collectable (<expr><?)"]


@pytest.mark.parametrize(
    "sentence",
    [
        *(transfers.PUT_TRANSFER, transfers.MOVE_TRANSFER, transfers.ADD_SUBJECT, ledger.MOVE_ACCOUNT),
        *(PUT[kind][0] for kind in (Book, Hold, IdempotencyKey)),
        *(sentence for sentence, _ in ADD.values()),
    ],
    ids=lambda sentence: " ".join(sentence.split()[:3]),
)
def test_no_row_of_a_transfer_makes_a_table_of_its_own(sentence: str) -> None:
    """A CHECK or a partial index with ``IN`` and three words does, for every row: that was most of the cost."""
    steps = [opcode for _, opcode, *_ in schema().execute("EXPLAIN " + sentence, (None,) * sentence.count("?"))]
    assert "OpenEphemeral" not in steps


# The files --------------------------------------------------------------------------------------------------------


async def test_only_the_owner_can_read_the_files(place: OnSqlite) -> None:
    store = place.open()
    await store.write([account(1)])
    for file in place.path.parent.glob("bank.*"):
        if not file.name.endswith("-shm"):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    await store.close()


async def test_the_writer_asks_the_disk_at_every_commit(place: OnSqlite) -> None:
    store = place.open()
    assert isinstance(store, SqliteStore)
    for pragma, value in (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("fullfsync", 1)):
        assert store._writer.pragma(pragma) == value, pragma
    await store.close()


SERVE = """
import sys, asyncio
from pathlib import Path
from distribank.breakages import StoreInUse
from distribank.store.sqlite import SqliteStore
async def main():
    store = SqliteStore(Path(sys.argv[1]), bank="00000001", marker=Path(sys.argv[2]), now_ms=1)
    print("serving", flush=True)
    sys.stdin.read()
try:
    asyncio.run(main())
except StoreInUse as refusal:
    print(refusal)
"""


def test_a_second_process_on_one_database_is_refused_with_the_reason(place: OnSqlite) -> None:
    """Pitfall 21, and why 16a cannot happen here: two processes of one bank would each decide from its own memory."""
    command = [sys.executable, "-c", SERVE, str(place.path), str(place.marker)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "serving\n"
        second = subprocess.run(command, input="", capture_output=True, text=True, check=True, timeout=30)
        assert f"is served by another process (pid {first.pid})" in second.stdout
        first.send_signal(signal.SIGKILL)
    third = subprocess.run(command, input="", capture_output=True, text=True, check=True, timeout=30)
    assert third.stdout == "serving\n"  # the lock went with the process that held it


async def test_a_second_store_in_one_process_is_refused_too(place: OnSqlite) -> None:
    store = place.open()
    with pytest.raises(StoreInUse):
        place.open()
    await store.close()
    await place.open().close()


async def test_a_database_of_a_newer_version_is_refused(place: OnSqlite) -> None:
    await made(place)
    newer = sqlite3.connect(place.path)
    newer.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    newer.close()
    with pytest.raises(StoreUnusable, match="written by a newer version"):
        place.open()


async def test_another_banks_database_is_refused(place: OnSqlite) -> None:
    await made(place)
    with pytest.raises(StoreUnusable, match="belongs to bank 00000001, not to 00000009"):
        place.open(bank="00000009")


def test_another_programs_database_is_refused(place: OnSqlite) -> None:
    other = sqlite3.connect(place.path)
    other.execute("CREATE TABLE song (title)")
    other.close()
    with pytest.raises(StoreUnusable, match="another program"):
        place.open()


@pytest.mark.parametrize("junk", [b"not a database at all" * 500, b"SQLite format 3\0" + b"\xff" * 9000])
def test_a_file_that_is_no_database_is_refused(place: OnSqlite, junk: bytes) -> None:
    place.path.write_bytes(junk)
    with pytest.raises(StoreUnusable, match="not a database"):
        place.open()
    assert place.path.read_bytes() == junk


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match=r"cannot write in .*nowhere"):
        OnSqlite(tmp_path / "nowhere").open()


async def test_a_refused_database_is_let_go_of(place: OnSqlite) -> None:
    await made(place)
    with pytest.raises(StoreUnusable):
        place.open(bank="00000009")
    await place.open().close()


# A lost disk ------------------------------------------------------------------------------------------------------


async def test_the_first_database_of_a_bank_reaches_back_to_the_beginning(place: OnSqlite) -> None:
    store = place.open(now_ms=77)
    assert store.reaches_back_to == 0
    await store.close()


async def test_after_a_lost_disk_the_log_reaches_back_no_further_than_now(place: OnSqlite) -> None:
    first = place.open(now_ms=77)
    await first.close()
    await place.lose_disk()
    second = place.open(now_ms=88)
    assert second.reaches_back_to == 88
    assert second.incarnation != first.incarnation
    await second.close()
    third = place.open(now_ms=99)
    assert (third.reaches_back_to, third.incarnation) == (88, second.incarnation)
    await third.close()


async def test_an_old_copy_put_back_after_a_lost_disk_is_refused(place: OnSqlite, tmp_path: Path) -> None:
    await made(place)
    shutil.copy(place.path, tmp_path / "old copy")
    await place.lose_disk()
    await made(place)
    await place.lose_disk()
    shutil.copy(tmp_path / "old copy", place.path)
    with pytest.raises(StoreUnusable, match="an old copy has forgotten promises"):
        place.open()


async def test_a_mistyped_place_is_not_taken_for_a_lost_disk(place: OnSqlite) -> None:
    first = place.open()
    await first.close()
    typo = place.path.with_name("bnak.db")
    with pytest.raises(StoreUnusable, match="correct DISTRIBANK_DATABASE_URL"):
        SqliteStore(typo, bank=BANK, marker=place.marker, now_ms=2)
    assert not typo.exists()
    again = place.open()
    assert (again.incarnation, again.reaches_back_to) == (first.incarnation, 0)
    await again.close()


async def test_a_lost_database_is_begun_anew_with_a_warning_and_promises_nothing_about_the_past(
    place: OnSqlite, caplog: pytest.LogCaptureFixture
) -> None:
    first = place.open()
    await first.close()
    place.path.unlink()
    second = SqliteStore(place.path, bank=BANK, marker=place.marker, now_ms=77)
    assert second.incarnation != first.incarnation
    assert second.reaches_back_to == 77
    assert "it is gone" in caplog.text
    await second.close()


async def test_a_data_directory_may_be_moved(place: OnSqlite, tmp_path: Path) -> None:
    first = place.open()
    await first.close()
    moved = tmp_path / "elsewhere.db"
    place.path.rename(moved)
    second = SqliteStore(moved, bank=BANK, marker=place.marker, now_ms=2)
    assert (second.incarnation, second.reaches_back_to) == (first.incarnation, 0)
    await second.close()


async def test_a_lost_marker_is_written_again(place: OnSqlite) -> None:
    await made(place)
    place.marker.unlink()
    await made(place)
    assert place.marker.exists()


# Choosing an engine -----------------------------------------------------------------------------------------------


async def test_a_url_names_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("sqlite:///one.db", f"sqlite:///{tmp_path}/two.db"):
        store = await open_store(url, bank=BANK, marker=tmp_path / f"{url[-6:-3]}.marker", now_ms=1)
        await store.close()
    assert {"one.db", "two.db"} <= set(os.listdir(tmp_path))


@pytest.mark.parametrize(
    ("url", "why"),
    [("mysql://bank@db/bank", "postgresql://"), ("bank.db", "sqlite:///path"), ("sqlite:///", "sqlite:///path")],
)
async def test_another_engine_is_refused_with_what_to_write(tmp_path: Path, url: str, why: str) -> None:
    with pytest.raises(Misconfigured, match=why):
        await open_store(url, bank=BANK, marker=tmp_path / "marker", now_ms=1)


# Flushing for real ------------------------------------------------------------------------------------------------


async def test_commits_wait_for_the_disk_in_a_thread_of_their_own(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "bank.db", bank=BANK, marker=tmp_path / "marker", now_ms=1)
    accounts = [account(n) for n in range(1, 50)]
    await asyncio.gather(*(store.write(deposit(a, 5)) for a in accounts))
    counted = await store.recount()
    assert (counted.customers, counted.findings) == (5 * 49, [])
    assert store.stats.flushes == 1
    await store.close()


async def test_rows_are_written_on_the_loops_thread_and_only_the_commit_in_another(tmp_path: Path) -> None:
    """Pitfall 22: two threads hand the interpreter lock to and fro for every short SQL statement."""
    store = SqliteStore(tmp_path / "bank.db", bank=BANK, marker=tmp_path / "marker", now_ms=1)
    elsewhere: list[str] = []
    here = threading.get_ident()

    def trace(_cursor: apsw.Cursor, sentence: str, _bindings: object) -> bool:
        if threading.get_ident() != here:
            elsewhere.append(sentence)
        return True

    store._writer.exec_trace = trace
    await asyncio.gather(*(store.write(deposit(account(n), 5)) for n in range(1, 50)))
    assert elsewhere == ["COMMIT"]
    await store.close()


async def test_the_write_ahead_log_stays_bounded(place: OnSqlite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "CHECKPOINT_PAGES", 50)
    store = place.open()
    rows = account(1)
    for _ in range(100):
        await store.write(deposit(rows, 5))
        found = await store.get(Account, number(1))
        assert found is not None
        rows = found
    log = place.path.with_name("bank.db-wal")
    assert log.stat().st_size < 2 * 50 * 4200
    await store.close()
    assert not log.exists() or log.stat().st_size == 0


async def test_a_recount_reads_one_picture_while_money_moves(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "bank.db", bank=BANK, marker=tmp_path / "marker", now_ms=1)
    before = account(1)
    counts = []
    for _ in range(20):
        writing = store.write(deposit(before, 5))
        counts.append(asyncio.ensure_future(store.recount()))
        await writing
        found = await store.get(Account, number(1))
        assert found is not None
        before = found
    assert all(counted.findings == [] for counted in await asyncio.gather(*counts))
    await store.close()


async def test_a_hold_placed_twice_on_one_change_stops_the_bank(place: OnSqlite) -> None:
    store = place.open()
    await store.write([account(1, posted=200), hold(number(1), "t-1", 1)])
    with pytest.raises(DurabilityLost):
        await store.write([hold(number(1), "t-2", 1)])
    await store.close()


async def test_the_last_stamp_is_found_without_looking_for_it(place: OnSqlite) -> None:
    store = place.open()
    await store.write(deposit(account(1), 5))
    assert await store.find(Queries.ENTRIES_SINCE, number(1)) == [entry(number(1), 1, 5, 5)]
    await store.close()
    reader = sqlite3.connect(place.path)
    assert reader.execute("SELECT last_stamp FROM meta").fetchall() == [(STAMP + 1,)]
    reader.close()


@given(st.lists(st.tuples(st.text(), st.integers(), st.booleans(), st.none(), st.sampled_from(State))))
def test_a_column_is_written_as_json_writes_it(rows: list[tuple[Any, ...]]) -> None:
    assert dumps(rows) == json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
