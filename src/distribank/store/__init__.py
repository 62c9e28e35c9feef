"""Where a bank keeps what it must never forget: one file per engine, siblings of equal rank, behind ``ports.Store``.

``group``   the group commit that both share: an overlay of queued rows, one flush for all that waits together.
``sqlite``  the embedded engine that ships (through apsw); ``schema.sql`` is its schema, ``sqlite_files`` opens it,
            ``sqlite_rows`` is the table of kinds: how each is written and read. Their sentences and columns stand by
            domain in ``sqlite_ledger`` (accounts, holds, entries, books), ``sqlite_transfers`` (transactions, records),
            ``sqlite_registry`` (persons, companies, consents, keys, batches, counters) and ``sqlite_restoring`` (what a
            restore left to be done); ``sqlite_columns`` is the JSON inside a column. ``sqlite_queries``,
            ``sqlite_collect`` and ``sqlite_recount`` hold the rest of its SQL.
``memory``  the same promises over dictionaries, for tests and simulations; ``memory_queries`` are its lists.
``backup``  takes a copy of a running bank's database, and puts one back into service.
``recount`` the findings of an audit, in words.

``open_store`` chooses the engine by a URL. One contract suite (``tests/test_store_contract.py``) runs against all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from distribank.breakages import DurabilityLost, Misconfigured
from distribank.ports import Chance, Row, Store, Unit

__all__ = ["open_store", "put"]

SQLITE = "sqlite:///"


async def put(store: Store, rows: Iterable[Row]) -> None:
    """Write *rows* as one atomic write, durably, where nothing is decided: for those who fill a store."""

    async def write(unit: Unit) -> None:
        unit.write(rows)

    await store.decide((), write)
    await store.flushed()


def open_store(
    url: str,
    *,
    bank: str,
    marker: Path,
    now_ms: int,
    chance: Chance | None = None,
    on_broken: Callable[[DurabilityLost], None] | None = None,
    on_flush: Callable[[float, int], None] | None = None,
) -> Store:
    """The store at *url*: ``sqlite:///relative/bank.db`` or ``sqlite:////absolute/bank.db``.

    The other parameters are those of ``SqliteStore``. Raises ``Misconfigured`` for any other engine, ``StoreInUse`` if
    another process serves from it, ``StoreUnusable`` if this bank must not.
    """
    if url.startswith(("postgresql://", "postgres://")):
        raise Misconfigured(
            "this version keeps a bank in SQLite only (PostgreSQL is planned); "
            "set the database to sqlite:///path/to/bank.db"
        )
    path = url.removeprefix(SQLITE)
    if path == url or not path:
        raise Misconfigured(f'"{url}" is no database that can be opened; write sqlite:///path/to/bank.db')

    from distribank.store.sqlite import SqliteStore  # here: a simulation without apsw's extension never needs it

    return SqliteStore(
        Path(path), bank=bank, marker=marker, now_ms=now_ms, chance=chance, on_broken=on_broken, on_flush=on_flush
    )
