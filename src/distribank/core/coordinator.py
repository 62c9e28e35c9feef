"""The coordinator's half of two-phase commit, as a table from (state, event) to what follows.

The coordinator is the bank at which the transfer was ordered. Its commit decision, once durable, *is* the outcome;
everything it never decided is aborted by presumption. Nothing here waits: the caller loads what an event names,
asks ``step``, makes the result durable and then says it.

An absent cell is illegal: ``step`` answers it with an alarm and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

from distribank.core import ledger as books
from distribank.core.clock import too_far_ahead, wall_of
from distribank.core.ledger import Book, EntryKind, Ledger
from distribank.core.money import MAX_BALANCE
from distribank.core.protocol import (
    Abort,
    Commit,
    Fate,
    Inquire,
    Message,
    Now,
    Outcome,
    Prepare,
    Record,
    RecordKind,
    Role,
    State,
    Step,
    Transaction,
    Vote,
    Voted,
    Yes,
    incarnation_of,
)
from distribank.core.refusals import Code, Refusal
from distribank.core.transfer import Counterparty, Leg, Order, banks_of, legs_at, net_flow
from distribank.core.values import dataclass, replace


class Event(StrEnum):
    YES = "yes"
    NO = "no"
    DEADLINE = "deadline passes"
    ACKNOWLEDGE = "acknowledge"
    MISSING = "a participant does not know what it is told to commit"
    INQUIRE = "inquire"
    RESTART = "restart"
    FOUND_COMMITTED = "a participant says committed"
    FOUND_ABORTED = "a participant says aborted, or promises never to vote"


@dataclass(frozen=True, slots=True)
class Situation:
    """One event with all that its handling may look at.

    *bank* sent it (a vote names its own), or is the one whose time has run out; *at* is the stamp of an outcome.
    """

    transaction: Transaction | None
    now: Now
    ledger: Ledger = Ledger({}, {})
    vote: Vote | None = None
    bank: str = ""
    at: int = 0

    @property
    def known(self) -> Transaction:
        assert self.transaction is not None
        return self.transaction


def check(
    own: tuple[Leg, ...], ledger: Ledger, flows: Mapping[str, int], positions: Mapping[str, Book], cap: int
) -> Refusal | None:
    """Why the bank where a transfer is ordered cannot do its *own* legs of it, nor let others owe it that much."""
    return books.check(ledger, own) or _check_positions(flows, positions, cap)


def begin(
    transaction: str,
    order: Order,
    ledger: Ledger,
    positions: Mapping[str, Book],
    now: Now,
    vote_by: int,
    *,
    cap: int = MAX_BALANCE,
    refusal: Refusal | None = None,
) -> Step:
    """The first step of a transfer at the bank where it was ordered.

    With all legs here it is one atomic write, posted at once. Else the bank's own legs are held and every other
    bank is asked to prepare. What is refused here, by *refusal* or by the ledger, is a decision to abort: durable
    before the holder hears of it, and no other bank hears of it at all.
    """
    bank = transaction.partition(".")[0]
    own = legs_at(bank, order.legs)
    participants = tuple(b for b in banks_of(order.legs) if b != bank)
    known = Transaction(
        transaction,
        Role.COORDINATOR,
        State.PREPARING,
        now.wall_ms,
        participants,
        order,
        vote_by,
        votes=tuple(Voted(b) for b in participants),
        counterparties=_parties(bank, order.legs, ledger),
        subjects=(order.holder_id, *dict.fromkeys(leg.account for leg in own)),
    )
    flows = flows_of(known)
    refusal = refusal or check(own, ledger, flows, positions, cap)
    if refusal is not None:
        known = replace(known, subjects=(order.holder_id,))
        return replace(_decide_abort(known, refusal.at(bank), now, before=State.NOTHING), forced=True)
    if not participants:
        return _post_locally(known, ledger, now)
    rows = (*books.place(ledger, own, transaction, now.stamp), *books.reserve_positions(flows))
    record = Record(transaction, now.stamp, RecordKind.BEGUN, State.NOTHING, State.PREPARING, _asked(participants))
    messages: list[tuple[str, Message]] = [(b, prepare_for(known, b)) for b in participants]
    return Step(known, (record,), (known, *rows), tuple(messages))


def step(state: State, event: Event, situation: Situation) -> Step:
    """What follows when *event* meets a transaction in *state*; see ``TABLE``."""
    handler = TABLE.get((state, event))
    if handler is None:
        return Step(situation.transaction, alarm=f"{event} met a transaction that is {state}")
    return handler(situation)


def state_of(transaction: Transaction | None, identity: str, incarnation: str, *, durable: bool = True) -> State:
    """The state that the table is asked for. *durable*: whether what *transaction* says has reached the disk."""
    if transaction is None:
        return State.NOTHING if incarnation_of(identity) == incarnation else State.FOREIGN
    if transaction.state is State.PREPARING and transaction.incarnation != incarnation:
        return State.RESTORED
    if (
        transaction.state is State.COMMITTING
        and not durable
        and unacknowledged(transaction) == transaction.participants
    ):
        return State.DECIDING  # an acknowledgement proves the decision durable: only that mark is still being written
    return transaction.state


def prepare_for(transaction: Transaction, bank: str) -> Prepare:
    """The prepare for one participant: all its legs, once. Sent again, it is the same to the last byte."""
    order = transaction.order
    assert order is not None
    legs = legs_at(bank, order.legs)
    # Names that votes brought since would change the digest, and a retry would look like a forgery.
    own = transaction.coordinator
    parties = tuple(
        [
            p if p.name_masked is None or p.bank == own else replace(p, name_masked=None)
            for p in transaction.counterparties
        ]
    )
    return Prepare(
        transaction.id,
        transaction.participants,
        legs,
        net_flow(legs),
        order.holder_cpf,
        order.end_to_end_id,
        order.description,
        order.ordered_at,
        parties,
        transaction.vote_by,
    )


def commit_for(transaction: Transaction, bank: str) -> Commit:
    """The commit for one participant: the stamp, and its legs again."""
    order = transaction.order
    assert order is not None
    assert transaction.commit_at is not None
    return Commit(transaction.id, transaction.commit_at, legs_at(bank, order.legs), transaction.counterparties)


def unacknowledged(transaction: Transaction) -> tuple[str, ...]:
    """The participants that have yet to acknowledge the commit."""
    return tuple([vote.bank for vote in transaction.votes if vote.acknowledged_at is None])


def flows_of(transaction: Transaction) -> dict[str, int]:
    """What the coordinator comes to owe each participant; negative where the participant comes to owe it."""
    order = transaction.order
    assert order is not None
    return {bank: net_flow(legs_at(bank, order.legs)) for bank in transaction.participants}


# Collecting votes -------------------------------------------------------------------------------------------------


def _count_yes(situation: Situation) -> Step:
    """One more yes. Until the last one nothing is durable and nothing is said; the last one decides."""
    known, vote = situation.known, situation.vote
    assert vote is not None
    assert isinstance(vote.answer, Yes)
    if vote.bank not in known.participants:
        return _stranger(situation, vote.bank)
    cast = Voted(vote.bank, yes=True, prepared_at=vote.answer.prepared_at)
    before = next(v for v in known.votes if v.bank == vote.bank)
    if before.yes is not None:
        return Step(known, alarm=None if before == cast else f"{vote.bank} voted twice, and not the same")
    if too_far_ahead(vote.answer.prepared_at, situation.now.wall_ms):
        because = Refusal(Code.BANK_REFUSED, "this bank's clock is too far ahead to be believed", vote.bank)
        return _abort(known, because, situation)
    votes = tuple([cast if v.bank == vote.bank else v for v in known.votes])
    known = replace(known, votes=votes, counterparties=_with_names(known.counterparties, vote))
    if not all(v.yes for v in votes):
        return Step(known)
    at = max(situation.now.stamp, *(v.prepared_at or 0 for v in votes))
    if wall_of(at) > known.vote_by:
        return _abort(known, Refusal(Code.BANK_UNREACHABLE, "the votes came too late to be stamped in time"), situation)
    return _decide_commit(known, at, situation, "every bank voted yes")


def _decide_commit(known: Transaction, at: int, situation: Situation, why: str) -> Step:
    """The commit point: own entries and the decision in one write; only then is anyone told."""
    order = known.order
    assert order is not None
    own, flows = legs_at(known.coordinator, order.legs), flows_of(known)
    books.assert_held(situation.ledger, own)
    decided = replace(known, state=State.COMMITTING, commit_at=at, decided_at=situation.now.wall_ms)
    rows = (
        *books.post(situation.ledger, own, known.id, EntryKind.TRANSFER, at, situation.now.wall_ms),
        *books.reserve_positions(flows, give_back=True),
        *books.post_positions(flows, known.id, at),
    )
    record = Record(known.id, situation.now.stamp, RecordKind.DECIDED, known.state, State.COMMITTING, f"commit: {why}")
    messages: list[tuple[str, Message]] = [(b, commit_for(decided, b)) for b in known.participants]
    return Step(decided, (record,), (decided, *rows), tuple(messages), forced=True)


def _refused(situation: Situation) -> Step:
    vote = situation.vote
    assert vote is not None
    assert not isinstance(vote.answer, Yes)
    known, because = situation.known, replace(vote.answer.because, bank=vote.bank)
    if vote.bank not in known.participants:
        return _stranger(situation, vote.bank)
    if because.code is Code.INTERRUPTED:  # ours to say: it lets a key run anew, and this refusal is about to be told
        because = replace(because, code=Code.BANK_REFUSED)
    votes = tuple(Voted(v.bank, yes=False) if v.bank == vote.bank else v for v in known.votes)
    return _abort(replace(known, votes=votes), because, situation)


def _deadline(situation: Situation) -> Step:
    silent = [situation.bank] if situation.bank else [v.bank for v in situation.known.votes if v.yes is None]
    because = Refusal(Code.BANK_UNREACHABLE, f"no vote in time from {', '.join(silent)}", silent[0])
    return _abort(situation.known, because, situation)


def _presume_abort(situation: Situation) -> Step:
    """Found at start-up without a decision: nobody can have been told of a commit, so it is aborted."""
    return _abort(
        situation.known, Refusal(Code.INTERRUPTED, "the bank stopped before it decided; nothing moved"), situation
    )


def _abort(known: Transaction, because: Refusal, situation: Situation) -> Step:
    """Abort what has begun: final at once. Whoever may have prepared is told, once; the others inquire."""
    told = [v.bank for v in known.votes if v.yes is not False]
    books.assert_held(situation.ledger, legs_at(known.coordinator, known.order.legs if known.order else ()))
    step = _decide_abort(known, because, situation.now, before=known.state)
    rows = (
        *books.release(situation.ledger, situation.now.stamp),
        *books.reserve_positions(flows_of(known), give_back=True),
    )
    messages: list[tuple[str, Message]] = [(bank, Abort(known.id, because.heard_at(bank))) for bank in told]
    return replace(step, changes=(*step.changes, *rows), messages=tuple(messages))


def aborted_because(because: Refusal) -> str:
    """How the log tells of an abort."""
    return f"abort: {because.code}, {because.detail}"


def _decide_abort(known: Transaction, because: Refusal, now: Now, before: State) -> Step:
    aborted = replace(known, state=State.ABORTED, because=because, decided_at=now.wall_ms)
    record = Record(known.id, now.stamp, RecordKind.DECIDED, before, State.ABORTED, aborted_because(because))
    return Step(aborted, (record,), (aborted,))


def _post_locally(known: Transaction, ledger: Ledger, now: Now) -> Step:
    """All legs are here: one atomic write, no protocol."""
    order = known.order
    assert order is not None
    ended = replace(known, state=State.ENDED, commit_at=now.stamp, decided_at=now.wall_ms, completed_at=now.wall_ms)
    rows = books.post(ledger, order.legs, known.id, EntryKind.TRANSFER, now.stamp, now.wall_ms)
    record = Record(known.id, now.stamp, RecordKind.DECIDED, State.NOTHING, State.ENDED, "commit: all legs are here")
    return Step(ended, (record,), (ended, *rows), forced=True)


# After the decision -----------------------------------------------------------------------------------------------


def _acknowledged(situation: Situation) -> Step:
    """One more participant has made the commit durable. The last one ends the transaction; no one waits for that."""
    known, now = situation.known, situation.now
    if situation.bank not in known.participants:
        return _stranger(situation, situation.bank)
    if situation.bank not in unacknowledged(known):
        return Step(known)
    votes = tuple([replace(v, acknowledged_at=now.wall_ms) if v.bank == situation.bank else v for v in known.votes])
    if None in [v.acknowledged_at for v in votes]:
        known = replace(known, votes=votes)
        return Step(known, (), (known,))
    ended = replace(known, votes=votes, state=State.ENDED, completed_at=now.wall_ms)
    record = Record(known.id, now.stamp, RecordKind.ENDED, State.COMMITTING, State.ENDED, "all have acknowledged")
    return Step(ended, (record,), (ended,))


def _send_again(situation: Situation) -> Step:
    known = situation.known
    return Step(known, messages=tuple((bank, commit_for(known, bank)) for bank in unacknowledged(known)))


def _lost_state(situation: Situation) -> Step:
    """A participant that voted yes no longer knows the transaction. Never an acknowledgement; kept for ever."""
    return Step(situation.transaction, alarm=f"{situation.bank} has lost a transaction that it voted yes on")


# Answers to inquiries ---------------------------------------------------------------------------------------------


def _say_undecided(situation: Situation) -> Step:
    return Step(situation.transaction, answer=Outcome(Fate.UNDECIDED))


def _say_committed(situation: Situation) -> Step:
    return Step(situation.transaction, answer=Outcome(Fate.COMMITTED, situation.known.commit_at))


def _say_aborted(situation: Situation) -> Step:
    return Step(situation.transaction, answer=Outcome(Fate.ABORTED))


def _say_unknown(situation: Situation) -> Step:
    return Step(situation.transaction, answer=Outcome(Fate.UNKNOWN))


def _ignore(situation: Situation) -> Step:
    return Step(situation.transaction)


def _stranger(situation: Situation, bank: str) -> Step:
    return Step(situation.transaction, alarm=f"{bank} spoke of a transaction in which it takes no part")


# After a restore --------------------------------------------------------------------------------------------------


def _ask_participants(situation: Situation) -> Step:
    """The log may have lost a decision: nothing is decided and nothing released until a participant tells."""
    known = situation.known
    return Step(known, messages=tuple((bank, Inquire(known.id, known.vote_by)) for bank in known.participants))


def _commit_as_found(situation: Situation) -> Step:
    """A participant has committed: so had this bank, before it was restored, with every vote a yes."""
    known, at = situation.known, situation.at
    if not known.begun_at <= wall_of(at) <= known.vote_by:
        return Step(known, alarm=f"{situation.bank} says committed at a stamp that this bank cannot have decided")
    voted = replace(known, votes=tuple(replace(v, yes=True) for v in known.votes))
    return _decide_commit(voted, at, situation, f"{situation.bank} has committed")


def _abort_as_found(situation: Situation) -> Step:
    return _abort(situation.known, Refusal(Code.INTERRUPTED, f"aborted, says {situation.bank}"), situation)


TABLE: Final[dict[tuple[State, Event], Callable[[Situation], Step]]] = {
    (State.PREPARING, Event.YES): _count_yes,
    (State.PREPARING, Event.NO): _refused,
    (State.PREPARING, Event.DEADLINE): _deadline,
    (State.PREPARING, Event.INQUIRE): _say_undecided,
    (State.PREPARING, Event.RESTART): _presume_abort,
    (State.DECIDING, Event.YES): _ignore,
    (State.DECIDING, Event.DEADLINE): _ignore,
    (State.DECIDING, Event.INQUIRE): _say_undecided,
    (State.COMMITTING, Event.YES): _ignore,
    (State.COMMITTING, Event.DEADLINE): _ignore,
    (State.COMMITTING, Event.ACKNOWLEDGE): _acknowledged,
    (State.COMMITTING, Event.MISSING): _lost_state,
    (State.COMMITTING, Event.INQUIRE): _say_committed,
    (State.COMMITTING, Event.RESTART): _send_again,
    (State.ABORTED, Event.YES): _ignore,
    (State.ABORTED, Event.NO): _ignore,
    (State.ABORTED, Event.DEADLINE): _ignore,
    (State.ABORTED, Event.INQUIRE): _say_aborted,
    (State.ABORTED, Event.RESTART): _ignore,
    (State.ENDED, Event.YES): _ignore,
    (State.ENDED, Event.NO): _ignore,
    (State.ENDED, Event.DEADLINE): _ignore,
    (State.ENDED, Event.ACKNOWLEDGE): _ignore,
    (State.ENDED, Event.MISSING): _lost_state,
    (State.ENDED, Event.INQUIRE): _say_committed,
    (State.ENDED, Event.RESTART): _ignore,
    (State.NOTHING, Event.YES): _ignore,
    (State.NOTHING, Event.NO): _ignore,
    (State.NOTHING, Event.ACKNOWLEDGE): _ignore,
    (State.NOTHING, Event.INQUIRE): _say_aborted,
    (State.FOREIGN, Event.YES): _ignore,
    (State.FOREIGN, Event.NO): _ignore,
    (State.FOREIGN, Event.ACKNOWLEDGE): _ignore,
    (State.FOREIGN, Event.INQUIRE): _say_unknown,
    (State.RESTORED, Event.INQUIRE): _say_unknown,
    (State.RESTORED, Event.RESTART): _ask_participants,
    (State.RESTORED, Event.FOUND_COMMITTED): _commit_as_found,
    (State.RESTORED, Event.FOUND_ABORTED): _abort_as_found,
}


# What holders see of each other -----------------------------------------------------------------------------------


def _parties(bank: str, legs: tuple[Leg, ...], ledger: Ledger) -> tuple[Counterparty, ...]:
    """One party per leg. Masked names of this bank's own accounts are known from the start, others with the votes."""
    parties = []
    for leg in legs:
        account = ledger.accounts.get(leg.account) if leg.bank == bank else None
        parties.append(Counterparty(leg.number, leg.bank, leg.direction, account.masked_name if account else None))
    return tuple(parties)


def _with_names(parties: tuple[Counterparty, ...], vote: Vote) -> tuple[Counterparty, ...]:
    """*parties* with what a yes tells of the legs at its own bank, and of no other's."""
    assert isinstance(vote.answer, Yes)
    told = {name.leg: name.name_masked for name in vote.answer.names}
    return tuple([replace(p, name_masked=told.get(p.leg)) if p.bank == vote.bank else p for p in parties])


def _check_positions(flows: Mapping[str, int], positions: Mapping[str, Book], cap: int) -> Refusal | None:
    """Whether any participant would come to owe this bank more than it may."""
    for bank, flow in flows.items():
        if flow < 0:
            name = books.position_book(bank)
            refusal = books.check_position(positions.get(name, Book(name)), -flow, cap)
            if refusal is not None:
                return replace(refusal, bank=bank)
    return None


def _asked(participants: tuple[str, ...]) -> str:
    return f"asked {', '.join(participants)} to prepare"
