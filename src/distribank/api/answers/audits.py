"""The audit of the whole network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from distribank.api.answers.words import Answer, Bank, Json, SignedMoney, Time
from distribank.core import snapshot
from distribank.core.clock import wall_of
from distribank.core.ledger import CASH, SUSPENSE, position_book
from distribank.core.money import format_amount
from distribank.core.protocol import Cut
from distribank.core.snapshot import Doubt, Finding
from distribank.moments import format_ms


class SignedPart(Answer):
    """What a bank answered, as it came: evidence that anybody with the network file can verify (RFC 9421)."""

    body: str = Field(description="The answer's body, to the byte.")
    headers: dict[str, str] = Field(description="`content-digest`, `signature-input`, `signature`; `@status` is 200.")


class AuditedBank(Answer):
    """One bank's books on the cut; all but the first three only where it answered."""

    bank: Bank
    name: str = Field(description="The bank's name.")
    status: Literal["answered", "unreachable"]
    customers: SignedMoney | None = Field(default=None, description="All that customers have there, in BRL.")
    cash: SignedMoney | None = Field(default=None, description="Cash, in BRL; negative is what the bank has.")
    suspense: SignedMoney | None = Field(default=None, description="What is not assigned, in BRL.")
    entries: int | None = Field(default=None, description="Number of entries that were added up.")
    signed: SignedPart | None = Field(default=None, description="Another bank's answer as it signed it.")


class AuditedPosition(Answer):
    """What two banks say that the first owes the second."""

    bank: Bank
    peer: Bank
    owes: SignedMoney = Field(description="As `bank` has it, in BRL.")
    owed: SignedMoney = Field(description="As `peer` has it, in BRL.")


class AuditedDoubt(Answer):
    """A part that was in doubt at a bank, and what would move there if it is committed."""

    bank: Bank
    transaction: str = Field(description="The transaction.")
    customers: SignedMoney = Field(description="By how much customers' money would change there, in BRL.")
    positions: dict[str, SignedMoney] = Field(description="What that bank would come to owe each peer, in BRL.")
    settled: Literal["committed", "not committed", "in doubt"] = Field(
        description="By this moment, as its other banks say; the checks count it so."
    )


class AuditFinding(Answer):
    """Something that is wrong, or that could not be checked."""

    code: Literal[
        "bank_unreachable",
        "clock_ahead",
        "books_unbalanced",
        "positions_differ",
        "money_differs",
        "books_inconsistent",
        "forced",
        "outcomes_differ",
    ]
    detail: str = Field(description="In words.")
    bank: str | None = Field(default=None, description="The bank that it concerns.")
    peer: str | None = Field(default=None, description="The other bank.")
    transaction: str | None = Field(default=None, description="The transaction that it concerns.")


class Audit(Answer):
    """The whole network at one moment."""

    ok: bool = Field(description="Everything was checked, and holds.")
    as_of: Time
    stamp: str = Field(description="The same moment on the banks' clock, decimal.")
    banks: list[AuditedBank]
    positions: list[AuditedPosition]
    in_doubt: list[AuditedDoubt]
    findings: list[AuditFinding]


def audit(done: snapshot.Audit, names: Mapping[str, str]) -> Json:
    """What *done* came to; *names* has every bank's name."""
    return {
        "ok": done.ok,
        "as_of": format_ms(wall_of(done.at)),
        "stamp": str(done.at),
        "banks": [_bank(code, names[code], cut) for code, cut in done.cuts.items()],
        "positions": _positions(done),
        "in_doubt": [_doubt(doubt) for doubt in done.doubts],
        "findings": [_finding(finding) for finding in done.findings],
    }


def _bank(code: str, name: str, cut: Cut | None) -> Json:
    if cut is None:
        return {"bank": code, "name": name, "status": "unreachable"}
    evidence = cut.evidence
    return {
        "bank": code,
        "name": name,
        "status": "answered",
        "customers": format_amount(cut.customers),
        "cash": format_amount(cut.books.get(CASH, 0)),
        "suspense": format_amount(cut.books.get(SUSPENSE, 0)),
        "entries": cut.entries,
        **({} if evidence is None else {"signed": {"body": evidence.body, "headers": dict(evidence.headers)}}),
    }


def _positions(done: snapshot.Audit) -> list[Json]:
    """What every two banks that answered say that the first one owes the second."""
    said = []
    for bank, cut in done.cuts.items():
        for peer, other in done.cuts.items():
            if cut is not None and other is not None and bank < peer:
                owes, owed = cut.books.get(position_book(peer), 0), -other.books.get(position_book(bank), 0)
                words = {"bank": bank, "peer": peer, "owes": format_amount(owes), "owed": format_amount(owed)}
                said.append(words)
    return said


def _doubt(doubt: Doubt) -> Json:
    part = doubt.part
    return {
        "bank": doubt.bank,
        "transaction": part.transaction,
        "customers": format_amount(part.customers),
        "positions": {bank: format_amount(amount) for bank, amount in part.positions.items()},
        "settled": {"on": "committed", "off": "not committed", "in_doubt": "in doubt"}[doubt.side],
    }


def _finding(finding: Finding) -> Json:
    about = {"bank": finding.bank, "peer": finding.peer, "transaction": finding.transaction}
    return {
        "code": finding.code.value,
        "detail": finding.detail,
        **{name: value for name, value in about.items() if value},
    }
