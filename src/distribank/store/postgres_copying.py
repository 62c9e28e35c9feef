"""The PostgreSQL side of ``copying``: a bank's database read in one picture, or made from another's rows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from distribank.breakages import StoreUnusable
from distribank.core.clock import MAX_STAMP
from distribank.ports import Recount
from distribank.store import postgres_opening as opening
from distribank.store import postgres_words as words
from distribank.store.columns import Columns
from distribank.store.copying import CHUNK, COLUMNS, READ, Identity
from distribank.store.postgres import recount

LONG_S: Final = 3_600.0
ALIVE: Final = "SELECT count(*) FROM replica WHERE NOT buried AND expires_at > clock_timestamp()"
IDENTITY: Final = "SELECT bank, incarnation, reaches_back_to FROM meta WHERE one = 1"


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
        return await recount(self._connection, MAX_STAMP, LONG_S)


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
        await self._connection.copy_records_to_table(table, records=rows, columns=COLUMNS[table], timeout=LONG_S)

    async def recount(self) -> Recount:
        return await recount(self._connection, MAX_STAMP, LONG_S)


@asynccontextmanager
async def opened(url: str, *, as_target: bool, while_it_runs: bool = False) -> AsyncIterator[Any]:
    """The database at *url* as one of the two, within one transaction that ends with the block.

    Only a backup reads a bank's *while it runs*.
    """
    try:
        connection = await asyncpg.connect(**opening.settings_of(url))
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StoreUnusable(f"the database at {opening.place_of(url)} cannot be reached: {error}") from error
    try:
        await opening.check_server(connection)
        if as_target:
            async with connection.transaction():
                yield PostgresTarget(connection)
            return
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            if not await connection.fetchval(words.HAS_META):
                raise StoreUnusable(f"the database at {opening.place_of(url)} is not a bank's")
            if not while_it_runs and await connection.fetchval(ALIVE):
                raise StoreUnusable("a replica of this bank runs, or did until a moment ago; stop all of them first")
            bank, incarnation, reaches_back_to = await connection.fetchrow(IDENTITY)
            last_stamp = await connection.fetchval(words.GREATEST)
            yield PostgresSource(connection, Identity(bank, incarnation, reaches_back_to, last_stamp))
    finally:
        await connection.close()
