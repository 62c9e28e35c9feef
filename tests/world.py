"""Several banks in one process, on one memory, with a network that does as it is told.

Each bank is the real ``Bank`` with real recovery on the store engine of the tests; only the wire is replaced, by
``Wire``, which delivers a message straight to the other bank unless the test's ``weather`` says otherwise. What the
wire promises is what ``ports.Peers`` promises.

A bank named in *shared* runs as two processes (``99990001#1`` and ``99990001#2``) over one shared store, behind one
address: whoever asks the bank meets the one that stands in *front*.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from distribank.bank import Bank, KeyName, TransferResult, coordinating
from distribank.breakages import StoreBreakage, Unreachable
from distribank.core.holders import Holder
from distribank.core.ledger import Account, AccountType, EntryKind
from distribank.core.protocol import UNFINISHED, Answer, Message, ShowDecisions, Transaction
from distribank.core.refusals import Refusal
from distribank.ports import PeerStatus, PeerView
from distribank.recovery import Recovery
from distribank.simulation.people import make_legs
from distribank.store.memory import MemoryStore
from distribank.store.shared_memory import SharedMemory, SharedMemoryStore
from tests.engines import ENGINE, Databases, in_memory

Weather = Callable[[str, str, Message], Awaitable[str]]
"""What happens to one message from one bank to another: "deliver", "lose request", "lose answer"; it may wait first."""

PATIENCE = 5 if ENGINE == "memory" else 30
"""Seconds that whoever orders a transfer waits for its end, unless a test says otherwise."""

CPFS = ["52998224725", "11144477735", "12345678909", "39053344705", "98765432100", "22233366638"]


def code_of(name: str) -> str:
    """The bank to which a process belongs."""
    return name.partition("#")[0]


def codes(count: int) -> list[str]:
    return [f"{99990001 + i}" for i in range(count)]


class WallClock:
    """A wall clock that stands still until it is moved; ``now`` is in milliseconds since 1970."""

    def __init__(self, now: int = 1_800_000_000_000) -> None:
        self.now = now

    def wall_ms(self) -> int:
        return self.now


class Wire:
    """``ports.Peers`` for banks in one process."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self._world = world
        self._me = code_of(name)
        self.on_return: Callable[[str], None] = lambda _bank: None
        self.offline: set[str] = set()
        self.requests: Counter[tuple[str, str]] = Counter()

    def ask(self, bank: str, message: Message, until: float | None = None) -> asyncio.Future[Answer]:
        self._world.sent[type(message).__name__] += 1
        self.requests[bank, type(message).__name__] += 1
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._world.group.create_task(self._carry(bank, message, until, answer))
        return answer

    def view(self, bank: str) -> PeerView | None:
        if bank == self._me or bank not in self._world.stores:
            return None
        status = PeerStatus.OFFLINE if bank in self.offline else PeerStatus.ONLINE
        return PeerView(bank, f"Bank {bank}", f"http://{bank}", status, 0, None, None)

    def views(self) -> list[PeerView]:
        return [view for bank in sorted(self._world.stores) if (view := self.view(bank))]

    async def _carry(self, bank: str, message: Message, until: float | None, answer: asyncio.Future[Answer]) -> None:
        try:
            said = await self._deliver(bank, message, until)
        except Unreachable as unreachable:
            if not answer.done():
                answer.set_exception(unreachable)
            return
        finally:
            asyncio.get_running_loop().call_soon(self._world.changed.set)
        if not answer.done():
            answer.set_result(said)

    async def _deliver(self, bank: str, message: Message, until: float | None) -> Answer:
        loop = asyncio.get_running_loop()
        while True:
            try:
                return await self._once(bank, message)
            except Unreachable:
                if until is None or loop.time() >= until or self._world.banks[self.name].wire is not self:
                    raise
                await asyncio.sleep(0.01)  # the back-off that ports.Peers promises

    async def _once(self, bank: str, message: Message) -> Answer:
        fate = await self._world.weather(self.name, bank, message)
        other = self._world.banks.get(self._world.front.get(bank, bank))
        if fate == "lose request" or other is None or not (other.bank.ready or _may_tell(other.bank, message)):
            raise Unreachable(bank, "lost on the way there")
        clock = self._world.banks[self.name].bank.rhythm.stamp()
        try:
            (answer,) = await other.bank.participating.receive(self._me, clock, [message])
        except StoreBreakage as broken:
            raise Unreachable(bank, "it died before it could answer") from broken
        self._world.answered.append((self.name, other.wire.name, message, answer))
        if fate == "lose answer":
            raise Unreachable(bank, "lost on the way back")
        self._world.banks[self.name].bank.rhythm.hear(other.bank.rhythm.stamp())
        return answer


@dataclass
class Running:
    """One bank that is up."""

    bank: Bank
    recovery: Recovery
    stop: asyncio.Event
    stopped: asyncio.Task[None]
    wire: Wire


@dataclass
class World:
    """The network. ``transfer`` and the other verbs act as the holder of the first account at each bank."""

    vote_deadline: float = 0.3 if ENGINE == "memory" else 5.0  # on PostgreSQL time is real
    acknowledgement_wait: float = coordinating.ACKNOWLEDGEMENT_WAIT if ENGINE == "memory" else 30.0
    position_cap: int | None = None
    make_store: Callable[[str, Callable[[float, int], None]], MemoryStore] = in_memory
    databases: Databases | None = field(default_factory=lambda: Databases() if ENGINE == "postgres" else None)
    clock: WallClock = field(default_factory=WallClock)
    sent: Counter[str] = field(default_factory=Counter)
    answered: list[tuple[str, str, Message, Answer]] = field(default_factory=list)
    banks: dict[str, Running] = field(default_factory=dict)
    stores: dict[str, Any] = field(default_factory=dict)
    """By bank; where several processes share one, that of one which lives."""
    shared: tuple[str, ...] = ()
    front: dict[str, str] = field(default_factory=dict)
    """Which process of a shared bank is met at its address."""
    servers: dict[str, SharedMemory] = field(default_factory=dict)
    group: asyncio.TaskGroup = field(init=False)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.keys = self.starts = 0
        self.calm()

    def calm(self) -> None:
        """Everything is delivered from now on."""

        async def deliver(_sender: str, _to: str, _message: Message) -> str:
            return "deliver"

        self.weather: Weather = deliver

    def at(self, code: str) -> Running:
        """The process that is met at this bank's address."""
        return self.banks[self.front.get(code, code)]

    async def start(self, name: str) -> Running:
        """Start a bank, or one process of a shared one, on its store, new or old, and let recovery read the log."""
        code = code_of(name)
        store = self._join(name) if code in self.shared else self.stores.get(code)
        if store is None:
            if self.databases is not None:
                store = await self.databases.open(code, self._flushed)
            else:
                store = self.make_store(code, self._flushed)
            self.stores[code] = store
        wire = Wire(self, name)
        self.starts += 1
        chance = random.Random(f"{name} {self.starts}")  # noqa: S311 - repeatable, not secret
        with patch.object(coordinating, "ACKNOWLEDGEMENT_WAIT", self.acknowledgement_wait):
            bank = Bank(
                code,
                f"Bank {code}",
                store,
                wire,
                self.clock,
                chance,
                vote_deadline=self.vote_deadline,
                position_cap=self.position_cap,
            )
        recovery = Recovery(bank)
        stop, up = asyncio.Event(), asyncio.Event()
        running = Running(bank, recovery, stop, self.group.create_task(_serve(bank, recovery, stop, up)), wire)
        self.banks[name] = running
        await up.wait()
        for other in self.banks.values():
            other.wire.on_return(code)
        return running

    def _join(self, name: str) -> SharedMemoryStore:
        code = code_of(name)
        server = self.servers.get(code)
        if server is None:
            server = self.servers[code] = SharedMemory(chance=random.Random(code))  # noqa: S311 - repeatable, not secret
        chance = random.Random(f"store of {name} {self.starts}")  # noqa: S311 - repeatable, not secret
        store = server.join(chance=chance, on_flush=lambda _seconds, _writes: self.changed.set())
        self.stores.setdefault(code, store)
        self.front.setdefault(code, name)
        return store

    async def crash(self, name: str, *, keep_in_flight: bool = False) -> None:
        """Kill a process: nothing more is written, and what was not durable is gone (see ``MemoryStore.crash``)."""
        running, code = self.banks[name], code_of(name)
        store: Any = running.bank.store
        if code in self.shared:
            store.die()
            others = [each for each, other in self.banks.items() if code_of(each) == code and other.bank.ready]
            self.stores[code] = next((self.banks[each].bank.store for each in others if each != name), store)
        else:
            left = store.crash(keep_in_flight=keep_in_flight)
            if self.databases is not None:
                left = await self.databases.open(code, self._flushed, dead=store)
            self.stores[code] = left
        running.bank.ready = False
        running.stop.set()
        await running.stopped

    def _flushed(self, _seconds: float, _writes: int) -> None:
        self.changed.set()

    # What people do

    async def person(self, code: str, which: int = 0, name: str = "Maria da Silva") -> Holder:
        bank = self.at(code).bank
        known = await bank.custody.holder_by_cpf(CPFS[which])
        if known is not None:
            return known
        made = await bank.custody.register(name, CPFS[which], "hash", None)
        assert isinstance(made, Holder)
        return made

    async def account(self, code: str, money: int = 0, which: int = 0) -> str:
        """Open an individual account for a person, with *money* centavos in it; its number."""
        bank = self.at(code).bank
        holder = await self.person(code, which)
        account = await bank.custody.open_account(holder, AccountType.INDIVIDUAL)
        assert isinstance(account, Account)
        if money:
            result = await self.cash(code, account.number, money, which)
            assert result is None
        return account.number

    async def cash(
        self, code: str, number: str, amount: int, which: int = 0, kind: EntryKind = EntryKind.DEPOSIT
    ) -> Refusal | None:
        holder = await self.person(code, which)
        done = await self.at(code).bank.custody.cash(holder.holder_id, number, kind, amount, self.key(), "f")
        assert done is not None
        return done.refusal

    async def consent(
        self,
        code: str,
        number: str,
        to: str,
        each: int = 10**9,
        which: int = 0,
        total: int | None = None,
        days: int = 1,
    ) -> str:
        holder = await self.person(code, which)
        made = await self.at(code).bank.custody.give_consent(
            holder, number, to, each, total, self.clock.wall_ms() + days * 86_400_000
        )
        assert made is not None
        assert not isinstance(made, Refusal), made
        return made.consent_id

    async def transfer(
        self, at: str, *legs: tuple[str, str, int], which: int = 0, key: str | None = None, wait: float = PATIENCE
    ) -> TransferResult:
        """Order a transfer; a leg is (bank, account, centavos), negative for a debit."""
        holder = await self.person(at, which)
        key = key or self.key()
        return await self.at(at).bank.ordering.order(
            holder, make_legs(*legs), None, KeyName(holder.holder_id, "transfers", key, repr(legs)), wait
        )

    def key(self) -> str:
        self.keys += 1
        return f"key-{self.keys}"

    # What can be seen

    async def balance(self, code: str, number: str) -> tuple[int, int]:
        """Posted and available."""
        account = await self.stores[code].get(Account, number)
        assert account is not None
        return account.posted, account.available

    async def state(self, code: str, transaction: str) -> Transaction | None:
        return await self.stores[code].get(Transaction, transaction)

    async def settle(self, transaction: str) -> None:
        """Wait until no bank has *transaction* unfinished."""

        async def settled() -> bool:
            return not any([await self._unfinished(code, transaction) for code in self.stores])

        await self.until(settled)

    async def until(self, true: Callable[[], bool | Awaitable[bool]]) -> None:
        """Wait until *true*: it is asked anew whenever a flush has ended or a message has arrived or been lost.

        On PostgreSQL now and then besides: what follows a COMMIT is done behind the word that it has ended.
        """
        pause = None if ENGINE == "memory" else 0.05
        async with asyncio.timeout(20 if ENGINE == "memory" else 60):
            while True:
                self.changed.clear()
                now = true()
                if now if isinstance(now, bool) else await now:
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self.changed.wait()

    async def _unfinished(self, code: str, transaction: str) -> bool:
        known = await self.state(code, transaction)
        return known is not None and known.state in UNFINISHED

    async def check_books(self) -> int:
        """Every bank's books, alone and against each other; the network's customers' money in centavos."""
        total = cash = suspense = 0
        positions: dict[tuple[str, str], int] = {}
        for code, store in self.stores.items():
            await store.flushed()
            counted = await store.recount()
            assert counted.findings == []
            assert counted.customers + sum(counted.books.values()) == 0, f"the books of {code} do not balance"
            total += counted.customers
            cash += counted.books.get("cash", 0)
            suspense += counted.books.get("suspense", 0)
            for book, amount in counted.books.items():
                if book.startswith("position:"):
                    positions[code, book.removeprefix("position:")] = amount
        for (a, b), amount in positions.items():
            assert amount + positions.get((b, a), 0) == 0, f"{a} and {b} do not agree on what one owes the other"
        assert total + suspense == -cash
        return total


def _may_tell(bank: Bank, message: Message) -> bool:
    """Whether a bank that is not ready answers all the same: one that was restored tells another."""
    return isinstance(message, ShowDecisions) and bank.restoring.can_tell


async def _serve(bank: Bank, recovery: Recovery, stop: asyncio.Event, up: asyncio.Event) -> None:
    try:
        async with bank, asyncio.TaskGroup() as group:
            work = group.create_task(_recover(recovery, up))
            await stop.wait()  # a bank that was restored may wait for others until then
            work.cancel()
    except* StoreBreakage:
        pass  # it was killed while it read its log
    finally:
        up.set()


async def _recover(recovery: Recovery, up: asyncio.Event) -> None:
    await recovery.start()
    up.set()
    await recovery.run()


@asynccontextmanager
async def world(count: int, **settings: object) -> AsyncIterator[World]:
    """A network of *count* running banks, stopped at the end."""
    made = World(**settings)  # type: ignore[arg-type]
    try:
        async with asyncio.TaskGroup() as group:
            made.group = group
            for code in codes(count):
                for name in (f"{code}#1", f"{code}#2") if code in made.shared else (code,):
                    await made.start(name)
            try:
                yield made
            finally:
                for running in made.banks.values():
                    running.stop.set()
                for task in list(group._tasks):  # type: ignore[attr-defined]
                    if task is not asyncio.current_task() and not any(task is r.stopped for r in made.banks.values()):
                        task.cancel()
        for running in made.banks.values():
            if running.bank.store.shared and made.databases is None:
                await running.bank.store.close()
    finally:
        if made.databases is not None:
            await made.databases.close()
