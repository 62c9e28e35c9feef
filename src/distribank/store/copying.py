"""A bank's whole database in another one: from engine to engine, table by table, in one consistent picture.

For moving a bank (``distribank migrate-store``): the copy has everything, its incarnation too, and is the bank's latest
database from then on; the former says where the bank has moved, and nobody serves from it again. Tables and columns are
those of ``schema.sql`` (``tests/test_copying.py`` compares); what only PostgreSQL has besides (who drives what, the
stamps of accounts) begins anew there, under a floor above every stamp.
Rows travel in chunks: memory does not grow with the ledger.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

import apsw

from distribank.breakages import StoreUnusable
from distribank.core.clock import MAX_STAMP
from distribank.ports import Recount
from distribank.store import POSTGRES, SQLITE, sqlite_files
from distribank.store.columns import Columns
from distribank.store.marker import Identity

CHUNK: Final = 5_000
"""Rows that are held at a time."""

COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "holder": ("cpf", "holder_id", "name", "password_hash", "created_at", "email"),
    "company": ("cnpj", "legal_name", "account"),
    "account": (
        *("number", "type", "rule", "approval", "opened_at", "company_cnpj", "company_name", "closed_at"),
        *("posted", "held", "incoming", "open_holds", "changes"),
    ),
    "account_holder": ("account", "position", "holder_id", "cpf", "name", "role"),
    "consent": (
        *("consent_id", "account", "holder_id", "holder_cpf", "initiator_bank", "max_per_transfer", "max_total"),
        *("expires_at", "created_at", "used", "revoked_at"),
    ),
    "entry": (
        *("account", "change", "operation", "leg", "kind", "direction", "amount", "balance_after"),
        *("stamp", "posted_at"),
    ),
    "book": ("name", "balance", "reserved"),
    "book_entry": ("operation", "book", "amount", "stamp"),
    "assignment": (
        *("assignment_id", "direction", "amount", "account", "reason", "transaction_id", "assigned_at", "stamp"),
        "change",
    ),
    "hold": (
        *("account", "transaction_id", "direction", "amount", "state", "prepared_at", "placed_change", "change"),
        "resolved_at",
    ),
    "transfer": (
        *("id", "role", "state", "begun_at", "prepared_at", "commit_at", "decided_at", "completed_at", "vote_by"),
        *("collected", "end_to_end_id", "holder_cpf", "holder_id", "description", "ordered_at", "legs", "digest"),
        *("participants", "because", "votes", "consents", "counterparties", "subjects"),
    ),
    "heuristic": ("transaction_id", "decision", "reason", "decided_at", "truth", "truth_at", "matched", "damage"),
    "transfer_subject": ("subject", "begun_at", "id"),
    "record": ("transaction_id", "stamp", "kind", "before", "after", "detail"),
    "idempotency_key": ("owner", "route", "key", "fingerprint", "subject", "created_at", "answered", "refusal"),
    "batch": ("batch_id", "holder_id", "mode", "on_failure", "items", "created_at", "finished_at"),
    "counter": ("name", "value"),
    "restoration": ("incarnation", "stamp", "taken_at", "restored_at", "without", "told"),
    "lost_transfer": (
        *("transaction_id", "begun_at", "participants", "end_to_end_id", "holder_cpf", "description", "ordered_at"),
        *("vote_by", "counterparties", "parts"),
    ),
    "supplied": ("transaction_id", "at", "reason", "accounts", "unnamed", "suspense"),
}
"""Every table but ``meta``, those that others refer to first."""

READ: Final = {table: f"SELECT {', '.join(columns)} FROM {table}" for table, columns in COLUMNS.items()}  # noqa: S608 # nosec B608
ADD: Final = {
    table: f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608 # nosec B608
    for table, columns in COLUMNS.items()
}

Told = Callable[[str, int], None]
"""Hears of each chunk: its table, and how many rows of all have been copied."""


class Source(Protocol):
    """A database that is read, in one consistent picture."""

    identity: Identity

    def rows(self, table: str) -> AsyncIterator[list[Columns]]: ...
    async def recount(self) -> Recount: ...


class Target(Protocol):
    """A database that is made, and has nothing yet."""

    async def begin(self, identity: Identity, *earlier: str) -> None: ...
    async def add(self, table: str, rows: list[Columns]) -> None: ...
    async def recount(self) -> Recount: ...


async def carry(source: Source, target: Target, told: Told, *earlier: str) -> None:
    """Every row of *source* in *target*, whose incarnation follows those that are *earlier*."""
    await target.begin(source.identity, *earlier)
    done = 0
    for table in COLUMNS:
        async for chunk in source.rows(table):
            await target.add(table, chunk)
            done += len(chunk)
            told(table, done)


async def copy(source: Source, target: Target, told: Told) -> Recount:
    """The same; ``StoreUnusable`` unless both, added up anew, are the same without a finding.

    Where this is cut short, *source* is as it was, and what is in *target* is of no use.
    """
    await carry(source, target, told)
    before, after = await source.recount(), await target.recount()
    if before != after:
        raise StoreUnusable("the copy does not add up to what the original does; the original is still the bank's")
    if after.findings:
        raise StoreUnusable(f"the books do not balance, in the original either: {after.findings[0]}")
    return after


class SqliteSource:
    """The database of a bank in the file *path*."""

    def __init__(self, path: Path) -> None:
        self._reader = sqlite_files.open_reader(path, None)
        self._reader.execute("BEGIN")
        self.identity = sqlite_files.read_identity(self._reader)

    async def rows(self, table: str) -> AsyncIterator[list[Columns]]:
        sentence = READ[table]
        found: Iterator[Columns] = iter(self._reader.execute(sentence))
        while chunk := list(islice(found, CHUNK)):
            yield chunk

    async def recount(self) -> Recount:
        return sqlite_files.recount(self._reader, MAX_STAMP)

    def close(self) -> None:
        self._reader.close()


class SqliteTarget:
    """A new database in the file *path*, which must not be there."""

    def __init__(self, path: Path) -> None:
        if path.exists():
            raise StoreUnusable(f"{path} is there already; name another file, or move this one away")
        self._writer = sqlite_files.open_writer(path, None)

    async def begin(self, identity: Identity, *_earlier: str) -> None:
        sqlite_files.make(self._writer, identity)
        self._writer.execute(sqlite_files.SAVE_LAST_STAMP, (identity.last_stamp,))

    async def add(self, table: str, rows: list[Columns]) -> None:
        sentence = ADD[table]
        self._writer.execute("BEGIN IMMEDIATE")
        self._writer.executemany(sentence, rows)
        self._writer.execute("COMMIT")

    async def recount(self) -> Recount:
        return sqlite_files.recount(self._writer, MAX_STAMP)

    def close(self) -> None:
        self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self._writer.close()


# Moving -----------------------------------------------------------------------------------------------------------


def place_of(url: str) -> str:
    """The database at *url* as it is named to people: a path, or an address without name and password."""
    if not url.startswith(POSTGRES):
        return str(Path(url.removeprefix(SQLITE)).absolute())
    from distribank.store import postgres_opening  # here: its driver comes with an extra

    return postgres_opening.place_of(url)


@asynccontextmanager
async def leaving(url: str, bank: str, marker: Path, to: str) -> AsyncIterator[Source]:
    """The database at *url*, which *bank* leaves for the one at the place *to*: nobody writes to it meanwhile, and once
    the block has ended without an error nobody serves from it again.

    ``StoreInUse`` or ``StoreUnusable`` while the bank runs, or where it must not serve from this database itself.
    """
    if url.startswith(POSTGRES):
        from distribank.store import postgres_copying

        async with postgres_copying.leaving(url, bank, marker, to) as source:
            yield source
        return
    with _leaving_file(Path(url.removeprefix(SQLITE)), bank, marker, to) as file:
        yield file


@asynccontextmanager
async def entering(url: str) -> AsyncIterator[Target]:
    """The database at *url*, which must be empty; ``StoreUnusable`` if it is not."""
    if url.startswith(POSTGRES):
        from distribank.store import postgres_copying

        async with postgres_copying.entering(url) as target:
            yield target
        return
    path = Path(url.removeprefix(SQLITE))
    with _locked(path):
        file = SqliteTarget(path)
        try:
            yield file
        finally:
            file.close()


@contextmanager
def _leaving_file(path: Path, bank: str, marker: Path, to: str) -> Iterator[SqliteSource]:
    if not path.exists():
        raise StoreUnusable(f"there is no database at {path}; check DISTRIBANK_DATABASE_URL")
    with _locked(path):
        writer = sqlite_files.open_writer(path, None)
        try:
            sqlite_files.recognise(writer, path, bank, marker)
            source = SqliteSource(path)
            try:
                yield source
            finally:
                source.close()
            writer.execute(sqlite_files.MOVE, (to,))
        except apsw.Error as error:
            raise StoreUnusable(f"{path} is not a database that can be used: {error}") from error
        finally:
            writer.close()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = sqlite_files.lock(path)
    try:
        yield
    finally:
        os.close(lock)
