"""A bank that was restored from a backup gets back what it had lost: from its peers' records, and from its operator.

Before it serves clients it asks every peer what concerns it. What a peer had decided is posted here, once, in the order
of the commit timestamps, so that money that came in is there before it goes out again; what this bank itself had
decided is kept as a list for its operator. Where the process dies, the next one asks anew: what is posted is known by
its transaction, and nothing is posted twice. The other half is here as well: what this bank tells one that asks.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from distribank.bank.coordinating import Coordinating
from distribank.bank.custody import MAX_CONSENTS
from distribank.bank.rhythm import Moment, Rhythm, book_lock, transaction_lock
from distribank.breakages import Unreachable
from distribank.core import resupplying
from distribank.core.consents import Consent
from distribank.core.holders import Holder
from distribank.core.ledger import SUSPENSE
from distribank.core.protocol import (
    MAX_DECISIONS,
    Answer,
    Decision,
    Decisions,
    ShowDecisions,
    State,
    Transaction,
    coordinator_of,
)
from distribank.core.refusals import Code, Refusal
from distribank.core.restoration import Lost, PartFate, Restoration, Supplied
from distribank.core.transfer import Direction, Leg
from distribank.ports import Peers, Queries

log = logging.getLogger("distribank.bank")

ASK_SECONDS: Final = 5.0
"""How long a peer has for one page, retries included."""
ASK_AGAIN_SECONDS: Final = 2.0
"""Seconds between two attempts at a peer that does not answer."""
LOOK_AGAIN_SECONDS: Final = 30.0
"""Seconds between two looks, by a bank that serves, at what was in doubt elsewhere."""
LOOK_AGAIN_AT_LAST: Final = 900.0
"""The same once all have told and only doubts are left, each time twice as late as before."""
LOOKS: Final = 20
"""Pages of its own that a bank reads for one answer, whether or not they hold what concerns whoever asks."""
AT_ONCE: Final = 50
"""Transactions that are posted in one write."""
PAGE: Final = 1000

After = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Listed:
    """What this bank had coordinated and lost; the transaction as it stands here since it was settled, and how."""

    lost: Lost
    known: Transaction | None
    supplied: Supplied | None


class Restoring:
    """What one bank does about its own restore, and tells others about theirs. ``begin`` comes before all else."""

    def __init__(self, rhythm: Rhythm, peers: Peers, coordinating: Coordinating) -> None:
        self._rhythm = rhythm
        self._store = rhythm.store
        self._peers = peers
        self._coordinating = coordinating
        self._look_at = 0.0
        self._looks = 0
        self._unnamed: set[str] = set()
        self.present: Restoration | None = None
        """The restore that made this database, if one did."""
        self.awaited: set[str] = set()
        """The banks without whose answers this one does not serve clients."""
        self.can_tell = False
        """Whether the log has been read, so that other banks can be told, though this one may not be ready."""

    @property
    def _lock(self) -> str:
        return f"restoration:{self._store.incarnation}"

    # What another bank that was restored asks

    async def tell(self, asker: str, question: ShowDecisions) -> Decisions:
        """What concerns *asker*, from what is durable here: so much of it that nobody else has to wait for long."""
        told: list[Decision] = []
        after: tuple[int, str] | None = question.after
        for _ in range(LOOKS):
            since, limit = str(question.since), MAX_DECISIONS - len(told)
            rows = await self._store.find(Queries.BEGUN_SINCE, since, limit=limit, after=after or ())
            decisions = [resupplying.tell(self._rhythm.code, asker, row) for row in rows]
            told += [decision for decision in decisions if decision is not None]
            if len(rows) < limit:
                return Decisions(tuple(told))
            after = (rows[-1].begun_at, rows[-1].id)
            if len(told) == MAX_DECISIONS:
                break
            await asyncio.sleep(0)  # a store's reads need not wait for anything: let others in
        return Decisions(tuple(told), after)

    # What this one asks

    async def begin(self) -> None:
        """Learn whether this database was restored; until then nothing is known of it."""
        self.present = await self._store.get(Restoration, self._store.incarnation)
        if self.present is not None:
            self.awaited = {bank for bank in self._silent() if bank not in self.present.without}
        self.can_tell = True

    async def catch_up(self) -> None:
        """Return once every bank that is waited for has told what it knows, and all of that is posted, durably."""
        if not self.awaited:
            return
        log.warning("%s was restored and asks what it has lost: %s", self._rhythm.code, ", ".join(sorted(self.awaited)))
        async with asyncio.TaskGroup() as group:
            asked = {bank: group.create_task(self._ask_until_told(bank)) for bank in sorted(self.awaited)}
        await self._take({bank: task.result() for bank, task in asked.items()})
        self._look_at = asyncio.get_running_loop().time() + LOOK_AGAIN_SECONDS

    def is_due(self, now: float) -> bool:
        """Whether, at *now* in the loop's time, ``look`` is to be called; it then is not due for a while."""
        if self.present is None or now < self._look_at:
            return False
        self._look_at = now + min(LOOK_AGAIN_SECONDS * 2 ** min(self._looks, 10), LOOK_AGAIN_AT_LAST)
        self._looks += not self._silent()
        return True

    def ask_soon(self, bank: str) -> None:
        """A commit of *bank*'s has been posted of which its message told no more than the legs."""
        self._unnamed.add(bank)
        self._look_at = 0.0

    async def look(self) -> None:
        """Ask, once, the banks that were not waited for, those at which something is in doubt, and those that know
        more of what was posted."""
        for bank in dict.fromkeys([*self._silent(), *await self._in_doubt_at(), *sorted(self._unnamed)]):
            try:
                told = await self._ask(bank)
            except Unreachable:
                continue
            self._unnamed.discard(bank)
            await self._take({bank: told})

    def _silent(self) -> list[str]:
        present = self.present
        return [] if present is None else [v.bank for v in self._peers.views() if not present.has_told(v.bank)]

    async def _in_doubt_at(self) -> list[str]:
        """The banks that had prepared what this one lost, where nobody was known to have committed it."""
        found: set[str] = set()
        after: After = ()
        while page := await self._store.find(Queries.LOST, limit=PAGE, after=after):
            after = (page[-1].begun_at, page[-1].transaction)
            doubts = [lost for lost in page if lost.fate is PartFate.PREPARED]
            found |= {part.bank for lost in doubts for part in lost.parts if self._peers.view(part.bank)}
        return sorted(found)

    async def _ask_until_told(self, bank: str) -> list[Decision]:
        while True:
            try:
                told = await self._ask(bank)
            except Unreachable as unreachable:
                log.warning("%s waits for what %s knows: %s", self._rhythm.code, bank, unreachable.why)
                await asyncio.sleep(ASK_AGAIN_SECONDS * self._rhythm.jitter())
                continue
            self.awaited.discard(bank)
            return told

    async def _ask(self, bank: str) -> list[Decision]:
        """Everything that *bank* tells, page by page; raises ``Unreachable``."""
        assert self.present is not None, "this database was not restored"
        found: list[Decision] = []
        after: tuple[int, str] | None = None
        while True:
            until = asyncio.get_running_loop().time() + ASK_SECONDS
            answer: Answer = await self._peers.ask(bank, ShowDecisions(self.present.since, after), until)
            if not isinstance(answer, Decisions):
                raise Unreachable(bank, "it does not tell what it knows")
            found += answer.decisions
            if answer.stopped_at is None:
                return found
            if after is not None and answer.stopped_at <= after:
                raise Unreachable(bank, "it tells the same again and again")
            after = answer.stopped_at

    # What they told

    async def _take(self, told: Mapping[str, Sequence[Decision]]) -> None:
        """Post what others had decided, by commit timestamp; list what this bank had; note that they have told."""
        decisions = [(bank, decision) for bank, said in told.items() for decision in said]
        decisions.sort(key=lambda each: (each[1].at or 0, each[1].transaction))
        for start in range(0, len(decisions), AT_ONCE):
            some = decisions[start : start + AT_ONCE]

            async def take(moment: Moment, some: Sequence[tuple[str, Decision]] = some) -> Restoration:
                return await self._take_some(moment, some)

            self.present = await self._rhythm.decide(self._locks(some), take)
            await self._store.flushed()  # what waits to be written stays bounded
            for _, decision in some:
                self._rhythm.hear(decision.at or 0)

        async def note(moment: Moment) -> Restoration:
            present = await self._restoration(moment)
            for bank in told:
                present = present.after(bank, self._rhythm.wall_ms())
            moment.write([present])
            return present

        self.present = await self._rhythm.decide([self._lock], note)
        await self._store.flushed()
        for bank, said in sorted(told.items()):
            log.warning("%s heard from %s of %d transactions since its backup", self._rhythm.code, bank, len(said))

    async def _take_some(self, moment: Moment, some: Sequence[tuple[str, Decision]]) -> Restoration:
        """The restore behind these decisions, all of them and the count of what was posted being one write."""
        present, posted = await self._restoration(moment), Counter[str]()
        for bank, decision in some:
            wrong = resupplying.flaw(self._rhythm.code, bank, decision, present, moment.now())
            if wrong is not None:
                moment.alarm(wrong, decision.transaction)
            elif coordinator_of(decision.transaction) == self._rhythm.code:
                await self._list(moment, bank, decision)
            else:
                posted[bank] += await self._supply(moment, decision)
        for bank, count in posted.items():
            present = present.after(bank, None, count)
        moment.write([present])
        return present

    async def _list(self, moment: Moment, bank: str, decision: Decision) -> None:
        """Note *bank*'s part in what this one had coordinated, unless it is in the log."""
        before = await moment.get(Lost, decision.transaction)
        if before is None and await moment.get(Transaction, decision.transaction) is not None:
            return
        lost = resupplying.found(bank, decision, before)
        if lost != before:
            moment.write([lost])

    async def _supply(self, moment: Moment, decision: Decision) -> bool:
        """Post a commit of which this log knows nothing. What it has a vote on goes the ordinary way."""
        known = await moment.get(Transaction, decision.transaction)
        if known is not None:
            if known.state is State.ABORTED:
                moment.alarm("its coordinator has committed what is aborted here", decision.transaction)
            if known.state is State.COMMITTED and (whole := resupplying.named(known, decision)) != known:
                moment.write([whole])
            return False
        ledger = await moment.ledger([leg.account for leg in decision.legs])
        consents = await consents_on(moment, decision.legs)
        moment.persist(resupplying.supply(self._rhythm.code, decision, ledger.accounts, consents, moment.now()))
        return True

    async def _restoration(self, moment: Moment) -> Restoration:
        present = await moment.get(Restoration, self._store.incarnation)
        assert present is not None, "this database was not restored"
        return present

    def _locks(self, some: Sequence[tuple[str, Decision]]) -> list[str]:
        """Everything that *some* decisions touch here."""
        names = [self._lock, book_lock(SUSPENSE)]
        for _, decision in some:
            coordinator = coordinator_of(decision.transaction)
            if coordinator == self._rhythm.code:
                names.append(transaction_lock(decision.transaction))
            else:
                accounts = [leg.account for leg in decision.legs]
                names += self._rhythm.locks_of(decision.transaction, accounts, [coordinator])
        return names

    # The operator's part

    async def listed(self, limit: int, after: After = ()) -> list[Listed]:
        """What this bank had coordinated and lost, newest first by (begun_at, transaction)."""
        await self._store.flushed()
        lost = await self._store.find(Queries.LOST, limit=limit, after=after)
        return [await self._listed(each) for each in lost]

    async def one(self, transaction: str) -> Listed | None:
        """The same of one transaction; ``None`` if it was not lost."""
        lost = await self._store.get(Lost, transaction)
        await self._store.flushed()
        return await self._listed(lost) if lost is not None else None

    async def reason_for(self, transaction: str) -> str | None:
        """Why the operator settled it as it is; ``None`` where nobody had to."""
        supplied = await self._store.get(Supplied, transaction)
        return supplied.reason if supplied is not None else None

    async def _listed(self, lost: Lost) -> Listed:
        supplied = await self._store.get(Supplied, lost.transaction)
        return Listed(lost, await self._store.get(Transaction, lost.transaction), supplied)

    async def settle(
        self, transaction: str, reason: str, named: Sequence[tuple[str, Direction, int]]
    ) -> Listed | Refusal:
        """Post what this bank had decided and lost, durably and once, against the accounts *named* (number, direction,
        centavos) and else against suspense. Where it was settled before, that is what is returned."""
        lost = await self._store.get(Lost, transaction)
        assert lost is not None, f"{transaction} was not lost"
        legs = [Leg(0, self._rhythm.code, *each) for each in named]
        accounts = [leg.account for leg in legs]

        async def decide(moment: Moment) -> Transaction | Refusal:
            lost = await moment.get(Lost, transaction)
            assert lost is not None, f"{transaction} was not lost"
            known = await moment.get(Transaction, transaction)
            if known is not None:
                return known
            present = await moment.get(Restoration, self._store.incarnation)
            silent = [b for b in lost.participants if present is not None and not present.has_told(b)]
            waiting = [bank for bank in silent if self._peers.view(bank) is not None]
            if waiting:
                detail = f"{', '.join(waiting)} has not told yet what it knows of this; wait until it has"
                return Refusal(Code.NOT_SETTLEABLE, detail)
            holder = await moment.get(Holder, lost.holder_cpf)
            holder_id = holder.holder_id if holder is not None else ""
            ledger = (await moment.ledger(accounts)).accounts
            step = resupplying.settle(self._rhythm.code, lost, legs, holder_id, ledger, reason, moment.now())
            if isinstance(step, Refusal):
                return step
            assert step.transaction is not None
            moment.persist(step)
            return step.transaction

        names = [*self._rhythm.locks_of(transaction, accounts, lost.participants), book_lock(SUSPENSE)]
        settled = await self._rhythm.decide(names, decide)
        await self._store.flushed()
        if isinstance(settled, Refusal):
            return settled
        if settled.state is State.COMMITTING:  # found so, too: it may have landed unheard of, and be run again
            self._coordinating.hand_over(settled)  # from here it is a commit like any other
        found = await self.one(transaction)
        assert found is not None
        return found


async def consents_on(moment: Moment, legs: Sequence[Leg]) -> list[Consent]:
    """Every consent on the accounts to be debited. The list is of what is durable, each consent as it is now."""
    debited = dict.fromkeys(leg.account for leg in legs if leg.direction is Direction.DEBIT)
    found: list[Consent] = []
    for account in debited:
        for durable in await moment.find(Queries.CONSENTS_ON_ACCOUNT, account, limit=MAX_CONSENTS):
            present = await moment.get(Consent, durable.consent_id)
            assert present is not None, f"consent {durable.consent_id} vanished"
            found.append(present)
    return found
