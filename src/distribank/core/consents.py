"""Consents: a holder's permission that another bank may order debits on an account here.

The bank that holds the account does not take a coordinator's word for a debit. It looks for a consent that serves
the very holder who gave the order, was given by a holder of the account to that coordinator, has not expired, and
covers the amount; and uses it up in the same write as the hold. An aborted transfer gives it back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from distribank.core.ledger import Account
from distribank.core.money import MAX_BALANCE
from distribank.core.refusals import Code, Refusal
from distribank.core.transfer import Direction, Leg
from distribank.core.values import dataclass, replace


class ConsentStatus(StrEnum):
    ACTIVE = "active"
    USED_UP = "used_up"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Consent:
    """A holder's permission that *initiator_bank* may order debits on *account* for them. Amounts in centavos."""

    consent_id: str
    account: str
    holder_id: str
    holder_cpf: str
    initiator_bank: str
    max_per_transfer: int
    max_total: int | None
    expires_at: int
    created_at: int
    used: int = 0
    revoked_at: int | None = None


@dataclass(frozen=True, slots=True)
class ConsentUse:
    """What one transaction took of one consent, in centavos."""

    consent_id: str
    amount: int


@dataclass(frozen=True, slots=True)
class Request:
    """What one prepare asks of the consents: who orders (*initiator_bank*, *holder_cpf*), and what."""

    initiator_bank: str
    holder_cpf: str
    legs: tuple[Leg, ...]
    accounts: Mapping[str, Account]
    wall_ms: int


@dataclass(frozen=True, slots=True)
class Used:
    """The consents after their use, and what was taken of each."""

    changes: tuple[Consent, ...]
    uses: tuple[ConsentUse, ...]


def status_of(consent: Consent, wall_ms: int) -> ConsentStatus:
    """What a consent is worth at *wall_ms*."""
    if consent.revoked_at is not None:
        return ConsentStatus.REVOKED
    if wall_ms >= consent.expires_at:
        return ConsentStatus.EXPIRED
    if consent.max_total is not None and consent.used >= consent.max_total:
        return ConsentStatus.USED_UP
    return ConsentStatus.ACTIVE


def check(consents: Sequence[Consent], request: Request) -> Refusal | None:
    """Why the debits of *request* are not all consented to, or ``None``.

    *consents* are all that were given on the accounts concerned. Several debit legs on one account are one debit
    of their sum: a ceiling per transfer would mean nothing otherwise. The ledger has found every account before.
    """
    for number, amount in _debits(request.legs).items():
        account = request.accounts[number]
        leg = next(leg for leg in request.legs if leg.account == number and leg.direction is Direction.DEBIT)
        found = _serving(consents, number, request)
        code = None
        if not account.is_held_by(request.holder_cpf) or not found:
            code, detail = Code.CONSENT_REQUIRED, "no consent lets this bank debit this account for this holder"
        elif account.approval > 1:
            code, detail = Code.APPROVAL_REQUIRED, "a debit of this account needs other holders' approval"
        elif all(status_of(c, request.wall_ms) is ConsentStatus.EXPIRED for c in found):
            code, detail = Code.CONSENT_EXPIRED, "the consent for this debit has expired"
        elif _covering(found, amount, request.wall_ms) is None:
            code, detail = Code.CONSENT_EXCEEDED, "this debit is more than the consent allows"
        if code is not None:
            return Refusal(code, detail, leg.bank, number, leg.number)
    return None


def use(consents: Sequence[Consent], request: Request) -> Used:
    """Take the debits of *request*, which ``check`` has passed, from the consents that cover them."""
    changes, uses = [], []
    for number, amount in _debits(request.legs).items():
        consent = _covering(_serving(consents, number, request), amount, request.wall_ms)
        assert consent is not None, "use() follows a check() that passed"
        changes.append(replace(consent, used=consent.used + amount))
        uses.append(ConsentUse(consent.consent_id, amount))
    return Used(tuple(changes), tuple(uses))


def give_back(consents: Sequence[Consent], uses: Sequence[ConsentUse]) -> tuple[Consent, ...]:
    """The consents that an aborted transaction had used, as though it had not."""
    by_id = {consent.consent_id: consent for consent in consents}
    return tuple(replace(by_id[use.consent_id], used=by_id[use.consent_id].used - use.amount) for use in uses)


def _debits(legs: Sequence[Leg]) -> dict[str, int]:
    """The sum of the debit legs on each account. Credits on the same account do not make up for them."""
    sums: dict[str, int] = {}
    for leg in legs:
        if leg.direction is Direction.DEBIT:
            sums[leg.account] = sums.get(leg.account, 0) + leg.amount
    return sums


def _serving(consents: Sequence[Consent], account: str, request: Request) -> list[Consent]:
    """The consents on *account* for this orderer and this bank that were not revoked, oldest first."""
    found = [
        c
        for c in consents
        if c.account == account
        and c.initiator_bank == request.initiator_bank
        and c.holder_cpf == request.holder_cpf
        and c.revoked_at is None
    ]
    return sorted(found, key=lambda c: (c.created_at, c.consent_id))


def _covering(found: Sequence[Consent], amount: int, wall_ms: int) -> Consent | None:
    """The first of *found* that is active and has room for *amount*."""
    for consent in found:
        # Without a ceiling of its own, what was used has yet to stay a number that a store can keep.
        ceiling = MAX_BALANCE if consent.max_total is None else consent.max_total
        if wall_ms < consent.expires_at and amount <= min(consent.max_per_transfer, ceiling - consent.used):
            return consent
    return None
