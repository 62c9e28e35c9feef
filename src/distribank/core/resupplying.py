"""How a bank that was restored from a backup gets back what happened behind it, from what its peers remember.

Three decisions, each over rows that the caller has loaded. What a peer tells of one transaction (``tell``): its own
commits in which the restored bank takes part, and its part in what the restored bank had coordinated. What is posted of
a commit whose vote was lost (``supply``): at its own commit timestamp, the position in full, customers as far as their
accounts let it, the rest in suspense. And how an operator settles what this bank itself had decided (``settle``), where
a participant has committed it: positions in full, against the accounts that are named, and else against suspense.

Nothing is taken from a customer on a coordinator's word alone: a debit for which no consent in the backup serves goes
to suspense, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from distribank.core import consents as permissions
from distribank.core import ledger as books
from distribank.core.clock import CLOCK_BOUND_MS, wall_of
from distribank.core.consents import Consent
from distribank.core.heuristics import AccountDamage, reach
from distribank.core.ledger import SUSPENSE, Account, BookEntry, EntryKind, Ledger, LedgerRow
from distribank.core.money import format_amount
from distribank.core.protocol import (
    FORCED,
    Acknowledged,
    Commit,
    Decision,
    Now,
    Prepare,
    Record,
    RecordKind,
    Role,
    State,
    Step,
    Transaction,
    Voted,
    coordinator_of,
)
from distribank.core.refusals import Code, Refusal
from distribank.core.restoration import Lost, Part, PartFate, Restoration, Supplied
from distribank.core.transfer import MAX_LEGS, Direction, Leg, Order, check_participant_legs, legs_at, net_flow
from distribank.core.values import dataclass, replace

UNKNOWN_END_TO_END_ID: Final = "unknown"
"""What stands for an end-to-end id where a commit is all that is known of a transaction."""

_FATES: Final = {
    State.COMMITTED: PartFate.COMMITTED,
    State.PREPARED: PartFate.PREPARED,
    State.ABORTED: PartFate.ABORTED,
    **dict.fromkeys(FORCED, PartFate.PREPARED),  # a guess does not spread
}


# At a peer --------------------------------------------------------------------------------------------------------


def tell(own: str, asker: str, known: Transaction) -> Decision | None:
    """What bank *own* tells the restored bank *asker* of *known*; ``None`` where that is no business of its."""
    if known.role is Role.COORDINATOR:
        if known.commit_at is None or asker not in known.participants:
            return None
        return _told(known, PartFate.COMMITTED, asker)
    if known.coordinator != asker:
        return None
    return _told(known, _FATES[known.state], own)


def _told(known: Transaction, fate: PartFate, bank: str) -> Decision:
    order = known.order or Order("", "", "", None, known.begun_at, ())
    return Decision(
        known.id,
        known.begun_at,
        fate,
        known.commit_at if fate is PartFate.COMMITTED else None,
        known.participants,
        legs_at(bank, order.legs),
        order.holder_cpf,
        order.end_to_end_id,
        order.description,
        order.ordered_at,
        known.vote_by,
        known.counterparties,
    )


# What is told is looked at ----------------------------------------------------------------------------------------


def flaw(own: str, sender: str, decision: Decision, restoration: Restoration, now: Now) -> str | None:
    """Why the restored bank *own* believes nothing of what *sender* tells by *decision*, or ``None``."""
    mine = coordinator_of(decision.transaction) == own
    if not mine and (coordinator_of(decision.transaction) != sender or decision.fate is not PartFate.COMMITTED):
        return f"{sender} told of a transaction that is not its own to tell of"
    if (decision.fate is PartFate.COMMITTED) is (decision.at is None):
        return f"{sender} told of a commit without its stamp, or of a stamp without a commit"
    latest = now.wall_ms + CLOCK_BOUND_MS
    if decision.at is not None and not restoration.since <= wall_of(decision.at) <= latest:
        return f"{sender} told of a commit stamped at a moment that this backup does not lack"
    if decision.fate is PartFate.ABORTED and not decision.legs:
        return None
    holds = sender if mine else own
    if holds not in decision.participants or check_participant_legs(holds, decision.legs) is not None:
        return f"{sender} told of legs that no prepare can have had"
    return None


def found(sender: str, decision: Decision, lost: Lost | None) -> Lost:
    """What is known of a transaction that this bank had coordinated, now that *sender* has told its part."""
    part = Part(sender, decision.fate, decision.at, decision.legs)
    if lost is None or (not lost.participants and decision.participants):
        told = Lost(
            decision.transaction,
            decision.begun_at,
            decision.participants,
            decision.end_to_end_id,
            decision.holder_cpf,
            decision.description,
            decision.ordered_at,
            decision.vote_by,
            decision.counterparties,
            lost.parts if lost is not None else (),
        )
    else:
        told = lost
    return replace(told, begun_at=min(told.begun_at, decision.begun_at)).with_part(part)


# What others had decided ------------------------------------------------------------------------------------------


def as_decision(own: str, commit: Commit) -> Decision:
    """What a *commit* alone tells of the transaction: enough to post it."""
    at, coordinator = wall_of(commit.at), coordinator_of(commit.transaction)
    others = dict.fromkeys(party.bank for party in commit.counterparties if party.bank not in (coordinator, own))
    return Decision(
        commit.transaction,
        at,
        PartFate.COMMITTED,
        commit.at,
        (own, *others),
        commit.legs,
        "",
        UNKNOWN_END_TO_END_ID,
        None,
        at,
        at,
        commit.counterparties,
    )


def supply(
    own: str, decision: Decision, accounts: Mapping[str, Account], consents: Sequence[Consent], now: Now
) -> Step:
    """Post what a coordinator has committed and this bank has lost its vote on, in one write; acknowledge it.

    *accounts* are those of its legs that exist, *consents* all that were given on them.
    """
    at, coordinator = decision.at, coordinator_of(decision.transaction)
    assert at is not None, f"{decision.transaction} is not committed"
    used = {number: _consented(decision, number, accounts, consents) for number in accounts}
    able = {number: account for number, account in accounts.items() if used[number] is not None}
    posting = _as_far_as_it_goes(own, decision.transaction, decision.legs, able, at, now)
    flows = {coordinator: -net_flow(decision.legs)}
    committed = Transaction(
        decision.transaction,
        Role.PARTICIPANT,
        State.COMMITTED,
        min(decision.begun_at, now.wall_ms),
        decision.participants,
        Order(
            decision.end_to_end_id,
            decision.holder_cpf,
            "",
            decision.description,
            decision.ordered_at,
            decision.legs,
        ),
        decision.vote_by,
        digest=_digest_of(decision),
        prepared_at=at,
        commit_at=at,
        decided_at=now.wall_ms,
        completed_at=now.wall_ms,
        counterparties=decision.counterparties,
        subjects=tuple(dict.fromkeys(leg.account for leg in decision.legs)),
    )
    supplied = Supplied(decision.transaction, now.wall_ms, None, posting.damages)
    said = "this bank was restored and had lost its vote: posted as its coordinator has committed it"
    record = Record(decision.transaction, now.stamp, RecordKind.RESOLVED, State.NOTHING, State.COMMITTED, said)
    changes = (
        committed,
        supplied,
        *posting.rows,
        *books.post_positions(flows, decision.transaction, at),
        *_in_suspense(supplied, at),
        *[consent for number in able for consent in used[number] or ()],
    )
    return Step(committed, (record,), changes, answer=Acknowledged(), forced=True)


def named(known: Transaction, decision: Decision) -> Transaction:
    """What was posted by a commit alone, once its coordinator has told the rest of it."""
    order = known.order
    assert order is not None, f"{known.id} is a tombstone"
    if order.end_to_end_id != UNKNOWN_END_TO_END_ID or (known.commit_at, order.legs) != (decision.at, decision.legs):
        return known
    return replace(
        known,
        participants=decision.participants,
        order=Order(
            decision.end_to_end_id, decision.holder_cpf, "", decision.description, decision.ordered_at, order.legs
        ),
        vote_by=decision.vote_by,
        digest=_digest_of(decision),
        counterparties=decision.counterparties,
    )


def _digest_of(decision: Decision) -> str:
    """The digest of the prepare that this bank had voted on: a late one is then known for the same."""
    coordinator = coordinator_of(decision.transaction)
    parties = tuple([p if p.bank == coordinator else replace(p, name_masked=None) for p in decision.counterparties])
    return Prepare(
        decision.transaction,
        decision.participants,
        decision.legs,
        net_flow(decision.legs),
        decision.holder_cpf,
        decision.end_to_end_id,
        decision.description,
        decision.ordered_at,
        parties,
        decision.vote_by,
    ).digest


def _consented(
    decision: Decision, number: str, accounts: Mapping[str, Account], consents: Sequence[Consent]
) -> tuple[Consent, ...] | None:
    """The consents that cover the debits of account *number*, used up by them; ``None`` where none do.

    A commit alone does not tell who ordered it: then anybody's consent to that coordinator may serve.
    """
    assert decision.at is not None
    legs = tuple([leg for leg in decision.legs if leg.account == number])
    if all(leg.direction is Direction.CREDIT for leg in legs):
        return ()
    people = dict.fromkeys(consent.holder_cpf for consent in consents if consent.account == number)
    for cpf in [decision.holder_cpf] if decision.holder_cpf else people:
        request = permissions.Request(coordinator_of(decision.transaction), cpf, legs, accounts, wall_of(decision.at))
        if permissions.check(consents, request) is None:
            return permissions.use(consents, request).changes
    return None


# What this bank had decided ---------------------------------------------------------------------------------------


def settle(
    own: str,
    lost: Lost,
    named: Sequence[Leg],
    holder_id: str,
    accounts: Mapping[str, Account],
    reason: str,
    now: Now,
) -> Step | Refusal:
    """Post what this bank had coordinated and lost, as its participants have committed it; it is then told like any
    other commit until all have acknowledged it.

    *named* are legs at accounts of this bank, of which *accounts* has those that exist.
    """
    parts = [part for part in lost.parts if part.fate is not PartFate.ABORTED]
    stamps = {part.at for part in parts if part.at is not None}
    if lost.fate is not PartFate.COMMITTED:
        detail = "no bank that has answered has committed this, so that there is nothing to post"
        return Refusal(Code.NOT_SETTLEABLE, detail)
    if len(stamps) != 1:
        return Refusal(Code.NOT_SETTLEABLE, "its participants do not agree on when it was committed")
    legs = _numbered(named, {leg.number for part in parts for leg in part.legs})
    flows = {part.bank: part.flow for part in parts}
    wanted, given = -sum(flows.values()), net_flow(legs)
    refusal = books.check_open(Ledger(accounts, {}), legs) or _check_part(wanted, given)
    if refusal is not None:
        return replace(refusal, leg=None)
    (at,) = stamps
    posting = _as_far_as_it_goes(own, lost.transaction, legs, accounts, at, now)
    supplied = Supplied(lost.transaction, now.wall_ms, reason, posting.damages, wanted - given)
    order = Order(
        lost.end_to_end_id,
        lost.holder_cpf,
        holder_id,
        lost.description,
        lost.ordered_at,
        (*legs, *[leg for part in parts for leg in part.legs]),
    )
    decided = Transaction(
        lost.transaction,
        Role.COORDINATOR,
        State.COMMITTING,
        lost.begun_at,
        tuple(flows),
        order,
        lost.vote_by,
        commit_at=at,
        decided_at=now.wall_ms,
        votes=tuple([Voted(bank, yes=True) for bank in flows]),
        counterparties=lost.counterparties,
        subjects=tuple(dict.fromkeys([*([holder_id] if holder_id else []), *[leg.account for leg in legs]])),
    )
    said = "commit: this bank was restored and had lost its decision; the operator settled it"
    record = Record(lost.transaction, now.stamp, RecordKind.DECIDED, State.NOTHING, State.COMMITTING, said)
    changes = (
        decided,
        supplied,
        *posting.rows,
        *books.post_positions(flows, lost.transaction, at),
        *_in_suspense(supplied, at),
    )
    return Step(decided, (record,), changes, forced=True)


def _numbered(named: Sequence[Leg], taken: set[int]) -> tuple[Leg, ...]:
    """*named* with numbers that no leg of the transaction has elsewhere."""
    free = [number for number in range(1, MAX_LEGS + len(named) + 1) if number not in taken]
    return tuple([replace(leg, number=number) for leg, number in zip(named, free, strict=False)])


def _check_part(wanted: int, given: int) -> Refusal | None:
    """Accounts here can have gained, or lost, no more than the other banks' legs leave for them."""
    if min(wanted, 0) <= given <= max(wanted, 0):
        return None
    most = format_amount(abs(wanted))
    if wanted < 0:
        detail = f"the accounts here were debited {most} by it, all of them together: no more, and no credit"
    else:
        detail = f"the accounts here were credited {most} by it, all of them together: no more, and no debit"
    return Refusal(Code.UNBALANCED_TRANSFER, detail)


# Posting ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Posting:
    rows: tuple[LedgerRow, ...]
    damages: tuple[AccountDamage, ...]


def _as_far_as_it_goes(
    own: str, operation: str, legs: Sequence[Leg], accounts: Mapping[str, Account], at: int, now: Now
) -> _Posting:
    """The entries of *legs*, stamped *at*: an account that cannot take its whole net takes what it can."""
    damages: list[AccountDamage] = []
    posting: list[Leg] = []
    for number, net in books.net_per_account(legs).items():
        account, own_legs = accounts.get(number), [leg for leg in legs if leg.account == number]
        direction = Direction.CREDIT if net > 0 else Direction.DEBIT
        able = min(abs(net), reach(account, direction)) if account is not None else 0
        if net:
            damages.append(AccountDamage(number, direction, abs(net), able))
        if account is None or account.closed_at is not None:
            continue
        if able == abs(net):
            posting += own_legs
        elif able:
            posting.append(Leg(own_legs[0].number, own, number, direction, able))
    rows = books.post(Ledger(accounts, {}), posting, operation, EntryKind.TRANSFER, at, now.wall_ms)
    return _Posting(rows, tuple(damages))


def _in_suspense(supplied: Supplied, at: int) -> tuple[BookEntry, ...]:
    if not supplied.suspense:
        return ()
    return (BookEntry(supplied.transaction, SUSPENSE, supplied.suspense, at),)
