"""The transactions that this bank coordinates: collect votes, decide, tell everyone.

One task drives one transaction from its first prepare to its last acknowledgement; whoever ordered it only waits. What
the task has not finished when it ends, for a silent participant or a crash, recovery finishes by
feeding the same events.
"""

from __future__ import annotations

import asyncio
import time
from asyncio import Future
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from distribank.bank.rhythm import Rhythm, account_locks, transaction_lock
from distribank.bank.tasks import Tasks
from distribank.breakages import Breakage, DurabilityLost, OutcomeUnknown, Unreachable
from distribank.core import coordinator
from distribank.core.coordinator import Event, Situation
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
from distribank.core.transfer import legs_at
from distribank.ports import Peers


@dataclass(slots=True)
class Drive:
    """One transaction while its task runs. The votes so far are only here: without a decision they mean nothing."""

    transaction: Transaction
    prepares: tuple[tuple[str, Message], ...]
    deadline: float
    decided: Future[None]
    finished: Future[None]


class Coordinating:
    """The coordinator's side of one bank."""

    def __init__(self, rhythm: Rhythm, peers: Peers, tasks: Tasks, *, vote_deadline: float) -> None:
        self._rhythm = rhythm
        self._store = rhythm.store
        self._peers = peers
        self._tasks = tasks
        self._vote_deadline = vote_deadline
        self._live: dict[str, Drive] = {}
        self.hand_over: Callable[[Transaction], None] = lambda _transaction: None
        """Called with what a drive leaves unfinished; set by recovery."""

    def drives(self, transaction: str) -> bool:
        """Whether a live task drives this transaction: recovery then leaves it alone."""
        return transaction in self._live

    @property
    def under_way(self) -> int:
        """How many transactions are being driven."""
        return len(self._live)

    def live(self, transaction: str) -> Drive | None:
        """The drive of this transaction, if there is one."""
        return self._live.get(transaction)

    # One transaction is driven

    def drive(self, known: Transaction, step: Step) -> Drive:
        """Drive what has just begun with *step*, queued and not yet said; called in the moment of deciding."""
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
        inbox: asyncio.Queue[tuple[str, Future[Answer] | None]] = asyncio.Queue()
        for bank, message in drive.prepares:
            answer = self._peers.ask(bank, message, drive.deadline)
            answer.add_done_callback(partial(_deliver, inbox, bank))
        deadline = asyncio.get_running_loop().call_at(drive.deadline, inbox.put_nowait, ("", None))
        try:
            while True:
                bank, said = await inbox.get()
                vote = _as_vote(bank, said)
                if vote is None:
                    step = await self._feed(drive, Event.DEADLINE, None, bank)
                else:
                    step = await self._feed(drive, Event.YES if isinstance(vote.answer, Yes) else Event.NO, vote)
                if drive.transaction.state is not State.PREPARING:
                    self._rhythm.metrics.voted.observe(time.perf_counter() - started)
                    return step
        finally:
            deadline.cancel()

    async def _feed(self, drive: Drive, event: Event, vote: Vote | None, bank: str = "") -> Step:
        """One vote, or the deadline (of *bank* alone, if named), meets the machine; a decision is durable after it."""
        known = drive.transaction
        order = known.order
        assert order is not None
        accounts = [leg.account for leg in legs_at(self._rhythm.code, order.legs)]
        async with self._rhythm.exclusive([transaction_lock(known.id), *account_locks(accounts)]):
            ledger = await self._rhythm.ledger(accounts, known.id)
            state = coordinator.state_of(known, known.id, self._store.incarnation)
            step = coordinator.step(state, event, Situation(known, self._rhythm.now(), ledger, vote, bank))
            assert step.transaction is not None
            if step.transaction.commit_at is not None:
                self._rhythm.merge_commit(step.transaction.commit_at)
            self._rhythm.persist(step)
            drive.transaction = step.transaction
        if step.transaction.state is not State.PREPARING:
            await self._store.flushed()
            self.count(step.transaction)
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
            self._rhythm.metrics.acknowledged.observe(time.perf_counter() - started)

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
        if step.records and step.transaction is not None:
            self.count(step.transaction)
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

    def count(self, known: Transaction) -> None:
        """Count a transfer that has its outcome."""
        metrics = self._rhythm.metrics
        (metrics.aborted if known.state is State.ABORTED else metrics.committed).inc()


def _deliver(inbox: asyncio.Queue[tuple[str, Future[Answer] | None]], bank: str, answer: Future[Answer]) -> None:
    """Put an answer where the drive waits. Retrieving a failure here keeps a late one from being reported as lost."""
    if not answer.cancelled():
        answer.exception()
    inbox.put_nowait((bank, answer))


def _as_vote(bank: str, answer: Future[Answer] | None) -> Vote | None:
    """What *bank* voted; ``None`` if it, or anybody, did not answer in time. What is no vote counts as a no."""
    if answer is None:
        return None
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
