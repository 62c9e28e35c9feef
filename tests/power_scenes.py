"""Work on a disk that loses power: what the campaign cuts (``tests.power_cuts``), and what it looks for after.

A *scene* is some work on a fragile disk (``tests.disks``), which fails at one operation; then the scene starts again on
what is left, and looks. The scenes are bare deposits, transfers between two banks of which one or both lose power, a
bank's first start, and the opening of databases of older versions.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from random import Random
from unittest import mock

import apsw

from distribank.bank import TransferResult
from distribank.breakages import Breakage, DurabilityLost, StoreUnusable
from distribank.core.ledger import Account
from distribank.core.protocol import State
from distribank.ports import Queries
from distribank.store.group import KEY_OF
from distribank.store.sqlite import SqliteStore
from tests.between_banks import virtually
from tests.disks import FragileDisk
from tests.stores import BANK, ByHand, OnSqlite, account, deposit, holder, number
from tests.test_migration import kept, of_an_older_version
from tests.world import World, codes, world

MANY = 1_000_000
"""More operations than any scene has: a disk that is never cut."""

Files = dict[str, bytes]

FAILED = (StoreUnusable, DurabilityLost, apsw.Error)
"""How a bank hears that its disk has failed."""


@dataclass
class Run:
    """One run of a scene: its disk, its chance, what was found wrong."""

    directory: Path
    disk: FragileDisk
    chance: Random
    synchronous: str | None = None
    findings: list[str] = field(default_factory=list)
    is_dark: bool = False
    stopped: bool = False
    """Whether the bank has noticed that its disk failed, and stopped."""

    def open(self, name: str = "bank", bank: str = BANK, *, fragile: bool = True) -> SqliteStore:
        """A store in the run's directory, as a process finds it; on the fragile disk, or after the power is back."""
        store = SqliteStore(
            self.directory / f"{name}.db",
            bank=bank,
            marker=self.directory / f"{name}.marker",
            now_ms=1,
            on_broken=self._stop,
            executor=ByHand(OnSqlite(self.directory)),
            vfs=self.disk.disk_name if fragile else None,
        )
        if fragile and self.synchronous is not None:
            store._writer.pragma("synchronous", self.synchronous)
        if not fragile:
            store._writer.pragma("synchronous", "OFF")  # this disk is sound, and nobody cuts it
        return store

    def _stop(self, _lost: DurabilityLost) -> None:
        self.stopped = True

    def lose_power(self) -> None:
        """Nothing runs on the fragile disk any more. One that failed only once has kept all that was written."""
        self.is_dark = True
        if not self.disk.once:
            self.disk.lose_power(self.chance)

    def expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.findings.append(otherwise)

    async def sound(self, store: SqliteStore) -> int:
        """The file is whole and its books agree with its entries; the customers' money in centavos."""
        reader = apsw.Connection(str(store._path), flags=apsw.SQLITE_OPEN_READONLY)
        for check in ("integrity_check", "foreign_key_check"):
            found = reader.execute(f"PRAGMA {check}").fetchall()
            self.expect(found in ([], [("ok",)]), f"{check}: {found[:3]}")
        reader.close()
        counted = await store.recount()
        self.expect(counted.findings == [], f"the books: {counted.findings[:3]}")
        self.expect(counted.customers + sum(counted.books.values()) == 0, "the books do not balance")
        return counted.customers


@dataclass(frozen=True)
class Scene:
    """What is played, and the files that it begins with."""

    play: Callable[[Run], Awaitable[None]]
    begin_with: Callable[[], Files] = dict


async def drop(store: SqliteStore) -> None:
    """The process is gone: nothing more is written, nothing is closed in good order."""
    with mock.patch.object(store, "_broken", DurabilityLost("gone")):
        await store.close()


def files_of(directory: Path) -> Files:
    return {file.name: file.read_bytes() for file in directory.iterdir() if file.suffix in (".db", ".db-wal")}


def made_in_a_directory(make: Callable[[Path], None]) -> Files:
    with tempfile.TemporaryDirectory() as place:
        make(Path(place))
        return files_of(Path(place))


# Bare deposits ----------------------------------------------------------------------------------------------------

DEPOSITS = 12


@cache
def one_account() -> Files:
    async def make(directory: Path) -> None:
        store = OnSqlite(directory).open()
        await store.write([account(1), holder(1)])
        await store.close()

    return made_in_a_directory(lambda directory: virtually(make(directory)))


async def pay_in(store: SqliteStore, acknowledged: list[int]) -> None:
    """Deposit one centavo at a time, two in a group, and note how many a flush has acknowledged."""
    for _ in range(DEPOSITS):
        writes = []
        for _ in range(2):
            before = await store.get(Account, number(1))
            assert before is not None
            writes.append(store.write(deposit(before, 1)))
        await asyncio.gather(*writes)
        acknowledged[0] += 2


async def deposits(run: Run) -> None:
    """Two deposits in a group, group after group, checkpoints between them, and a close in good order."""
    store = run.open()
    run.disk.armed = True
    acknowledged = [0]
    try:
        await pay_in(store, acknowledged)
        await store.close()
    except FAILED:
        run.stopped = True
        await drop(store)
    run.lose_power()
    store = run.open(fragile=False)
    found = await run.sound(store)
    await drop(store)
    run.expect(found in (acknowledged[0], acknowledged[0] + 2), f"{acknowledged[0]} acknowledged, {found} found")


# Transfers between two banks --------------------------------------------------------------------------------------

A, B = codes(2)
MONEY = 10_000
WORKERS, EACH = 3, 3


@dataclass
class Room:
    """The two banks of a run, those of *dark* on the disk that loses power."""

    run: Run
    net: World
    dark: frozenset[str]

    def open(self, code: str, on_flush: Callable[[float, int], None]) -> SqliteStore:
        fragile = code in self.dark and not self.run.is_dark
        store = self.run.open(code, code, fragile=fragile)
        store._on_flush = on_flush
        store._on_broken = partial(self._broke, code)
        return store

    def _broke(self, code: str, _lost: DurabilityLost) -> None:
        """A process would end here; this one says nothing any more."""
        self.run.stopped = True
        running = self.net.banks.get(code)
        if running is not None:
            running.bank.ready = False
        self.net.changed.set()

    async def go_dark(self) -> None:
        for code in self.dark:
            self.net.banks[code].bank.ready = False
        for code in sorted(self.dark):
            running = self.net.banks[code]
            running.stop.set()
            await running.stopped
            store: SqliteStore = self.net.stores.pop(code)  # type: ignore[assignment]
            await drop(store)

    async def back(self) -> None:
        for code in sorted(self.dark):
            await self.net.start(code)


@cache
def two_banks() -> tuple[Files, dict[str, str]]:
    """Two banks with an account each, both of which both may debit; and the accounts' numbers."""
    accounts: dict[str, str] = {}

    async def make(directory: Path) -> None:
        never = FragileDisk("two banks", MANY)
        async with in_room(Run(directory, never, Random(0)), frozenset()) as room:  # noqa: S311
            for code in (A, B):
                accounts[code] = await room.net.account(code, MONEY)
            for code, other in ((A, B), (B, A)):
                await room.net.consent(code, accounts[code], other)
        never.unregister()

    return made_in_a_directory(lambda directory: virtually(make(directory))), accounts


class in_room:  # noqa: N801 - a context manager
    """A ``Room`` that is left with every store closed."""

    def __init__(self, run: Run, dark: frozenset[str]) -> None:
        self._room = Room(run, World(), dark)
        self._world = world(2, make_store=self._room.open)

    async def __aenter__(self) -> Room:
        self._room.net = await self._world.__aenter__()
        return self._room

    async def __aexit__(self, *error: object) -> None:
        await self._world.__aexit__(*error)  # type: ignore[arg-type]
        for store in self._room.net.stores.values():
            await drop(store) if store._broken else await store.close()  # type: ignore[arg-type]


async def transfers(run: Run, dark: frozenset[str]) -> None:
    """Transfers both ways, several at a time, debits and credits at either bank, ordered at either bank."""
    _, accounts = two_banks()
    async with in_room(run, dark) as room:
        net = room.net
        run.disk.armed = True
        told: dict[tuple[str, str], TransferResult] = {}
        asked: dict[tuple[str, str], tuple[tuple[str, str, int], ...]] = {}

        async def work(worker: int) -> None:
            for n in range(EACH):
                at, amount = (A, B)[(worker + n) % 2], 100 + worker
                sign = 1 if n % 2 else -1
                key = at, f"{worker}-{n}"
                asked[key] = (A, accounts[A], sign * amount), (B, accounts[B], -sign * amount)
                with suppress(Breakage):
                    told[key] = await net.transfer(at, *asked[key], key=key[1])

        await asyncio.gather(*map(work, range(WORKERS)))
        with suppress(Breakage):
            await asyncio.gather(*(net.stores[code].flushed() for code in dark))
        await room.go_dark()
        run.lose_power()
        await room.back()
        await found_again(run, net, asked, told)
        for code, number_ in accounts.items():
            posted, available = await net.balance(code, number_)
            run.expect(posted == available, f"something is still held at {code}")
        total = [await run.sound(store) for store in net.stores.values()]  # type: ignore[arg-type]
        run.expect(sum(total) == 2 * MONEY, f"{sum(total)} centavos found, {2 * MONEY} paid in")
        try:
            await net.check_books()
        except AssertionError as wrong:
            run.findings.append(str(wrong))


async def found_again(
    run: Run,
    net: World,
    asked: dict[tuple[str, str], tuple[tuple[str, str, int], ...]],
    told: dict[tuple[str, str], TransferResult],
) -> None:
    """Everything ends, the same at both banks, as it was told; and a client that was told nothing learns it."""

    async def quiet() -> bool:
        return not any([await store.find(Queries.UNFINISHED) for store in net.stores.values()])

    try:
        await net.until(quiet)
        for (at, key), legs in asked.items():
            now = await net.transfer(at, *legs, key=key)
            before = told.get((at, key))
            if before is not None and before.transaction.state is not State.PREPARING:
                known = before.transaction
                run.expect(now.transaction.id == known.id, f"{key} was {known.id}, and is now {now.transaction.id}")
                run.expect(committed(now.transaction.state) == committed(known.state), f"{key} was {known.state}")
            ends = [await net.state(code, now.transaction.id) for code in (A, B)]
            fates = {committed(end.state) for end in ends if end is not None}
            run.expect(len(fates) == 1, f"{key} has several ends: {[end and end.state for end in ends]}")
        await net.until(quiet)
    except TimeoutError:
        run.findings.append("something is unfinished, 20 s after the power was back")
    except Breakage as breakage:
        run.findings.append(f"a bank did not recover: {breakage}")


def committed(state: State) -> bool:
    return state in (State.COMMITTING, State.COMMITTED, State.ENDED)


# First starts and older versions ----------------------------------------------------------------------------------


async def first_start(run: Run) -> None:
    """An empty directory: a bank's database is made, takes a deposit, and is closed."""
    run.disk.armed = True
    incarnation, acknowledged = None, 0
    try:
        store = run.open()
        incarnation = store.incarnation
        try:
            await store.write([account(1), holder(1), *deposit(account(1), 1)])
            acknowledged = 1
            await store.close()
        except FAILED:
            run.stopped = True
            await drop(store)
    except StoreUnusable:
        run.stopped = True
    run.lose_power()
    store = run.open(fragile=False)
    found = await run.sound(store)
    run.expect(incarnation in (None, store.incarnation), "the database that was served is not the one that is found")
    run.expect(found >= acknowledged, "the deposit is gone")
    await drop(store)


STAMPED = 77 << 16


@cache
def older_version(version: int) -> Files:
    """A database as *version* left it when its machine stopped: the last of it stands in the write-ahead log alone."""
    with tempfile.TemporaryDirectory() as place:
        there = OnSqlite(Path(place))
        of_an_older_version(there, kept(), version)
        writer = apsw.Connection(str(there.path))
        writer.pragma("journal_mode", "WAL")
        writer.execute("UPDATE meta SET last_stamp = ?", (STAMPED,))
        files = files_of(Path(place))
        writer.close()
    assert len(files[there.path.name + "-wal"]) > 0
    return files


async def migration(run: Run, version: int) -> None:
    """A database of an older version is opened, and takes a deposit: it has all that it had, in the newest schema."""
    run.disk.armed = True
    before = number(2)
    paid = 0
    try:
        store = run.open()
        try:
            row = await store.get(Account, before)
            assert row is not None
            await store.write(deposit(row, 5))
            paid = 5
            await store.close()
        except FAILED:
            run.stopped = True
            await drop(store)
    except StoreUnusable:
        run.stopped = True
    run.lose_power()
    store = run.open(fragile=False)
    run.expect(await run.sound(store) in (750 + paid, 755), "money is gone")
    run.expect(store.last_stamp >= STAMPED, "the last stamp is gone")
    for row in kept():
        if type(row) in KEY_OF and not (isinstance(row, Account) and row.number == before):
            key = KEY_OF[type(row)](row)
            found = await store.get(type(row), *(key if isinstance(key, tuple) else (key,)))
            run.expect(found == row or getattr(row, "name", "") == "cash", f"{row} is now {found}")
    await drop(store)


SCENES: dict[str, Scene] = {
    "deposits": Scene(deposits, one_account),
    "transfers, one bank dark": Scene(partial(transfers, dark=frozenset({A})), lambda: two_banks()[0]),
    "transfers, the other bank dark": Scene(partial(transfers, dark=frozenset({B})), lambda: two_banks()[0]),
    "transfers, both banks dark": Scene(partial(transfers, dark=frozenset({A, B})), lambda: two_banks()[0]),
    "first start": Scene(first_start),
    "opening schema 1": Scene(partial(migration, version=1), partial(older_version, 1)),
    "opening schema 2": Scene(partial(migration, version=2), partial(older_version, 2)),
}
