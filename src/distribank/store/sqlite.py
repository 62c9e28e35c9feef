"""The embedded store: one SQLite database, one writer, one flush for all that waits together.

Responsible for making a group of rows durable and for reading what is. Rows are written on the event loop's own
thread, because many short statements in a second thread would fight the loop for the interpreter lock; only the
COMMIT, which waits for the disk, runs in a thread of its own. The two never overlap: a group's rows are written
when the group before it has ended, and a connection is never used by two threads at once. Reads go through a second
connection, on the loop's thread, and see what has been flushed: in WAL mode a commit is published to readers only
after its frames have been synced.
"""

from __future__ import annotations

import asyncio
import os
from asyncio import Future
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from random import SystemRandom
from typing import Any, Final, TypeVar

import apsw

from distribank.breakages import DurabilityLost, StoreUnusable
from distribank.core.clock import MAX_STAMP
from distribank.ports import Chance, Query, Recount
from distribank.store import sqlite_files
from distribank.store.group import Group, GroupCommit
from distribank.store.rows import READ, writes_of
from distribank.store.rows_queries import QUESTIONS, parameters_of
from distribank.store.sqlite_collect import sweep_up

R = TypeVar("R")

CHECKPOINT_PAGES: Final = 8000
"""How many pages (4 KiB) the write-ahead log may hold before they are copied into the database, between two flushes.

A page that many groups wrote is copied once: with 2000 the copying took 15 µs of CPU per transfer, with 8000 it takes
6, and each time no longer than before. A start after a crash finds 32 MiB to copy, at most.
"""


class SqliteStore(GroupCommit):
    """One bank's database in the file *path*, which is made if it is not there.

    *bank* is the bank's code; a database of another bank is refused. *marker* is a small file kept apart from the
    database (beside the bank's private key), by which a lost database is told from a bank that never had one; *now_ms*
    is the present, from which the log of a bank that lost its database reaches back. *executor* replaces the one thread
    in which commits run (a simulation has none), *vfs* names an apsw VFS (power-cut tests).

    Raises ``StoreInUse`` if another process has the database, ``StoreUnusable`` if this bank must not serve from it.
    Opening reads a few pages; no event loop need run yet.
    """

    def __init__(
        self,
        path: Path,
        *,
        bank: str,
        marker: Path,
        now_ms: int,
        chance: Chance | None = None,
        on_broken: Callable[[DurabilityLost], None] | None = None,
        on_flush: Callable[[float, int], None] | None = None,
        executor: Executor | None = None,
        vfs: str | None = None,
    ) -> None:
        super().__init__(on_broken=on_broken, on_flush=on_flush)
        self._path, self._vfs = path, vfs
        self._lock = sqlite_files.lock(path)
        try:
            sqlite_files.check_place(path, marker)
            self._writer = sqlite_files.open_writer(path, vfs)
            try:
                self._identity = sqlite_files.identify(
                    self._writer, path, bank, marker, now_ms, chance or SystemRandom()
                )
                self._reader = sqlite_files.open_reader(path, vfs)
            except apsw.Error as error:
                self._writer.close(force=True)
                raise StoreUnusable(f"{path} cannot be read: {error}") from error
            except BaseException:
                self._writer.close(force=True)
                raise
        except BaseException:
            os.close(self._lock)
            raise
        self._last_stamp = self._identity.last_stamp
        self._own_thread = ThreadPoolExecutor(1, f"commit-{bank}") if executor is None else None
        self._commits: Executor = executor or self._own_thread  # type: ignore[assignment]  # one of the two
        self._injected = executor
        self._log_pages = 0
        self._checkpoint_at = CHECKPOINT_PAGES
        self._writer.set_wal_hook(self._note_log_pages)

    @property
    def incarnation(self) -> str:
        """Random name of this database, made with it and anew by every restore: 32 hexadecimal characters."""
        return self._identity.incarnation

    @property
    def reaches_back_to(self) -> int:
        """From when (milliseconds) this log is known to be complete; 0 for a database that was never lost."""
        return self._identity.reaches_back_to

    @property
    def last_stamp(self) -> int:
        """The greatest stamp that was ever written here, 0 if none was; after a restart the clock starts above it."""
        return self._last_stamp

    async def find(self, query: Query[R], *key: str, limit: int = 1000, after: tuple[int | str, ...] = ()) -> list[R]:
        """Durable rows by a named query, in its order; *after* is the sort key of the last row of the page before."""
        if self._broken is not None:
            raise self._lost()
        question = QUESTIONS[query.name]
        found = self._ask(question.sentence, parameters_of(query.name, key, after, limit))
        return [question.row_of(columns) for columns in found]

    async def recount(self, at: int = MAX_STAMP) -> Recount:
        """Add up every durable entry anew and compare, in another thread and on one consistent picture."""
        if self._broken is not None:
            raise self._lost()
        return await asyncio.get_running_loop().run_in_executor(self._injected, self._recount, at)

    def _recount(self, at: int) -> Recount:
        try:
            reader = sqlite_files.open_reader(self._path, self._vfs)
            try:
                reader.execute("PRAGMA temp_store = FILE")
                reader.execute("BEGIN")
                return sqlite_files.recount(reader, at)
            finally:
                reader.close()
        except apsw.Error as error:
            raise StoreUnusable(f"{self._path} cannot be recounted: {error}") from error

    # What group commit asks of an engine --------------------------------------------------------------------------

    def _read(self, kind: type, key: tuple[str, ...]) -> Any:
        sentence, row_of = READ[kind]
        found = self._ask(sentence, key)
        return row_of(found[0]) if found else None

    def _ask(self, sentence: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Durable columns. A database that cannot be read is one that no decision may rest on: the store breaks."""
        try:
            return self._reader.execute(sentence, parameters).fetchall()
        except apsw.Error as error:
            self._break(error)
            raise self._lost() from error

    def _flush(self, group: Group) -> Future[None]:
        writer = self._writer
        writer.execute("BEGIN IMMEDIATE")
        for sweep in group.sweeps:
            sweep_up(writer, sweep)
        for sentence, rows in writes_of(group, self._recent):
            writer.executemany(sentence, rows)
        stamp = group.last_stamp()
        if stamp > self._last_stamp:
            writer.execute(sqlite_files.SAVE_LAST_STAMP, (stamp,))
            self._last_stamp = stamp
        return asyncio.get_running_loop().run_in_executor(self._commits, self._commit)

    def _commit(self) -> None:
        self._writer.execute("COMMIT")

    def _tidy(self) -> Future[None] | None:
        """Copy the write-ahead log into the database once it is long: the next flush waits, nobody else does.

        It runs when no write is open, so that it can reach the log's end and the log begins anew. A long reader (a
        recount) may keep it from that; the next attempt then comes only when the log has grown as much again.
        """
        if self._log_pages < self._checkpoint_at:
            return None
        return asyncio.get_running_loop().run_in_executor(self._commits, self._checkpoint)

    def _checkpoint(self) -> None:
        pages, copied = self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        self._checkpoint_at = CHECKPOINT_PAGES if copied >= pages else pages + CHECKPOINT_PAGES
        self._log_pages = 0

    def _note_log_pages(self, _connection: apsw.Connection, _schema: str, pages: int) -> int:
        self._log_pages = pages
        return apsw.SQLITE_OK

    def _let_go(self) -> None:
        if self._own_thread is not None:
            self._own_thread.shutdown(wait=True)  # a commit that a cancelled close left under way
        try:
            self._reader.close(force=True)
            if self._broken is None:
                self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.BusyError:
            pass  # somebody reads, such as a backup: the next start copies what is left in the log
        except apsw.Error as error:
            self._break(error)  # what was acknowledged is in the log, and the next process reads it there
            raise self._lost() from error
        finally:
            self._writer.close(force=True)
            os.close(self._lock)
