"""The files of one bank's SQLite database: who may open them, whose they are, and how they come into being.

Responsible for everything before the first row is read: the lock that keeps a second process out, the checks that
this is the right database, its creation, its versions, and the marker that tells a lost disk from a new bank. Every
setting of SQLite that durability rests on is said here. Nothing here waits for the event loop: opening takes
milliseconds and happens before a bank serves.
"""

from __future__ import annotations

import fcntl
import logging
import os
from importlib import resources
from pathlib import Path
from typing import Any, Final

import apsw

from distribank.breakages import StoreInUse, StoreUnusable
from distribank.ports import Chance, Recount
from distribank.store.marker import Identity, check_latest, read_marker, write_marker
from distribank.store.rows_recount import add_up, questions

log = logging.getLogger("distribank.store")

APPLICATION_ID: Final = 0x44424E4B
"""``DBNK``: what SQLite's header says of a database that is ours."""

SCHEMA_VERSION: Final = 5

MIGRATIONS: Final[dict[int, str]] = {
    1: "from_1_to_2.sql",
    2: "from_2_to_3.sql",
    3: "from_3_to_4.sql",
    4: "from_4_to_5.sql",
}
"""From each older schema version to the next: the name of a script beside ``schema.sql``, which sets user_version."""

BUSY_MS: Final = 5_000

INSERT_META: Final = "INSERT INTO meta (one, bank, incarnation, reaches_back_to, last_stamp) VALUES (1, ?, ?, ?, 0)"
META: Final = "SELECT bank, incarnation, reaches_back_to, last_stamp FROM meta"
MOVED_TO: Final = "SELECT moved_to FROM meta"
MOVE: Final = "UPDATE meta SET moved_to = ? WHERE one = 1"
SAVE_LAST_STAMP: Final = "UPDATE meta SET last_stamp = ?1 WHERE one = 1 AND last_stamp < ?1"
TABLES: Final = "SELECT count(*) FROM sqlite_schema"
BACKUP_TABLES: Final = "SELECT count(*) FROM sqlite_schema WHERE name = 'backup'"


def lock(path: Path) -> int:
    """Keep every other process from *path*; the descriptor holds the lock until it is closed (or the process ends).

    Raises ``StoreInUse`` if another store has it, ``StoreUnusable`` if the directory is missing or not writable.
    """
    name = path.with_name(path.name + ".lock")
    try:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreUnusable(
            f"cannot write in {path.parent}: {error.strerror}; make the directory, and let this user write there"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.read(descriptor, 32).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise StoreInUse(
            f"{path} is served by another process (pid {owner or 'unknown'}): one bank is one process; "
            "stop the other one first"
        ) from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def open_writer(path: Path, vfs: str | None) -> apsw.Connection:
    """The one connection that writes, ready and durable; the file is made if need be, readable by its owner only.

    Whatever a process before this one left in the write-ahead log is copied into the database and flushed before
    anything is read: after a failed flush the system may show pages that it never wrote, and nobody may act on those.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        path.chmod(0o600)
        writer = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=vfs)
    except (OSError, apsw.Error) as error:
        raise StoreUnusable(f"cannot open {path}: {error}") from error
    try:
        _set_up_writer(writer)
    except apsw.BusyError as error:
        writer.close()
        raise StoreUnusable(f"{path} is being read, by a backup perhaps: start the bank once that has ended") from error
    except apsw.Error as error:
        writer.close()
        raise StoreUnusable(f"{path} is not a database that can be used: {error}") from error
    except StoreUnusable:
        writer.close()
        raise
    return writer


def _set_up_writer(writer: apsw.Connection) -> None:
    writer.execute("PRAGMA page_size = 4096")
    mode = writer.execute("PRAGMA journal_mode = WAL").fetchall()
    if mode != [("wal",)]:
        raise StoreUnusable("this file system does not carry SQLite's write-ahead log; use a local disk")
    writer.execute("PRAGMA synchronous = FULL")  # every commit waits for the disk: a yes may leave after it
    writer.execute("PRAGMA fullfsync = ON")  # where the system's own fsync does not reach the platter (macOS)
    writer.execute("PRAGMA checkpoint_fullfsync = ON")
    writer.execute("PRAGMA locking_mode = NORMAL")
    writer.execute("PRAGMA foreign_keys = ON")
    writer.execute("PRAGMA recursive_triggers = OFF")
    writer.execute("PRAGMA trusted_schema = OFF")
    writer.execute("PRAGMA cell_size_check = ON")
    writer.execute("PRAGMA mmap_size = 0")  # a read error must be an error, not a signal
    writer.execute("PRAGMA cache_size = -65536")  # KiB
    writer.execute("PRAGMA temp_store = MEMORY")
    writer.execute("PRAGMA journal_size_limit = 67108864")  # what a long reader made the log grow to is given back
    writer.execute("PRAGMA wal_autocheckpoint = 0")  # between two flushes instead, see SqliteStore._tidy
    writer.set_busy_timeout(BUSY_MS)
    writer.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # a store that broke writes nothing more
    writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)


def open_reader(path: Path, vfs: str | None) -> apsw.Connection:
    """A connection that reads what is durable and can write nothing."""
    reader = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY, vfs=vfs)
    reader.execute("PRAGMA query_only = ON")
    reader.execute("PRAGMA trusted_schema = OFF")
    reader.execute("PRAGMA mmap_size = 0")
    reader.execute("PRAGMA cache_size = -65536")
    reader.set_busy_timeout(BUSY_MS)
    return reader


def identify(writer: apsw.Connection, path: Path, bank: str, marker: Path, now_ms: int, chance: Chance) -> Identity:
    """Whose database this is, made first if it is empty; ``StoreUnusable`` if *bank* must not serve from it."""
    try:
        if _is_empty(writer):
            return _create(writer, path, bank, marker, now_ms, f"{chance.getrandbits(128):032x}")
        return recognise(writer, path, bank, marker)
    except apsw.Error as error:
        raise StoreUnusable(f"{path} is not a database that can be used: {error}") from error


def recognise(writer: apsw.Connection, path: Path, bank: str, marker: Path) -> Identity:
    """Whose database this is, brought up to date; ``StoreUnusable`` if it is not *bank*'s latest."""
    check_version(writer, path)
    if is_backup(writer):
        raise StoreUnusable(
            f"{path} is a backup, and its bank's peers have gone on since: `distribank restore --from` makes a "
            "database of it"
        )
    migrate(writer)
    identity = read_identity(writer)
    ((moved_to,),) = writer.execute(MOVED_TO).fetchall()
    check_latest(identity, str(path.absolute()), marker, bank, moved_to)  # type: ignore[arg-type]  # text, or nothing
    return identity


def read_identity(writer: apsw.Connection) -> Identity:
    """Whose database it says that it is."""
    columns: list[tuple[Any, ...]] = writer.execute(META).fetchall()
    if not columns:
        raise StoreUnusable("this database does not say which bank it belongs to; it was not made by distribank")
    return Identity(*columns[0])


def _is_empty(writer: apsw.Connection) -> bool:
    return writer.execute(TABLES).fetchall() == [(0,)]


def _create(writer: apsw.Connection, path: Path, bank: str, marker: Path, now_ms: int, incarnation: str) -> Identity:
    """Make the database. A crash at any point here leads, next time, to the same or to a more careful answer."""
    lost = marker.exists()
    reaches_back_to = now_ms if lost else 0
    if lost:
        log.warning(
            "bank %s had a database, says %s, and it is gone: an empty one is made at %s. If there is a backup, stop "
            "this bank at once and put it back. What the lost one promised is unknown to this one, and it will say so",
            bank,
            marker,
            path,
        )
        # first: a database that the marker does not name would be refused
        write_marker(marker, incarnation, str(path.absolute()))
    identity = Identity(bank, incarnation, reaches_back_to, 0)
    make(writer, identity)
    if not lost:
        # second: a bank that never had a database has lost nothing
        write_marker(marker, incarnation, str(path.absolute()))
    return identity


def make(writer: apsw.Connection, identity: Identity) -> None:
    """The schema, in an empty database, and whose it is, in one atomic write."""
    writer.execute("BEGIN IMMEDIATE")
    writer.execute(_script("schema.sql"))
    writer.execute(INSERT_META, (identity.bank, identity.incarnation, identity.reaches_back_to))
    writer.execute("COMMIT")


def recount(connection: apsw.Connection, at: int) -> Recount:
    """Every entry added up anew, on the picture that *connection* has."""
    return add_up([connection.execute(sentence, bound).fetchall() for sentence, bound in questions(at)])


def is_backup(connection: apsw.Connection) -> bool:
    """Whether it is the copy that ``store.backup`` makes."""
    return connection.execute(BACKUP_TABLES).fetchall() == [(1,)]


def check_version(writer: apsw.Connection, path: Path) -> None:
    """Refuse what this program did not write, or what a newer version of it did."""
    if writer.execute("PRAGMA application_id").fetchall() != [(APPLICATION_ID,)]:
        raise StoreUnusable(f"{path} is a database of another program; correct DISTRIBANK_DATABASE_URL")
    version = _version(writer)
    if version > SCHEMA_VERSION:
        raise StoreUnusable(
            f"{path} was written by a newer version of distribank (schema {version}; this one knows up to "
            f"{SCHEMA_VERSION}): start that version, or restore a backup made before it"
        )


def migrate(writer: apsw.Connection) -> None:
    """Bring an older schema to this version, each step in one atomic write."""
    while (version := _version(writer)) < SCHEMA_VERSION:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute(_script(MIGRATIONS[version]))
        writer.execute("COMMIT")


def _version(writer: apsw.Connection) -> int:
    ((version,),) = writer.execute("PRAGMA user_version").fetchall()
    assert isinstance(version, int)
    return version


def _script(name: str) -> str:
    return resources.files("distribank.store").joinpath(name).read_text(encoding="utf-8")


def check_place(path: Path, marker: Path) -> None:
    """Refuse to begin an empty database at *path* while the bank's own stands elsewhere: a setting is mistyped."""
    named = read_marker(marker)
    if named is None or path.exists() or named.place == str(path.absolute()) or not Path(named.place).is_file():
        return
    raise StoreUnusable(
        f"there is no database at {path}, but {marker} says that this bank's is {named.place}, and it is there: "
        "correct DISTRIBANK_DATABASE_URL"
    )
