"""Refusals: precise reasons for a no, the same word for a holder and for a peer.

A refusal is a value that travels to whoever asked; it is never raised. What a peer or a disk does wrong is a
*breakage* and lives in ``distribank.breakages``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from distribank.core.values import dataclass, replace


class Code(StrEnum):
    """Why something was refused; stable, part of the public contract (``docs/api.md``)."""

    APPROVAL_REQUIRED = "approval_required"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    ACCOUNT_NOT_FOUND = "account_not_found"
    ACCOUNT_CLOSED = "account_closed"
    ACCOUNT_NOT_EMPTY = "account_not_empty"
    UNKNOWN_BANK = "unknown_bank"
    BANK_UNREACHABLE = "bank_unreachable"
    BANK_REFUSED = "bank_refused"
    CONSENT_REQUIRED = "consent_required"
    CONSENT_EXCEEDED = "consent_exceeded"
    CONSENT_EXPIRED = "consent_expired"
    NOT_A_HOLDER = "not_a_holder"
    UNBALANCED_TRANSFER = "unbalanced_transfer"
    TOO_MANY_LEGS = "too_many_legs"
    INVALID_AMOUNT = "invalid_amount"
    LIMIT_EXCEEDED = "limit_exceeded"
    POSITION_LIMIT = "position_limit"
    HOLDER_EXISTS = "holder_exists"
    DUPLICATE_HOLDER = "duplicate_holder"
    HOLDER_NOT_FOUND = "holder_not_found"
    COMPANY_EXISTS = "company_exists"
    INVALID_APPROVAL = "invalid_approval"
    NOT_RESOLVABLE = "not_resolvable"
    """An operator may force a prepared participant's part only, and once."""
    NOT_SETTLEABLE = "not_settleable"
    """Of what a restored bank had coordinated, an operator settles only what a participant has committed."""
    NOT_IN_SUSPENSE = "not_in_suspense"
    """Nothing is assigned out of suspense but what is there."""
    INTERRUPTED = "interrupted"
    """The coordinator stopped before it decided: presumed abort. Nothing moved."""
    NOT_RUN = "not_run"
    """An item of a sequential batch behind one that failed, with ``on_failure: stop``."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One no: its code, a sentence for people, and the bank, account and leg concerned where there is one."""

    code: Code
    detail: str
    bank: str | None = None
    account: str | None = None
    leg: int | None = None

    def at(self, bank: str) -> Refusal:
        """The same refusal, naming the bank it came from."""
        return replace(self, bank=self.bank or bank)

    def for_others(self) -> Refusal:
        """What may be heard of it by those whose money it is not about: only that somebody's bank refused."""
        return self if self.code in NEUTRAL else Refusal(Code.BANK_REFUSED, "another party's bank refused")

    def heard_at(self, bank: str) -> Refusal:
        """What *bank* may hear of it: the whole of what it said itself."""
        return self if self.bank == bank else self.for_others()


NEUTRAL: Final = frozenset({Code.BANK_UNREACHABLE, Code.INTERRUPTED, Code.POSITION_LIMIT})
"""Reasons that say nothing about any party's money, and may be told to every party."""


ISO_REASON: Final[dict[Code, str]] = {
    Code.ACCOUNT_NOT_FOUND: "AC03",
    Code.ACCOUNT_CLOSED: "AC07",
    Code.INSUFFICIENT_FUNDS: "AM04",
    Code.INVALID_AMOUNT: "AM01",
    Code.LIMIT_EXCEEDED: "AM02",
    Code.POSITION_LIMIT: "AM02",
    Code.CONSENT_EXCEEDED: "AM02",
    Code.NOT_A_HOLDER: "BE01",
    Code.UNKNOWN_BANK: "DS27",
    Code.BANK_UNREACHABLE: "AB03",
    Code.INTERRUPTED: "AB03",
}
"""ISO 20022 reason codes shown beside ours; what has no word of its own there is ``ED05``."""


def iso_reason(code: Code) -> str:
    """The ISO 20022 external status reason that comes closest to *code*."""
    return ISO_REASON.get(code, "ED05")
