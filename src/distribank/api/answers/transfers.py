"""A transfer: what its state means to a client, and how much of it this client may see."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Literal, get_args

from pydantic import Field

from distribank.api.answers.words import Answer, Bank, DirectionName, Json, Money, Number, Time
from distribank.core import transfer as core_transfer
from distribank.core.holders import Holder
from distribank.core.money import format_amount
from distribank.core.protocol import IN_DOUBT, Role, State, Transaction
from distribank.core.refusals import Refusal, iso_reason
from distribank.core.transfer import Direction
from distribank.moments import format_ms

TransferStatus = Literal["awaiting_approval", "pending", "committed", "completed", "aborted", "cancelled"]

STATUS: Final = {
    State.PREPARING: "pending",
    State.PREPARED: "pending",
    State.FORCED_COMMIT: "pending",
    State.FORCED_ABORT: "pending",
    State.COMMITTING: "committed",
    State.ENDED: "completed",
    State.COMMITTED: "completed",
    State.ABORTED: "aborted",
}
"""What a state is called to clients. *completed* means, at a participant, that its own part is posted."""

STATES: Final[dict[str, tuple[State, ...]]] = {
    name: tuple(state for state, status in STATUS.items() if status == name) for name in get_args(TransferStatus)
}
"""Which states a status stands for; none where approvals are not built yet."""


class Counterparty(Answer):
    """Another party of a transfer."""

    bank: Bank
    name_masked: str | None = Field(description="A company's name, or a person's masked; null until known.")
    direction: DirectionName


class Leg(Answer):
    """One account's part in a transfer."""

    bank: Bank
    account: Number
    amount: Money


class Iso20022(Answer):
    """The same in ISO 20022's words."""

    status: Literal["ACSC", "ACCC", "PDNG", "RJCT"]
    reason: str | None = Field(default=None, description="Why it was rejected.", examples=["AM04"])


class Reason(Answer):
    """Why nothing moved."""

    code: str = Field(description="Stable, as in problem documents.", examples=["insufficient_funds"])
    detail: str = Field(description="The same for people.")
    bank: Bank | None = Field(default=None, description="The bank concerned, where there is one.")
    account: Number | None = Field(default=None, description="The account concerned, where there is one.")


class Participant(Answer):
    """Another bank's part, as far as this bank knows it."""

    bank: Bank
    vote: Literal["yes", "no"] | None = Field(description="Null until it is known here.")
    acknowledged_at: Time | None = Field(description="When it had the outcome durably; null until then.")


class Transfer(Answer):
    """A transfer as this bank knows it, as far as it concerns the reader."""

    transfer_id: str = Field(description="The protocol's transaction id, the same at every bank.")
    end_to_end_id: str = Field(
        description="32 characters, never used again.", examples=["E99990001202611231200abcdefghijk"]
    )
    status: TransferStatus = Field(
        description="`committed`: decided, some bank has yet to acknowledge. At a participant `completed` means that "
        "its own part is posted."
    )
    in_doubt: bool = Field(description="This bank has voted yes and has not heard the outcome: money is held.")
    iso20022: Iso20022
    coordinator: Bank
    debits: list[Leg]
    credits: list[Leg]
    counterparties: list[Counterparty] | None = Field(
        default=None, description="The parties whose legs are not shown here."
    )
    description: str | None = Field(default=None, description="What whoever ordered it wrote.")
    reason: Reason | None = Field(default=None, description="Why nothing moved, where it was aborted.")
    participants: list[Participant] = Field(description="Every other bank that takes part.")
    created_at: Time = Field(description="When it was ordered, or first heard of here.")
    decided_at: Time | None = Field(default=None, description="When its outcome became durable here.")
    completed_at: Time | None = Field(default=None, description="When this bank had nothing more to do for it.")


def transfer(row: Transaction, bank: str, viewer: Holder, accounts: Collection[str]) -> Json:
    """A transfer for *viewer*, who holds *accounts* here: legs that do not concern them are shown as counterparties.

    Whoever ordered it is concerned by all of it. A participant knows the legs at its own bank only.
    """
    order = row.order
    assert order is not None, "a tombstone is nobody's transfer"
    ordered = order.holder_cpf == viewer.cpf
    shown = order.legs if ordered else tuple(leg for leg in order.legs if leg.bank == bank and leg.account in accounts)
    coordinating = ordered and row.role is Role.COORDINATOR
    receiving = not coordinating and any(leg.direction is Direction.CREDIT for leg in shown)
    because = row.because if row.because is None or ordered else _for_others(row.because, bank, accounts)
    status = STATUS[row.state]
    view: Json = {
        "transfer_id": row.id,
        "end_to_end_id": order.end_to_end_id,
        "status": status,
        "in_doubt": row.state in IN_DOUBT,
        "iso20022": _iso20022(status, receiving, because),
        "coordinator": row.coordinator,
        **sides(shown),
        "participants": _participants(row, bank),
        "created_at": format_ms(row.begun_at),
    }
    others = counterparties(row, {leg.number for leg in shown})
    if others:
        view["counterparties"] = others
    if order.description is not None:
        view["description"] = order.description
    if because is not None:
        view["reason"] = reason(because)
    if row.decided_at is not None:
        view["decided_at"] = format_ms(row.decided_at)
    if row.completed_at is not None and row.state is not State.ABORTED:
        view["completed_at"] = format_ms(row.completed_at)
    return view


def reason(because: Refusal) -> Json:
    """Why nothing moved, with the bank and the account concerned where there is one."""
    members = {"code": because.code.value, "detail": because.detail, "bank": because.bank, "account": because.account}
    return {name: value for name, value in members.items() if value is not None}


def _iso20022(status: str, receiving: bool, because: Refusal | None) -> Json:
    """The same in ISO 20022's words: settled, credited to the receiver, pending, rejected."""
    if because is not None:
        return {"status": "RJCT", "reason": iso_reason(because.code)}
    if status == "pending":
        return {"status": "PDNG"}
    if status == "aborted":
        return {"status": "RJCT", "reason": "ED05"}
    return {"status": "ACCC" if receiving and status == "completed" else "ACSC"}


def _for_others(because: Refusal, bank: str, accounts: Collection[str]) -> Refusal:
    """What a party who did not give the order may hear: of another party's money, only that it was refused."""
    theirs = because.bank == bank and because.account in accounts
    return because if theirs else because.for_others()


def _participants(row: Transaction, bank: str) -> list[Json]:
    """Each participant's vote and acknowledgement; a participant knows its own only."""
    if row.role is Role.COORDINATOR:
        votes = {vote.bank: (vote.yes, vote.acknowledged_at) for vote in row.votes}
    else:
        own = None if row.prepared_at is None and row.state is not State.ABORTED else row.prepared_at is not None
        votes = {bank: (own, row.completed_at if row.state is State.COMMITTED else None)}
    views = []
    for participant in row.participants:
        yes, acknowledged_at = votes.get(participant, (None, None))
        views.append(
            {
                "bank": participant,
                "vote": None if yes is None else "yes" if yes else "no",
                "acknowledged_at": None if acknowledged_at is None else format_ms(acknowledged_at),
            }
        )
    return views


def counterparties(row: Transaction, own: Collection[int]) -> list[Json]:
    """The parties whose legs are not among *own*, each once."""
    parties = {
        (party.bank, party.name_masked, party.direction): party for party in row.counterparties if party.leg not in own
    }
    return [
        {"bank": party.bank, "name_masked": party.name_masked, "direction": party.direction.value}
        for party in parties.values()
    ]


def sides(legs: Collection[core_transfer.Leg]) -> Json:
    """The legs by the side on which they stand."""
    return {
        "debits": [_leg(leg) for leg in legs if leg.direction is Direction.DEBIT],
        "credits": [_leg(leg) for leg in legs if leg.direction is Direction.CREDIT],
    }


def legs_of(row: Transaction) -> tuple[core_transfer.Leg, ...]:
    return row.order.legs if row.order is not None else ()


def _leg(leg: core_transfer.Leg) -> Json:
    return {"bank": leg.bank, "account": leg.account, "amount": format_amount(leg.amount)}
