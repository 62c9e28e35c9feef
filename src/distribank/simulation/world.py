"""The banks of one run: each a process with its disk, its clock and its line to the others, which can die at any step.

What runs is the shipped ``Bank`` with the shipped recovery. ``call`` is a client's request to a bank: it runs in the
bank's process and dies with it. ``crash`` is the end of a process between two of its steps: first its disk and its
connections are dead, then its tasks are cancelled. Whoever crashes is started again, on what its disk kept.
"""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import Future
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, Final, TypeVar

from distribank.bank import Bank
from distribank.bank.metrics import Metrics
from distribank.breakages import Breakage, DurabilityLost, StoreBreakage, Unreachable
from distribank.core.protocol import Answer, Record, State, Transaction
from distribank.recovery import DAY_MS, Recovery
from distribank.simulation.chronicle import About, Chronicle
from distribank.simulation.circumstances import Circumstances
from distribank.simulation.disks import SimulatedStore
from distribank.simulation.loop import Process, SimulatedLoop
from distribank.simulation.network import Network, Request, Said, SimulatedPeers
from distribank.simulation.shared import database_of
from distribank.store.group import Group
from distribank.store.memory import Disk
from distribank.store.shared_memory import SharedMemory, SharedMemoryStore
from distribank.store.sharing import Fenced

T = TypeVar("T")

START_MS: Final = 1_800_000_000_000
"""The wall clock at the beginning of every run."""

Landed = Callable[[str, Group], None]
"""Sees what becomes durable at which bank, in the moment before."""


class BankClock:
    """One process's wall clock: the loop's time, *wrong* by so many milliseconds; *days* pass for all banks at once."""

    def __init__(self, loop: SimulatedLoop, calendar: Calendar) -> None:
        self.wrong = 0
        self._loop = loop
        self._calendar = calendar

    def wall_ms(self) -> int:
        return START_MS + round(self._loop.time() * 1000) + self.wrong + self._calendar.days * DAY_MS


@dataclass
class Calendar:
    days: int = 0


@dataclass
class Ambush:
    """Die *steps* steps after the next message of *kind* has arrived."""

    kind: str
    steps: int


class Node:
    """One process of a bank, and mostly its only one: what outlives it (*disk* or *server*, *clock*), and whether it
    runs.
    """

    def __init__(self, code: str, world: World, name: str, server: SharedMemory | None) -> None:
        self.code = code
        self.name = name
        self.server = server
        """The database that it shares with other processes of the same bank."""
        self.clock = BankClock(world.loop, world.calendar)
        self.disk: Disk | None = None
        self.lives = 0
        self.ambush: Ambush | None = None
        self.connections: dict[Future[Any], None] = {}
        self.process = Process(name)
        self.process.alive = False
        self.bank: Bank
        self.recovery: Recovery
        self.store: SimulatedStore | SharedMemoryStore
        self._world = world

    @property
    def up(self) -> bool:
        return self.process.alive

    @property
    def ready(self) -> bool:
        return self.process.alive and self.bank.ready

    @property
    def rows(self) -> dict[type, dict[Any, Any]]:
        """What is durable here."""
        return self._durable.rows

    @property
    def last_stamp(self) -> int:
        """The greatest stamp that is durable here."""
        return self._durable.last_stamp

    @property
    def _durable(self) -> Disk:
        if self.server is not None:
            return self.server.disk
        disk = self.store.disk if self.up else self.disk
        assert disk is not None
        return disk

    def start(self) -> None:
        """Begin a process on this bank's disk, which reads its log before it serves."""
        world = self._world
        self.lives += 1
        chance = Random(f"{world.seed} {self.name} {self.lives}")  # noqa: S311 - repeatable, not secret
        self.process = Process(f"{self.name}#{self.lives}")
        self.store = self._open(chance)
        others = [code for code in world.nodes if code != self.code]
        at = world.circumstances
        peers = SimulatedPeers(self.code, others, world.network, self.clock, chance, at.patience, at.probe)
        self.bank = Bank(
            self.code,
            f"Bank {self.code}",
            self.store,
            peers,
            self.clock,
            chance,
            metrics=world.metrics,
            vote_deadline=at.vote_deadline,
            position_cap=at.position_cap,
        )
        peers.stamp, peers.hear = self.bank.rhythm.stamp, self.bank.rhythm.hear
        self.heard_from = peers.heard_from
        self.recovery = Recovery(self.bank)
        self._count_what_is_found()
        world.tell(self.name, "starts")
        self.spawn(self._live(peers))

    def _open(self, chance: Random) -> SimulatedStore | SharedMemoryStore:
        world = self._world
        if self.server is not None:
            join = partial(self.server.join, chance=chance, on_broken=self._broken)
            return self.process.context().run(join)
        slow = world.circumstances.slow_disk if world.stormy else 0.0
        return SimulatedStore(self.disk, chance, slow, self._landing, self._broken)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run *work* in this bank's process."""
        return self._world.group.create_task(work, context=self.process.context())

    def crash(self, why: str) -> None:
        """The process dies. The flush that was under way is lost, or had reached the disk although nobody was told."""
        if not self.up:
            return
        world, chance = self._world, self._world.chance
        self.process.alive = False
        self.ambush = None
        if not self.bank.ready:
            world.seen["crash: while it read its log"] += 1
        world.tell(self.name, f"dies, {why}")
        if isinstance(self.store, SharedMemoryStore):
            self.store.die()
        else:
            keep = chance.random() < 0.5
            if self.store.is_flushing and not self.store.seen_failing:
                world.seen["crash: a flush under way was " + ("kept" if keep else "lost")] += 1
            self.disk = self.store.crash(keep_in_flight=keep).disk
        world.loop.kill(self.process)
        for answer in list(self.connections):
            if not answer.done():
                answer.set_exception(Unreachable(self.code, "it died"))
                answer.exception()
        self.connections.clear()

    def crash_after(self, steps: int, why: str) -> None:
        """The process dies after so many more of its steps, wherever that is."""
        self.process.countdown = steps
        self.process.on_step = partial(self._world.crash, self, why)

    def freeze(self, seconds: float) -> None:
        """The process stands still, in the middle of whatever it does, and goes on as if nothing had been."""
        self._world.tell(self.name, f"is frozen for {seconds:.1f} s")
        self._world.loop.freeze(self.process)
        self._world.later(seconds, self._world.loop.thaw, self.process)

    # Requests -----------------------------------------------------------------------------------------------------

    def receive(self, request: Request, back: Callable[[Said | None], None]) -> bool:
        """A request from another bank; see ``network.Destination``."""
        if not self.ready:
            return False
        for message in request.messages:
            self._world.tell(self.name, f"hears {request.sender}", message)
        self._world.arrived(self, request)
        kinds = {type(message).__name__ for message in request.messages}
        if self.ambush is not None and self.ambush.kind in kinds:
            self.crash_after(self.ambush.steps, f"some steps after a {self.ambush.kind.lower()}")
            self.ambush = None
        answer: Future[Any] = self._world.loop.create_future()
        self.connections[answer] = None
        answer.add_done_callback(partial(self._answered, request, back), context=NOBODY.context())
        self.spawn(self._serve(lambda: self._receive(request), answer))
        return True

    async def _receive(self, request: Request) -> Said:
        self.heard_from(request.sender)
        answers = await self.bank.receive(request.sender, request.clock, request.messages)
        return self.bank.clock_now(), answers

    def _answered(self, request: Request, back: Callable[[Said | None], None], answer: Future[Said]) -> None:
        self.connections.pop(answer, None)
        if answer.exception() is not None:
            back(None)
            return
        _, said = answer.result()
        for message, each in zip(request.messages, said, strict=True):
            about = getattr(message, "transaction", None)
            told = (About(about), each) if about else (each,)
            self._world.tell(self.name, f"answers {request.sender}", *told)
        self._world.answered(self, request, said)
        back(answer.result())

    async def call(self, work: Callable[[Bank], Coroutine[Any, Any, T]]) -> T:
        """A client's request: *work*, in this bank's process. Raises ``Unreachable`` if it is down, or dies meanwhile.

        Cancelled, it hangs up: the bank stops what was done for this request alone.
        """
        if not self.ready:
            raise Unreachable(self.code, "it is down")
        answer: Future[T] = self._world.loop.create_future()
        self.connections[answer] = None
        bank = self.bank
        task = self.spawn(self._serve(lambda: work(bank), answer))
        try:
            return await answer
        except asyncio.CancelledError:
            task.cancel()
            raise
        finally:
            self.connections.pop(answer, None)

    async def _serve(self, work: Callable[[], Coroutine[Any, Any, Any]], answer: Future[Any]) -> None:
        try:
            result = await work()
        except Breakage as breakage:
            if not answer.done():
                answer.set_exception(breakage)
                answer.exception()
            return
        if not answer.done():
            answer.set_result(result)

    # Its life -----------------------------------------------------------------------------------------------------

    async def _live(self, peers: SimulatedPeers) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            try:
                async with self.bank, asyncio.TaskGroup() as group:
                    peers.watch(group)
                    await self.recovery.start()
                    self._world.tell(self.name, "serves")
                    await self.recovery.run()
            except* StoreBreakage:
                if self.up:
                    self._stop_soon("because it cannot go on without its store")

    def _broken(self, lost: DurabilityLost) -> None:
        world = self._world
        if isinstance(lost.__cause__, OSError) and isinstance(self.store, SimulatedStore):
            world.tell(self.name, f"its disk fails, {self.store.seen_failing}")
            world.seen[f"disk failed, {self.store.seen_failing}"] += 1
            self._stop_soon("because its disk failed")
        elif isinstance(lost.__cause__, Fenced):
            world.seen["fenced"] += 1
            self._stop_soon("for it has been buried")
        else:
            self._world.loop.fail(lost.__cause__ or lost)

    def _stop_soon(self, why: str) -> None:
        world = self._world
        world.later(world.chance.random() ** 3 * 0.05, self._stop, self.process, why)

    def _stop(self, process: Process, why: str) -> None:
        if process is self.process:
            self._world.crash(self, why)

    def _landing(self, group: Group) -> None:
        self._world.landing(self.code, group)
        for record in group.added[Record]:
            self._world.tell(self.code, "has on disk", record)

    def _count_what_is_found(self) -> None:
        known = self.disk is not None or self.server is not None
        states = {row.state for row in self.rows[Transaction].values()} if known else set()
        found = {
            State.PREPARED: "restarted in doubt",
            State.COMMITTING: "restarted with a commit to tell",
            State.PREPARING: "restarted undecided",
        }
        for state, words in found.items():
            self._world.seen[words] += state in states


NOBODY: Final = Process("nobody")


class Address:
    """One bank, as everybody else meets it: whichever of its processes takes the next request."""

    def __init__(self, code: str, world: World, processes: list[Node]) -> None:
        self.code = code
        self.processes = processes
        self._world = world

    @property
    def ready(self) -> bool:
        return any(node.ready for node in self.processes)

    @property
    def rows(self) -> dict[type, dict[Any, Any]]:
        """What is durable here."""
        return self.processes[0].rows

    def some(self) -> Node:
        """A process that serves, if there is one."""
        ready = [node for node in self.processes if node.ready] or self.processes
        return ready[0] if len(ready) == 1 else self._world.chance.choice(ready)

    def receive(self, request: Request, back: Callable[[Said | None], None]) -> bool:
        """A request from another bank; see ``network.Destination``."""
        return self.some().receive(request, back)

    async def call(self, work: Callable[[Bank], Coroutine[Any, Any, T]]) -> T:
        """A client's request; see ``Node.call``."""
        return await self.some().call(work)


@dataclass
class World:
    """The network of one run. *seen* counts what was reached, *watch* sees what becomes durable."""

    seed: int
    circumstances: Circumstances
    loop: SimulatedLoop
    chance: Random
    group: asyncio.TaskGroup
    landing: Landed
    chronicle: Chronicle = field(default_factory=Chronicle)
    seen: Counter[str] = field(default_factory=Counter)
    stormy: bool = False
    nodes: dict[str, Address] = field(default_factory=dict)
    """The banks."""
    processes: list[Node] = field(default_factory=list)
    calendar: Calendar = field(default_factory=Calendar)
    metrics: Metrics = field(default_factory=Metrics)
    """One for all banks: nobody reads them here, and making them takes its time."""
    history: list[Request] = field(default_factory=list)
    """Every request that has arrived."""
    arrived: Callable[[Node, Request], None] = lambda _node, _request: None
    answered: Callable[[Node, Request, list[Answer]], None] = lambda _node, _request, _said: None

    def __post_init__(self) -> None:
        self.network = Network(self.chance, self.seen)
        at = self.circumstances
        self.audit_moments = sorted(self.chance.uniform(0, at.storm) for _ in range(at.audits))
        for number in range(1, at.banks + 1):
            self._make(f"{99990000 + number}", shared=number <= at.shared)
        self.network.banks = dict(self.nodes)

    def _make(self, code: str, *, shared: bool) -> None:
        server = database_of(code, self) if shared else None
        names = [f"{code}.1", f"{code}.2"] if shared else [code]
        processes = [Node(code, self, name, server) for name in names]
        self.nodes[code] = Address(code, self, processes)
        self.processes += processes

    def tell(self, where: str, what: str, *things: Any) -> None:
        self.chronicle.add(self.loop.time(), where, what, *things)

    def later(self, delay: float, then: Callable[..., None], *of: Any) -> None:
        """Call *then* after *delay* seconds, whoever dies meanwhile."""
        self.loop.call_later(delay, then, *of, context=NOBODY.context())

    def crash(self, node: Node, why: str) -> None:
        """Kill a process, and have it started again after a while."""
        if node.up:
            self.seen["crash"] += 1
            node.crash(why)
            self.later(self.chance.random() ** 3 * 4 if self.stormy else 0, self.start, node, node.lives)

    def start(self, node: Node, lives: int) -> None:
        """Start a process that has lived so often, unless somebody has started it meanwhile."""
        if not node.up and node.lives == lives:
            node.start()
            if self.stormy and self.chance.random() < 0.1:
                node.crash_after(self.chance.randint(1, 12), "while it starts")
