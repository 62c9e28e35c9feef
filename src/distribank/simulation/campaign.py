"""One seed: banks settle in, a storm of faults, everything is mended, and then all invariants must hold.

``simulate`` runs it in virtual time and returns what was reached; what must not be raises ``Violation``. Which
situations a campaign of many seeds must have reached stands in ``SITUATIONS``.
"""

from __future__ import annotations

import asyncio
import logging
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from distribank.breakages import DurabilityLost
from distribank.core.batches import Batch
from distribank.core.ledger import Account, Hold, HoldState
from distribank.core.protocol import (
    FORCED,
    UNFINISHED,
    Abort,
    Acknowledged,
    Answer,
    ClockRead,
    Commit,
    Cut,
    Fate,
    Inquire,
    Message,
    Outcome,
    Prepare,
    Sides,
    Snapshot,
    State,
    Transaction,
    Yes,
)
from distribank.ports import PeerStatus
from distribank.simulation.chronicle import Chronicle
from distribank.simulation.circumstances import Circumstances, draw, swarmed
from distribank.simulation.faults import Faults
from distribank.simulation.landing import Ledger, Violation
from distribank.simulation.loop import PROCESS, SimulatedLoop
from distribank.simulation.network import LONG, Request
from distribank.simulation.operators import Operators
from distribank.simulation.people import People
from distribank.simulation.verdict import Verdict
from distribank.simulation.world import Node, World
from distribank.store.group import Group
from distribank.store.shared_memory import SharedMemoryStore

CONVERGED_WITHIN: Final = 10.0
"""Seconds of virtual time behind the last fault after which nothing may be unfinished or held (I10)."""
TAKEN_OVER_WITHIN: Final = 6.0
"""So much longer where a process that died, or was thought dead, has its work taken over by another."""
GIVE_UP: Final = 300.0
"""Seconds of virtual time after which a client that still has no answer is a failure."""

KNOWN: Final = (Fate.COMMITTED, Fate.ABORTED)

SITUATIONS: Final = frozenset(
    {
        "202",
        "KeyInProgress",
        "StoreAway",
        "Unreachable",
        "a clock beyond all bounds",
        "a frozen write was ended",
        "aborted",
        "ambush",
        "asked again",
        "asked while forced",
        "audit",
        "audit: all holds",
        "audit: everything added up",
        "audit: forced",
        "audit: in doubt, off",
        "audit: in doubt, on",
        "audit: the auditor died",
        "audit: bank_unreachable",
        "audit: clock_ahead",
        "commit landed unheard of",
        "commit was unsure",
        "committed",
        "consent given in the storm",
        "consent revoked",
        "cooperative termination",
        "crash",
        "crash at an await",
        "crash: a flush under way was kept",
        "crash: a flush under way was lost",
        "crash: while it read its log",
        "cut one way",
        "disk failed, not written",
        "disk failed, written",
        "doubled",
        "forced",
        "forced abort, truth abort",
        "forced abort, truth commit",
        "forced commit, truth abort",
        "forced commit, truth commit",
        "forced during a flush",
        "forced for longer than the retention",
        "fenced",
        "frozen",
        "hung up",
        "interrupted",
        "late prepare",
        "lost in a partition",
        "lost on the way",
        "met another replica's rows",
        "parted",
        "promised never to vote",
        "refused: clock_ahead",
        "replayed",
        "restarted in doubt",
        "restarted undecided",
        "restarted with a commit to tell",
        "snapshot had to wait",
        "somebody else had put the row",
        "suspense is owed",
        "suspense owes",
        "taken over",
        "the truth came as a commit",
        "the truth came as an abort",
        "the truth came by inquiry",
        "too late to force",
        "traced",
        "very late",
    }
)
"""What a campaign of a thousand seeds has to meet to have tried anything."""


@dataclass
class Ran:
    """One seed's run: what was reached, how much was done, in which time (*virtual* and *real*, in seconds)."""

    seed: int
    seen: Counter[str] = field(default_factory=Counter)
    attempted: int = 0
    snapshots: int = 0
    virtual: float = 0.0
    real: float = 0.0


class Failed(Exception):
    """A seed did not hold: *why*, and the *chronicle* up to there."""

    def __init__(self, seed: int, why: BaseException, chronicle: Chronicle) -> None:
        super().__init__(f"seed {seed}: {why}")
        self.seed = seed
        self.why = why
        self.chronicle = chronicle


class _Failing:
    """Whatever goes wrong inside is what the seed failed with."""

    def __init__(self, seed: int, chronicle: Chronicle) -> None:
        self._seed = seed
        self._chronicle = chronicle

    def __enter__(self) -> None:
        """Nothing is prepared."""

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, Exception):
            raise Failed(self._seed, _first(error), self._chronicle) from error


def simulate(seed: int) -> tuple[Ran, Chronicle]:
    """Run one seed. Raises ``Failed``."""
    chance = Random(seed)  # noqa: S311 - repeatable, not secret
    circumstances = draw(chance)
    loop = SimulatedLoop(chance if circumstances.shuffled else None)  # type: ignore[abstract]
    chronicle, ran = Chronicle(), Ran(seed)
    began = time.process_time()
    # Who dies before its first step never awaits what it was made for: Python warns of that.
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited", category=RuntimeWarning)
    with (
        swarmed(chance),
        _listening(loop, circumstances.wild_clocks),
        asyncio.Runner(loop_factory=lambda: loop) as runner,
        _Failing(seed, chronicle),
    ):
        runner.run(_campaign(ran, circumstances, loop, chance, chronicle))
    ran.virtual, ran.real = loop.time(), time.process_time() - began
    return ran, chronicle


async def _campaign(
    ran: Ran, circumstances: Circumstances, loop: SimulatedLoop, chance: Random, chronicle: Chronicle
) -> None:
    async with asyncio.TaskGroup() as group:
        ledgers: dict[str, Ledger] = {}

        def landing(code: str, rows: Group) -> None:
            try:
                ledgers.setdefault(code, Ledger(code)).land(rows)
            except Violation as violation:
                loop.fail(violation)

        world = World(ran.seed, circumstances, loop, chance, group, landing, chronicle, ran.seen)
        witness = Witness(world)
        world.arrived, world.answered = witness.arrived, witness.answered
        people = People(world)
        operators = Operators(world, people)
        faults = Faults(world, people, operators)
        for node in world.processes:
            node.start()
        await asyncio.sleep(1)
        await people.settle_in()
        world.tell("network", f"the storm begins: {circumstances}")
        faults.begin()
        async with asyncio.timeout(GIVE_UP + circumstances.storm), asyncio.TaskGroup() as clients:
            clients.create_task(_storm(world, faults))
            clients.create_task(operators.meddle())
            clients.create_task(operators.audit())
            for number in range(circumstances.transfers):
                clients.create_task(people.transfer(f"transfer-{number}"))
            for number in range(circumstances.batches):
                clients.create_task(people.batch(f"batch-{number}"))
            for number in range(circumstances.tellers):
                clients.create_task(people.teller(f"cash-{number}"))
        await asyncio.sleep(world.network.last_arrival + 1 - loop.time())  # what the storm sent may begin something yet
        await _within(CONVERGED_WITHIN, lambda: not any(_unrest(node) for node in world.processes))
        await _check_rest(world)
        if circumstances.wild_clocks:
            await asyncio.sleep(90)  # until stamps that came from them are believed again
        await _audit_at_rest(loop, operators, CONVERGED_WITHIN + LONG * circumstances.patience)
        for broken in operators.broken:
            raise Violation(broken)
        verdict = Verdict({code: node.rows for code, node in world.nodes.items()}, people.told, operators.audits)
        verdict.all()
        ran.seen.update(verdict.seen)
        ran.attempted, ran.snapshots = people.told.attempted, len(operators.audits)
        for node in world.processes:
            node.crash("for this is the end")


async def _storm(world: World, faults: Faults) -> None:
    """The faults; and what was open when they ended is finished in time (I10)."""
    await faults.rage()
    faults.end()
    open_ = {code: _unfinished(bank.rows) for code, bank in world.nodes.items()}
    within = CONVERGED_WITHIN + (TAKEN_OVER_WITHIN if world.circumstances.shared else 0)

    def left() -> dict[str, list[str]]:
        still = {code: set(_unfinished(world.nodes[code].rows)) & set(open_[code]) for code in open_ if open_[code]}
        return {code: sorted(ids) for code, ids in still.items() if ids}

    await _within(within, lambda: not left())
    if left():
        raise Violation(f"I10: {within:g} s behind the last fault these are not finished: {left()}")


async def _within(seconds: float, true: Callable[[], bool]) -> None:
    """Wait until *true*, for so long at most."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while loop.time() < until:
        if true():
            return
        await asyncio.sleep(0.25)


async def _audit_at_rest(loop: SimulatedLoop, operators: Operators, patience: float) -> None:
    """I1: everything can be checked, and holds, once no request that the storm has lost is waited for any more."""
    until = loop.time() + patience
    while (last := await operators.audit_once()) is None or not last.ok:
        if loop.time() >= until:
            raise Violation(f"I1: at rest an audit finds {last and last.findings}")
        await asyncio.sleep(1)


def _unfinished(rows: dict[type, dict[Any, Any]]) -> list[str]:
    return [row.id for row in rows[Transaction].values() if row.state in UNFINISHED]


async def _check_rest(world: World) -> None:
    """I10: nothing is unfinished, held, kept or locked."""
    for node in world.processes:
        await node.store.flushed()
        if left := _unrest(node):
            raise Violation(f"I10: {node.name} is not at rest: {left}")


def _unrest(node: Node) -> dict[str, object]:
    """What is still going on in a process, and at its bank."""
    locked = node.store.server.locked if isinstance(node.store, SharedMemoryStore) else list(node.store.locks._held)
    left: dict[str, object] = {
        "down, or about to be": not node.ready or node.store._broken is not None,
        "unfinished": _unfinished(node.rows),
        "held": [hold for hold in node.rows[Hold].values() if hold.state is HoldState.PLACED],
        "reserved": [account for account in node.rows[Account].values() if account.open_holds or account.incoming],
        "batches": [batch for batch in node.rows[Batch].values() if batch.finished_at is None],
        "driven": list(node.bank.coordinating._live),
        "watched": list(node.recovery._due),
        "asked": node.bank.reading.asked,
        "thought to be away": [view.bank for view in node.bank.peers.views() if view.status is not PeerStatus.ONLINE],
        "locked": locked,
    }
    return {what: each for what, each in left.items() if each}


def _not_on_disk(node: Node, message: Message, answer: Answer) -> str:
    """What *answer* says and no row on the disk of *node* bears out, in words."""
    if isinstance(answer, Cut | Sides) and node.last_stamp < answer.at:
        return f"that its clock is past {answer.at}"
    if not isinstance(message, Prepare | Commit | Inquire):
        return ""
    known = node.rows[Transaction].get(message.transaction)
    committed = known is not None and known.commit_at is not None
    if isinstance(answer, Yes) and (known is None or known.prepared_at is None):
        return f"yes to {message.transaction}"
    if isinstance(message, Commit) and isinstance(answer, Acknowledged) and not committed:
        return f"that it has committed {message.transaction}"
    if isinstance(answer, Outcome) and answer.fate is Fate.COMMITTED and not committed:
        return f"that {message.transaction} is committed"
    return ""


class Witness:
    """Counts what messages meet, from outside."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._written_before: dict[Request, int] = {}
        """The greatest stamp that a bank had written when it was asked for its clock."""

    def arrived(self, node: Node, request: Request) -> None:
        """A request is about to be decided."""
        rows, seen = node.rows[Transaction], self._world.seen
        for message in request.messages:
            known = rows.get(getattr(message, "transaction", ""))
            if isinstance(message, Prepare):
                seen["late prepare"] += known is not None and known.state is State.ABORTED
            elif isinstance(message, Commit | Abort) and known is not None and known.state in FORCED:
                seen["the truth came as " + ("a commit" if isinstance(message, Commit) else "an abort")] += 1
            elif isinstance(message, Snapshot) and message.at is None:
                self._written_before.setdefault(request, node.last_stamp)
            elif isinstance(message, Snapshot):
                seen["snapshot had to wait"] += any(
                    row.state is State.PREPARED and row.prepared_at <= message.at for row in rows.values()
                )
        self._world.history.append(request)

    def answered(self, node: Node, request: Request, answers: list[Answer]) -> None:
        """A bank has said something; what it promises by it is on its disk by now (I3, I12)."""
        seen = self._world.seen
        for message, answer in zip(request.messages, answers, strict=True):
            if unkept := _not_on_disk(node, message, answer):
                self._world.loop.fail(Violation(f"I3, I12: {node.code} says {unkept}, and its disk does not have it"))
            written = self._written_before.get(request, 0)
            if isinstance(answer, ClockRead) and answer.at < written:
                self._world.loop.fail(
                    Violation(f"I12: {node.name} says that its clock is at {answer.at}; on its disk was {written}")
                )
            code = getattr(answer, "code", None)
            if code is not None:
                seen[f"refused: {code}"] += 1
            elif (
                isinstance(message, Inquire) and isinstance(answer, Outcome) and answer.fate in ("committed", "aborted")
            ):
                asker = self._world.nodes[request.sender]
                known = asker.rows[Transaction].get(message.transaction)
                seen["cooperative termination"] += message.transaction[:8] != node.code
                seen["the truth came by inquiry"] += known is not None and known.state in FORCED


class _Listener(logging.Handler):
    """An error that a living bank logs fails the seed, but for what an operator's guess, or a wild clock, explains."""

    def __init__(self, loop: SimulatedLoop, wild_clocks: bool) -> None:
        super().__init__(logging.ERROR)
        self._loop = loop
        self._wild_clocks = wild_clocks

    def emit(self, record: logging.LogRecord) -> None:
        process = PROCESS.get()
        if process is not None and not process.alive:
            return
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and isinstance(_first(error), DurabilityLost):
            return
        words = record.getMessage()
        if error is None and ("by the operator" in words or ("clock_ahead" in words and self._wild_clocks)):
            return
        self._loop.fail(error or Violation(f"a breach of the protocol, where there are only honest banks: {words}"))


@contextmanager
def _listening(loop: SimulatedLoop, wild_clocks: bool) -> Iterator[None]:
    log = logging.getLogger("distribank")
    listener, before = _Listener(loop, wild_clocks), (log.level, log.propagate)
    log.setLevel(logging.ERROR)
    log.propagate = False
    log.addHandler(listener)
    try:
        yield
    finally:
        log.removeHandler(listener)
        log.level, log.propagate = before


def _first(error: BaseException) -> BaseException:
    """The first of the errors in groups within groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
