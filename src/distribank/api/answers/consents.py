"""Permissions given here, and what permissions given elsewhere let this bank debit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from distribank.api.answers.words import Answer, Bank, Json, Money, Number, Time
from distribank.bank import Linked, Shown
from distribank.core import consents, protocol
from distribank.core.money import format_amount
from distribank.moments import format_ms


class Consent(Answer):
    """A permission that another bank may order debits on an account here."""

    consent_id: str = Field(description="The id by which it is revoked.")
    account: Number
    initiator_bank: Bank = Field(description="The bank that may order debits.")
    status: Literal["active", "used_up", "expired", "revoked"]
    max_per_transfer: Money = Field(description="The ceiling of one transfer, in BRL.")
    max_total: Money | None = Field(description="The ceiling of all of them together, in BRL; null for none.")
    used: Money = Field(description="What was debited by it, or is voted on, in BRL.")
    expires_at: Time
    created_at: Time
    revoked_at: Time | None = Field(default=None, description="When it was revoked, if it was.")


def consent(row: consents.Consent, wall_ms: int) -> Json:
    view = {
        "consent_id": row.consent_id,
        "account": row.account,
        "initiator_bank": row.initiator_bank,
        "status": consents.status_of(row, wall_ms).value,
        "max_per_transfer": format_amount(row.max_per_transfer),
        "max_total": None if row.max_total is None else format_amount(row.max_total),
        "used": format_amount(row.used),
        "expires_at": format_ms(row.expires_at),
        "created_at": format_ms(row.created_at),
    }
    if row.revoked_at is not None:
        view["revoked_at"] = format_ms(row.revoked_at)
    return view


class LinkedAccount(Answer):
    """An account at another bank, and a consent that lets this bank order debits on it."""

    bank: Bank
    bank_name: str = Field(description="The bank's name for people.")
    account: Number
    type: Literal["individual", "joint", "business"]
    status: Literal["online", "offline"] = Field(
        description="`offline`: its bank does not answer now; this is what it said before, and there are no balances."
    )
    as_of: Time = Field(description="When its bank said so; since then the consent may have been used or revoked.")
    posted_balance: Money | None = Field(default=None, description="The sum of its entries, in BRL.")
    available_balance: Money | None = Field(default=None, description="The same less what is held, in BRL.")
    consent_id: str = Field(description="The consent's id at that bank.")
    max_per_transfer: Money = Field(description="The ceiling of one transfer, in BRL.")
    max_total: Money | None = Field(description="The ceiling of all of them together, in BRL; null for none.")
    used: Money = Field(description="What was debited by it, or is voted on, in BRL.")
    expires_at: Time


class LinkedAccounts(Answer):
    """What the holder lets this bank draw on elsewhere."""

    items: list[LinkedAccount] = Field(
        description="By bank; an account stands once for each consent on it, of each bank the 50 newest."
    )
    offline: list[Bank] = Field(description="Banks that did not answer within 2 s: what is there now is not known.")


def linked(found: Linked, names: Mapping[str, str]) -> Json:
    """Accounts at other banks, each once per consent, and the banks that did not answer. *names* has every bank's."""
    now = {bank: Shown(found.as_of, rows) for bank, rows in found.accounts.items()}
    items = [
        _linked_account(row, shown.at, bank, names.get(bank, bank), online=bank in now)
        for bank, shown in sorted({**now, **found.earlier}.items())
        for row in shown.accounts
        if row.expires_at > found.as_of
    ]
    return {"items": items, "offline": found.offline}


def _linked_account(row: protocol.LinkedAccount, at: int, bank: str, name: str, *, online: bool) -> Json:
    balances = {"posted_balance": format_amount(row.posted), "available_balance": format_amount(row.available)}
    return {
        "bank": bank,
        "bank_name": name,
        "account": row.account,
        "type": row.type.value,
        "status": "online" if online else "offline",
        "as_of": format_ms(at),
        **(balances if online else {}),
        "consent_id": row.consent_id,
        "max_per_transfer": format_amount(row.max_per_transfer),
        "max_total": None if row.max_total is None else format_amount(row.max_total),
        "used": format_amount(row.used),
        "expires_at": format_ms(row.expires_at),
    }
