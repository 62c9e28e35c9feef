"""Recovery: finishing what the log says is unfinished, at start-up and ever after.

It holds no second copy of the protocol. It finds unfinished transactions (through an index, not the history),
feeds each the restart event, sends what follows, asks those who may know an outcome, and feeds their answers to the
same machines that live transactions use. It leaves alone what a live task drives.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import Final

from distribank.bank import Bank
from distribank.breakages import DurabilityLost, StoreAway, Unreachable
from distribank.core.protocol import IN_DOUBT, Answer, Fate, Message, Outcome, Refused, State, Transaction
from distribank.ports import PeerStatus

log = logging.getLogger("distribank.recovery")

AT_ONCE: Final = 256
"""Transactions that are taken up at the same time: a bank that has just come back is not flooded."""
INQUIRY_MARGIN: Final = 1.0
"""Seconds beyond the vote deadline before a vote in doubt is first inquired about: most have an outcome by then."""
FIRST_RETRY: Final = 0.5
LAST_RETRY: Final = 5.0
SWEEP: Final = 0.25
"""Seconds between looks at what is due."""
CLAIM_EVERY: Final = 1.0
"""Seconds between looks for what a replica that died has left."""
COLLECT_EVERY: Final = 3600.0
COLLECT_AT_ONCE: Final = 1000
DAY_MS: Final = 86_400_000
KEY_DAYS: Final = 90
"""How long idempotency keys are kept; part of the contract with clients."""


@dataclass(slots=True)
class _Due:
    """When an unfinished transaction is next taken up, and after how many attempts."""

    at: float
    banks: tuple[str, ...]
    attempts: int = 0
    running: bool = False


class Recovery:
    """The sweeps of one bank. ``start`` reads the log, then ``run`` goes on until it is cancelled.

    *retention_days* is how long protocol state is kept. Times are the event loop's.
    """

    def __init__(self, bank: Bank, *, retention_days: int = 7) -> None:
        self._bank = bank
        self._first_inquiry = bank.vote_deadline + INQUIRY_MARGIN
        self._retention_days = retention_days
        self._due: dict[str, _Due] = {}
        self._running = 0
        self._backlog = False
        self._wake = asyncio.Event()
        bank.participating.watch = lambda known: self.watch(known, self._first_inquiry)
        bank.participating.settled = self.settled
        bank.coordinating.hand_over = lambda known: self.watch(known, FIRST_RETRY)
        bank.peers.on_return = self.peer_returned

    def watch(self, known: Transaction, delay: float) -> None:
        """Take *known* up after *delay* seconds, unless it has finished by then.

        A transaction has one driver at a time: taking up what a live task drives would decide it twice.
        """
        if self._bank.coordinating.drives(known.id):
            return
        self._due.setdefault(known.id, _Due(asyncio.get_running_loop().time() + delay, known.banks))

    def settled(self, transaction: str) -> None:
        """*transaction* has its outcome: nobody need be asked."""
        self._due.pop(transaction, None)
        self._bank.reading.asked.pop(transaction, None)

    def peer_returned(self, bank: str) -> None:
        """Take up at once whatever waits for *bank*."""
        now = asyncio.get_running_loop().time()
        for due in self._due.values():
            if bank in due.banks:
                due.at = now
        self._wake.set()

    async def start(self) -> int:
        """Read the unfinished part of the log and feed each transaction its restart; how many there were.

        When this returns, holds stand, every undecided transaction of this bank is aborted, and the bank may serve.
        """
        await self._bank.restoring.begin()
        count = await self._claim()
        await self._bank.store.flushed()
        await self._bank.restoring.catch_up()
        self._bank.ready = True
        await self._bank.batching.resume()
        return count

    async def _claim(self) -> int:
        """Take up what nobody alive drives: a process before this one, or another replica, left it; how many."""
        count = 0
        while page := await self._bank.store.claim(1000):
            count += len(page)
            await asyncio.gather(*(self._restart(known) for known in page))
        return count

    async def _take_over(self) -> None:
        """The same while this bank serves, batches included."""
        try:
            count = await self._claim()
            if count:
                log.warning("%s: took over %d transactions that a replica had left", self._bank.code, count)
            await self._bank.batching.resume()
        except DurabilityLost:
            return  # this bank is stopping
        except StoreAway as away:  # looked for again in a second
            log.warning("%s: %s", self._bank.code, away)

    async def run(self) -> None:
        """Sweep for ever: what is due, and now and then what may be forgotten."""
        loop = asyncio.get_running_loop()
        collect_at = loop.time() + COLLECT_EVERY * self._bank.rhythm.jitter()
        claim_at = loop.time()
        while True:
            self._wake.clear()
            self._sweep()
            if self._bank.store.shared and loop.time() >= claim_at:
                claim_at = loop.time() + CLAIM_EVERY
                self._bank.tasks.start(self._take_over(), "take over what a replica has left")
            if self._bank.restoring.is_due(loop.time()):
                self._bank.tasks.start(self._bank.restoring.look(), "ask again for what was lost in a restore")
            if loop.time() >= collect_at:
                collect_at = loop.time() + COLLECT_EVERY
                self._bank.tasks.start(self._collect(), "collect what may be forgotten")
            await self._pause()

    async def inquire_now(self, transaction: str) -> None:
        """An operator does not want to wait for the next attempt. What a task drives already is left to it."""
        known = await self._bank.store.get(Transaction, transaction)
        if known is not None:
            self.watch(known, 0)
        due = self._due.get(transaction)
        if due is not None and not due.running:
            self._begin(due)
            await self._take_up(transaction, due)

    async def _restart(self, known: Transaction) -> None:
        """Feed the restart event. What it sends is sent by the sweeps: together, and no more than a peer can take."""
        driven = self._bank.coordinating.drives(known.id)
        if known.state is State.PREPARING and known.incarnation == self._bank.store.incarnation and not driven:
            await self._presume_abort(known)
        else:
            self.watch(known, 0)

    async def _presume_abort(self, known: Transaction) -> None:
        """Nobody drives it and nothing is decided: it is aborted, and everyone is told."""
        self._bank.coordinating.tell_once(await self._bank.coordinating.restart(known.id))

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(SWEEP):
                await self._wake.wait()
        except TimeoutError:
            return

    def _sweep(self) -> None:
        """Start what is due, within the bound."""
        now = asyncio.get_running_loop().time()
        self._backlog = False
        for transaction, due in list(self._due.items()):
            if self._running >= AT_ONCE:
                self._backlog = True
                return
            if due.running or due.at > now:
                continue
            self._begin(due)
            self._bank.tasks.start(self._take_up(transaction, due), f"recover {transaction}")

    def _begin(self, due: _Due) -> None:
        due.running, due.at = True, inf
        self._running += 1

    async def _take_up(self, transaction: str, due: _Due) -> None:
        """One attempt to finish one transaction, which ``_begin`` has counted."""
        finished = False
        try:
            finished = await self._attempt(transaction)
        except (DurabilityLost, StoreAway):
            return  # the bank is stopping, or this is tried again
        finally:
            self._running -= 1
            due.running = False
            due.attempts += 1
            delay = min(FIRST_RETRY * 2 ** min(due.attempts, 10), LAST_RETRY) * self._bank.rhythm.jitter()
            due.at = min(due.at, asyncio.get_running_loop().time() + delay)  # sooner if a peer returned meanwhile
            if self._backlog and self._running < AT_ONCE // 2:
                self._wake.set()
            if finished or self._due.get(transaction) is not due:  # settled meanwhile, by a decision that arrived
                self.settled(transaction)

    async def _attempt(self, transaction: str) -> bool:
        """Ask or tell whoever matters now; whether the transaction is finished here."""
        known = await self._bank.store.get(Transaction, transaction)
        if known is None:
            return True
        if known.state in IN_DOUBT:
            return await self._resolve_doubt(known)
        if known.state is State.COMMITTING:
            return await self._commit_again(known)
        if known.state is State.PREPARING and known.incarnation != self._bank.store.incarnation:
            return await self._ask_after_restore(known)
        if known.state is State.PREPARING:
            await self._presume_abort(known)
        return True

    async def _resolve_doubt(self, known: Transaction) -> bool:
        """Ask the coordinator; if it does not answer, or no longer knows, the other participants."""
        step = await self._bank.participating.restart(known.id)
        for coordinator, inquiry in step.messages:
            outcome = await self._inquire(known.id, coordinator, inquiry)
            if outcome is not None and outcome.fate is not Fate.UNKNOWN:
                return await self._hear(known.id, coordinator, outcome)
            for bank in known.participants:
                if bank != self._bank.code:
                    outcome = await self._inquire(known.id, bank, inquiry)
                    if outcome is not None and await self._hear(known.id, bank, outcome):
                        return True
        return False

    async def _hear(self, transaction: str, bank: str, outcome: Outcome) -> bool:
        after = await self._bank.participating.told(transaction, bank, outcome)
        return after is not None and after.state not in IN_DOUBT

    async def _commit_again(self, known: Transaction) -> bool:
        """Send the commit again to those who have not acknowledged it, for ever; a slow one holds up nobody else."""
        step = await self._bank.coordinating.restart(known.id)
        await asyncio.gather(*(self._tell_again(known.id, bank, message) for bank, message in step.messages))
        after = await self._bank.store.get(Transaction, known.id)
        return after is not None and after.state is State.ENDED

    async def _tell_again(self, transaction: str, bank: str, commit: Message) -> None:
        answer = await self._ask(transaction, bank, commit)
        if answer is not None:
            await self._bank.coordinating.commit_answered(transaction, [(bank, answer)])

    async def _ask_after_restore(self, known: Transaction) -> bool:
        """The votes are lost with the earlier database: one participant that knows the outcome settles it."""
        step = await self._bank.coordinating.restart(known.id)
        for bank, message in step.messages:
            answer = await self._ask(known.id, bank, message)
            if isinstance(answer, Outcome) and answer.fate in (Fate.COMMITTED, Fate.ABORTED):
                await self._bank.coordinating.found(known.id, bank, answer)
                return False  # a commit has yet to be told to everyone; an abort is noticed by the next attempt
        return False

    async def _inquire(self, transaction: str, bank: str, inquiry: Message) -> Outcome | None:
        answer = await self._ask(transaction, bank, inquiry)
        return answer if isinstance(answer, Outcome) else None

    async def _ask(self, transaction: str, bank: str, message: Message) -> Answer | None:
        """One attempt; what came of it is kept for the operator. An offline bank is not asked: it will return."""
        asked = self._bank.reading.asked.setdefault(transaction, {})
        view = self._bank.peers.view(bank)
        if view is None or view.status is PeerStatus.OFFLINE:
            asked[bank] = "offline" if view else "not in the roster"
            return None
        try:
            answer = await self._bank.peers.ask(bank, message)
        except Unreachable as unreachable:
            asked[bank] = unreachable.why
            return None
        asked[bank] = _in_words(answer)
        return answer

    async def _collect(self) -> None:
        """Forget protocol state that no message can still be about, and old keys; a bounded number at a time."""
        now = self._bank.rhythm.wall_ms()
        protocol_before, keys_before = now - self._retention_days * DAY_MS, now - KEY_DAYS * DAY_MS
        with suppress(StoreAway):  # asked again in an hour
            while await self._bank.store.collect(protocol_before, keys_before, COLLECT_AT_ONCE):
                log.info(
                    "%s: forgot up to %d rows that nothing can refer to any more", self._bank.code, COLLECT_AT_ONCE
                )


def _in_words(answer: Answer) -> str:
    if isinstance(answer, Outcome):
        return str(answer.fate)
    return f"refused: {answer.code}" if isinstance(answer, Refused) else type(answer).__name__.lower()
