"""A participant's half of two-phase commit, as a table from (state, event) to what follows.

A participant checks everything that could make a commit fail *before* it votes. A yes is a promise: from then on
only an outcome releases what it holds, never time (or an operator, whose guess is then compared with the outcome).
Nothing here waits: the caller loads what a message names, asks ``step``, makes the result durable and then answers.

An absent cell is illegal: ``step`` refuses it with an alarm and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Final

from distribank.core import consents, resupplying
from distribank.core import ledger as books
from distribank.core.clock import CLOCK_BOUND_MS, too_far_ahead, wall_of
from distribank.core.consents import Consent
from distribank.core.heuristics import Heuristic, Verdict, correct
from distribank.core.ledger import Account, Book, EntryKind, Ledger, LedgerRow
from distribank.core.money import MAX_BALANCE
from distribank.core.protocol import (
    MAX_VOTE_BY_AHEAD_MS,
    Acknowledged,
    Commit,
    Fate,
    Inquire,
    No,
    Now,
    Outcome,
    Prepare,
    Record,
    RecordKind,
    Refused,
    Role,
    State,
    Step,
    Transaction,
    Violation,
    Yes,
    coordinator_of,
)
from distribank.core.refusals import Code, Refusal
from distribank.core.restoration import Restoration
from distribank.core.transfer import Counterparty, Leg, Order, check_participant_legs, net_flow
from distribank.core.values import dataclass, replace


class Event(StrEnum):
    PREPARE = "prepare"
    COMMIT = "commit"
    ABORT = "abort"
    INQUIRE = "inquire"
    RESTART = "restart"
    TOLD_COMMITTED = "an inquiry is answered committed"
    TOLD_ABORTED = "an inquiry is answered aborted"
    NOT_TOLD = "an inquiry is answered undecided, unknown or not at all"
    RESOLVE = "an operator forces an outcome"


@dataclass(frozen=True, slots=True)
class Situation:
    """One event with all that its handling may look at.

    *reaches_back_to* (milliseconds) is the moment from which this bank's log is known to be complete: zero for a
    database that has never been lost. *sender_clock* is the stamp that came with the request. *heuristic* is there
    where the part has been forced; *verdict* and *reason* are what an operator forces now. *restoration* is there where
    this database was restored from a backup.
    """

    bank: str
    identity: str
    transaction: Transaction | None
    now: Now
    ledger: Ledger = Ledger({}, {})
    prepare: Prepare | None = None
    commit: Commit | None = None
    because: Refusal | None = None
    sender_clock: int = 0
    vote_by: int = 0
    at: int = 0
    consents: Sequence[Consent] = ()
    position: Book = Book("")
    cap: int = MAX_BALANCE
    reaches_back_to: int = 0
    restoration: Restoration | None = None
    heuristic: Heuristic | None = None
    verdict: Verdict | None = None
    reason: str = ""

    @property
    def known(self) -> Transaction:
        assert self.transaction is not None
        return self.transaction

    @property
    def legs(self) -> tuple[Leg, ...]:
        """The legs here of what is known: all but a tombstone has them."""
        assert self.known.order is not None
        return self.known.order.legs

    @property
    def flow(self) -> dict[str, int]:
        """What this bank comes to owe the coordinator by them, in centavos; negative where it comes to be owed."""
        return {self.known.coordinator: -net_flow(self.legs)}


def step(event: Event, situation: Situation) -> Step:
    """What follows when *event* meets this transaction; see ``TABLE``."""
    state = situation.transaction.state if situation.transaction else State.NOTHING
    handler = TABLE.get((state, event))
    if handler is None:
        return _violation(situation, Violation.INVALID_MESSAGE, f"{event} met a transaction that is {state}")
    return handler(situation)


# Prepare ----------------------------------------------------------------------------------------------------------


def _vote(situation: Situation) -> Step:
    """Check everything, then hold and promise in one write; or refuse, and remember that nothing was promised."""
    prepare, now = situation.prepare, situation.now
    assert prepare is not None
    if too_far_ahead(situation.sender_clock, now.wall_ms):
        return _violation(situation, Violation.CLOCK_AHEAD, "the sender's clock is too far ahead to be believed")
    if prepare.vote_by > now.wall_ms + MAX_VOTE_BY_AHEAD_MS:
        return _violation(situation, Violation.CLOCK_AHEAD, "vote_by lies further ahead than any sound deadline")
    if now.wall_ms > prepare.vote_by:
        return _too_late(situation, prepare)
    if not _sure_never_voted(situation, prepare.vote_by):
        return _violation(situation, Violation.LOG_TOO_YOUNG, "this bank may have lost a vote on this transaction")
    refusal = _why_not(situation, prepare)
    if refusal is not None:
        return _no(situation, refusal.at(situation.bank))
    return _yes(situation, prepare)


def _too_late(situation: Situation, prepare: Prepare) -> Step:
    """No; but banks in doubt are told *aborted* because of a tombstone: a lie where a yes may have been lost."""
    because = Refusal(Code.BANK_REFUSED, "the prepare arrived after its vote_by", situation.bank)
    if not _sure_never_voted(situation, prepare.vote_by):
        return Step(None, answer=No(because))
    return _no(situation, because)


def _why_not(situation: Situation, prepare: Prepare) -> Refusal | None:
    """The first reason against a yes: malformed, not covered, without consent, over the position's cap."""
    malformed = check_participant_legs(situation.bank, prepare.legs)
    if malformed is not None:
        return malformed
    if prepare.flow != net_flow(prepare.legs):
        return Refusal(Code.BANK_REFUSED, "the net flow is not what the legs add up to")
    if situation.bank not in prepare.participants or coordinator_of(prepare.transaction) == situation.bank:
        return Refusal(Code.BANK_REFUSED, "this bank is not among the participants")
    return (
        books.check_open(situation.ledger, prepare.legs)
        # Before what is covered: else a bank probes balances.
        or consents.check(situation.consents, _consent_request(situation, prepare))
        or books.check_covered(situation.ledger, prepare.legs)
        or (books.check_position(situation.position, prepare.flow, situation.cap) if prepare.flow > 0 else None)
    )


def _consent_request(situation: Situation, prepare: Prepare) -> consents.Request:
    return consents.Request(
        coordinator_of(prepare.transaction),
        prepare.holder_cpf,
        prepare.legs,
        situation.ledger.accounts,
        situation.now.wall_ms,
    )


def _yes(situation: Situation, prepare: Prepare) -> Step:
    now, coordinator = situation.now, coordinator_of(prepare.transaction)
    used = consents.use(situation.consents, _consent_request(situation, prepare))
    order = Order(prepare.end_to_end_id, prepare.holder_cpf, "", prepare.description, prepare.ordered_at, prepare.legs)
    prepared = Transaction(
        prepare.transaction,
        Role.PARTICIPANT,
        State.PREPARED,
        now.wall_ms,
        prepare.participants,
        order,
        prepare.vote_by,
        digest=prepare.digest,
        prepared_at=now.stamp,
        consents=used.uses,
        counterparties=prepare.counterparties,
        subjects=tuple(dict.fromkeys(leg.account for leg in prepare.legs)),
    )
    rows = (
        *books.place(situation.ledger, prepare.legs, prepare.transaction, now.stamp),
        *books.reserve_positions({coordinator: -prepare.flow}),
        *used.changes,
    )
    record = Record(
        prepare.transaction,
        now.stamp,
        RecordKind.PREPARED,
        State.NOTHING,
        State.PREPARED,
        f"voted yes to {coordinator}; what it orders is held",
    )
    answer = Yes(now.stamp, _names(situation.bank, prepare, situation.ledger.accounts))
    return Step(prepared, (record,), (prepared, *rows), answer=answer, forced=True)


def _names(bank: str, prepare: Prepare, accounts: Mapping[str, Account]) -> tuple[Counterparty, ...]:
    """The masked name behind each leg here, for the other parties' statements."""
    return tuple(
        Counterparty(leg.number, bank, leg.direction, accounts[leg.account].masked_name)
        for leg in prepare.legs
        if leg.account in accounts
    )


def _no(situation: Situation, because: Refusal) -> Step:
    return replace(_tombstone(situation, because), answer=No(because))


def _tombstone(situation: Situation, because: Refusal) -> Step:
    """Remember for ever (for as long as a message may arrive) that this bank will never vote yes on this."""
    now = situation.now
    aborted = Transaction(
        situation.identity,
        Role.PARTICIPANT,
        State.ABORTED,
        now.wall_ms,
        because=because,
        decided_at=now.wall_ms,
        vote_by=situation.prepare.vote_by if situation.prepare else situation.vote_by,
        digest=situation.prepare.digest if situation.prepare else "",
    )
    record = Record(
        situation.identity, now.stamp, RecordKind.RESOLVED, State.NOTHING, State.ABORTED, f"tombstone: {because.detail}"
    )
    return Step(aborted, (record,), (aborted,))


def _same_vote(situation: Situation) -> Step:
    """The same prepare again gets the same promise, with the same stamp; another under this id is a violation.

    Forced, though nothing is written: the first promise may still be on its way to the disk.
    """
    known, prepare = situation.known, situation.prepare
    assert prepare is not None
    assert known.prepared_at is not None
    if prepare.digest != known.digest:
        return _other_digest(situation)
    answer = Yes(known.prepared_at, _names(situation.bank, prepare, situation.ledger.accounts))
    return Step(known, answer=answer, forced=True)


def _no_again(situation: Situation) -> Step:
    known, prepare = situation.known, situation.prepare
    assert prepare is not None
    if known.digest and prepare.digest != known.digest:
        return _other_digest(situation)
    because = known.because or Refusal(Code.BANK_REFUSED, "already aborted")
    return Step(known, answer=No(because.at(situation.bank)))


def _other_digest(situation: Situation) -> Step:
    return _violation(situation, Violation.DIGEST_MISMATCH, "another content was ordered under this transaction's id")


def _sure_never_voted(situation: Situation, vote_by: int) -> bool:
    """Whether this log reaches back past every moment at which it could have voted on what expires at *vote_by*."""
    earliest_vote = vote_by - MAX_VOTE_BY_AHEAD_MS - CLOCK_BOUND_MS
    return situation.reaches_back_to < max(earliest_vote, 1)


# Decisions --------------------------------------------------------------------------------------------------------


def _post(situation: Situation) -> Step:
    """Carry out the promise: entries stamped with the commit timestamp, holds posted; then acknowledge."""
    at = _commit_stamp(situation)
    flaw = _flaw(situation, at)
    if flaw is not None:
        return flaw
    committed = _committed(situation, at)
    record = _resolved(situation, State.COMMITTED, "committed and posted")
    changes = (committed, *_posted(situation, at))
    return Step(committed, (record,), changes, answer=Acknowledged(), forced=True)


def _release(situation: Situation) -> Step:
    aborted = _aborted(situation)
    assert aborted.because is not None
    record = _resolved(situation, State.ABORTED, f"aborted: {aborted.because.code}")
    changes = (aborted, *_given_back(situation), *_unused(situation))
    return Step(aborted, (record,), changes, answer=Acknowledged())


def _unused(situation: Situation) -> tuple[Consent, ...]:
    """What the vote had used of consents, given back: by a true abort alone, as others could use what a guess frees."""
    return consents.give_back(situation.consents, situation.known.consents)


def _commit_stamp(situation: Situation) -> int:
    return situation.commit.at if situation.commit else situation.at


def _flaw(situation: Situation, at: int) -> Step | None:
    """Why this commit cannot be the one that was promised, or ``None``."""
    known, commit = situation.known, situation.commit
    assert known.prepared_at is not None
    if wall_of(at) > known.vote_by:
        return _violation(situation, Violation.STAMP_PAST_VOTE_BY, "the commit is stamped past its vote_by")
    if at < known.prepared_at:
        return _violation(situation, Violation.INVALID_MESSAGE, "the commit is stamped before this bank's own vote")
    if commit is not None and commit.legs != situation.legs:
        return _violation(situation, Violation.DIGEST_MISMATCH, "the commit names other legs than the prepare did")
    return None


def _committed(situation: Situation, at: int) -> Transaction:
    known, now = situation.known, situation.now
    parties = situation.commit.counterparties if situation.commit and situation.commit.counterparties else None
    return replace(
        known,
        state=State.COMMITTED,
        commit_at=at,
        decided_at=now.wall_ms,
        completed_at=now.wall_ms,
        counterparties=parties or known.counterparties,
    )


def _aborted(situation: Situation) -> Transaction:
    known, now = situation.known, situation.now
    because = situation.because or Refusal(
        Code.INTERRUPTED, "the coordinator did not decide to commit", known.coordinator
    )
    return replace(known, state=State.ABORTED, because=because, decided_at=now.wall_ms, completed_at=now.wall_ms)


def _posted(situation: Situation, at: int) -> tuple[LedgerRow, ...]:
    """Entries stamped *at*, posted holds, the position; what was reserved of it is not any more."""
    transaction, legs, flow = situation.known.id, situation.legs, situation.flow
    books.assert_held(situation.ledger, legs)
    return (
        *books.post(situation.ledger, legs, transaction, EntryKind.TRANSFER, at, situation.now.wall_ms),
        *books.reserve_positions(flow, give_back=True),
        *books.post_positions(flow, transaction, at),
    )


def _given_back(situation: Situation) -> tuple[LedgerRow, ...]:
    """Released holds, and what the vote had reserved of the position."""
    books.assert_held(situation.ledger, situation.legs)
    return (
        *books.release(situation.ledger, situation.now.stamp),
        *books.reserve_positions(situation.flow, give_back=True),
    )


def _resolved(situation: Situation, after: State, detail: str) -> Record:
    known = situation.known
    return Record(known.id, situation.now.stamp, RecordKind.RESOLVED, known.state, after, detail)


def _refuse_unknown_commit(situation: Situation) -> Step:
    """Never post without a hold, never acknowledge: the coordinator believes in a vote that is not here."""
    return _violation(situation, Violation.UNKNOWN_TRANSACTION, "this bank has no vote on this transaction")


def _commit_without_vote(situation: Situation) -> Step:
    """A vote that was lost with the database is carried out all the same: the coordinator's word is all there is."""
    commit, restoration = situation.commit, situation.restoration
    assert commit is not None
    if restoration is None or not restoration.may_have_lost_vote(commit.at):
        return _refuse_unknown_commit(situation)
    flaw = check_participant_legs(situation.bank, commit.legs)
    if flaw is not None or too_far_ahead(commit.at, situation.now.wall_ms):
        return _refuse_unknown_commit(situation)
    decision = resupplying.as_decision(situation.bank, commit)
    step = resupplying.supply(situation.bank, decision, situation.ledger.accounts, situation.consents, situation.now)
    return replace(step, alarm="committed by its coordinator; this bank's vote was lost before its restore: posted")


def _refuse_commit_after_abort(situation: Situation) -> Step:
    return _violation(situation, Violation.ALREADY_ABORTED, "this bank has already aborted this transaction")


def _abort_before_prepare(situation: Situation) -> Step:
    """Leave a tombstone so that the late prepare is refused; not where a vote may have been lost."""
    if not _sure_never_voted(situation, situation.now.wall_ms - 2 * CLOCK_BOUND_MS):
        return Step(None, answer=Acknowledged())
    because = situation.because or Refusal(Code.BANK_REFUSED, "aborted before it was prepared here")
    return replace(_tombstone(situation, because), answer=Acknowledged())


def _acknowledge_again(situation: Situation) -> Step:
    """Forced, though nothing is written: the entries may still be on their way to the disk."""
    known, commit = situation.known, situation.commit
    assert commit is not None
    same = commit.at == known.commit_at and commit.legs == situation.legs
    alarm = None if same else "a commit again, but not the one that was posted here"
    return Step(known, answer=Acknowledged(already=True), forced=True, alarm=alarm)


def _already(situation: Situation) -> Step:
    return Step(situation.transaction, answer=Acknowledged(already=True))


def _ignore(situation: Situation) -> Step:
    return Step(situation.transaction)


# An operator's last resort ----------------------------------------------------------------------------------------


def _force(situation: Situation) -> Step:
    """Do at once what an operator guesses the outcome to be, and say so loudly; the truth is still inquired about."""
    known, now, verdict = situation.known, situation.now, situation.verdict
    assert verdict is not None
    heuristic = Heuristic(known.id, verdict, situation.reason, now.wall_ms)
    state = State.FORCED_COMMIT if verdict is Verdict.COMMIT else State.FORCED_ABORT
    forced = replace(known, state=state)
    rows = _posted(situation, now.stamp) if verdict is Verdict.COMMIT else _given_back(situation)
    record = _resolved(situation, forced.state, "the operator forced it")  # not why: fellow banks may read the log
    alarm = f"{forced.state} by the operator, the truth is not known: {situation.reason}"
    return Step(forced, (record,), (forced, heuristic, *rows), forced=True, alarm=alarm)


def _learn_commit(situation: Situation) -> Step:
    """The truth behind a forced part is commit: acknowledged once all of it is posted here, one way or the other."""
    at = _commit_stamp(situation)
    return _flaw(situation, at) or _reconcile(situation, Verdict.COMMIT, _committed(situation, at))


def _learn_abort(situation: Situation) -> Step:
    return _reconcile(situation, Verdict.ABORT, _aborted(situation))


def _reconcile(situation: Situation, truth: Verdict, settled: Transaction) -> Step:
    """Compare the guess with the truth; where it was wrong, correct what it did by new entries, in the same write."""
    known, now, guess = situation.known, situation.now, situation.heuristic
    assert guess is not None, f"{known.id} is {known.state}, and nobody forced it"
    told = replace(guess, truth=truth, truth_at=now.wall_ms, matched=guess.decision is truth)
    unused = _unused(situation) if truth is Verdict.ABORT else ()
    if told.matched:
        record = _resolved(situation, settled.state, f"the truth is {truth}, as the operator had guessed")
        return Step(settled, (record,), (settled, told, *unused), answer=Acknowledged(), forced=True)
    accounts = situation.ledger.accounts
    correction = correct(accounts, situation.legs, truth, known.id, known.coordinator, now.stamp, posted_at=now.wall_ms)
    told = replace(told, damage=correction.damage)
    record = _resolved(situation, settled.state, f"the truth is {truth}, not what the operator forced; corrected")
    changes = (settled, told, *correction.rows, *unused)
    alarm = f"{known.state} by the operator, but the truth is {truth}: {correction.damage.in_words}"
    return Step(settled, (record,), changes, answer=Acknowledged(), forced=True, alarm=alarm)


def _not_resolvable(situation: Situation) -> Step:
    """An operator came too late, or for the second time: no breach of the protocol, so no alarm."""
    return Step(situation.transaction, answer=Refused(Violation.INVALID_MESSAGE, "this part is not in doubt"))


# In doubt -------------------------------------------------------------------------------------------------------


def _inquire(situation: Situation) -> Step:
    """Stay, keep the holds, ask the coordinator. Whom to ask when it does not know is the recovery's to say."""
    known = situation.known
    return Step(known, messages=((known.coordinator, Inquire(known.id, known.vote_by)),))


# Answers to inquiries ---------------------------------------------------------------------------------------------


def _promise_never_to_vote(situation: Situation) -> Step:
    """A fellow participant is in doubt: a durable tombstone first, then *aborted*; *unknown* if a vote may be lost."""
    if not _sure_never_voted(situation, situation.vote_by):
        return Step(None, answer=Outcome(Fate.UNKNOWN))
    because = Refusal(Code.BANK_REFUSED, "promised a bank in doubt never to vote on this")
    return replace(_tombstone(situation, because), answer=Outcome(Fate.ABORTED), forced=True)


def _say_undecided(situation: Situation) -> Step:
    return Step(situation.transaction, answer=Outcome(Fate.UNDECIDED))


def _say_committed(situation: Situation) -> Step:
    return Step(situation.transaction, answer=Outcome(Fate.COMMITTED, situation.known.commit_at))


def _say_aborted(situation: Situation) -> Step:
    """Only once the tombstone is durable: the caller's answers wait for the writes queued before them."""
    return Step(situation.transaction, answer=Outcome(Fate.ABORTED), forced=True)


def _violation(situation: Situation, code: Violation, detail: str) -> Step:
    return Step(situation.transaction, answer=Refused(code, detail), alarm=f"{code}: {detail}")


TABLE: Final[dict[tuple[State, Event], Callable[[Situation], Step]]] = {
    (State.NOTHING, Event.PREPARE): _vote,
    (State.NOTHING, Event.COMMIT): _commit_without_vote,
    (State.NOTHING, Event.ABORT): _abort_before_prepare,
    (State.NOTHING, Event.INQUIRE): _promise_never_to_vote,
    (State.NOTHING, Event.TOLD_COMMITTED): _ignore,
    (State.NOTHING, Event.TOLD_ABORTED): _ignore,
    (State.NOTHING, Event.NOT_TOLD): _ignore,
    (State.PREPARED, Event.PREPARE): _same_vote,
    (State.PREPARED, Event.COMMIT): _post,
    (State.PREPARED, Event.ABORT): _release,
    (State.PREPARED, Event.INQUIRE): _say_undecided,
    (State.PREPARED, Event.RESTART): _inquire,
    (State.PREPARED, Event.TOLD_COMMITTED): _post,
    (State.PREPARED, Event.TOLD_ABORTED): _release,
    (State.PREPARED, Event.NOT_TOLD): _ignore,
    (State.PREPARED, Event.RESOLVE): _force,
    (State.FORCED_COMMIT, Event.PREPARE): _same_vote,
    (State.FORCED_COMMIT, Event.COMMIT): _learn_commit,
    (State.FORCED_COMMIT, Event.ABORT): _learn_abort,
    (State.FORCED_COMMIT, Event.INQUIRE): _say_undecided,
    (State.FORCED_COMMIT, Event.RESTART): _inquire,
    (State.FORCED_COMMIT, Event.TOLD_COMMITTED): _learn_commit,
    (State.FORCED_COMMIT, Event.TOLD_ABORTED): _learn_abort,
    (State.FORCED_COMMIT, Event.NOT_TOLD): _ignore,
    (State.FORCED_COMMIT, Event.RESOLVE): _not_resolvable,
    (State.FORCED_ABORT, Event.PREPARE): _same_vote,
    (State.FORCED_ABORT, Event.COMMIT): _learn_commit,
    (State.FORCED_ABORT, Event.ABORT): _learn_abort,
    (State.FORCED_ABORT, Event.INQUIRE): _say_undecided,
    (State.FORCED_ABORT, Event.RESTART): _inquire,
    (State.FORCED_ABORT, Event.TOLD_COMMITTED): _learn_commit,
    (State.FORCED_ABORT, Event.TOLD_ABORTED): _learn_abort,
    (State.FORCED_ABORT, Event.NOT_TOLD): _ignore,
    (State.FORCED_ABORT, Event.RESOLVE): _not_resolvable,
    (State.COMMITTED, Event.PREPARE): _same_vote,
    (State.COMMITTED, Event.COMMIT): _acknowledge_again,
    (State.COMMITTED, Event.ABORT): _already,
    (State.COMMITTED, Event.INQUIRE): _say_committed,
    (State.COMMITTED, Event.RESTART): _ignore,
    (State.COMMITTED, Event.TOLD_COMMITTED): _ignore,
    (State.COMMITTED, Event.TOLD_ABORTED): _ignore,
    (State.COMMITTED, Event.NOT_TOLD): _ignore,
    (State.COMMITTED, Event.RESOLVE): _not_resolvable,
    (State.ABORTED, Event.PREPARE): _no_again,
    (State.ABORTED, Event.COMMIT): _refuse_commit_after_abort,
    (State.ABORTED, Event.ABORT): _already,
    (State.ABORTED, Event.INQUIRE): _say_aborted,
    (State.ABORTED, Event.RESTART): _ignore,
    (State.ABORTED, Event.TOLD_ABORTED): _ignore,
    (State.ABORTED, Event.NOT_TOLD): _ignore,
    (State.ABORTED, Event.RESOLVE): _not_resolvable,
}
"""An outcome told committed to what is aborted here is absent: someone broke the protocol, and an alarm says so."""
