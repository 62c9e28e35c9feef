"""The network-wide read: every bank's books at one stamp *T*, and what an auditor may conclude from them.

All banks' answers for the same T belong to one consistent cut: each transfer is in all of it or in none of it. A bank
merges T into its clock before it answers, so that whatever it votes on or decides from then on is later than T; what it
has promised by T and does not know the outcome of is listed, with its amounts, never guessed at. The five checks and
their reasons stand in ``docs/protocol.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from enum import StrEnum

from distribank.core.coordinator import flows_of
from distribank.core.ledger import CASH, SUSPENSE, position_book
from distribank.core.money import format_amount
from distribank.core.protocol import FORCED, Cut, Part, Role, Side, State, Transaction
from distribank.core.transfer import legs_at, net_flow
from distribank.core.values import dataclass


class FindingCode(StrEnum):
    """What may be wrong, or could not be looked at."""

    BANK_UNREACHABLE = "bank_unreachable"
    """It gave no answer: its positions, and the network's money, are unchecked."""
    CLOCK_AHEAD = "clock_ahead"
    """Its clock lies too far ahead to be believed, so that no cut can be made that holds all it has acknowledged."""
    BOOKS_UNBALANCED = "books_unbalanced"
    """Check 1: a bank's own entries do not sum to zero."""
    POSITIONS_DIFFER = "positions_differ"
    """Check 2: two banks do not agree on what one owes the other."""
    MONEY_DIFFERS = "money_differs"
    """Check 3: customers' money, with what is in suspense, is not the cash paid in less the cash paid out."""
    BOOKS_INCONSISTENT = "books_inconsistent"
    """Check 4, and whatever else a bank found when it added its own books up anew."""
    FORCED = "forced"
    """An operator has forced a part whose truth was not known yet: the other checks may fail by it."""
    OUTCOMES_DIFFER = "outcomes_differ"
    """Two banks say the opposite of one transaction."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong or unchecked, in words; *bank*, *peer* and *transaction* where it concerns one."""

    code: FindingCode
    detail: str
    bank: str | None = None
    peer: str | None = None
    transaction: str | None = None


@dataclass(frozen=True, slots=True)
class Doubt:
    """A part that was in doubt at *bank*, and how the other banks' answers settle it (``IN_DOUBT`` if they do not)."""

    bank: str
    part: Part
    side: Side


@dataclass(frozen=True, slots=True)
class Audit:
    """The network at stamp *at*. *cuts* has every bank of the roster, ``None`` for one that gave no answer."""

    at: int
    cuts: Mapping[str, Cut | None]
    doubts: Sequence[Doubt] = ()
    findings: Sequence[Finding] = field(default=())

    @property
    def ok(self) -> bool:
        """Whether everything was checked, and holds."""
        return not self.findings


# At one bank ------------------------------------------------------------------------------------------------------


def may_be_on(known: Transaction, at: int, incarnation: str) -> bool:
    """Whether the outcome that *known* still waits for may yet post something here at or before *at*."""
    if known.role is Role.PARTICIPANT:
        return known.state is State.PREPARED and known.prepared_at is not None and known.prepared_at <= at
    return known.state is State.PREPARING and known.incarnation != incarnation


def side_of(known: Transaction | None, coordinates: bool, at: int, incarnation: str) -> Side:
    """Where the cut at *at* leaves a transaction as this bank knows it, whose clock is past *at*.

    *coordinates* says that this bank coordinates it, in this incarnation of its database.
    """
    if known is None:
        return Side.OFF if coordinates else Side.IN_DOUBT
    if known.commit_at is not None and known.state not in (State.PREPARED, *FORCED):
        return Side.ON if known.commit_at <= at else Side.OFF
    if known.state in FORCED or may_be_on(known, at, incarnation):
        return Side.IN_DOUBT
    return Side.OFF


def part_of(own: str, known: Transaction) -> Part:
    """What *known* would move at bank *own*: customers' money by their net, and the positions that go with it."""
    assert known.order is not None, f"{known.id} is a tombstone"
    flows = flows_of(known) if known.role is Role.COORDINATOR else {known.coordinator: -net_flow(known.order.legs)}
    customers = sum(leg.signed for leg in legs_at(own, known.order.legs))
    return Part(known.id, known.banks, customers, {bank: flow for bank, flow in flows.items() if flow})


# Over the network -------------------------------------------------------------------------------------------------


def settle(bank: str, part: Part, said: Mapping[str, Side]) -> tuple[Doubt, list[Finding]]:
    """How the other banks' answers settle a part in doubt at *bank*; with a finding if they contradict each other."""
    sides = {side for side in said.values() if side is not Side.IN_DOUBT}
    if len(sides) == 1:
        return Doubt(bank, part, sides.pop()), []
    doubt = Doubt(bank, part, Side.IN_DOUBT)
    if not sides:
        return doubt, []
    words = "of a transaction in doubt here, " + ", ".join(f"{other} says {said[other]}" for other in sorted(said))
    return doubt, [Finding(FindingCode.OUTCOMES_DIFFER, words, bank, transaction=part.transaction)]


def examine(at: int, cuts: Mapping[str, Cut | None], doubts: Sequence[Doubt], found: Iterable[Finding]) -> Audit:
    """The five checks over what the banks said, each part in doubt counted as it was settled, else in none.

    *cuts* has every bank of the roster; *found* is what the asking itself brought to light.
    """
    books = {bank: _settled(cut, [d for d in doubts if d.bank == bank]) for bank, cut in cuts.items() if cut}
    findings = [*found, *_own_findings(cuts), *_unbalanced(books), *_pairs(books)]
    if all(cuts.values()):
        findings += _money(books)
    return Audit(at, cuts, doubts, findings)


def _settled(cut: Cut, doubts: Iterable[Doubt]) -> dict[str, int]:
    """A bank's sums, by book, customers' under ``""``, with what the others say was posted by then."""
    sums = {"": cut.customers, **cut.books}
    for doubt in doubts:
        if doubt.side is Side.ON:
            sums[""] += doubt.part.customers
            for bank, flow in doubt.part.positions.items():
                sums[position_book(bank)] = sums.get(position_book(bank), 0) + flow
    return sums


def _own_findings(cuts: Mapping[str, Cut | None]) -> list[Finding]:
    found: list[Finding] = []
    for bank, cut in cuts.items():
        if cut is not None:
            found += [Finding(FindingCode.BOOKS_INCONSISTENT, words, bank) for words in cut.findings]
            found += [
                Finding(FindingCode.FORCED, "an operator has forced its part here", bank, transaction=transaction)
                for transaction in cut.forced
            ]
    return found


def _unbalanced(books: Mapping[str, Mapping[str, int]]) -> list[Finding]:
    """Check 1."""
    return [
        Finding(FindingCode.BOOKS_UNBALANCED, f"its entries sum to {format_amount(total)}, not to 0.00", bank)
        for bank, sums in books.items()
        if (total := sum(sums.values()))
    ]


def _pairs(books: Mapping[str, Mapping[str, int]]) -> list[Finding]:
    """Check 2, for every pair of banks that both answered."""
    found = []
    for bank, sums in books.items():
        for peer in books:
            if bank < peer:
                owes, owed = sums.get(position_book(peer), 0), -books[peer].get(position_book(bank), 0)
                if owes != owed:
                    words = f"{bank} says that it owes {peer} {format_amount(owes)}, which says {format_amount(owed)}"
                    found.append(Finding(FindingCode.POSITIONS_DIFFER, words, bank, peer))
    return found


def _money(books: Mapping[str, Mapping[str, int]]) -> list[Finding]:
    """Check 3."""
    customers = sum(sums[""] + sums.get(SUSPENSE, 0) for sums in books.values())
    cash = -sum(sums.get(CASH, 0) for sums in books.values())
    if customers == cash:
        return []
    words = (
        f"customers and suspense have {format_amount(customers)}, cash paid in less paid out is {format_amount(cash)}"
    )
    return [Finding(FindingCode.MONEY_DIFFERS, words)]
