"""The PostgreSQL side of ``copying``: a bank's database read in one picture, or made from another's rows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import asyncpg

from distribank.breakages import StoreUnusable
from distribank.core.clock import MAX_STAMP
from distribank.ports import Recount
from distribank.store import postgres_opening as opening
from distribank.store import postgres_words as words
from distribank.store.columns import Columns
from distribank.store.copying import CHUNK, COLUMNS, READ
from distribank.store.marker import Identity
from distribank.store.postgres import recount

IDENTITY: Final = "SELECT version, bank, incarnation, reaches_back_to FROM meta WHERE one = 1"
PATIENT: Final = {"idle_in_transaction_session_timeout": "0", "statement_timeout": "0"}
"""Nobody else is kept waiting by a transaction that pauses while the other database catches up."""


class PostgresSource:
    """The database at *connection*, within one transaction."""

    def __init__(self, connection: Any, identity: Identity) -> None:
        self._connection = connection
        self.identity = identity

    async def rows(self, table: str) -> AsyncIterator[list[Columns]]:
        cursor = await self._connection.cursor(READ[table])
        while chunk := await cursor.fetch(CHUNK):
            yield [tuple(row) for row in chunk]

    async def recount(self) -> Recount:
        return await recount(self._connection, MAX_STAMP, opening.LONG_S)


class PostgresTarget:
    """An empty database at *connection*, within one transaction: whole, or nothing."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def begin(self, identity: Identity, *earlier: str) -> None:
        if await self._connection.fetchval(words.TABLES):
            raise StoreUnusable("the database has tables already; give the bank an empty one")
        await opening.make(self._connection, identity.bank, identity.incarnation, identity.reaches_back_to)
        await self._connection.execute(words.RAISE_FLOOR, identity.last_stamp)
        await self._connection.execute(words.SET_EARLIER, " ".join(dict.fromkeys(earlier)))

    async def add(self, table: str, rows: list[Columns]) -> None:
        await self._connection.copy_records_to_table(table, records=rows, columns=COLUMNS[table])

    async def recount(self) -> Recount:
        return await recount(self._connection, MAX_STAMP, opening.LONG_S)


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[PostgresSource]:
    """The database at *url* as it is now, whether its bank runs or not."""
    async with _connected(url) as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        if not await connection.fetchval(words.HAS_META):
            raise StoreUnusable(f"there is no bank in the database at {opening.place_of(url)}")
        version, bank, incarnation, reaches_back_to = await connection.fetchrow(IDENTITY)
        if version != opening.SCHEMA_VERSION:
            raise StoreUnusable("the database is of another version: start the bank with this one, and take it then")
        last_stamp = await connection.fetchval(words.GREATEST)
        yield PostgresSource(connection, Identity(bank, incarnation, reaches_back_to, last_stamp))


@asynccontextmanager
async def leaving(url: str, bank: str, marker: Path, to: str) -> AsyncIterator[PostgresSource]:
    """The database at *url*, which *bank* leaves; see ``copying.leaving``."""
    async with _connected(url) as connection:
        async with opening.recognised(connection, url, bank, marker):
            pass  # what that brought up to date is read by another connection
        async with opening.recognised(connection, url, bank, marker):
            await connection.execute(words.MOVE, to)  # whoever decides, starts, or moves it, too, waits for this row
            if await connection.fetchval(words.HOW_MANY_LIVE):
                raise StoreUnusable("a replica of this bank runs, or did until a moment ago; stop all of them first")
            await connection.execute(words.BURY_ALL)  # one that is only frozen is fenced when it goes on
            async with reading(url) as source:
                yield source


@asynccontextmanager
async def entering(url: str) -> AsyncIterator[PostgresTarget]:
    """The empty database at *url*, within one transaction that ends with the block."""
    async with _connected(url) as connection, connection.transaction():
        yield PostgresTarget(connection)


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Any]:
    settings = opening.settings_of(url)
    settings["command_timeout"] = opening.LONG_S
    settings["server_settings"] |= PATIENT
    try:
        connection = await asyncpg.connect(**settings)
        try:
            await opening.check_server(connection)
            yield connection
        finally:
            await connection.close()
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StoreUnusable(
            f"the database at {opening.place_of(url)} cannot be used: {str(error) or type(error).__name__}"
        ) from error
