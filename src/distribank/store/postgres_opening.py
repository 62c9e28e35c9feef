"""Before the first row of a PostgreSQL database is read: connections, whose database it is, its schema and versions.

Every setting that durability and exclusion rest on is said here. A schema is made, or migrated, once, by whichever
replica comes first: the others wait for its COMMIT. A newer schema, another bank's database, an old copy and a server
that does not flush are refused.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg

from distribank.breakages import StoreUnusable
from distribank.ports import Chance
from distribank.store import postgres_words as words
from distribank.store.marker import Identity, check_latest, read_marker, write_marker

log = logging.getLogger("distribank.store")

SCHEMA_VERSION: Final = 5
MIGRATIONS: Final[dict[int, str]] = {4: "postgres_from_4_to_5.sql"}
"""From each older schema version to the next: the name of a script beside ``postgres_schema.sql``."""

CONNECT_S: Final = 5.0
COMMAND_S: Final = 15.0
LONG_S: Final = 3_600.0
"""For what takes as long as there are rows: a migration, a copy, a recount of what was copied."""
LOCK_WAIT_MS: Final = 5_000
IDLE_IN_TRANSACTION_MS: Final = 3_000
"""How long a process that has been frozen in the middle of a write may keep others from the rows that it has locked."""


def settings_of(url: str) -> dict[str, Any]:
    """What a connection to the database at *url* is made with; the server that takes writes is looked for."""
    return {
        "dsn": url,
        "timeout": CONNECT_S,
        "command_timeout": COMMAND_S,
        "target_session_attrs": "primary",
        "server_settings": {
            "application_name": "distribank",
            "lock_timeout": str(LOCK_WAIT_MS),
            "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_MS),
            "default_transaction_isolation": "read committed",
            "statement_timeout": "0",  # whatever this user has been given: a COMMIT is not to be cut short
        },
    }


class Untrusted(ConnectionError):
    """What this server commits can be lost, or what it shows is out of date: it counts as out of reach."""


class Server:
    """Where a database is, and how far it had come: no connection to it is used before it has been checked."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._timeline = 0

    async def connect(self) -> Any:
        """A connection that can be relied on. Raises ``Untrusted``, and what ``asyncpg.connect`` raises."""
        connection = await asyncpg.connect(**settings_of(self._url))
        try:
            await self.check(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def check(self, connection: Any) -> None:
        """``Untrusted`` where the settings have changed, or where another server has been promoted since."""
        try:
            await check_server(connection)
        except StoreUnusable as why:
            raise Untrusted(str(why)) from why
        if "0" in tuple(await connection.fetchrow(words.TIME_OUTS)):
            raise Untrusted(
                "the server does not hear which time-outs this bank asks for: something in between drops the settings "
                "of a connection. Connect to the server itself, or have them passed on"
            )
        timeline = await _timeline_of(connection)
        if timeline < self._timeline:
            raise Untrusted(
                "this server had been replaced: another one was promoted and written to. Stop it, or let it follow"
            )
        self._timeline = timeline


async def _timeline_of(connection: Any) -> int:
    """Which promotion this server's history begins with; 0 at a server that does not tell."""
    try:
        return int((await connection.fetchval(words.TIMELINE))[:8], 16)
    except (asyncpg.UndefinedFunctionError, asyncpg.InsufficientPrivilegeError, asyncpg.FeatureNotSupportedError):
        return 0


async def prepare(connection: Any, url: str, bank: str, marker: Path, now_ms: int, chance: Chance) -> None:
    """Have a database with a schema at a server that can be relied on, made first if it is empty."""
    await check_server(connection)
    if not await connection.fetchval(words.HAS_META):
        await _create(connection, url, bank, marker, now_ms, f"{chance.getrandbits(128):032x}")


@asynccontextmanager
async def recognised(connection: Any, url: str, bank: str, marker: Path) -> AsyncIterator[Identity]:
    """Whose database this is, brought up to date, within a transaction that is the block's, too.

    ``StoreUnusable`` if it is not *bank*'s latest. Until the block has ended nobody else does this, and nobody decides.
    """
    version = await _version(connection) if await connection.fetchval(words.HAS_META) else None
    if version is None:
        raise StoreUnusable("this database does not say which bank it belongs to; it was not made by distribank")
    async with connection.transaction():
        if version < SCHEMA_VERSION:  # else who starts would wait for whoever takes a backup
            await connection.execute(words.LOCK_META)
        yield await _recognise(connection, url, bank, marker)


async def _version(connection: Any) -> int | None:
    """Which schema this is, once whoever migrates it at this moment has ended."""
    async with connection.transaction():
        await connection.execute(words.WAIT_LONG)
        version: int | None = await connection.fetchval(words.VERSION, timeout=LONG_S)
        return version


async def _recognise(connection: Any, url: str, bank: str, marker: Path) -> Identity:
    found = await connection.fetchrow(words.META)
    await _migrate(connection, found["version"])
    last_stamp = await connection.fetchval(words.GREATEST)
    identity = Identity(found["bank"], found["incarnation"], found["reaches_back_to"], last_stamp)
    moved_to = await connection.fetchval(words.MOVED_TO)
    check_latest(identity, place_of(url), marker, bank, moved_to, found["earlier"].split())
    return identity


def place_of(url: str) -> str:
    """*url* without the name and password in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


async def check_server(connection: Any) -> None:
    """Nothing that this bank says may rest on a COMMIT that waits for no disk."""
    settings = await connection.fetchrow(words.SETTINGS)
    for name in ("fsync", "full_page_writes"):
        if settings[name] == "off":
            raise StoreUnusable(f"the server runs with {name} = off: what it commits can be lost; turn it on")
    if settings["synchronous_commit"] not in ("on", "remote_apply"):
        raise StoreUnusable(
            f"the server runs with synchronous_commit = {settings['synchronous_commit']}: set it to on for this "
            "database or its user, so that COMMIT waits for the disk, and for the standby where there is one"
        )


async def _create(connection: Any, url: str, bank: str, marker: Path, now_ms: int, incarnation: str) -> None:
    """Make the schema, unless another replica does at this moment."""
    if await connection.fetchval(words.TABLES):
        raise StoreUnusable(
            f"the database at {place_of(url)} has tables of another program; give each bank a database of its own"
        )
    named = read_marker(marker)
    if named is not None:
        log.warning(
            "bank %s had a database at %s, says %s, and the one at %s is empty. If the former is still there, or a "
            "backup, stop this bank at once. What the lost one promised is unknown to this one, and it will say so",
            bank,
            named.place,
            marker,
            place_of(url),
        )
    try:
        async with connection.transaction():
            await make(connection, bank, incarnation, now_ms if named is not None else 0)
    except (asyncpg.DuplicateTableError, asyncpg.UniqueViolationError):
        return
    if named is not None:
        write_marker(marker, incarnation, place_of(url))


async def make(connection: Any, bank: str, incarnation: str, reaches_back_to: int) -> None:
    """The schema, in an empty database, and whose it is; within the transaction that is open."""
    await connection.execute(_script("postgres_schema.sql"))
    await connection.execute(words.INSERT_META, SCHEMA_VERSION, bank, incarnation, reaches_back_to)


async def _migrate(connection: Any, version: int) -> None:
    """Bring an older schema to this version, in one atomic write; the row of ``meta`` is locked, so only once."""
    if version > SCHEMA_VERSION:
        raise StoreUnusable(
            f"this database was written by a newer version of distribank (schema {version}; this one knows up to "
            f"{SCHEMA_VERSION}): start that version, or restore a backup made before it"
        )
    while version < SCHEMA_VERSION:
        log.warning("the schema is brought from version %d to %d; this may take minutes", version, version + 1)
        await connection.execute(words.WORK_LONG)
        await connection.execute(_script(MIGRATIONS[version]), timeout=LONG_S)
        version += 1
        await connection.execute(words.SET_VERSION, version)


def _script(name: str) -> str:
    return resources.files("distribank.store").joinpath(name).read_text(encoding="utf-8")
