"""The transactions that this bank coordinates: collect votes, decide, tell everyone.

One task drives one transaction from its first prepare to its last acknowledgement; whoever ordered it only waits. What
the task has not finished when it ends, for a silent participant or a crash, recovery finishes by
feeding the same events.
"""

from __future__ import annotations

import asyncio
import logging
import time
from asyncio import Future
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from distribank.bank.rhythm import Moment, Rhythm, transaction_lock
from distribank.bank.tasks import Tasks
from distribank.breakages import Breakage, DurabilityLost, OutcomeUnknown, StoreAway, Unreachable
from distribank.core import coordinator
from distribank.core.coordinator import Event, Situation
from distribank.core.protocol import (
    Acknowledged,
    Answer,
    Inquire,
    Message,
    No,
    Outcome,
    Record,
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

log = logging.getLogger("distribank.bank")

ACKNOWLEDGEMENT_WAIT: Final = 1.0
"""Seconds that the holder's answer waits beyond the decision, so that normally *done* means *they have it*."""

Heard = tuple[str, Future[Answer]]
"""A bank, and its answer or that there is none."""


@dataclass(slots=True, eq=False)
class Drive:
    """One transaction while its task runs. The votes so far are only here: without a decision they mean nothing.

    *decided* is done with its decision, *answerable* once its holder is to be answered, *finished* with its end.
    """

    transaction: Transaction
    prepares: tuple[tuple[str, Message], ...]
    deadline: float
    decided: Future[None]
    answerable: Future[None]
    finished: Future[None]
    heard: list[Heard] = field(default_factory=list)
    """What has been answered and not been looked at yet."""
    ripe: Future[None] | None = None
    """Where the task waits for more of it."""
    overdue: bool = False
    """Whether the holder has waited long enough for acknowledgements."""

    def hear(self, bank: str, answer: Future[Answer]) -> None:
        """*bank* has answered what it was asked last. Retrieving a failure keeps a late one from being reported."""
        if not answer.cancelled():
            answer.exception()
        self.heard.append((bank, answer))
        self.wake()

    def wake(self) -> None:
        """Let the task look at what has been heard, and at the time."""
        if self.ripe is not None and not self.ripe.done():
            self.ripe.set_result(None)


class Patience:
    """Waits of many drives that are equally long, on one timer: they run out in the order in which they began."""

    def __init__(self, seconds: float, run_out: Callable[[Drive], None]) -> None:
        self._seconds = seconds
        self._run_out = run_out
        self._waiting: dict[Drive, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, drive: Drive, now: float) -> None:
        """From *now*, in the loop's time, *drive* is waited for."""
        until = self._waiting[drive] = now + self._seconds
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(until, self._ring)

    def end(self, drive: Drive) -> None:
        """*drive* need not be waited for any more."""
        self._waiting.pop(drive, None)

    def _ring(self) -> None:
        loop = asyncio.get_running_loop()
        while (drive := next(iter(self._waiting), None)) is not None and self._waiting[drive] <= loop.time():
            del self._waiting[drive]
            self._run_out(drive)
        self._timer = None if drive is None else loop.call_at(self._waiting[drive], self._ring)


class Coordinating:
    """The coordinator's side of one bank."""

    def __init__(self, rhythm: Rhythm, peers: Peers, tasks: Tasks, *, vote_deadline: float) -> None:
        self._rhythm = rhythm
        self._store = rhythm.store
        self._peers = peers
        self._tasks = tasks
        self._vote_deadline = vote_deadline
        self._live: dict[str, Drive] = {}
        self._voting = Patience(vote_deadline, Drive.wake)
        self._acknowledging = Patience(ACKNOWLEDGEMENT_WAIT, _answer_now)
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

    def drive(self, known: Transaction) -> Drive:
        """Drive what has just begun and has not been said to anyone yet."""
        loop = asyncio.get_running_loop()
        now, future = loop.time(), loop.create_future
        prepares = tuple([(bank, coordinator.prepare_for(known, bank)) for bank in known.participants])
        drive = Drive(known, prepares, now + self._vote_deadline, future(), future(), future())
        self._live[known.id] = drive
        self._voting.begin(drive, now)
        if self._rhythm.traces is not None:
            self._rhythm.traces.driven(known.id, drive.finished)
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
        except StoreAway:
            log.warning(
                "%s: %s is left to recovery: the database is out of reach", self._rhythm.code, drive.transaction.id
            )
        finally:
            _fail(drive, OutcomeUnknown(drive.transaction.id))
            self._voting.end(drive)
            self._acknowledging.end(drive)
            del self._live[drive.transaction.id]
            if drive.transaction.state in (State.COMMITTING, State.PREPARING):
                self.hand_over(drive.transaction)

    async def _collect_votes(self, drive: Drive) -> Step:
        """Ask every participant; once all have said yes, or one has not, let the machine decide.

        A yes before the last decides nothing: over eight banks this makes one moment of deciding instead of seven.
        """
        started = time.perf_counter()
        for bank, message in drive.prepares:
            self._peers.ask(bank, message, drive.deadline).add_done_callback(partial(drive.hear, bank))
        heard: list[tuple[Event, Vote | None, str]] = []
        while True:
            for bank, answer in await _heard_by(drive):
                vote = _as_vote(bank, answer)
                if vote is None:
                    heard.append((Event.DEADLINE, None, bank))
                else:
                    self._rhythm.metrics.voted[bank].observe(time.perf_counter() - started)
                    heard.append((Event.YES if isinstance(vote.answer, Yes) else Event.NO, vote, bank))
            if asyncio.get_running_loop().time() >= drive.deadline and len(heard) < len(drive.prepares):
                heard.append((Event.DEADLINE, None, ""))
            if len(heard) >= len(drive.prepares) or any(event is not Event.YES for event, _, _ in heard):
                return await self._decide(drive, heard)

    async def _decide(self, drive: Drive, heard: Sequence[tuple[Event, Vote | None, str]]) -> Step:
        """Feed votes, or the deadline (of one bank, if it is named), in their order; the decision is then durable."""
        names, accounts = self._touched(drive.transaction)

        async def decide(moment: Moment) -> Step:
            known = await moment.get(Transaction, drive.transaction.id)
            state = coordinator.state_of(known, drive.transaction.id, self._store.incarnation)
            if state is not State.PREPARING:  # whoever took it over has decided it, or this has, and did not hear of it
                return coordinator.step(state, Event.RESTART, Situation(known, moment.now()))
            ledger = await moment.ledger(accounts, drive.transaction.id)
            step = Step(known)
            for event, vote, bank in heard:
                step = coordinator.step(state, event, Situation(known, moment.now(), ledger, vote, bank))
                known = step.transaction
                if known is None or known.state is not State.PREPARING:
                    break
            assert known is not None
            assert known.state is not State.PREPARING, f"{known.id} is not decided by {heard}"
            moment.persist(step)
            return step

        step = await self._rhythm.decide(names, decide)
        assert step.transaction is not None
        known = drive.transaction = step.transaction
        if known.commit_at is not None:
            self._rhythm.merge_commit(known.commit_at)
        await self._store.flushed()
        if step.records:
            self.count(known)
        return step

    async def _announce(self, drive: Drive, step: Step) -> None:
        """Say what is now true: to the holder who waits, and to the participants; note who has acknowledged it.

        What has been acknowledged is noted once all have, or once the holder is answered without those who have not.
        """
        drive.decided.set_result(None)
        drive.heard.clear()  # a vote behind the decision: who cast it is told like all the others
        if drive.transaction.state is not State.COMMITTING:
            self.tell_once(step)
            _finish(drive)
            return
        started = time.perf_counter()
        self._acknowledging.begin(drive, asyncio.get_running_loop().time())
        for bank, message in step.messages:
            self._peers.ask(bank, message).add_done_callback(partial(drive.hear, bank))
        left, acknowledgements = len(step.messages), []
        while left:
            for bank, answer in await _heard_by(drive):
                left -= 1
                if not isinstance(answer.exception(), Unreachable):
                    self._rhythm.metrics.acknowledged[bank].observe(time.perf_counter() - started)
                    acknowledgements.append((bank, answer.result()))
            if acknowledgements and (not left or drive.overdue):
                drive.transaction = await self.commit_answered(drive.transaction.id, acknowledgements)
                acknowledgements = []
            if drive.overdue and not drive.answerable.done():
                drive.answerable.set_result(None)
        _finish(drive)

    # Events that recovery feeds, too

    def tell_once(self, step: Step) -> None:
        """Send an abort to whom it concerns, and wait for nobody: a participant that does not hear it will inquire."""
        for bank, message in step.messages:
            self._peers.ask(bank, message).add_done_callback(_forget)

    async def commit_answered(self, transaction: str, answers: Sequence[tuple[str, Answer]]) -> Transaction:
        """Banks answered a commit: what they acknowledge is noted (lazily: at worst the commit is sent again)."""

        async def note(moment: Moment) -> Transaction:
            before = known = await moment.get(Transaction, transaction)
            assert known is not None, f"{transaction} was committed and is not in the store"
            records: list[Record] = []
            for bank, answer in answers:
                if isinstance(answer, Acknowledged):
                    event = Event.ACKNOWLEDGE
                elif isinstance(answer, Refused) and answer.code is Violation.UNKNOWN_TRANSACTION:
                    event = Event.MISSING
                else:
                    moment.alarm(f"{bank} answered a commit with {answer}", transaction)
                    continue
                state = coordinator.state_of(known, transaction, self._store.incarnation)
                step = coordinator.step(state, event, Situation(known, moment.now(), bank=bank))
                if step.alarm is not None:
                    moment.alarm(step.alarm, transaction)
                assert step.transaction is not None
                known = step.transaction
                records += step.records
            if known is not before:
                moment.persist(Step(known, tuple(records), (known,)), lazy=True)
            return known

        return await self._rhythm.decide([transaction_lock(transaction)], note)

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
        names, accounts = self._touched(known)

        async def feed(moment: Moment) -> Step:
            known = await moment.get(Transaction, transaction)
            ledger = await moment.ledger(accounts, transaction)
            state = coordinator.state_of(known, transaction, self._store.incarnation)
            step = coordinator.step(state, event, Situation(known, moment.now(), ledger, bank=bank, at=at))
            moment.persist(step)
            return step

        step = await self._rhythm.decide(names, feed)
        if step.transaction is not None and step.transaction.commit_at is not None:
            self._rhythm.merge_commit(step.transaction.commit_at)
        await self._store.flushed()  # what this sends may rest on a decision that is still being forced
        if step.records and step.transaction is not None:
            self.count(step.transaction)
        return step

    def _touched(self, known: Transaction) -> tuple[list[str], list[str]]:
        """The locks that deciding *known* needs, and the accounts that are among them."""
        assert known.order is not None, f"{known.id} is a tombstone"
        accounts = [leg.account for leg in legs_at(self._rhythm.code, known.order.legs)]
        return self._rhythm.locks_of(known.id, accounts, known.participants), accounts

    async def inquired(self, sender: str, inquiry: Inquire) -> Answer:
        """A participant in doubt asks for the outcome; while a decision is being forced it is still undecided."""

        async def answer(moment: Moment) -> Answer:
            known = await moment.get(Transaction, inquiry.transaction)
            if known is not None and sender not in known.participants:
                return Refused(Violation.NOT_YOUR_TRANSACTION, "only its participants may ask for this outcome")
            durable = self._store.is_durable(inquiry.transaction)
            state = coordinator.state_of(known, inquiry.transaction, self._store.incarnation, durable=durable)
            step = coordinator.step(state, Event.INQUIRE, Situation(known, moment.now(), bank=sender))
            assert step.answer is not None, f"an inquiry met {state}"
            return step.answer

        return await self._rhythm.decide([transaction_lock(inquiry.transaction)], answer)

    def count(self, known: Transaction) -> None:
        """Count a transfer that has its outcome."""
        metrics = self._rhythm.metrics
        (metrics.aborted if known.state is State.ABORTED else metrics.committed).inc()


async def _heard_by(drive: Drive) -> list[Heard]:
    """What *drive* has heard since this was asked last; waits for it, or until somebody wakes the drive."""
    if not drive.heard:
        drive.ripe = asyncio.get_running_loop().create_future()
        await drive.ripe
    heard, drive.heard = drive.heard, []
    return heard


def _answer_now(drive: Drive) -> None:
    """The holder is answered, whoever has yet to acknowledge, once it is noted who has."""
    drive.overdue = True
    drive.wake()


def _finish(drive: Drive) -> None:
    """Nothing more is done here for this transaction."""
    if not drive.answerable.done():
        drive.answerable.set_result(None)
    drive.finished.set_result(None)


def _forget(answer: Future[Answer]) -> None:
    """Nobody waits for this answer; that there is none is no error to report."""
    if not answer.cancelled():
        answer.exception()


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
    for future in (drive.decided, drive.answerable, drive.finished):
        if not future.done():
            future.set_exception(breakage)
            future.exception()
