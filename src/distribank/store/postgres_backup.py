"""A backup of a bank on PostgreSQL, and its return to service there: the same SQLite file as any other bank's.

It is read in one consistent picture while the bank runs, row by row, and goes back into an empty database: what the
bank stood on before is left as it is.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import apsw

from distribank.breakages import StoreUnusable
from distribank.core.restoration import Restoration
from distribank.ports import Chance
from distribank.store import backup, copying, postgres_copying
from distribank.store.backup import Backup, Report
from distribank.store.marker import read_marker, write_marker
from distribank.store.postgres_opening import place_of


def take(url: str, target: Path, bank: str, now_ms: int, report: Report) -> Backup:
    """Copy *bank*'s database at *url* as it is now to *target*; see ``backup.take``."""
    backup.check_free(target)
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    with backup.tidied(draft):
        asyncio.run(_read(url, draft, bank, report))
        copy = apsw.Connection(str(draft))
        try:
            backup.mark(copy, now_ms)
        finally:
            copy.close()
        made = backup.examine(draft, bank, report)
        backup.publish(draft, target)
    return replace(made, path=target)


def put_back(
    source: Path,
    url: str,
    marker: Path,
    bank: str,
    peers: Collection[str],
    without: Collection[str],
    retention_ms: int,
    now_ms: int,
    chance: Chance,
    report: Report,
) -> Restoration:
    """Make *bank*'s database, in the empty one at *url*, of the backup *source*; see ``backup.put_back``."""
    draft = marker.with_name(f".{marker.name}.{os.getpid()}.restoring")
    with backup.tidied(draft):
        restoration, before = backup.renewed(
            source, draft, bank, peers, without, retention_ms, now_ms, f"{chance.getrandbits(128):032x}", report
        )
        named = read_marker(marker)
        earlier = [before, *([named.incarnation] if named is not None else [])]
        asyncio.run(_write(draft, url, earlier, report))
        write_marker(marker, restoration.incarnation, place_of(url))
    return restoration


async def _read(url: str, draft: Path, bank: str, report: Report) -> None:
    async with postgres_copying.reading(url) as source:
        if source.identity.bank != bank:
            raise StoreUnusable(f"the database belongs to bank {source.identity.bank}, not to {bank}")
        target = copying.SqliteTarget(draft)
        try:
            await copying.carry(source, target, lambda table, _: report(f"copying {table}", None))
        finally:
            target.close()


async def _write(draft: Path, url: str, earlier: list[str], report: Report) -> None:
    async with postgres_copying.entering(url) as target:
        source = copying.SqliteSource(draft)
        try:
            await copying.carry(source, target, lambda table, _: report(f"copying {table}", None), *earlier)
        finally:
            source.close()
