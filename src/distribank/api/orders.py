"""What clients send, as models: strict, with no field that is not named here.

Amounts become integers of centavos, documents lose their punctuation, times become milliseconds: behind these models
there is nothing left to parse.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, PlainValidator, Tag, WithJsonSchema

from distribank.api.times import parse_moment
from distribank.bank.custody import MAX_CO_HOLDERS
from distribank.core.batches import MAX_TRANSFERS, BatchItem
from distribank.core.documents import (
    ACCOUNT_NUMBER_PATTERN,
    BANK_CODE_PATTERN,
    parse_account_number,
    parse_cnpj,
    parse_cpf,
)
from distribank.core.heuristics import MAX_REASON
from distribank.core.money import AMOUNT_PATTERN, parse_amount
from distribank.core.transfer import MAX_DESCRIPTION, MAX_LEGS, Direction, Leg

MAX_PASSWORD: Final = 1_024
ONE_AMOUNT: Final = "[amount]"
"""Where an error stands in a field that may be one amount or a list; in brackets, since it is no field's name."""

_CONTROLS: Final = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"
"""What no text may carry: controls, line ends, and what turns the direction of writing, by which a name or a
description would show as another one."""

_UNSEEN: Final = r"\s\u00ad\u200b-\u200f\u2060-\u2064\ufeff"
"""What nobody sees; no name is made of it alone."""

_NO_CONTROLS: Final = rf"^[^{_CONTROLS}]*$"
_READABLE: Final = rf"^[^{_CONTROLS}]*[^{_CONTROLS}{_UNSEEN}][^{_CONTROLS}]*$"
_EMAIL: Final = r"^[^@\s\x00-\x1f]+@[^@\s\x00-\x1f]+$"

PATTERNS: Final[dict[str, str]] = {
    BANK_CODE_PATTERN: "a bank's code is eight digits or capitals, as in 99990002",
    _NO_CONTROLS: "line breaks, control characters and direction marks are not taken",
    _READABLE: "something to be read is needed, without line breaks, control characters or direction marks",
    _EMAIL: "an e-mail address is written as in maria@example.com",
}
"""What each pattern asks for, in words."""


def _amount(value: object) -> int:
    if not isinstance(value, str):
        raise ValueError('an amount is a string such as "150.00", never a JSON number')
    return parse_amount(value)


def _kept(value: object) -> int:
    return 0 if value == "0.00" else _amount(value)


def _moment(value: object) -> int:
    if not isinstance(value, str):
        raise ValueError("a time is a string such as 2026-11-23T12:00:00Z")
    return parse_moment(value)


def _schema(**members: Any) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", **members})


Amount = Annotated[
    int,
    PlainValidator(_amount),
    _schema(pattern=AMOUNT_PATTERN, description="BRL, as a decimal string greater than zero.", examples=["150.00"]),
]
KeptAmount = Annotated[
    int,
    PlainValidator(_kept),
    _schema(pattern=AMOUNT_PATTERN, description="BRL, as a decimal string; may be zero.", examples=["0.00"]),
]
AccountNumber = Annotated[
    str,
    AfterValidator(parse_account_number),
    _schema(
        pattern=ACCOUNT_NUMBER_PATTERN,
        description="Eight digits, a hyphen, a check digit.",
        examples=["00000012-4"],
    ),
]
BankCode = Annotated[
    str, Field(pattern=BANK_CODE_PATTERN, description="A bank's code, eight characters.", examples=["99990002"])
]
Cpf = Annotated[
    str,
    AfterValidator(parse_cpf),
    _schema(description="A CPF, with or without punctuation.", examples=["529.982.247-25"], maxLength=14),
]
Cnpj = Annotated[
    str,
    AfterValidator(parse_cnpj),
    _schema(
        description="A CNPJ, with or without punctuation; letters are capitals.",
        examples=["12.ABC.345/01DE-35"],
        maxLength=18,
    ),
]
Moment = Annotated[
    int,
    PlainValidator(_moment),
    _schema(format="date-time", description="RFC 3339 with `Z` or an offset.", examples=["2030-12-31T23:59:59Z"]),
]
Reason = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_REASON,
        pattern=_READABLE,
        description="Why; it is kept, and everyone who audits the bank reads it. At most 500 characters.",
    ),
]
Text = Annotated[str, Field(min_length=1, max_length=140, pattern=_READABLE)]


class Order(BaseModel):
    """The root of all bodies: strict, closed, never quoted in an error."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True, frozen=True)


class Registration(Order):
    """A person to register."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "Maria da Silva", "cpf": "529.982.247-25", "password": "correct-horse-battery"}]
        }
    )

    name: Text = Field(description="The person's full name, at most 140 characters.", examples=["Maria da Silva"])
    cpf: Cpf
    password: str = Field(
        min_length=1,
        max_length=MAX_PASSWORD,
        description="1 to 1,024 characters; a long one is best.",
        json_schema_extra={"format": "password"},
    )
    email: str | None = Field(
        default=None,
        max_length=254,
        pattern=_EMAIL,
        description="Kept, and shown to nobody.",
        examples=["maria@example.com"],
    )


class AtLeast(Order):
    """So many holders approve a debit."""

    at_least: int = Field(ge=1, le=MAX_CO_HOLDERS + 1, description="Number of holders.", examples=[2])


class CompanyOrder(Order):
    """A company, as it is registered."""

    legal_name: Text = Field(description="The company's registered name.", examples=["Padaria Central Ltda"])
    cnpj: Cnpj


class IndividualAccountOrder(Order):
    """An account of one person."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"type": "individual"}]})

    type: Literal["individual"]


class JointAccountOrder(Order):
    """An account of several persons: whoever opens it is titular."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"type": "joint", "co_holders": ["111.444.777-35"], "approval": "any"}]}
    )

    type: Literal["joint"]
    co_holders: list[Cpf] = Field(
        min_length=1, max_length=MAX_CO_HOLDERS, description="Their CPFs; each must be registered at this bank."
    )
    approval: Annotated[
        Annotated[Literal["any", "all"], Tag("[word]")] | Annotated[AtLeast, Tag("[number]")],
        Discriminator(lambda value: "[number]" if isinstance(value, dict) else "[word]"),
    ] = Field(
        default="any", description="Whose approval a debit needs: any holder's, all holders', or so many holders'."
    )


class BusinessAccountOrder(Order):
    """The account of a company: whoever opens it administers it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"type": "business", "company": {"legal_name": "Padaria Central Ltda", "cnpj": "12ABC34501DE35"}}
            ]
        }
    )

    type: Literal["business"]
    company: CompanyOrder


AccountOrder = Annotated[IndividualAccountOrder | JointAccountOrder | BusinessAccountOrder, Field(discriminator="type")]


class CashOrder(Order):
    """Cash paid in or out."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"amount": "1000.00"}]})

    amount: Amount


class LegOrder(Order):
    """One account's part in a transfer."""

    bank: BankCode | None = Field(default=None, description="The account's bank; left out, it is this bank.")
    account: AccountNumber
    amount: Amount


class TransferOrder(Order):
    """A transfer: at most 64 legs, at least one a side, whose debits equal their credits."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "debits": [{"account": "00000001-9", "amount": "150.00"}],
                    "credits": [{"bank": "99990002", "account": "00000001-9", "amount": "150.00"}],
                    "description": "rent",
                }
            ]
        }
    )

    debits: list[LegOrder] = Field(description="Out of these accounts.")
    credits: list[LegOrder] = Field(description="Into these accounts.")
    description: str | None = Field(
        default=None, max_length=MAX_DESCRIPTION, pattern=_NO_CONTROLS, description="What all parties will read."
    )

    def legs(self, bank: str) -> tuple[Leg, ...]:
        """The legs as the core counts them: debits first, numbered from 1, *bank* where none is named."""
        sides = [(Direction.DEBIT, leg) for leg in self.debits] + [(Direction.CREDIT, leg) for leg in self.credits]
        return tuple(
            Leg(number, leg.bank or bank, leg.account, direction, leg.amount)
            for number, (direction, leg) in enumerate(sides, start=1)
        )


class AccountName(Order):
    """An account, by its bank and its number."""

    bank: BankCode | None = Field(default=None, description="The account's bank; left out, it is this bank.")
    account: AccountNumber

    def name(self, bank: str) -> tuple[str, str]:
        """Bank and number, *bank* where none is named."""
        return self.bank or bank, self.account


class KeptOrder(AccountName):
    """What is to stay on one account."""

    amount: KeptAmount


class PlanOrder(Order):
    """An amount and where it is to go; where it comes from is what is asked."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"amount": "50.00", "to": {"bank": "99990002", "account": "00000001-9"}, "keep": "10.00"}]
        }
    )

    amount: Amount
    to: AccountName = Field(description="Into this account.")
    from_: list[AccountName] | None = Field(
        default=None, alias="from", min_length=1, max_length=MAX_LEGS, description="Out of these only; else out of any."
    )
    keep: Annotated[
        Annotated[KeptAmount, Tag(ONE_AMOUNT)]
        | Annotated[list[KeptOrder], Field(max_length=MAX_LEGS), Tag("[accounts]")],
        Discriminator(lambda value: "[accounts]" if isinstance(value, list) else ONE_AMOUNT),
    ] = Field(
        default_factory=int, description="What is to stay on every account, in BRL, or on each of these; else nothing."
    )
    description: str | None = Field(
        default=None, max_length=MAX_DESCRIPTION, pattern=_NO_CONTROLS, description="What all parties will read."
    )

    def kept_on(self, bank: str) -> set[tuple[str, str]]:
        """The accounts that `keep` names, *bank* where none is named."""
        return set() if isinstance(self.keep, int) else {kept.name(bank) for kept in self.keep}

    def kept(self, name: tuple[str, str], bank: str) -> int:
        """Centavos that are to stay on the account *name*; of several amounts for it, the greatest."""
        if isinstance(self.keep, int):
            return self.keep
        return max((kept.amount for kept in self.keep if kept.name(bank) == name), default=0)


class BatchOrder(Order):
    """Up to 1,000 transfers, each atomic on its own."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "transfers": [
                        {
                            "debits": [{"account": "00000001-9", "amount": "1.00"}],
                            "credits": [{"bank": "99990002", "account": "00000001-9", "amount": "1.00"}],
                        },
                        {
                            "debits": [{"account": "00000001-9", "amount": "2.00"}],
                            "credits": [{"account": "00000003-5", "amount": "2.00"}],
                        },
                    ],
                    "mode": "concurrent",
                }
            ]
        }
    )

    transfers: list[TransferOrder] = Field(min_length=1, max_length=MAX_TRANSFERS)
    mode: Literal["sequential", "concurrent"] = Field(description="One after the other, or all at once.")
    on_failure: Literal["stop", "continue"] = Field(
        default="stop", description="Whether a sequential batch goes on behind a transfer that failed."
    )

    def items(self, bank: str) -> tuple[BatchItem, ...]:
        return tuple(BatchItem(transfer.legs(bank), transfer.description) for transfer in self.transfers)


class ConsentOrder(Order):
    """A permission that another bank may order debits on an account here."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "account": "00000001-9",
                    "initiator_bank": "99990002",
                    "max_per_transfer": "500.00",
                    "max_total": "2000.00",
                    "expires_at": "2030-12-31T23:59:59Z",
                }
            ]
        }
    )

    account: AccountNumber
    initiator_bank: BankCode = Field(description="The bank that may order debits.")
    max_per_transfer: Amount
    max_total: Amount | None = Field(default=None, description="The ceiling of all its debits together, in BRL.")
    expires_at: Moment


class ResolveOrder(Order):
    """An outcome to force."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"decision": "abort", "reason": "the coordinator's disk is lost, and so is its backup"}]
        }
    )

    decision: Literal["commit", "abort"] = Field(description="What this bank is to take for the outcome.")
    reason: Reason


class OwnLegOrder(Order):
    """What one account of this bank had gained, or lost."""

    account: AccountNumber
    direction: Literal["credit", "debit"]
    amount: Amount


class SettleOrder(Order):
    """Whose money was in what this bank had decided and lost."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "reason": "her receipt names the account and the amount",
                    "legs": [{"account": "00000001-9", "direction": "debit", "amount": "3.00"}],
                }
            ]
        }
    )

    reason: Reason
    legs: list[OwnLegOrder] = Field(
        default_factory=list,
        max_length=MAX_LEGS,
        description="The accounts here, as far as they are known; the rest goes to suspense.",
    )


class AssignmentOrder(Order):
    """What is to leave suspense, and where it goes."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "account": "00000001-9",
                    "direction": "credit",
                    "amount": "3.00",
                    "reason": "her other account was closed; she named this one on the telephone",
                }
            ]
        }
    )

    account: AccountNumber | None = Field(
        default=None, description="An account of this bank; left out, the bank's own cash: a write-off."
    )
    direction: Literal["credit", "debit"] = Field(
        description="`credit`: it is given what this bank is owing. `debit`: it pays what this bank is owed."
    )
    amount: Amount
    reason: Reason
    transaction: str | None = Field(
        default=None,
        min_length=1,
        max_length=140,
        pattern=_NO_CONTROLS,
        description="What had left it in suspense; no more is then taken than that has left.",
    )


class TokenForm(BaseModel):
    """The OAuth2 password form (RFC 6749, 4.3.2). Fields that it does not name are ignored, as the RFC asks."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    username: str = Field(max_length=256, description="A CPF, with or without punctuation; or `operator`.")
    password: str = Field(
        max_length=MAX_PASSWORD,
        description="The holder's, or the operator's.",
        json_schema_extra={"format": "password"},
    )
    grant_type: Literal["password"] | None = Field(default=None, description="May be left out.")
