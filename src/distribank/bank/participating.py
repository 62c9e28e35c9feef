"""Messages from other banks: the protocol's, what they ask to see, and the outcomes that one's own inquiries bring.

A request brings several messages. Prepares, commits and aborts are decided one behind the other under the locks of all
that they name; all of them share the wait for durability, and nothing is answered before that. Aborts alone wait for
nothing: one that is lost is inquired about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from distribank.bank.coordinating import Coordinating
from distribank.bank.restoring import Restoring, consents_on
from distribank.bank.rhythm import Moment, Rhythm, book_lock, transaction_lock
from distribank.bank.showing import Showing
from distribank.bank.snapshots import Snapshots
from distribank.core import participant
from distribank.core.consents import Consent
from distribank.core.heuristics import Heuristic, Verdict
from distribank.core.ledger import SUSPENSE, Book, position_book
from distribank.core.participant import Event, Situation
from distribank.core.protocol import (
    FORCED,
    IN_DOUBT,
    UNFINISHED,
    Abort,
    Acknowledged,
    Answer,
    Commit,
    Fate,
    Inquire,
    Message,
    Outcome,
    Prepare,
    Refused,
    Role,
    ShowAccounts,
    ShowDecisions,
    ShowLog,
    Snapshot,
    State,
    Step,
    Transaction,
    Violation,
    coordinator_of,
)
from distribank.core.refusals import Code, Refusal

Decisive = Prepare | Commit | Abort
"""What only a transaction's coordinator may say."""


class Participating:
    """The participant's side of one bank.

    *watch* is told of each transaction that is now in doubt, *settled* of each that is not any more; set by recovery.
    """

    def __init__(
        self,
        rhythm: Rhythm,
        coordinating: Coordinating,
        snapshots: Snapshots,
        restoring: Restoring,
    ) -> None:
        self._rhythm = rhythm
        self._store = rhythm.store
        self._coordinating = coordinating
        self._showing = Showing(rhythm)
        self._snapshots = snapshots
        self._restoring = restoring
        self.watch: Callable[[Transaction], None] = lambda _transaction: None
        self.settled: Callable[[str], None] = lambda _transaction: None

    async def receive(self, sender: str, clock: int, messages: Sequence[Message]) -> list[Answer]:
        """Decide all *messages* of one well-signed request from *sender*; their answers, in order.

        What they promise is durable; an abort promises nothing. *clock* is the stamp that came with the request.
        """
        self._rhythm.hear(clock)
        if any(isinstance(message, ShowLog) for message in messages):
            await self._store.flushed()  # once for all of them: with every one, a slow disk would look like no bank
        answers: list[Answer]
        if sum(isinstance(message, ShowDecisions) for message in messages) > 1:
            detail = "a request asks for decisions once"
            return [Refused(Violation.INVALID_MESSAGE, detail) for _ in messages]
        decisive = [message for message in messages if isinstance(message, Prepare | Commit | Abort)]
        if len(decisive) == len(messages):
            answers = await self._decide(sender, clock, decisive)
        elif all(isinstance(message, Snapshot) for message in messages):  # each waits, and none of them decides
            answers = await asyncio.gather(*(self._answer(sender, clock, message) for message in messages))
        else:
            answers = [await self._answer(sender, clock, message) for message in messages]
        if any(not isinstance(message, Abort) for message in messages):
            await self._store.flushed()
        return answers

    async def told(self, transaction: str, bank: str, outcome: Outcome) -> Transaction | None:
        """*bank* answered this bank's inquiry. Returns the transaction as it now stands, durably."""
        events = {Fate.COMMITTED: Event.TOLD_COMMITTED, Fate.ABORTED: Event.TOLD_ABORTED}
        event = events.get(outcome.fate, Event.NOT_TOLD)
        known = await self._store.get(Transaction, transaction)
        if known is None or bank not in known.banks:
            return known
        step = await self._resolve(transaction, event, at=outcome.at or 0)
        await self._store.flushed()
        return step.transaction

    async def restart(self, transaction: str) -> Step:
        """Feed the restart event to a vote in doubt; whom it asks is the caller's to ask."""
        return await self._resolve(transaction, Event.RESTART)

    async def force(self, transaction: str, verdict: Verdict, reason: str) -> Heuristic | Refusal:
        """An operator's last resort, durably: this bank's part of what is in doubt, committed or aborted by a guess.

        Refused for anything but a vote without an outcome. Recovery goes on asking for the truth.
        """
        known = await self._store.get(Transaction, transaction)
        assert known is not None, f"{transaction} is not known here"
        if known.role is Role.COORDINATOR:
            return _coordinated(known)
        tried: list[int] = []
        step = await self._resolve(transaction, Event.RESOLVE, force=(verdict, reason), tried=tried)
        await self._store.flushed()
        heuristic = await self._store.get(Heuristic, transaction)
        if isinstance(step.answer, Refused):  # by itself, where it is run again: it may have landed unheard of
            own = heuristic is not None and heuristic.decided_at in tried and heuristic.decision is verdict
            return heuristic if heuristic is not None and own else _not_in_doubt(step.transaction)
        assert heuristic is not None, f"what was forced of {transaction} vanished"
        return heuristic

    async def _decide(
        self, sender: str, clock: int, messages: Sequence[Decisive], *, again: bool = False
    ) -> list[Answer]:
        """Decide what a coordinator says. Check and hold are one moment, since all that is named is locked together.

        One hold for the whole request costs a fraction of one for each message, and waits for no longer than they do.
        """
        touched = [await self._touched(sender, message, again) for message in messages]

        async def decide(moment: Moment) -> list[Step | None]:
            steps: list[Step | None] = []
            for message, (names, accounts) in zip(messages, touched, strict=True):
                if not names:
                    detail = "only the bank that coordinates a transaction may decide it"
                    steps.append(Step(None, answer=_refuse(message.transaction, detail, moment)))
                elif isinstance(message, Prepare):
                    steps.append(await self._prepare(moment, clock, message, accounts))
                else:
                    steps.append(await self._carry_out(moment, message, accounts, again))
            return steps

        def follow(steps: list[Step | None]) -> None:
            for message, step in zip(messages, steps, strict=True):
                if step is not None:
                    self._follow(message, step)

        steps = await self._rhythm.decide([name for names, _ in touched for name in names], decide, follow)
        # None: more is concerned than it names, or it was prepared while this waited. Once more, over all of that.
        left = [message for message, step in zip(messages, steps, strict=True) if step is None]
        later = iter(await self._decide(sender, clock, left, again=True) if left else ())
        return [next(later) if step is None else step.answer or Acknowledged(already=True) for step in steps]

    def _follow(self, message: Decisive, step: Step) -> None:
        """*step* has been taken: whoever finishes what is unfinished hears of it."""
        if not isinstance(message, Prepare):
            if step.records and step.records[0].before == State.NOTHING and isinstance(message, Commit):
                self._restoring.ask_soon(coordinator_of(message.transaction))
            self._heard(message.transaction, step, message.at if isinstance(message, Commit) else 0)
        elif step.transaction is not None and step.transaction.state is State.PREPARED:
            self.watch(step.transaction)

    def _heard(self, transaction: str, step: Step, at: int) -> None:
        """An outcome has been heard, stamped *at* where it is a commit; where that settles it, nobody need be asked."""
        if at and step.transaction is not None and step.transaction.commit_at == at:
            self._rhythm.merge_commit(at)
        if step.records and (step.transaction is None or step.transaction.state not in UNFINISHED):
            self.settled(transaction)

    async def _touched(self, sender: str, message: Decisive, again: bool) -> tuple[list[str], list[str]]:
        """The locks that deciding *message* needs, and the accounts that are among them; none if *sender* may not.

        A commit names its accounts; where these are not those of the prepare, or something may be left in suspense, it
        is looked at *again*, over all of that.
        """
        if coordinator_of(message.transaction) != sender:
            return [], []
        if isinstance(message, Prepare) or (isinstance(message, Commit) and not again):
            accounts = [leg.account for leg in message.legs]
        else:
            accounts = _accounts_in(await self._store.get(Transaction, message.transaction), message)
        names = self._rhythm.locks_of(message.transaction, accounts, [sender])
        return [*names, book_lock(SUSPENSE)] if again else names, accounts

    async def _prepare(self, moment: Moment, clock: int, prepare: Prepare, accounts: Sequence[str]) -> Step:
        """Vote. All that the prepare names is this moment's alone."""
        position = position_book(coordinator_of(prepare.transaction))
        situation = Situation(
            self._rhythm.code,
            prepare.transaction,
            await moment.get(Transaction, prepare.transaction),
            moment.now(),
            await moment.ledger(accounts, prepare.transaction),
            prepare=prepare,
            sender_clock=clock,
            consents=await consents_on(moment, prepare.legs),
            position=await moment.get(Book, position) or Book(position),
            cap=self._rhythm.most_owed,
            reaches_back_to=self._store.reaches_back_to,
        )
        step = participant.step(Event.PREPARE, situation)
        assert step.answer is not None, "a prepare is always answered"
        moment.persist(step, lazy=not step.forced)
        return step

    async def _carry_out(
        self, moment: Moment, message: Commit | Abort, accounts: Sequence[str], again: bool
    ) -> Step | None:
        """Post or release. *accounts* are locked; ``None`` if that is not enough, or it was prepared since."""
        known = await moment.get(Transaction, message.transaction)
        if _accounts_in(known, message) != accounts or not (again or _was_promised(known, message)):
            return None
        if isinstance(message, Commit):
            return await self._feed(moment, known, message.transaction, Event.COMMIT, at=message.at, commit=message)
        return await self._feed(moment, known, message.transaction, Event.ABORT, abort=message)

    async def _resolve(
        self,
        transaction: str,
        event: Event,
        *,
        at: int = 0,
        force: tuple[Verdict, str] | None = None,
        tried: list[int] | None = None,
    ) -> Step:
        """Feed an outcome, or a guess, with everything that the transaction touches here locked.

        *tried* is told when each attempt at a guess would have been made.
        """
        while True:
            known = await self._store.get(Transaction, transaction)
            touched = _accounts_of(known), _is_forced(known)

            async def feed(moment: Moment, touched: tuple[list[str], bool] = touched) -> Step | None:
                known = await moment.get(Transaction, transaction)
                if (_accounts_of(known), _is_forced(known)) != touched:
                    return None
                step = await self._feed(moment, known, transaction, event, at=at, force=force)
                if tried is not None:
                    tried.extend(row.decided_at for row in step.changes if isinstance(row, Heuristic))
                return step

            accounts, forced = touched
            names = self._rhythm.locks_of(transaction, accounts, [coordinator_of(transaction)])
            step = await self._rhythm.decide([*names, book_lock(SUSPENSE)] if forced else names, feed)
            if step is not None:
                self._heard(transaction, step, at)
                return step

    async def _feed(
        self,
        moment: Moment,
        known: Transaction | None,
        transaction: str,
        event: Event,
        *,
        at: int = 0,
        commit: Commit | None = None,
        abort: Abort | None = None,
        force: tuple[Verdict, str] | None = None,
    ) -> Step:
        """Feed a decision, an outcome or a guess to the machine, with all that *transaction* touches to itself."""
        situation = Situation(
            self._rhythm.code,
            transaction,
            known,
            moment.now(),
            await moment.ledger(_accounts_in(known, commit), transaction),
            commit=commit,
            because=abort.because if abort else None,
            at=at,
            consents=await _consents_of(moment, known, commit),
            reaches_back_to=self._store.reaches_back_to,
            restoration=self._restoring.present,
            heuristic=await moment.get(Heuristic, known.id) if known and _is_forced(known) else None,
            verdict=force[0] if force else None,
            reason=force[1] if force else "",
        )
        step = participant.step(event, situation)
        moment.persist(step, lazy=not step.forced)
        return step

    async def _answer(self, sender: str, clock: int, message: Message) -> Answer:
        """Answer one message of any kind."""
        if isinstance(message, Inquire):
            return await self._inquired(sender, message)
        if isinstance(message, ShowLog):
            return await self._showing.log(sender, message.transaction)
        if isinstance(message, ShowAccounts):
            return await self._showing.accounts(sender, message.holder_cpf)
        if isinstance(message, Snapshot):
            return await self._snapshots.answer(message)
        if isinstance(message, ShowDecisions):
            return await self._restoring.tell(sender, message)
        (answer,) = await self._decide(sender, clock, [message])
        return answer

    async def _inquired(self, sender: str, inquiry: Inquire) -> Answer:
        """Somebody in doubt asks: as this transaction's coordinator, or as one of its participants."""
        if coordinator_of(inquiry.transaction) == self._rhythm.code:
            return await self._coordinating.inquired(sender, inquiry)

        async def answer(moment: Moment) -> Answer:
            known = await moment.get(Transaction, inquiry.transaction)
            if known is not None and known.order is not None and sender not in known.banks:
                return _refuse(inquiry.transaction, "only banks that take part may ask for this outcome", moment)
            situation = Situation(
                self._rhythm.code,
                inquiry.transaction,
                known,
                moment.now(),
                vote_by=inquiry.vote_by,
                reaches_back_to=self._store.reaches_back_to,
            )
            step = participant.step(Event.INQUIRE, situation)
            moment.persist(step, lazy=not step.forced)
            assert step.answer is not None, "an inquiry is always answered"
            return step.answer

        return await self._rhythm.decide([transaction_lock(inquiry.transaction)], answer)


def _refuse(transaction: str, detail: str, moment: Moment) -> Refused:
    moment.alarm(detail, transaction)
    return Refused(Violation.NOT_YOUR_TRANSACTION, detail)


async def _consents_of(moment: Moment, known: Transaction | None, commit: Commit | None) -> list[Consent]:
    """The consents that a transaction in doubt has used, to give them back if it is aborted; of a commit of which
    nothing is known here, all that may serve for it."""
    if known is None and commit is not None:
        return await consents_on(moment, commit.legs)
    found: list[Consent] = []
    for use in known.consents if known and known.state in IN_DOUBT else ():
        consent = await moment.get(Consent, use.consent_id)
        assert consent is not None, f"consent {use.consent_id} vanished"
        found.append(consent)
    return found


def _coordinated(known: Transaction) -> Refusal:
    if known.state is State.PREPARING:
        detail = "this bank coordinates it and its database was restored: only a participant's part can be forced"
    else:
        detail = "this bank coordinates it and its outcome is decided: there is nothing to guess"
    return Refusal(Code.NOT_RESOLVABLE, detail, known.coordinator)


def _not_in_doubt(known: Transaction | None) -> Refusal:
    if _is_forced(known):
        detail = "an operator has forced this part already: its entries are posted, or its holds released"
    else:
        detail = "its outcome has just become known: there is nothing left to force"
    return Refusal(Code.NOT_RESOLVABLE, detail)


def _is_forced(known: Transaction | None) -> bool:
    return known is not None and known.state in FORCED


def _was_promised(known: Transaction | None, message: Commit | Abort) -> bool:
    """Whether *message* settles what this bank has voted on, and no more: else something may be left in suspense."""
    return isinstance(message, Abort) if known is None else not _is_forced(known)


def _accounts_in(known: Transaction | None, message: Commit | Abort | None) -> list[str]:
    """The same; of a commit of which nothing is known here, those that it names: its vote may be lost."""
    if known is None and isinstance(message, Commit):
        return [leg.account for leg in message.legs]
    return _accounts_of(known)


def _accounts_of(known: Transaction | None) -> list[str]:
    """The accounts here that a transaction touches; once it is prepared they never change."""
    return [leg.account for leg in known.order.legs] if known is not None and known.order is not None else []
