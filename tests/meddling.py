"""Operators who force parts in doubt at any moment, and what must be true of every guess once all is calm.

They belong to a campaign (``tests.test_campaign``): whatever is in doubt may be forced, by two at once, while commits
are on their way, in the middle of a flush, just before a crash. Now and then someone spends at once what a guess has
given them, or closes the account.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from distribank.bank.rhythm import Rhythm
from distribank.breakages import Breakage
from distribank.core import participant
from distribank.core.heuristics import Heuristic, Verdict, correction_of
from distribank.core.ledger import SUSPENSE, Account, BookEntry, Entry, EntryKind, net_per_account, position_book
from distribank.core.participant import Event, Situation
from distribank.core.protocol import FORCED, Commit, Fate, Inquire, Message, Outcome, Record, State, Step, Transaction
from distribank.core.story import tell
from distribank.core.transfer import Direction, net_flow
from tests.world import Running, World

VERDICTS = {State.FORCED_COMMIT: Verdict.COMMIT, State.FORCED_ABORT: Verdict.ABORT}
TRUTHS = {State.COMMITTED: Verdict.COMMIT, State.ABORTED: Verdict.ABORT}
HEARD = {
    Event.COMMIT: "the truth came as a commit",
    Event.ABORT: "the truth came as an abort",
    Event.TOLD_COMMITTED: "the truth came by inquiry",
    Event.TOLD_ABORTED: "the truth came by inquiry",
}
SITUATIONS = {
    *HEARD.values(),
    *(f"forced {verdict}, truth {truth}" for verdict in Verdict for truth in Verdict),
    "the truth came after a restart",
    "forced, then crashed",
    "forced during a flush",
    "forced with the commit on its way",
    "forced twice",
    "too late to force",
    "forced for longer than the retention",
    "asked while forced",
    "suspense owes",
    "suspense is owed",
    "closed behind a guess",
}
"""What a campaign has to meet to have tried anything."""


@dataclass
class Operators:
    """The operators of all banks. *zeal* is how often they force something; *seen* counts what they met."""

    net: World
    chance: random.Random
    seen: Counter[str]
    zeal: float
    on_the_way: Counter[tuple[str, str]] = field(default_factory=Counter)
    survivors: set[tuple[str, str]] = field(default_factory=set)

    async def force_something(self) -> set[tuple[str, str]]:
        """Force one part, if any is in doubt; the accounts (bank, number) that a guess has just changed."""
        running = self.net.banks[self.chance.choice(list(self.net.banks))]
        if not running.bank.ready:
            return set()
        known = await self._some_doubt(running)
        if known is None:
            return set()
        verdicts = self.chance.choices(list(Verdict), k=self.chance.choice([1, 1, 1, 2]))
        made = await asyncio.gather(*(self._force(running, known, verdict) for verdict in verdicts))
        if not any(made):
            return set()
        assert sum(made) == 1, f"{known.id} was forced twice"
        self.seen["forced twice"] += len(made) - 1
        await self._ask(running, known)
        assert known.order is not None
        return {(running.bank.code, leg.account) for leg in known.order.legs}

    async def _some_doubt(self, running: Running) -> Transaction | None:
        """Anything that this bank has voted on and, as far as it knows, that is open."""
        rows = [row.id for row in self.net.stores[running.bank.code].disk.rows[Transaction].values()]
        live = [identity for other in self.net.banks.values() for identity in other.bank.coordinating._live]
        try:
            found = [await running.bank.rhythm.store.get(Transaction, identity) for identity in (*rows, *live)]
        except Breakage:
            return None
        open_ = [row for row in found if row is not None and row.state in (State.PREPARED, *FORCED)]
        return self.chance.choice(open_) if open_ else None

    async def _force(self, running: Running, known: Transaction, verdict: Verdict) -> bool:
        code, store = running.bank.code, running.bank.rhythm.store
        flushing = store._flushing is not None  # type: ignore[attr-defined]
        on_its_way = self.on_the_way[code, known.id] > 0
        try:
            done = await running.bank.participating.force(known.id, verdict, "nobody answers the telephone")
        except Breakage:
            return False
        if not isinstance(done, Heuristic):
            self.seen["too late to force"] += 1
            return False
        self.seen["forced during a flush"] += flushing
        self.seen["forced with the commit on its way"] += on_its_way
        return True

    async def _ask(self, running: Running, known: Transaction) -> None:
        """A fellow bank asks at once: it is not told the guess."""
        asker = self.chance.choice([bank for bank in known.banks if bank != running.bank.code])
        try:
            (answer,) = await running.bank.participating.receive(asker, 0, [Inquire(known.id, known.vote_by)])
            guess = await running.bank.rhythm.store.get(Heuristic, known.id)
        except Breakage:
            return
        assert guess is not None
        if guess.truth is None:
            assert answer == Outcome(Fate.UNDECIDED), f"a guess was told as {answer}"
            self.seen["asked while forced"] += 1

    async def trace_something(self) -> None:
        """Someone looks where their money is; a trace tells it, whatever is broken."""
        running = self.net.banks[self.chance.choice(list(self.net.banks))]
        rows = list(self.net.stores[running.bank.code].disk.rows[Transaction].values())
        if not rows or not running.bank.ready:
            return
        known = self.chance.choice(rows)
        try:
            found = await running.bank.following.trace(known)
        except Breakage:
            return
        assert set(found.replies) == {running.bank.code, *known.banks}
        lines = tell(found.logs, known.participants, frank=True)
        assert not any("telephone" in line.record.detail for line in lines), "a reason has left its bank"

    @contextmanager
    def delaying(self, to: str, message: Message) -> Iterator[None]:
        """While this lasts, *message* is on its way to bank *to*."""
        key = (to, message.transaction) if isinstance(message, Commit) else ("", "")
        self.on_the_way[key] += 1
        try:
            yield
        finally:
            self.on_the_way[key] -= 1

    def crashing(self, code: str) -> None:
        """This bank is about to be killed: what is forced there has to be forced when it is back."""
        forced = {(code, row.id) for row in self._forced_at(code)}
        self.seen["forced, then crashed"] += len(forced)
        self.survivors |= forced

    def _forced_at(self, code: str) -> list[Transaction]:
        return [row for row in self.net.stores[code].disk.rows[Transaction].values() if row.state in FORCED]

    async def tidy_up(self) -> None:
        """A week passes at once, and every bank forgets what it may forget: nothing that is forced."""
        for running in list(self.net.banks.values()):
            before = {row.id for row in self._forced_at(running.bank.code)}
            if running.bank.ready:
                try:
                    await running.recovery._collect()
                except Breakage:
                    continue
            disk = self.net.stores[running.bank.code].disk
            logged = {record.transaction for record in disk.rows[Record].values()}
            still = before & {row.id for row in self._forced_at(running.bank.code)}
            assert still <= logged, "the records of a part that is forced were collected"
            self.seen["forced for longer than the retention"] += len(still)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note how each truth arrives, and look at what the correction leaves; only operators raise alarms."""

        def spy(event: Event, situation: Situation) -> Step:
            step = really(event, situation)
            before = situation.transaction
            if before is not None and before.state in FORCED and step.transaction is not None:
                if step.transaction.state in TRUTHS:
                    self._learnt(event, situation, step)
                else:
                    assert step.changes == (), "what is forced stays as it is until the truth is known"
            return step

        def hear(rhythm: Rhythm, what: str, transaction: str) -> None:
            assert "by the operator" in what, f"a breach of the protocol, where there are only honest banks: {what}"
            alarm(rhythm, what, transaction)

        really, alarm = participant.step, Rhythm.alarm
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(participant, "step", spy)
            patch.setattr(Rhythm, "alarm", hear)
            yield

    def _learnt(self, event: Event, situation: Situation, step: Step) -> None:
        self.seen[HEARD[event]] += 1
        if event in (Event.TOLD_COMMITTED, Event.TOLD_ABORTED):
            self.seen["the truth came after a restart"] += (situation.bank, situation.identity) in self.survivors
        (told,) = [row for row in step.changes if isinstance(row, Heuristic)]
        accounts = {row.number: row for row in step.changes if isinstance(row, Account)}
        for damage in told.damage.accounts if told.damage else ():
            account = accounts.get(damage.account) or situation.ledger.accounts[damage.account]
            if damage.to_suspense and account.closed_at is None:
                assert damage.direction is Direction.DEBIT
                assert account.available == 0, f"{damage} was not taken from {account}"
            self.seen["closed behind a guess"] += damage.to_suspense > 0 and account.closed_at is not None

    # The end ------------------------------------------------------------------------------------------------------

    def check(self, outcome: dict[str, str]) -> None:
        """Every guess knows its truth, and the books at its bank say that truth, less what is in suspense."""
        for _, to, message, answer in self.net.answered:
            if isinstance(message, Inquire) and isinstance(answer, Outcome) and answer.fate in tuple(Fate)[:2]:
                truth = outcome.get(message.transaction, Fate.ABORTED)  # of what nobody knows any more
                assert answer.fate == truth, f"{to} told {answer} about {message.transaction}"
        for code, store in self.net.stores.items():
            rows = store.disk.rows
            guesses = list(rows[Heuristic].values())
            for guess in guesses:
                truth = Verdict.COMMIT if outcome[guess.transaction] == "committed" else Verdict.ABORT
                assert (guess.truth, guess.matched) == (truth, guess.decision is truth)
                self.seen[f"forced {guess.decision}, truth {truth}"] += 1
                self._check_entries(code, guess, rows[Transaction][guess.transaction])
            corrected = {entry.operation for entry in rows[Entry].values() if entry.kind is EntryKind.CORRECTION}
            wrong = {correction_of(guess.transaction) for guess in guesses if not guess.matched}
            assert corrected <= wrong, "corrected without a wrong guess"
            suspense = [posting for posting in rows[BookEntry].values() if posting.book == SUSPENSE]
            assert {posting.operation for posting in suspense} <= wrong
            assert sum(posting.amount for posting in suspense) == suspense_of(guesses)

    def _check_entries(self, code: str, guess: Heuristic, known: Transaction) -> None:
        """What the forced operation and its correction have posted, added up, against truth and damage."""
        assert known.order is not None
        rows, correction = self.net.stores[code].disk.rows, correction_of(known.id)
        sums: dict[str, Counter[str]] = {known.id: Counter(), correction: Counter()}
        for entry in rows[Entry].values():
            if entry.operation in sums:
                signed = entry.amount if entry.direction is Direction.CREDIT else -entry.amount
                sums[entry.operation][entry.account] += signed
        books: dict[str, Counter[str]] = {known.id: Counter(), correction: Counter()}
        for posting in rows[BookEntry].values():
            if posting.operation in books:
                books[posting.operation][posting.book] += posting.amount
        nets = Counter(net_per_account(known.order.legs))
        flow = Counter({position_book(known.coordinator): -net_flow(known.order.legs)})
        forced = guess.decision is Verdict.COMMIT
        assert _same(sums[known.id], nets if forced else Counter()), f"{known.id} posted {sums}"
        assert _same(books[known.id], flow if forced else Counter())
        if guess.matched:
            assert guess.damage is None
            assert not sums[correction]
            assert not books[correction]
            return
        damage, sign = guess.damage, -1 if forced else 1
        assert damage is not None
        wanted = {row.account: row.wanted * _sign(row.direction) for row in damage.accounts}
        done = Counter({row.account: row.corrected * _sign(row.direction) for row in damage.accounts})
        assert all(0 <= row.corrected <= row.wanted for row in damage.accounts)
        assert _same(Counter(wanted), Counter({number: net * sign for number, net in nets.items()}))
        assert _same(sums[correction], done), f"{damage} is not what was posted: {sums[correction]}"
        assert damage.position == flow[position_book(known.coordinator)] * sign
        assert _same(
            books[correction], Counter({position_book(damage.bank): damage.position, SUSPENSE: damage.suspense})
        )
        assert damage.suspense == sum(row.to_suspense * _sign(row.direction) for row in damage.accounts)
        assert sum(sums[correction].values()) + sum(books[correction].values()) == 0
        self.seen["suspense owes"] += damage.suspense > 0
        self.seen["suspense is owed"] += damage.suspense < 0


def suspense_of(guesses: list[Heuristic]) -> int:
    return sum(guess.damage.suspense for guess in guesses if guess.damage)


def _sign(direction: Direction) -> int:
    return 1 if direction is Direction.CREDIT else -1


def _same(one: Counter[str], other: Counter[str]) -> bool:
    """The same amounts, where an amount of nothing may be missing."""
    return {name: n for name, n in one.items() if n} == {name: n for name, n in other.items() if n}
