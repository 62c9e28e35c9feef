"""An account as its holders see it, and what is held on it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from distribank.api.answers.words import Answer, Bank, Json, MaskedCpf, Money, Name, Number, Time
from distribank.core import ledger
from distribank.core.clock import wall_of
from distribank.core.documents import mask_cpf
from distribank.core.ledger import AccountType, ApprovalRule, Hold
from distribank.core.money import format_amount
from distribank.moments import format_ms


class Titular(Answer):
    name: Name
    cpf_masked: MaskedCpf


class AccountHolder(Answer):
    name: Name
    cpf_masked: MaskedCpf
    role: Literal["titular", "co_holder", "administrator"]


class AtLeast(Answer):
    at_least: int = Field(description="Number of holders who approve a debit.")


class Company(Answer):
    legal_name: str = Field(description="The company's registered name.")
    cnpj: str = Field(description="14 characters, without punctuation.", examples=["12ABC34501DE35"])


class Account(Answer):
    """An account as its holders see it."""

    bank: Bank
    account: Number
    type: Literal["individual", "joint", "business"]
    status: Literal["open", "closed"]
    currency: Literal["BRL"]
    titular: Titular
    holders: list[AccountHolder]
    approval: Literal["any", "all"] | AtLeast | None = Field(default=None, description="Of joint accounts.")
    company: Company | None = Field(default=None, description="Of business accounts.")
    posted_balance: Money = Field(description="The sum of all entries, in BRL.")
    available_balance: Money = Field(description="What may be spent: the posted balance less what is held, in BRL.")
    held: Money = Field(description="Held for transfers under way, in BRL.")
    opened_at: Time = Field(description="When it was opened.")
    closed_at: Time | None = Field(default=None, description="When it was closed, if it was.")


def account(row: ledger.Account, bank: str) -> Json:
    """An account, for its holders."""
    view = {
        "bank": bank,
        "account": row.number,
        "type": row.type.value,
        "status": "open" if row.closed_at is None else "closed",
        "currency": "BRL",
        "titular": {"name": row.opener.name, "cpf_masked": mask_cpf(row.opener.cpf)},
        "holders": [_account_holder(holder) for holder in row.holders],
        **balance(row),
        "opened_at": format_ms(row.opened_at),
    }
    if row.type is AccountType.JOINT:
        view["approval"] = {"at_least": row.approval} if row.rule is ApprovalRule.AT_LEAST else row.rule.value
    if row.company is not None:
        view["company"] = {"legal_name": row.company.legal_name, "cnpj": row.company.cnpj}
    if row.closed_at is not None:
        view["closed_at"] = format_ms(row.closed_at)
    return view


def balance(row: ledger.Account) -> Json:
    """The whole balance of an account."""
    return {
        "posted_balance": format_amount(row.posted),
        "available_balance": format_amount(row.available),
        "held": format_amount(row.held),
    }


def hold(row: Hold) -> Json:
    """What a transfer under way reserves on an account, or no longer does."""
    view = {
        "transfer_id": row.transaction,
        "direction": row.direction.value,
        "amount": format_amount(row.amount),
        "state": row.state.value,
        "placed_at": format_ms(wall_of(row.prepared_at)),
    }
    if row.resolved_at is not None:
        view["resolved_at"] = format_ms(wall_of(row.resolved_at))
    return view


def _account_holder(holder: ledger.AccountHolder) -> Json:
    return {"name": holder.name, "cpf_masked": mask_cpf(holder.cpf), "role": holder.role.value}
