"""The operators of a simulated network: they force parts in doubt, ask again, trace, and audit all the while."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from distribank.breakages import Breakage
from distribank.core.heuristics import Heuristic, Verdict
from distribank.core.protocol import FORCED, UNFINISHED, Fate, Inquire, Outcome, Record, State, Transaction
from distribank.core.snapshot import Audit
from distribank.core.story import tell
from distribank.simulation.people import People
from distribank.simulation.world import Node, World


@dataclass
class Operators:
    """*audits* are what auditors were told, each with the transactions acknowledged before it began."""

    world: World
    people: People
    audits: list[tuple[Audit, list[str]]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """What operators saw that must not be."""
    auditing: int = 0
    """Audits under way."""

    # Forcing ------------------------------------------------------------------------------------------------------

    async def meddle(self) -> None:
        """Force parts; sometimes those concerned make the most of it."""
        world, chance = self.world, self.world.chance
        async with asyncio.TaskGroup() as group:
            while world.stormy and world.circumstances.zeal:
                await asyncio.sleep(chance.random() ** 2 * 0.3 / world.circumstances.zeal)
                for code, number in await self._force_something():
                    if chance.random() < 0.4:
                        group.create_task(self.people.run_off(code, number))

    async def _force_something(self) -> list[tuple[str, str]]:
        """Force one part, if any is in doubt; the accounts (bank, number) that the guess has just changed."""
        world, chance = self.world, self.world.chance
        open_ = [
            (node, row)
            for bank in world.nodes.values()
            for node in [bank.some()]
            for row in (node.rows[Transaction].values() if node.ready else ())
            if row.state in (State.PREPARED, *FORCED)
        ]
        if not open_:
            return []
        node, known = chance.choice(open_)
        made = 0
        for verdict in chance.choices(list(Verdict), k=chance.choice([1, 1, 1, 2])):
            made += await self._force(node, known, verdict)
        if made > 1:
            self.broken.append(f"I3: {known.id} was forced twice at {node.code}")
        if not made:
            return []
        await self._ask(node, known)
        assert known.order is not None
        return list(dict.fromkeys((node.code, leg.account) for leg in known.order.legs))

    async def _force(self, node: Node, known: Transaction, verdict: Verdict) -> bool:
        seen, flushing = self.world.seen, node.store.is_flushing
        try:
            done = await node.call(lambda bank: bank.participating.force(known.id, verdict, "nobody answers"))
        except Breakage:
            return False
        if not isinstance(done, Heuristic):
            seen["too late to force"] += 1
            return False
        seen["forced"] += 1
        seen["forced during a flush"] += flushing
        return True

    async def _ask(self, node: Node, known: Transaction) -> None:
        """A fellow bank asks at once: it is not told the guess."""
        others = [bank for bank in known.banks if bank != node.code]
        asker, inquiry = self.world.chance.choice(others), Inquire(known.id, known.vote_by)
        try:
            (answer,) = await node.call(lambda bank: bank.receive(asker, 0, [inquiry]))
            guess = await node.call(lambda bank: bank.store.get(Heuristic, known.id))
        except Breakage:
            return
        if guess is not None and guess.truth is None:
            self.world.seen["asked while forced"] += 1
            if answer != Outcome(Fate.UNDECIDED):
                self.broken.append(f"I3: a guess about {known.id} was told as {answer}")

    # Looking ------------------------------------------------------------------------------------------------------

    async def audit(self) -> None:
        """Audit the network at the moments drawn for it."""
        world = self.world
        for moment in world.audit_moments:
            await asyncio.sleep(max(0.0, moment - world.loop.time()))
            await self._audit_insistently()

    async def _audit_insistently(self) -> None:
        """Audit; once more if the auditor died, or was down."""
        if await self.audit_once() is None:
            await asyncio.sleep(self.world.chance.uniform(0.1, 1))
            await self._audit_insistently()

    async def audit_once(self) -> Audit | None:
        """One audit, by any bank that is up."""
        world = self.world
        node = world.chance.choice(list(world.nodes.values())).some()
        acknowledged = self.people.told.committed()
        self.auditing += 1
        try:
            audit = await node.call(lambda bank: bank.auditing.audit())
        except Breakage:
            world.seen["audit: the auditor died"] += 1
            return None
        finally:
            self.auditing -= 1
        world.tell(node.code, f"audits at {audit.at}: {', '.join(f.code for f in audit.findings) or 'all holds'}")
        self.audits.append((audit, acknowledged))
        return audit

    async def ask_again(self) -> None:
        """Ask at once about something that is not finished."""
        world = self.world
        node = world.chance.choice(list(world.nodes.values())).some()
        unfinished = [row.id for row in node.rows[Transaction].values() if row.state in UNFINISHED]
        if not unfinished or not node.ready:
            return
        identity = world.chance.choice(unfinished)
        try:
            await node.call(lambda _: node.recovery.inquire_now(identity))
        except Breakage:
            return
        world.seen["asked again"] += 1

    async def trace_something(self) -> None:
        """Look where somebody's money is; a trace tells it, whatever is broken, but no operator's reason."""
        world = self.world
        node = world.chance.choice(list(world.nodes.values()))
        rows = list(node.rows[Transaction].values())
        if not rows:
            return
        known = world.chance.choice(rows)
        try:
            found = await node.call(lambda bank: bank.following.trace(known))
        except Breakage:
            return
        world.seen["traced"] += 1
        if any("nobody answers" in line.record.detail for line in tell(found.logs, known.participants, frank=True)):
            self.broken.append(f"the reason of an operator has left its bank with the trace of {known.id}")

    async def tidy_up(self) -> None:
        """More than the retention passes at once, and every bank forgets what it may: nothing that is forced.

        Never during an audit: that takes seconds, and what it asks about is younger than anything that is forgotten.
        """
        world = self.world
        if self.auditing:
            return
        world.calendar.days += 8
        world.tell("network", "eight days pass, and banks forget what they may")
        for node in [bank.some() for bank in world.nodes.values()]:
            before = [row.id for row in node.rows[Transaction].values() if row.state in FORCED]
            try:
                await node.call(lambda _, node=node: node.recovery._collect())  # type: ignore[misc]
            except Breakage:
                continue
            logged = {record.transaction for record in node.rows[Record].values()}
            for identity in before:
                known = node.rows[Transaction].get(identity)
                if known is not None and known.state in FORCED:
                    world.seen["forced for longer than the retention"] += 1
                    if identity not in logged:
                        self.broken.append(f"the records of {identity}, which is forced at {node.code}, were collected")
