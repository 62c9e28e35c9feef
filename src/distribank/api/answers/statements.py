"""One line of a statement, whether it is asked for or told as it happens."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from distribank.api.answers.transfers import Counterparty, counterparties, legs_of
from distribank.api.answers.words import Answer, DirectionName, Json, Money, Time
from distribank.core import ledger
from distribank.core.heuristics import transaction_of
from distribank.core.money import format_amount
from distribank.core.protocol import Transaction
from distribank.moments import format_ms


class Entry(Answer):
    """One posted debit or credit."""

    entry_id: str = Field(description="The entry's id; it never changes.")
    posted_at: Time = Field(description="When it was posted at this bank.")
    direction: DirectionName
    amount: Money
    balance_after: Money = Field(description="The posted balance behind this entry, in BRL.")
    kind: Literal["deposit", "withdrawal", "transfer", "return", "correction"]
    transfer_id: str | None = Field(
        default=None, description="The transfer that posted it, or was corrected by it; cash has none."
    )
    counterparties: list[Counterparty] | None = Field(default=None, description="The transfer's other parties.")
    description: str | None = Field(default=None, description="The transfer's description, if it has one.")


def entry(row: ledger.Entry, bank: str, transaction: Transaction | None = None) -> Json:
    """One line of a statement of this *bank*; *transaction* is the transfer that posted it, or was corrected by it.

    Its parties and its description are for accounts that stand in it: out of suspense, another one may pay or be paid.
    """
    view: Json = {
        "entry_id": f"{row.account}.{row.change}",
        "posted_at": format_ms(row.posted_at),
        "direction": row.direction.value,
        "amount": format_amount(row.amount),
        "balance_after": format_amount(row.balance_after),
        "kind": row.kind.value,
    }
    transfer = transaction_of(row.operation)
    if transfer is not None:
        view["transfer_id"] = transfer
    legs = legs_of(transaction) if transaction is not None else ()
    own = {leg.number for leg in legs if (leg.bank, leg.account) == (bank, row.account)}
    if transaction is not None and own:
        view["counterparties"] = counterparties(transaction, own)
        if transaction.order is not None and transaction.order.description is not None:
            view["description"] = transaction.order.description
    return view
