"""What clients receive, as models. They describe; ``views`` makes the answers, and a test holds one to the other.

A field that may be left out (``?`` in the contract) has a default here.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from distribank.core.documents import ACCOUNT_NUMBER_PATTERN

Item = TypeVar("Item")
Money = Annotated[str, Field(pattern=r"^[0-9]{1,17}\.[0-9]{2}$", description="BRL.", examples=["150.00"])]
SignedMoney = Annotated[
    str, Field(pattern=r"^-?[0-9]{1,17}\.[0-9]{2}$", description="BRL, signed.", examples=["-1.00"])
]
Time = Annotated[
    str,
    Field(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$",
        description="RFC 3339, UTC.",
        examples=["2026-11-23T12:00:00.000Z"],
    ),
]
Number = Annotated[
    str, Field(pattern=ACCOUNT_NUMBER_PATTERN, description="An account's number at its bank.", examples=["00000012-4"])
]
Name = Annotated[str, Field(description="A person's full name.", examples=["Maria da Silva"])]
MaskedCpf = Annotated[str, Field(description="A CPF's middle digits.", examples=["***.982.247-**"])]
Bank = Annotated[str, Field(description="A bank's code.", examples=["99990001"])]
Direction = Literal["debit", "credit"]


class Answer(BaseModel):
    """The root of all answers."""

    model_config = ConfigDict(extra="forbid")


class Page(Answer, Generic[Item]):
    """One page of a list."""

    items: list[Item]
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null on the last.")


class Token(Answer):
    """A token, to be sent as `Authorization: Bearer …`."""

    access_token: str = Field(description="Opaque; sent as `Authorization: Bearer …`.")
    token_type: Literal["bearer"]
    expires_in: int = Field(description="Seconds.")


class Person(Answer):
    """A registered holder."""

    holder_id: str = Field(description="The holder's id at this bank.")
    name: Name
    cpf_masked: MaskedCpf
    created_at: Time = Field(description="When they registered.")


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


class Counterparty(Answer):
    """Another party of a transfer."""

    bank: Bank
    name_masked: str | None = Field(description="A company's name, or a person's masked; null until known.")
    direction: Direction


class Entry(Answer):
    """One posted debit or credit."""

    entry_id: str = Field(description="The entry's id; it never changes.")
    posted_at: Time = Field(description="When it was posted at this bank.")
    direction: Direction
    amount: Money
    balance_after: Money = Field(description="The posted balance behind this entry, in BRL.")
    kind: Literal["deposit", "withdrawal", "transfer", "return", "correction"]
    transfer_id: str | None = Field(
        default=None, description="The transfer that posted it, or was corrected by it; cash has none."
    )
    counterparties: list[Counterparty] | None = Field(default=None, description="The transfer's other parties.")
    description: str | None = Field(default=None, description="The transfer's description, if it has one.")


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


TransferStatus = Literal["awaiting_approval", "pending", "committed", "completed", "aborted", "cancelled"]


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


class Plan(Answer):
    """A transfer that could be ordered as it stands here."""

    debits: list[Leg]
    credits: list[Leg]
    description: str | None = Field(default=None, description="As it was given.")


class TraceLine(Answer):
    """One record of one bank's log."""

    model_config = ConfigDict(populate_by_name=True)

    bank: Bank
    at: Time = Field(description="When, by that bank's clock.")
    stamp: str = Field(
        description="The hybrid logical clock by which lines are in order.", examples=["117964800000000000"]
    )
    record: str = Field(description="`Begun`, `Prepared`, `Decided`, `Resolved` or `Ended`.")
    from_: str = Field(alias="from", description="The state there before.")
    to: str = Field(description="The state there since.")
    detail: str = Field(description="What happened, in words.")


class TracedBank(Answer):
    """A bank that takes part, and whether its lines are here."""

    bank: Bank
    name: str = Field(description="The bank's name for people.")
    status: Literal["answered", "offline", "silent"] = Field(
        description="`offline`: it could not be reached. `silent`: it did not answer within 2 s."
    )


class Trace(Answer):
    """Every bank's log of one transfer, merged in clock order."""

    transfer_id: str = Field(description="The protocol's transaction id.")
    status: TransferStatus = Field(description="As this bank knows it.")
    in_doubt: bool = Field(description="This bank has voted yes and has not heard the outcome.")
    coordinator: Bank
    lines: list[TraceLine]
    banks: list[TracedBank] = Field(description="Every bank that takes part, this one first.")


class BatchItem(Answer):
    """What became of one transfer of a batch: the transfer's own fields, or the reason why there is none."""

    model_config = ConfigDict(extra="allow")

    index: int = Field(description="Its place in the order given, from 0.")
    transfer_id: str | None = Field(description="Null where no transfer was begun.")
    status: TransferStatus
    reason: Reason | None = Field(default=None, description="Why nothing moved, where nothing did.")


class Batch(Answer):
    """A batch and its results so far."""

    batch_id: str = Field(description="As in the address of the batch.")
    status: Literal["running", "completed"]
    mode: Literal["sequential", "concurrent"]
    on_failure: Literal["stop", "continue"]
    created_at: Time = Field(description="When it was ordered.")
    completed_at: Time | None = Field(default=None, description="When its last transfer had ended.")
    results: list[BatchItem] = Field(description="In the order given.")


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


class Peer(Answer):
    """Another bank of the network as this one finds it."""

    bank: Bank
    name: str = Field(description="The bank's name for people.")
    url: str = Field(description="Where it is served.")
    status: Literal["online", "offline", "unknown"]
    since: Time = Field(description="Since when it has had this status.")
    rtt_ms: float | None = Field(description="Round trip of the last exchange, in milliseconds.")
    last_error: str | None = Field(description="What went wrong last; null while nothing does.")


class Network(Answer):
    """This bank and the others of its roster."""

    bank: Bank
    name: str = Field(description="This bank's name for people.")
    protocol_version: int = Field(description="What it speaks with other banks.")
    peers: list[Peer]


class Health(Answer):
    status: Literal["alive", "ready"]
    bank: Bank


class Said(Answer):
    """What one bank answered when it was last asked for the outcome."""

    bank: Bank
    said: str = Field(description="In words.")


class DoubtLeg(Answer):
    bank: Bank
    account: Number
    direction: Direction
    amount: Money


class InDoubt(Answer):
    """A transaction that is not finished at this bank."""

    transaction: str = Field(description="The transaction's id between banks.")
    transfer_id: str = Field(description="The same, under the name that holders know it by.")
    role: Literal["coordinator", "participant"]
    status: TransferStatus
    in_doubt: bool = Field(description="Voted yes here, and the outcome is not known.")
    since: Time = Field(description="Since the vote, or the decision.")
    coordinator: Bank
    participants: list[Bank]
    accounts: list[DoubtLeg] = Field(description="The legs that this bank knows, with their amounts.")
    why: str = Field(description="What it waits for, in words.")
    asked: list[Said] = Field(description="Every bank that was asked, with its last answer.")


class AccountDamage(Answer):
    """What one account's correction came to."""

    account: Number
    direction: Direction = Field(description="Of the correction.")
    wanted: Money = Field(description="What the truth asks for, in BRL.")
    corrected: Money = Field(description="What was posted on the account, in BRL.")
    to_suspense: Money = Field(description="What the account could not take, in BRL.")


class PositionDamage(Answer):
    bank: Bank = Field(description="The peer.")
    amount: SignedMoney = Field(description="BRL; positive: this bank came to owe the peer by it.")


class Damage(Answer):
    """What a wrong guess was corrected by."""

    accounts: list[AccountDamage]
    position: PositionDamage
    suspense: SignedMoney = Field(description="BRL, in the book `suspense`; positive: money nobody could be credited.")


class Heuristic(Answer):
    """An outcome that an operator forced here, and what came of it."""

    transaction: str = Field(description="The transaction's id between banks.")
    transfer_id: str = Field(description="The same, under the name that holders know it by.")
    coordinator: Bank
    decision: Literal["commit", "abort"]
    reason: str = Field(description="Why the operator forced it.", examples=["the coordinator's disk is lost"])
    decided_at: Time
    truth: Literal["commit", "abort"] | None = Field(description="The outcome; null until it is known here.")
    truth_at: Time | None = Field(description="When it became known here; null until then.")
    matched: bool | None = Field(description="Whether the guess was right; null until it is known.")
    damage: Damage | None = Field(description="What was corrected; null unless the guess was wrong.")


class Items(Answer, Generic[Item]):
    """All of them at once."""

    items: list[Item]


class Position(Answer):
    """What this bank and one peer owe each other."""

    bank: Bank = Field(description="The peer.")
    position: SignedMoney = Field(description="BRL; positive: this bank owes the peer, negative: the peer owes it.")
    owing: Money = Field(description="What this bank owes the peer, in BRL.")
    owed: Money = Field(description="What the peer owes this bank, in BRL.")
    reserved: SignedMoney = Field(description="What transfers under way may yet let the peer owe, in BRL.")


class Assignment(Answer):
    """What an operator has taken out of suspense, and where it went."""

    assignment_id: str = Field(description="The assignment's id at this bank.")
    assigned_at: Time
    account: Number | None = Field(description="Null for the bank's own cash: a write-off.")
    entry_id: str | None = Field(description="The account's entry; null for a write-off.", examples=["00000012-4.7"])
    direction: Direction = Field(description="Of the account's entry.")
    amount: Money
    reason: str = Field(description="Why, in the operator's words.", examples=["she named this account"])
    transaction: str | None = Field(description="What had left it in suspense, where the operator said so.")
    transfer_id: str | None = Field(description="The same, under the name that holders know it by.")


class Movement(Answer):
    """What was left in suspense by a wrong guess, or taken out of it by an operator."""

    at: Time
    amount: SignedMoney = Field(description="What the book gained, in BRL; positive: this bank came to owe it.")
    kind: Literal["correction", "assignment"]
    transaction: str | None = Field(description="The transaction that it belongs to, where that is known.")
    transfer_id: str | None = Field(description="The same, under the name that holders know it by.")
    wanted_by: list[AccountDamage] | None = Field(
        description="Of a correction: the accounts whose part is, or was, in suspense."
    )
    assignment: Assignment | None = Field(description="Of an assignment: where it went, and why.")


class Suspense(Page[Movement]):
    """The book `suspense`, and what moved it."""

    balance: SignedMoney = Field(description="BRL; positive: this bank owes it to somebody, negative: it is owed.")
    owing: Money = Field(description="What this bank owes and can credit, in BRL.")
    owed: Money = Field(description="What this bank is owed and can debit, in BRL.")


class Books(Answer):
    """All entries of the bank, added up anew."""

    balanced: bool = Field(description="All of it sums to zero and every kept sum is right.")
    customers: SignedMoney = Field(description="All that customers have here, in BRL.")
    books: dict[str, SignedMoney] = Field(description="`cash`, `suspense` and one `position:<bank>` per peer.")
    entries: int = Field(description="Number of entries.")
    holds: int = Field(description="Number of holds that are placed.")
    findings: list[str] = Field(description="What is wrong, in words; empty if nothing is.")


class FieldError(Answer):
    loc: list[str | int] = Field(description="Where it stands: `body` or `query`, then names and places.")
    msg: str = Field(description="What is wrong there.")


class Problem(BaseModel):
    """RFC 9457: what went wrong. `code` is stable; further members name what it is about."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:distribank:problem:insufficient_funds",
                    "title": "The available balance is too small",
                    "status": 422,
                    "detail": "the available balance does not cover this debit",
                    "code": "insufficient_funds",
                    "bank": "99990001",
                    "account": "00000012-4",
                }
            ]
        },
    )

    type: str = Field(description="`urn:distribank:problem:` and the code.")
    title: str = Field(description="What went wrong, the same for every problem of this code.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What went wrong this time, for people.")
    instance: str | None = Field(default=None, description="The address of what it is about.")
    code: str = Field(description="Stable: what programs go by.")
    transfer_id: str | None = Field(default=None, description="The transfer, where one was begun.")
    bank: str | None = Field(default=None, description="The bank concerned.")
    account: str | None = Field(default=None, description="The account concerned.")
    leg: int | None = Field(default=None, description="The leg concerned: debits first, from 1.")
    errors: list[FieldError] | None = Field(default=None, description="Every field that is not valid.")


Json = dict[str, Any]
"""An answer as it is made."""
