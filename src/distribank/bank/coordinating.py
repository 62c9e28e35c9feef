"""Transfers ordered at this bank: begin, collect votes, decide, tell everyone.

One task drives one transaction from its first prepare to its last acknowledgement; the request that ordered it only
waits. What the task has not finished when it ends, for a silent participant or a crash, recovery finishes by
feeding the same events.
"""

from __future__ import annotations

import asyncio
import time
from asyncio import Future
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial

from distribank.bank.rhythm import Rhythm, account_locks, transaction_lock
from distribank.bank.tasks import Tasks
from distribank.breakages import Breakage, DurabilityLost, KeyInProgress, KeyReused, OutcomeUnknown, Unreachable
from distribank.core import coordinator
from distribank.core.clock import CLOCK_BOUND_MS
from distribank.core.coordinator import Event, Situation
from distribank.core.holders import Holder
from distribank.core.idempotency import IdempotencyKey, Retry, judge
from distribank.core.ledger import Ledger, position_book
from distribank.core.money import MAX_BALANCE
from distribank.core.protocol import (
    Acknowledged,
    Answer,
    Inquire,
    Message,
    No,
    Outcome,
    Refused,
    State,
    Step,
    Transaction,
    Violation,
    Vote,
    Yes,
)
from distribank.core.refusals import Code, Refusal
from distribank.core.transfer import Direction, Leg, Order, legs_at, net_flow
from distribank.ports import Peers, PeerStatus

ACKNOWLEDGEMENT_WAIT = 1.0
"""Seconds that the holder's answer waits beyond the decision, so that normally *done* means *they have it*."""


@dataclass(frozen=True, slots=True)
class TransferResult:
    """A transfer as it stands when its holder is answered; *replayed* if an earlier request had ordered it."""

    transaction: Transaction
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class KeyName:
    """Whose key, on which route, called what, over which content."""

    owner: str
    route: str
    key: str
    fingerprint: str

    @property
    def lock(self) -> str:
        return f"key:{self.owner}:{self.route}:{self.key}"

    def names(self, subject: str, now_ms: int) -> IdempotencyKey:
        """The row that makes *subject* what this key did."""
        return IdempotencyKey(self.owner, self.route, self.key, self.fingerprint, subject, now_ms)


@dataclass(slots=True)
class Drive:
    """One transaction while its task runs. The votes so far are only here: without a decision they mean nothing."""

    transaction: Transaction
    prepares: tuple[tuple[str, Message], ...]
    deadline: float
    decided: Future[None]
    finished: Future[None]
    inbox: asyncio.Queue[tuple[str, Future[Answer]]] = field(default_factory=asyncio.Queue)


class Coordinating:
    """The coordinator's side of one bank."""

    def __init__(
        self, rhythm: Rhythm, peers: Peers, tasks: Tasks, *, vote_deadline: float, position_cap: int | None
    ) -> None:
        self._rhythm = rhythm
        self._store = rhythm.store
        self._peers = peers
        self._tasks = tasks
        self._vote_deadline = vote_deadline
        self._cap = position_cap
        self._live: dict[str, Drive] = {}
        self.hand_over: Callable[[Transaction], None] = lambda _transaction: None
        """Called with what a drive leaves unfinished; set by recovery."""

    def drives(self, transaction: str) -> bool:
        """Whether a live task drives this transaction: recovery then leaves it alone."""
        return transaction in self._live

    # A holder orders

    async def order(
        self, holder: Holder, legs: tuple[Leg, ...], description: str | None, key: KeyName, wait: float
    ) -> TransferResult:
        """Order a transfer and wait for its end, at most *wait* seconds (and a second more once it is committed).

        The legs have passed ``check_legs``. Raises ``KeyReused`` and ``KeyInProgress``. Cancelled, the transfer goes
        on. What is returned survives a crash: decided, or begun and durably found again under its key.
        """
        known, drive, replayed = await self._begin(holder, legs, description, key)
        if drive is not None and await self._answerable(drive, wait):
            return TransferResult(drive.transaction)
        if known.state is State.PREPARING:
            await self._promise_to_find(known, key)
        return TransferResult(await self._durable(known.id), replayed)

    async def order_and_finish(
        self, holder: Holder, legs: tuple[Leg, ...], description: str | None, key: KeyName
    ) -> Transaction:
        """The same for an item of a batch: returns once it is decided and acknowledged, or handed to recovery."""
        known, drive, _ = await self._begin(holder, legs, description, key)
        if drive is None:
            return await self._durable(known.id)
        await asyncio.shield(drive.finished)
        return drive.transaction

    async def _durable(self, transaction: str) -> Transaction:
        """The transaction as it is now, once that is durable: nobody hears of it earlier."""
        known = await self._store.get(Transaction, transaction)
        assert known is not None, f"{transaction} is not in the store"
        await self._store.flushed()
        return known

    async def _begin(
        self, holder: Holder, legs: tuple[Leg, ...], description: str | None, key: KeyName
    ) -> tuple[Transaction, Drive | None, bool]:
        """Find what the key did before, or begin; check, hold and the record of it are one moment."""
        own = legs_at(self._rhythm.code, legs)
        accounts = dict.fromkeys(leg.account for leg in own)
        names = [key.lock, *account_locks(accounts), *self._position_locks(legs)]
        async with self._rhythm.exclusive(names):
            earlier = await self._earlier(key)
            if earlier is not None:
                return earlier, None, True
            ledger = await self._rhythm.ledger(accounts)
            order = Order(
                self._rhythm.end_to_end_id(), holder.cpf, holder.holder_id, description, self._rhythm.wall_ms(), legs
            )
            flows = {bank: net_flow(legs_at(bank, legs)) for bank in {leg.bank for leg in legs} - {self._rhythm.code}}
            positions = await self._rhythm.positions(flows)
            now = self._rhythm.now()
            step = coordinator.begin(
                self._rhythm.transaction_id(),
                order,
                ledger,
                positions,
                now,
                now.wall_ms + round(self._vote_deadline * 1000) + CLOCK_BOUND_MS,
                cap=MAX_BALANCE if self._cap is None else self._cap,
                refusal=self._refuse_at_once(holder, legs, ledger),
            )
            known = step.transaction
            assert known is not None
            begun = known.state is State.PREPARING
            self._rhythm.persist(step, key.names(known.id, now.wall_ms), lazy=begun)
            drive = self._start(known, step) if begun else None
        if not begun:
            self._count(known)
        return known, drive, False

    async def _earlier(self, key: KeyName) -> Transaction | None:
        """The transaction that this key stands for, if its client may hear of it now."""
        named = await self._store.get(IdempotencyKey, key.owner, key.route, key.key)
        if named is None:
            return None
        known = await self._store.get(Transaction, named.subject)
        verdict = judge(named, key.fingerprint, known.because if known else None)
        if verdict is Retry.CONFLICT:
            raise KeyReused("this idempotency key was used before, with other content; use a new one")
        if verdict is Retry.NEW:
            return None
        assert known is not None, f"key names {named.subject}, which is not in the store"
        if known.id in self._live and not named.answered and not self._live[known.id].decided.done():
            raise KeyInProgress(known.id)
        return known

    def _refuse_at_once(self, holder: Holder, legs: tuple[Leg, ...], ledger: Ledger) -> Refusal | None:
        """What needs no other bank's word: unknown banks, others' accounts, missing approvals, banks that are away."""
        for leg in legs:
            if leg.bank != self._rhythm.code and self._peers.view(leg.bank) is None:
                return Refusal(Code.UNKNOWN_BANK, "no such bank in this network", leg.bank, leg.account, leg.number)
        for leg in legs:
            account = ledger.accounts.get(leg.account) if leg.bank == self._rhythm.code else None
            if account is None or leg.direction is Direction.CREDIT:
                continue
            if not account.is_held_by(holder.cpf):
                return Refusal(Code.NOT_A_HOLDER, "you do not hold this account", leg.bank, leg.account, leg.number)
            if account.approval > 1:
                detail = f"a debit of this account needs the approval of {account.approval} holders"
                return Refusal(Code.APPROVAL_REQUIRED, detail, leg.bank, leg.account, leg.number)
        return self._refuse_absent_banks(legs)

    def _refuse_absent_banks(self, legs: tuple[Leg, ...]) -> Refusal | None:
        for bank in dict.fromkeys(leg.bank for leg in legs):
            view = self._peers.view(bank)
            if view is not None and view.status is PeerStatus.OFFLINE:
                return Refusal(
                    Code.BANK_UNREACHABLE, f"{bank} is offline; nothing moved, try again later with a new key", bank
                )
        return None

    def _position_locks(self, legs: Iterable[Leg]) -> list[str]:
        """Where there is a cap, the positions with the banks concerned are locked like accounts."""
        if self._cap is None:
            return []
        return [f"book:{position_book(leg.bank)}" for leg in legs if leg.bank != self._rhythm.code]

    async def _answerable(self, drive: Drive, wait: float) -> bool:
        """Wait for the decision, and a little for the acknowledgements; whether there is a decision."""
        await asyncio.wait([drive.decided], timeout=wait)
        if not drive.decided.done():
            return False
        drive.decided.result()
        await asyncio.wait([drive.finished], timeout=ACKNOWLEDGEMENT_WAIT)
        return True

    async def _promise_to_find(self, known: Transaction, key: KeyName) -> None:
        """A 202 is a promise: once this is durable the key finds this transfer, crash or not."""
        async with self._rhythm.exclusive([key.lock]):
            named = await self._store.get(IdempotencyKey, key.owner, key.route, key.key)
            if named is not None and named.subject == known.id and not named.answered:
                self._rhythm.write([replace(named, answered=True)])

    # One transaction is driven

    def _start(self, known: Transaction, step: Step) -> Drive:
        loop = asyncio.get_running_loop()
        drive = Drive(
            known, step.messages, loop.time() + self._vote_deadline, loop.create_future(), loop.create_future()
        )
        self._live[known.id] = drive
        self._tasks.start(self._run(drive), f"drive {known.id}")
        return drive

    async def _run(self, drive: Drive) -> None:
        """Drive one transaction to its end, or as far as its peers let it."""
        try:
            step = await self._collect_votes(drive)
            await self._announce(drive, step)
        except DurabilityLost as lost:
            # The bank is stopping: what the log holds decides. Whoever waits must not be told anything else.
            _fail(drive, lost)
        finally:
            _fail(drive, OutcomeUnknown(drive.transaction.id))
            del self._live[drive.transaction.id]
            if drive.transaction.state in (State.COMMITTING, State.PREPARING):
                self.hand_over(drive.transaction)

    async def _collect_votes(self, drive: Drive) -> Step:
        """Ask every participant and feed what they answer to the machine until it decides."""
        started = time.perf_counter()
        for bank, message in drive.prepares:
            answer = self._peers.ask(bank, message, drive.deadline)
            answer.add_done_callback(partial(_deliver, drive.inbox, bank))
        while True:
            try:
                async with asyncio.timeout_at(drive.deadline):
                    bank, answer = await drive.inbox.get()
                vote = _as_vote(bank, answer)
            except TimeoutError:
                vote = None
            if vote is None:
                step = await self._feed(drive, Event.DEADLINE, None)
            else:
                step = await self._feed(drive, Event.YES if isinstance(vote.answer, Yes) else Event.NO, vote)
            if drive.transaction.state is not State.PREPARING:
                self._rhythm.metrics.phase.labels("vote").observe(time.perf_counter() - started)
                return step

    async def _feed(self, drive: Drive, event: Event, vote: Vote | None) -> Step:
        """One vote, or the deadline, meets the machine. A decision is durable when this returns."""
        known = drive.transaction
        order = known.order
        assert order is not None
        accounts = [leg.account for leg in legs_at(self._rhythm.code, order.legs)]
        async with self._rhythm.exclusive([transaction_lock(known.id), *account_locks(accounts)]):
            ledger = await self._rhythm.ledger(accounts, known.id)
            state = coordinator.state_of(known, known.id, self._store.incarnation)
            step = coordinator.step(state, event, Situation(known, self._rhythm.now(), ledger, vote))
            assert step.transaction is not None
            if step.transaction.commit_at is not None:
                self._rhythm.merge_commit(step.transaction.commit_at)
            self._rhythm.persist(step)
            drive.transaction = step.transaction
        if step.transaction.state is not State.PREPARING:
            await self._store.flushed()
            self._count(step.transaction)
        return step

    async def _announce(self, drive: Drive, step: Step) -> None:
        """Say what is now true: to the holder who waits, and to the participants."""
        drive.decided.set_result(None)
        answers = {bank: self._peers.ask(bank, message) for bank, message in step.messages}
        if drive.transaction.state is not State.COMMITTING:
            drive.finished.set_result(None)
        started = time.perf_counter()
        for bank, answer in answers.items():
            drive.transaction = await self._hear_answer(drive.transaction, bank, answer)
        if not drive.finished.done():
            drive.finished.set_result(None)
        if drive.transaction.commit_at is not None:
            self._rhythm.metrics.phase.labels("acknowledge").observe(time.perf_counter() - started)

    async def _hear_answer(self, known: Transaction, bank: str, answer: Future[Answer]) -> Transaction:
        """The transaction after *bank* has answered its commit or abort, or has not."""
        try:
            said = await answer
        except Unreachable:
            return known
        return await self.commit_answered(known.id, bank, said) if known.state is State.COMMITTING else known

    # Events that recovery feeds, too

    async def commit_answered(self, transaction: str, bank: str, answer: Answer) -> Transaction:
        """*bank* answered a commit: an acknowledgement is noted (lazily: at worst the commit is sent again)."""
        event = None
        if isinstance(answer, Acknowledged):
            event = Event.ACKNOWLEDGE
        elif isinstance(answer, Refused) and answer.code is Violation.UNKNOWN_TRANSACTION:
            event = Event.MISSING
        async with self._rhythm.exclusive([transaction_lock(transaction)]):
            known = await self._store.get(Transaction, transaction)
            assert known is not None, f"{transaction} was committed and is not in the store"
            if event is None:
                self._rhythm.alarm(f"{bank} answered a commit with {answer}", transaction)
                return known
            state = coordinator.state_of(known, transaction, self._store.incarnation)
            step = coordinator.step(state, event, Situation(known, self._rhythm.now(), bank=bank))
            self._rhythm.persist(step, lazy=True)
            assert step.transaction is not None
            return step.transaction

    async def restart(self, transaction: str) -> Step:
        """Feed the restart event to what the log says is unfinished; what it sends is the caller's to send."""
        return await self._feed_stored(transaction, Event.RESTART, "", 0)

    async def found(self, transaction: str, bank: str, outcome: Outcome) -> Step:
        """*bank* told the outcome of a transaction whose votes were lost with an earlier database."""
        event = Event.FOUND_COMMITTED if outcome.at is not None else Event.FOUND_ABORTED
        return await self._feed_stored(transaction, event, bank, outcome.at or 0)

    async def _feed_stored(self, transaction: str, event: Event, bank: str, at: int) -> Step:
        known = await self._store.get(Transaction, transaction)
        assert known is not None, f"{transaction} is not in the store"
        assert known.order is not None, f"{transaction} is a tombstone"
        accounts = [leg.account for leg in legs_at(self._rhythm.code, known.order.legs)]
        async with self._rhythm.exclusive([transaction_lock(transaction), *account_locks(accounts)]):
            known = await self._store.get(Transaction, transaction)
            ledger = await self._rhythm.ledger(accounts, transaction)
            state = coordinator.state_of(known, transaction, self._store.incarnation)
            step = coordinator.step(state, event, Situation(known, self._rhythm.now(), ledger, bank=bank, at=at))
            if step.transaction is not None and step.transaction.commit_at is not None:
                self._rhythm.merge_commit(step.transaction.commit_at)
            self._rhythm.persist(step)
        await self._store.flushed()  # what this sends may rest on a decision that is still being forced
        return step

    async def inquired(self, sender: str, inquiry: Inquire) -> Answer:
        """A participant in doubt asks for the outcome; while a decision is being forced it is still undecided."""
        async with self._rhythm.exclusive([transaction_lock(inquiry.transaction)]):
            known = await self._store.get(Transaction, inquiry.transaction)
            if known is not None and sender not in known.participants:
                return Refused(Violation.NOT_YOUR_TRANSACTION, "only its participants may ask for this outcome")
            durable = self._store.is_durable(inquiry.transaction)
            state = coordinator.state_of(known, inquiry.transaction, self._store.incarnation, durable=durable)
            step = coordinator.step(state, Event.INQUIRE, Situation(known, self._rhythm.now(), bank=sender))
        assert step.answer is not None, f"an inquiry met {state}"
        return step.answer

    def _count(self, known: Transaction) -> None:
        outcome = "aborted" if known.state is State.ABORTED else "committed"
        self._rhythm.metrics.transfers.labels(outcome).inc()


def _deliver(inbox: asyncio.Queue[tuple[str, Future[Answer]]], bank: str, answer: Future[Answer]) -> None:
    """Put an answer where the drive waits. Retrieving a failure here keeps a late one from being reported as lost."""
    if not answer.cancelled():
        answer.exception()
    inbox.put_nowait((bank, answer))


def _as_vote(bank: str, answer: Future[Answer]) -> Vote | None:
    """What *bank* voted; ``None`` if it did not answer in time. What is no vote counts as a no."""
    try:
        said = answer.result()
    except Unreachable:
        return None
    except Breakage as breakage:
        return Vote(bank, No(Refusal(Code.BANK_REFUSED, str(breakage), bank)))
    if isinstance(said, Yes | No):
        return Vote(bank, said)
    detail = said.detail if isinstance(said, Refused) else "the answer to a prepare was no vote"
    return Vote(bank, No(Refusal(Code.BANK_REFUSED, detail, bank)))


def _fail(drive: Drive, breakage: Breakage) -> None:
    """Whoever still waits for this drive hears that its end is not known."""
    for future in (drive.decided, drive.finished):
        if not future.done():
            future.set_exception(breakage)
            future.exception()
