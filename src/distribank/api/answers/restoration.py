"""What an operator sees of a restore from a backup: who has told what, and what this bank itself had decided."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from distribank.api.answers.operator import AccountDamage, account_damage
from distribank.api.answers.transfers import STATUS, TransferStatus
from distribank.api.answers.words import (
    Answer,
    Bank,
    DirectionName,
    Json,
    MaskedCpf,
    Money,
    Number,
    Page,
    SignedMoney,
    Time,
)
from distribank.bank import restoring
from distribank.core import restoration as rows
from distribank.core.documents import mask_cpf
from distribank.core.money import format_amount
from distribank.core.protocol import Transaction
from distribank.core.restoration import PartFate
from distribank.moments import format_ms


class PeerTold(Answer):
    """A peer, and whether it has told what it knows of what was lost here."""

    bank: Bank
    status: Literal["told", "awaited", "without"] = Field(
        description="`without`: the operator would not wait for it; it is asked all the same, again and again."
    )
    at: Time | None = Field(description="When it had told everything; null until then.")
    resupplied: int = Field(description="How many transfers that it coordinates were posted here anew.")


class LostLeg(Answer):
    """What an account there gained or lost."""

    account: Number
    direction: DirectionName
    amount: Money


class LostPart(Answer):
    """One participant's part, in its own words."""

    bank: Bank
    state: Literal["committed", "prepared", "aborted", "not told"] = Field(
        description="`prepared`: in doubt there. `not told`: it knows nothing of it, or has not told yet."
    )
    flow: SignedMoney = Field(description="BRL; positive: this bank comes to owe that bank by it.")
    legs: list[LostLeg] = Field(description="The accounts there.")


class Settlement(Answer):
    """What the operator has settled."""

    at: Time
    reason: str = Field(
        description="Why, in the operator's words.", examples=["her receipt names the account and the amount"]
    )
    accounts: list[AccountDamage] = Field(description="The accounts named, and how far each could take its part.")
    suspense: SignedMoney = Field(description="BRL, in the book `suspense`; positive: money nobody could be credited.")


class LostTransfer(Answer):
    """A transfer that this bank had coordinated, and lost with its database."""

    transfer_id: str = Field(description="The protocol's transaction id.")
    end_to_end_id: str | None = Field(description="Null where no participant knows it.")
    ordered_at: Time
    ordered_by: MaskedCpf | None = Field(description="The document of whoever ordered it; null where nobody knows it.")
    description: str | None = Field(description="What whoever ordered it wrote; null where they wrote nothing.")
    outcome: Literal["committed", "in doubt", "aborted"] = Field(
        description="As far as a participant knows it. `in doubt`: some have prepared it and none has an outcome."
    )
    participants: list[LostPart]
    status: TransferStatus | None = Field(description="Its status here since it was settled; null until then.")
    settled: Settlement | None = Field(description="Null until it is settled.")
    next: str = Field(description="Who must do what, in words.")


class Restoration(Page[LostTransfer]):
    """A restore from a backup, and what it left to be done; all null or empty where there was none."""

    restored_at: Time | None = Field(description="From when on nothing is missing.")
    backup_at: Time | None = Field(description="When the backup was taken: everything before is in it.")
    backup_stamp: str | None = Field(description="The greatest stamp in it.", examples=["117964800000000000"])
    asked_since: Time | None = Field(description="What began at other banks before then cannot have been lost here.")
    resupplied: int = Field(description="How many transfers were posted anew, as their coordinators had decided.")
    peers: list[PeerTold]


def restoration(row: rows.Restoration | None, peers: Iterable[str], page: Json) -> Json:
    """The restore that made this database, if one did, and one *page* of what was lost."""
    if row is None:
        none = dict.fromkeys(("restored_at", "backup_at", "backup_stamp", "asked_since"))
        return {**none, "resupplied": 0, "peers": [], **page}
    return {
        "restored_at": format_ms(row.restored_at),
        "backup_at": format_ms(row.taken_at),
        "backup_stamp": str(row.stamp),
        "asked_since": format_ms(row.since),
        "resupplied": row.resupplied,
        "peers": [_peer(row, bank) for bank in peers],
        **page,
    }


def _peer(row: rows.Restoration, bank: str) -> Json:
    told = next((told for told in row.told if told.bank == bank), rows.Told(bank, None))
    status = "told" if told.at is not None else "without" if bank in row.without else "awaited"
    at = None if told.at is None else format_ms(told.at)
    return {"bank": bank, "status": status, "at": at, "resupplied": told.resupplied}


def lost(listed: restoring.Listed) -> Json:
    """One transfer that was lost, and what became of it."""
    row, known, supplied = listed.lost, listed.known, listed.supplied
    told = {part.bank: part for part in row.parts}
    settled = None
    if supplied is not None:
        settled = {
            "at": format_ms(supplied.at),
            "reason": supplied.reason or "",
            "accounts": [account_damage(account) for account in supplied.accounts],
            "suspense": format_amount(supplied.suspense),
        }
    return {
        "transfer_id": row.transaction,
        "end_to_end_id": row.end_to_end_id or None,
        "ordered_at": format_ms(row.ordered_at),
        "ordered_by": mask_cpf(row.holder_cpf) if row.holder_cpf else None,
        "description": row.description,
        "outcome": {PartFate.PREPARED: "in doubt"}.get(row.fate, row.fate.value),
        "participants": [_part(bank, told.get(bank)) for bank in sorted({*row.participants, *told})],
        "status": STATUS[known.state] if known is not None else None,
        "settled": settled,
        "next": _next(row, known),
    }


def _part(bank: str, part: rows.Part | None) -> Json:
    return {
        "bank": bank,
        "state": part.fate.value if part is not None else "not told",
        "flow": format_amount(part.flow if part is not None else 0),
        "legs": [
            {"account": leg.account, "direction": leg.direction.value, "amount": format_amount(leg.amount)}
            for leg in (part.legs if part is not None else ())
        ],
    }


def _next(row: rows.Lost, known: Transaction | None) -> str:
    if known is not None:
        return "nothing: it is settled"
    if row.fate is PartFate.ABORTED:
        return "nothing: it was aborted, and moved nothing"
    if row.fate is PartFate.COMMITTED:
        return "the operator of this bank settles it: name the accounts here that it had debited or credited"
    where = ", ".join(part.bank for part in row.parts)
    return f"the operator of {where} resolves it there: nobody can know any more whether this bank had decided it"
