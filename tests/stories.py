"""Builders for the tests of the core: three banks, their people, one transfer, and what a step makes of a ledger.

The story told everywhere: Ana orders at bank A that 300 from her account there and 200 from her account at B (by
consent) go to Caio at C. A coordinates; B comes to owe A 200, and A comes to owe C 500. Amounts are centavos.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from distribank.core import coordinator, participant
from distribank.core.clock import stamp_at
from distribank.core.consents import Consent
from distribank.core.coordinator import state_of
from distribank.core.ledger import (
    Account,
    AccountHolder,
    AccountType,
    Book,
    BookEntry,
    Entry,
    Hold,
    HolderRole,
    HoldState,
    Ledger,
    Reservation,
)
from distribank.core.protocol import Commit, No, Now, Prepare, State, Step, Transaction, Vote, Yes
from distribank.core.refusals import Code, Refusal
from distribank.core.transfer import Counterparty, Direction, Leg, Order, legs_at, net_flow

A, B, C = "99990001", "99990002", "99990003"
ANA_CPF, CAIO_CPF, RUI_CPF = "52998224725", "11144477735", "12345678909"
INCARNATION, OTHER_INCARNATION = "a" * 32, "b" * 32
TX = f"{A}.{INCARNATION}.{'1' * 32}"
WALL = 1_800_000_000_000
VOTE_BY = WALL + 62_000
ANA_HERE, ANA_THERE, CAIO = "00000001-9", "00000007-8", "00000003-5"


def stamp(after_ms: int = 0, counter: int = 0) -> int:
    return stamp_at(WALL + after_ms) + counter


def now(after_ms: int = 0, counter: int = 0) -> Now:
    return Now(WALL + after_ms, stamp(after_ms, counter))


def account(number: str, posted: int = 0, cpf: str = ANA_CPF, name: str = "Ana Souza", **more: Any) -> Account:
    holder = AccountHolder(f"holder-{cpf}", cpf, name, HolderRole.TITULAR)
    approval = more.pop("approval", 1)
    return Account(number, AccountType.INDIVIDUAL, (holder,), approval, WALL - 1000, posted=posted, **more)


def leg(number: int, bank: str, where: str, signed: int) -> Leg:
    return Leg(number, bank, where, Direction.CREDIT if signed > 0 else Direction.DEBIT, abs(signed))


LEGS = (leg(1, A, ANA_HERE, -300), leg(2, B, ANA_THERE, -200), leg(3, C, CAIO, 500))


def order(legs: Iterable[Leg] = LEGS) -> Order:
    return Order("E99990001202701150000abcdefghijk", ANA_CPF, "holder-ana", "rent", WALL, tuple(legs))


def ledger(*accounts: Account, holds: Iterable[Hold] = ()) -> Ledger:
    return Ledger({a.number: a for a in accounts}, {h.account: h for h in holds})


def after(before: Ledger, step: Step) -> Ledger:
    """The ledger once *step* is durable."""
    return ledger_after(before, step.changes)


def ledger_after(before: Ledger, changes: Iterable[object]) -> Ledger:
    accounts, holds = dict(before.accounts), dict(before.holds)
    for row in changes:
        if isinstance(row, Account):
            accounts[row.number] = row
        if isinstance(row, Hold):
            holds[row.account] = row
    return Ledger(accounts, holds)


def rows(step: Step, kind: type[Any]) -> list[Any]:
    return [row for row in step.changes if isinstance(row, kind)]


def entries(step: Step) -> list[tuple[str, int, int]]:
    """(account, signed amount, stamp) of every entry."""
    return [(e.account, e.amount if e.direction is Direction.CREDIT else -e.amount, e.stamp) for e in rows(step, Entry)]


def book_entries(step: Step) -> list[tuple[str, int, int]]:
    return [(e.book, e.amount, e.stamp) for e in rows(step, BookEntry)]


def reservations(step: Step) -> list[tuple[str, int]]:
    return [(r.book, r.amount) for r in rows(step, Reservation)]


def holds(step: Step) -> list[tuple[str, Direction, int, HoldState]]:
    return [(h.account, h.direction, h.amount, h.state) for h in rows(step, Hold)]


def lines(step: Step) -> list[tuple[str, str, str]]:
    """The log records: (kind, before, after)."""
    return [(r.kind, r.before, r.after) for r in step.records]


def changes_nothing(step: Step, known: Transaction | None) -> bool:
    """Nothing becomes durable, nobody is told, and what is known stays as it is."""
    return step.transaction == known and not (step.records or step.changes or step.messages)


# The coordinator's side -------------------------------------------------------------------------------------------


OWN_BEFORE = ledger(account(ANA_HERE, 1000))


def begin(legs: Iterable[Leg] = LEGS, before: Ledger = OWN_BEFORE, **more: Any) -> Step:
    positions: Mapping[str, Book] = more.pop("positions", {})
    return coordinator.begin(TX, order(legs), before, positions, now(), VOTE_BY, **more)


def preparing() -> Transaction:
    known = begin().transaction
    assert known is not None
    return known


OWN_HELD = after(OWN_BEFORE, begin())


def yes(bank: str, prepared_at: int = stamp(5), names: tuple[Counterparty, ...] = ()) -> Vote:
    return Vote(bank, Yes(prepared_at, names))


def no(bank: str, code: Code = Code.ACCOUNT_CLOSED) -> Vote:
    return Vote(bank, No(Refusal(code, "this account is closed", bank, CAIO, 3)))


def coordinate(known: Transaction | None, event: coordinator.Event, **more: Any) -> Step:
    """One event at the coordinator; *durable*, *identity* and *incarnation* tell the state apart, as the bank does."""
    state = state_of(
        known, more.pop("identity", TX), more.pop("incarnation", INCARNATION), durable=more.pop("durable", True)
    )
    more.setdefault("ledger", OWN_HELD if known and known.state is State.PREPARING else ledger())
    return coordinator.step(state, event, coordinator.Situation(known, more.pop("now", now(10)), **more))


def half_voted() -> Transaction:
    known = coordinate(preparing(), coordinator.Event.YES, vote=yes(B)).transaction
    assert known is not None
    return known


def deciding() -> Step:
    return coordinate(half_voted(), coordinator.Event.YES, vote=yes(C))


def committing() -> Transaction:
    known = deciding().transaction
    assert known is not None
    return known


def aborted() -> Transaction:
    known = coordinate(preparing(), coordinator.Event.NO, vote=no(C)).transaction
    assert known is not None
    return known


def ended() -> Transaction:
    known = committing()
    for bank in (B, C):
        acknowledged = coordinate(known, coordinator.Event.ACKNOWLEDGE, bank=bank).transaction
        assert acknowledged is not None
        known = acknowledged
    return known


# A participant's side: bank B, asked for a debit that Ana consented to ---------------------------------------------


def consent(**more: Any) -> Consent:
    given = Consent("consent-1", ANA_THERE, f"holder-{ANA_CPF}", ANA_CPF, A, 500, 1000, WALL + 86_400_000, WALL - 500)
    return replace(given, **more)


THERE_BEFORE = ledger(account(ANA_THERE, 1000))


def prepare(legs: Iterable[Leg] = LEGS[1:2], **more: Any) -> Prepare:
    legs = tuple(legs)
    parties = tuple(Counterparty(each.number, each.bank, each.direction, None) for each in LEGS)
    asked = Prepare(
        TX, (B, C), legs, net_flow(legs), ANA_CPF, "E99990001202701150000abcdefghijk", "rent", WALL, parties, VOTE_BY
    )
    return replace(asked, **more)


def commit(at: int = stamp(10), legs: Iterable[Leg] = LEGS[1:2]) -> Commit:
    return Commit(TX, at, tuple(legs))


def participate(known: Transaction | None, event: participant.Event, **more: Any) -> Step:
    """One event at bank B."""
    if event is participant.Event.PREPARE:
        more.setdefault("prepare", prepare())
    if event is participant.Event.COMMIT:
        more.setdefault("commit", commit())
    is_prepared = known is not None and known.state is State.PREPARED
    more.setdefault("ledger", THERE_HELD if is_prepared else THERE_BEFORE)
    more.setdefault("consents", (consent(used=200),) if is_prepared else (consent(),))
    situation = participant.Situation(more.pop("bank", B), TX, known, more.pop("now", now(5)), **more)
    return participant.step(event, situation)


def voting() -> Step:
    situation = participant.Situation(B, TX, None, now(5), THERE_BEFORE, prepare=prepare(), consents=(consent(),))
    return participant.step(participant.Event.PREPARE, situation)


THERE_HELD = after(THERE_BEFORE, voting())


def prepared() -> Transaction:
    known = voting().transaction
    assert known is not None
    assert known.state is State.PREPARED
    return known


def committed() -> Transaction:
    known = participate(prepared(), participant.Event.COMMIT).transaction
    assert known is not None
    return known


def released() -> Transaction:
    known = participate(prepared(), participant.Event.ABORT).transaction
    assert known is not None
    return known


def tombstone() -> Transaction:
    known = participate(None, participant.Event.ABORT).transaction
    assert known is not None
    return known


def own_legs(bank: str) -> tuple[Leg, ...]:
    return legs_at(bank, LEGS)
