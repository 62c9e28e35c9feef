"""Backups and restores of banks in one process: what ``distribank backup`` and ``restore`` do to files, done to disks.

``Disk`` is what a memory store keeps. A backup is a copy of one; a restore gives the copy another incarnation, a log
that reaches back to now, and the row that says what is missing.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

from distribank.core.holders import Counter
from distribank.core.restoration import NUMBERS_LEFT_OUT, Restoration
from distribank.store.memory import Disk, MemoryStore
from tests.world import Running, World


async def backup(net: World, code: str) -> Disk:
    """The bank's database as it is now."""
    await net.stores[code].flushed()
    disk = net.stores[code].disk
    return Disk(disk.incarnation, disk.reaches_back_to, disk.last_stamp, copy.deepcopy(disk.rows), set(disk.legs))


def put_back(net: World, code: str, taken: Disk, without: Sequence[str] = (), taken_at: int | None = None) -> Disk:
    """The bank's next store is on the backup *taken*, under an incarnation that no other has."""
    now = net.clock.wall_ms()
    incarnation = f"{net.starts:032x}"
    disk = Disk(incarnation, now, taken.last_stamp, copy.deepcopy(taken.rows), set(taken.legs))
    at = now if taken_at is None else taken_at
    disk.rows[Restoration][incarnation] = Restoration(incarnation, taken.last_stamp, at, now, tuple(without))
    for name, counter in list(disk.rows[Counter].items()):
        if name == "account":
            disk.rows[Counter][name] = replace(counter, value=counter.value + NUMBERS_LEFT_OUT)
    net.stores[code] = MemoryStore(disk=disk, on_flush=lambda _seconds, _writes: net.changed.set())
    return disk


async def restored(net: World, code: str, taken: Disk, without: Sequence[str] = ()) -> Running:
    """The bank dies and comes back on the backup *taken*; it is ready when this returns."""
    await net.crash(code)
    put_back(net, code, taken, without)
    return await net.start(code)
