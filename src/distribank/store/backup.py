"""A backup: one consistent picture of a bank's database in a file of its own; and its return to service.

A backup is a SQLite file with the schema of the version that wrote it and one table more, ``backup``, which says that
it is one and when it was begun. It is taken by a connection of its own while the bank runs, and nobody waits for it. No
bank serves from it: what its peers rely on has gone on since. ``put_back`` makes a database of it, under another
incarnation and with a row that says what is missing, from which the bank starts by asking its peers.

Nothing here is on an event loop. What goes wrong raises ``StoreBreakage``, and no half-written file bears a backup's
name. The database that a restore replaces is put aside, never deleted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import apsw

from distribank import files
from distribank.breakages import StoreUnusable
from distribank.core.clock import CLOCK_BOUND_MS, MAX_STAMP
from distribank.core.restoration import NUMBERS_LEFT_OUT, Restoration
from distribank.ports import Chance
from distribank.store import sqlite_files
from distribank.store.marker import write_marker
from distribank.store.rows import READ
from distribank.store.rows_restoring import PUT_RESTORATION, restoration_columns
from distribank.store.sqlite_files import APPLICATION_ID, SCHEMA_VERSION, recount

PAGES_AT_ONCE: Final = 4096
"""Pages of 4 KiB between two reports of progress."""
DAY_MS: Final = 86_400_000

BEGIN_PICTURE: Final = "SELECT one FROM meta"
"""The first read of a transaction fixes what all of it sees."""
MARK: Final = "CREATE TABLE backup (one INTEGER PRIMARY KEY CHECK (one = 1), taken_at INTEGER NOT NULL) STRICT"
MARK_WITH: Final = "INSERT INTO backup (one, taken_at) VALUES (1, ?)"
MARKED: Final = "SELECT taken_at FROM backup"
UNMARK: Final = "DROP TABLE backup"
RENEW: Final = "UPDATE meta SET incarnation = ?, reaches_back_to = ? WHERE one = 1"
END_BATCHES: Final = "UPDATE batch SET finished_at = ? WHERE finished_at IS NULL"
"""What they ran behind the backup is not in it: to go on would be to pay twice."""
LEAVE_NUMBERS_OUT: Final = "UPDATE counter SET value = value + ? WHERE name = 'account'"

Report = Callable[[str, float | None], None]
"""Told what is being done, and how much of it (0 to 1) where that is known."""


@dataclass(frozen=True, slots=True)
class Backup:
    """What is in a backup, all of it added up anew: sums in centavos, the bank's own books by name.

    *taken_at* and *stamp* bound it: everything written before is in it. *findings* are what the audit of one bank found
    wrong; the copy is faithful all the same.
    """

    path: Path
    bank: str
    incarnation: str
    taken_at: int
    stamp: int
    size: int
    customers: int
    books: dict[str, int]
    entries: int
    holds: int
    findings: list[str]


@dataclass(frozen=True, slots=True)
class Restored:
    """A database that has been put back, and where the one before it is now (``None`` if there was none)."""

    restoration: Restoration
    path: Path
    aside: Path | None


# Taking one -------------------------------------------------------------------------------------------------------


def take(database: Path, target: Path, bank: str, now_ms: int, report: Report) -> Backup:
    """Copy *bank*'s *database* as it is now to *target*, which must not be there; read it again, whole, and add it up.

    Raises ``StoreUnusable``; then there is no *target*. The bank may run, or not.
    """
    if not database.is_file():
        raise StoreUnusable(f"there is no database at {database}; check the bank's database setting")
    check_free(target)
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    with tidied(draft), _translated(database):
        _make_private(draft)
        _copy(database, draft, bank, now_ms, report)
        made = examine(draft, bank, report)
        publish(draft, target)
    return replace(made, path=target)


def _copy(database: Path, draft: Path, bank: str, now_ms: int, report: Report) -> None:
    source, copy = sqlite_files.open_reader(database, None), apsw.Connection(str(draft))
    try:
        source.execute("BEGIN")
        source.execute(BEGIN_PICTURE).fetchall()  # from here on the picture stands still, whatever the bank writes
        _check_ours(source, database, bank)
        _check_present(source, database)
        with copy.backup("main", source, "main") as work:
            while not work.done:
                work.step(PAGES_AT_ONCE)
                report("copying", 1 - work.remaining / max(work.page_count, 1))
        source.execute("COMMIT")
        mark(copy, now_ms)
    finally:
        copy.close()
        source.close()


def mark(copy: apsw.Connection, taken_at: int) -> None:
    """Say in *copy*, which holds the rows of a database as it was at *taken_at* or later, that it is a backup.

    That makes a backup of any SQLite file with this version's schema, whatever engine its rows came from.
    """
    copy.execute("PRAGMA journal_mode = DELETE")  # one file, which needs no other
    copy.execute("PRAGMA synchronous = FULL")
    copy.execute("BEGIN IMMEDIATE")
    copy.execute(MARK)
    copy.execute(MARK_WITH, (taken_at,))
    copy.execute("COMMIT")


def examine(path: Path, bank: str, report: Report) -> Backup:
    """What is in the backup *path* of *bank*, read from its first page to its last; raises ``StoreUnusable``."""
    with _translated(path):
        reader = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            _check_ours(reader, path, bank)
            taken_at = _taken_at(reader, path)
            _check_present(reader, path)
            identity = sqlite_files.read_identity(reader)
            report("checking every page", None)
            _check_whole(reader, path)
            report("adding everything up", None)
            counted = recount(reader, MAX_STAMP)
        finally:
            reader.close()
    return Backup(
        path,
        bank,
        identity.incarnation,
        taken_at,
        identity.last_stamp,
        path.stat().st_size,
        counted.customers,
        counted.books,
        counted.entries,
        counted.holds,
        counted.findings,
    )


# Putting one back -------------------------------------------------------------------------------------------------


def put_back(
    backup: Path,
    database: Path,
    marker: Path,
    bank: str,
    peers: Collection[str],
    without: Collection[str],
    retention_ms: int,
    now_ms: int,
    chance: Chance,
    report: Report,
) -> Restored:
    """Make *bank*'s *database* of *backup*, the present one being put aside; it is the latest from then on.

    *peers* are the banks that will be asked what is missing, *without* those of them that need not answer before the
    bank serves. Raises ``StoreInUse`` while the bank runs, ``StoreUnusable`` for what must not return to service; then
    nothing has changed. A crash in between leaves a database that refuses to serve until this is done again.
    """
    held = sqlite_files.lock(database)
    try:
        draft = database.with_name(f".{database.name}.restoring")
        draft.unlink(missing_ok=True)
        with tidied(draft), _translated(backup):
            incarnation = f"{chance.getrandbits(128):032x}"
            restoration, _ = renewed(backup, draft, bank, peers, without, retention_ms, now_ms, incarnation, report)
            files.flush(draft)
            report("putting it in place", None)
            # Before anything is moved: in whatever order a crash leaves the files, the old ones are then not served.
            write_marker(marker, restoration.incarnation, str(database.absolute()))
            aside = _set_aside(database, now_ms)
            draft.replace(database)
            files.flush(database.parent)
        return Restored(restoration, database, aside)
    finally:
        os.close(held)


def renewed(
    backup: Path,
    draft: Path,
    bank: str,
    peers: Collection[str],
    without: Collection[str],
    retention_ms: int,
    now_ms: int,
    incarnation: str,
    report: Report,
) -> tuple[Restoration, str]:
    """*backup*, in *draft*, as a database of its own; with it, the incarnation of the one that it was taken of."""
    _make_private(draft)
    _copy_backup(backup, draft, bank, report)
    writer = apsw.Connection(str(draft), flags=apsw.SQLITE_OPEN_READONLY)
    before = sqlite_files.read_identity(writer).incarnation
    writer.close()
    return _renew(draft, peers, without, retention_ms, now_ms, incarnation), before


def _copy_backup(backup: Path, draft: Path, bank: str, report: Report) -> None:
    if not backup.is_file():
        raise StoreUnusable(f"there is no backup at {backup}")
    source, copy = apsw.Connection(str(backup), flags=apsw.SQLITE_OPEN_READONLY), apsw.Connection(str(draft))
    try:
        _check_ours(source, backup, bank)
        _taken_at(source, backup)
        sqlite_files.check_version(source, backup)
        report("checking every page", None)
        _check_whole(source, backup)
        with copy.backup("main", source, "main") as work:
            while not work.done:
                work.step(PAGES_AT_ONCE)
                report("copying", 1 - work.remaining / max(work.page_count, 1))
    finally:
        copy.close()
        source.close()


def _renew(
    draft: Path, peers: Collection[str], without: Collection[str], retention_ms: int, now_ms: int, incarnation: str
) -> Restoration:
    """Make the copy a database of its own: its name, what it lacks, and what it must not go on with."""
    writer = apsw.Connection(str(draft), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        writer.execute("PRAGMA synchronous = FULL")
        sqlite_files.migrate(writer)
        identity, taken_at = sqlite_files.read_identity(writer), _taken_at(writer, draft)
        stamp = identity.last_stamp
        of_incarnation, restoration_of = READ[Restoration]
        for before in map(restoration_of, writer.execute(of_incarnation, (identity.incarnation,)).fetchall()):
            if any(not before.has_told(peer) for peer in peers):  # what they know of that gap is still to be asked for
                stamp, taken_at = min(stamp, before.stamp), min(taken_at, before.taken_at)
        _check_age(taken_at, retention_ms, now_ms)
        restoration = Restoration(incarnation, stamp, taken_at, now_ms, tuple(sorted(without)))
        writer.execute("BEGIN IMMEDIATE")
        writer.execute(UNMARK)
        writer.execute(RENEW, (incarnation, now_ms))
        writer.execute(PUT_RESTORATION, restoration_columns(restoration))
        writer.execute(END_BATCHES, (now_ms,))
        writer.execute(LEAVE_NUMBERS_OUT, (NUMBERS_LEFT_OUT,))
        writer.execute("COMMIT")
        writer.execute("PRAGMA journal_mode = WAL")  # as the bank has it: to change that takes the database to oneself
    finally:
        writer.close()
    return restoration


def _set_aside(database: Path, now_ms: int) -> Path | None:
    """Give the present database another name, its write-ahead log with it: beside a new database that would be poison.

    It keeps its old name as well until the new one takes that.
    """
    when = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%dT%H%M%S.%f")[:-3]
    aside = database.with_name(f"{database.name}.replaced-{when}Z")
    if database.exists():
        os.link(database, aside)
    for ending in ("-wal", "-shm"):
        beside = database.with_name(database.name + ending)
        if beside.exists():
            beside.replace(aside.with_name(aside.name + ending))
    files.flush(database.parent)
    return aside if aside.exists() else None


# What is refused --------------------------------------------------------------------------------------------------


def check_free(target: Path) -> None:
    if target.exists():
        raise StoreUnusable(f"{target} is there already, and a backup never replaces anything: name another file")
    if not target.parent.is_dir():
        raise StoreUnusable(f"there is no directory {target.parent} for the backup; make it")


def _check_ours(connection: apsw.Connection, path: Path, bank: str) -> None:
    if connection.execute("PRAGMA application_id").fetchall() != [(APPLICATION_ID,)]:
        raise StoreUnusable(f"{path} was not written by distribank")
    whose = sqlite_files.read_identity(connection).bank
    if whose != bank:
        raise StoreUnusable(f"{path} belongs to bank {whose}, not to {bank}")


def _check_present(connection: apsw.Connection, path: Path) -> None:
    sqlite_files.check_version(connection, path)
    if connection.execute("PRAGMA user_version").fetchall() != [(SCHEMA_VERSION,)]:
        raise StoreUnusable(f"{path} is of an older version: start the bank with this one, which brings it up to date")


def _taken_at(connection: apsw.Connection, path: Path) -> int:
    if not sqlite_files.is_backup(connection):
        raise StoreUnusable(f"{path} is no backup, but a database or a copy of one; `distribank backup` takes a backup")
    ((taken_at,),) = connection.execute(MARKED).fetchall()
    assert isinstance(taken_at, int)
    return taken_at


def _check_whole(connection: apsw.Connection, path: Path) -> None:
    flaws: list[tuple[Any, ...]] = connection.execute("PRAGMA integrity_check(10)").fetchall()
    if flaws != [("ok",)]:
        raise StoreUnusable(f"{path} is damaged: {'; '.join(str(flaw) for (flaw,) in flaws)}")
    if connection.execute("PRAGMA foreign_key_check").fetchall():
        raise StoreUnusable(f"{path} is damaged: rows of it refer to others that are not there")


def _check_age(taken_at: int, retention_ms: int, now_ms: int) -> None:
    """Peers may have forgotten, and messages may have been answered by, what is older (rule 13 of the protocol)."""
    when = datetime.fromtimestamp(taken_at / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if taken_at > now_ms + CLOCK_BOUND_MS:
        raise StoreUnusable(f"this backup was taken at {when}, which is yet to come: set this machine's clock")
    if now_ms - taken_at >= retention_ms:
        raise StoreUnusable(
            f"this backup reaches back to {when}, which is longer ago than the {retention_ms // DAY_MS} days for which "
            "banks keep what the protocol needs (DISTRIBANK_RETENTION_DAYS): it must not return to service; take a "
            "younger one"
        )


# Files ------------------------------------------------------------------------------------------------------------


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Drivers' and the system's errors about *path*, in this program's words."""
    try:
        yield
    except (OSError, apsw.Error) as error:
        raise StoreUnusable(f"{path} cannot be used for this: {error}") from error


@contextmanager
def tidied(draft: Path) -> Iterator[None]:
    """Nothing of *draft* is left behind."""
    try:
        yield
    finally:
        draft.unlink(missing_ok=True)
        for ending in ("-journal", "-wal", "-shm"):
            draft.with_name(draft.name + ending).unlink(missing_ok=True)


def _make_private(draft: Path) -> None:
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def publish(draft: Path, target: Path) -> None:
    """Give a whole file its name, durably; one that somebody else has put there meanwhile stays."""
    files.flush(draft)
    try:
        os.link(draft, target)
    except FileExistsError:
        raise StoreUnusable(f"{target} is there already, and a backup never replaces anything") from None
    files.flush(target.parent)
