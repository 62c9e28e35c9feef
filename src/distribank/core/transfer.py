"""A transfer: legs whose debits equal their credits, at any number of banks.

Here is what a holder orders, checked as arithmetic alone. Whether accounts exist and are covered is the
ledger's to say, at each bank; how the banks agree is the protocol's.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from distribank.core.money import MAX_AMOUNT, format_amount
from distribank.core.refusals import Code, Refusal
from distribank.core.values import dataclass

MAX_LEGS: Final = 64
MAX_DESCRIPTION: Final = 140


class Direction(StrEnum):
    """Out of an account, or into it. A word, never a sign."""

    DEBIT = "debit"
    CREDIT = "credit"


@dataclass(frozen=True, slots=True)
class Leg:
    """One account's part in a transfer. *number* counts from 1 over the whole transfer; *amount* is in centavos."""

    number: int
    bank: str
    account: str
    direction: Direction
    amount: int

    @property
    def signed(self) -> int:
        """Centavos that the account gains, negative for a debit."""
        return self.amount if self.direction is Direction.CREDIT else -self.amount


@dataclass(frozen=True, slots=True)
class Counterparty:
    """Another party of a transfer as a holder may see it: *leg* by its number, *name_masked* ``None`` until known."""

    leg: int
    bank: str
    direction: Direction
    name_masked: str | None


@dataclass(frozen=True, slots=True)
class Order:
    """What was ordered, as far as this bank needs to know: all legs at the coordinator, its own at a participant.

    *holder_cpf* is the document of the holder who gave the order, *holder_id* their id at the coordinator
    (empty at a participant); *ordered_at* is in milliseconds since 1970.
    """

    end_to_end_id: str
    holder_cpf: str
    holder_id: str
    description: str | None
    ordered_at: int
    legs: tuple[Leg, ...]


def check_legs(legs: Iterable[Leg]) -> Refusal | None:
    """The refusal that the legs alone deserve: too many, not positive, or not balanced; else ``None``."""
    legs = tuple(legs)
    if len(legs) > MAX_LEGS:
        return Refusal(Code.TOO_MANY_LEGS, f"a transfer has at most {MAX_LEGS} legs; this one has {len(legs)}")
    for leg in legs:
        if leg.amount <= 0:
            return Refusal(Code.INVALID_AMOUNT, "an amount is greater than zero", leg.bank, leg.account, leg.number)
    if {leg.direction for leg in legs} != set(Direction):
        return Refusal(Code.UNBALANCED_TRANSFER, "a transfer needs at least one debit and one credit")
    if sum(leg.signed for leg in legs):
        out = sum(leg.amount for leg in legs if leg.direction is Direction.DEBIT)
        into = sum(leg.amount for leg in legs if leg.direction is Direction.CREDIT)
        return Refusal(
            Code.UNBALANCED_TRANSFER, f"debits of {format_amount(out)} do not equal credits of {format_amount(into)}"
        )
    return None


def legs_at(bank: str, legs: Iterable[Leg]) -> tuple[Leg, ...]:
    """The legs at one bank, in their order."""
    return tuple([leg for leg in legs if leg.bank == bank])


def banks_of(legs: Iterable[Leg]) -> tuple[str, ...]:
    """Every bank that holds a leg, sorted."""
    return tuple(sorted({leg.bank for leg in legs}))


def net_flow(legs: Iterable[Leg]) -> int:
    """What these legs add to the customers' money of the bank that holds them: what the coordinator comes to owe it."""
    flow = 0
    for leg in legs:
        flow += leg.signed
    return flow


def check_participant_legs(bank: str, legs: tuple[Leg, ...]) -> Refusal | None:
    """What a participant refuses about the legs it is asked for, whatever its ledger says."""
    if not 1 <= len(legs) <= MAX_LEGS or len({leg.number for leg in legs}) != len(legs):
        return Refusal(Code.BANK_REFUSED, f"a prepare has 1 to {MAX_LEGS} legs, numbered apart")
    if any(leg.bank != bank for leg in legs):
        return Refusal(Code.BANK_REFUSED, "a prepare names only accounts of the bank it is sent to")
    if any(not 0 < leg.amount <= MAX_AMOUNT for leg in legs):
        return Refusal(Code.INVALID_AMOUNT, "an amount is greater than zero and within bounds")
    return None
