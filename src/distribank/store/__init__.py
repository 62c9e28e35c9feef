"""Where a bank keeps what it must never forget: one file per engine, siblings of equal rank, behind ``ports.Store``.

``columns``, ``rows``  what SQL keeps, for both engines: the table of kinds, how each is written and read. Sentences and
            columns stand by domain in ``rows_ledger`` (accounts, holds, entries, books), ``rows_transfers``
            (transactions, records), ``rows_registry`` (persons, companies, consents, keys, batches, counters) and
            ``rows_restoring`` (what a restore left to be done); ``rows_queries`` are the lists, ``rows_recount`` the
            audit.
``group``   the group commit of those who have their rows to themselves: an overlay of queued rows, one flush for all.
``sharing`` what those do who share their rows with other processes: one COMMIT for all that waits, tried again where it
            met another's or was lost, leases, fencing.
``sqlite``  the embedded engine (through apsw); ``schema.sql`` is its schema, ``sqlite_files`` opens it,
            ``sqlite_collect`` deletes what may be forgotten.
``postgres``  the shared engine (through asyncpg), for several processes of one bank; ``postgres_schema.sql`` is its
            schema, ``postgres_opening`` opens it, ``postgres_words`` has its own sentences and translates the others.
``copying``  a bank's database in another one, of either engine (``postgres_copying``).
``marker``  which database is a bank's latest, kept beside its key.
``memory``  the same promises over dictionaries, for tests and simulations; ``memory_queries`` are its lists.
``shared_memory``  the same again for several replicas: a database server of the simulation.
``backup``  takes a copy of a running bank's database, and puts one back into service (``postgres_backup``).
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
POSTGRES = "postgresql://"


async def put(store: Store, rows: Iterable[Row]) -> None:
    """Write *rows* as one atomic write, durably, where nothing is decided: for those who fill a store."""

    async def write(unit: Unit) -> None:
        unit.write(rows)

    await store.decide((), write)
    await store.flushed()


async def open_store(
    url: str,
    *,
    bank: str,
    marker: Path,
    now_ms: int,
    chance: Chance | None = None,
    on_broken: Callable[[DurabilityLost], None] | None = None,
    on_flush: Callable[[float, int], None] | None = None,
) -> Store:
    """The store at *url*: ``sqlite:///relative/bank.db``, ``sqlite:////absolute/bank.db`` or ``postgresql://…``.

    The other parameters are those of ``SqliteStore``. Raises ``Misconfigured`` for any other engine, ``StoreInUse`` if
    another process has it to itself, ``StoreUnusable`` if this bank must not serve from it.
    """
    if url.startswith(POSTGRES):
        try:
            from distribank.store.postgres import PostgresStore  # here: its driver comes with an extra
        except ModuleNotFoundError as missing:
            raise Misconfigured(
                "PostgreSQL's driver is missing: pip install 'distribank[postgres]' brings it"
            ) from missing
        return await PostgresStore.open(
            url, bank=bank, marker=marker, now_ms=now_ms, chance=chance, on_broken=on_broken, on_flush=on_flush
        )
    path = url.removeprefix(SQLITE)
    if path == url or not path:
        raise Misconfigured(
            f'"{url}" is no database that can be opened; write sqlite:///path/to/bank.db or postgresql://…'
        )

    from distribank.store.sqlite import SqliteStore  # here: a simulation without apsw's extension never needs it

    return SqliteStore(
        Path(path), bank=bank, marker=marker, now_ms=now_ms, chance=chance, on_broken=on_broken, on_flush=on_flush
    )
