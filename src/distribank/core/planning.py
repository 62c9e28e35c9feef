"""Choosing whose money pays: the debit legs of a transfer, proposed from all that a holder can draw on.

Pure arithmetic on what each account could give at one moment. It promises nothing: the transfer itself is checked anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from distribank.core.money import MAX_AMOUNT
from distribank.core.transfer import MAX_LEGS
from distribank.core.values import dataclass, replace

MAX_DEBITS: Final = MAX_LEGS - 1
"""Debit legs of a plan: one leg is its credit."""


@dataclass(frozen=True, slots=True)
class Source:
    """An account that could pay at most *room* centavos."""

    bank: str
    account: str
    room: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Proposed debits, each above zero, which sum to the amount wanted; none if *reachable* is less than that.

    *crowded*: there is money on more accounts than a transfer has debit legs for.
    """

    debits: tuple[Source, ...]
    reachable: int
    crowded: bool = False


def within(sources: Iterable[Source], ceilings: Mapping[str, int]) -> list[Source]:
    """*sources* with rooms that together do not pass the ceiling of their bank, where it has one; the largest first."""
    left, found = dict(ceilings), []
    for source in sorted(sources, key=_largest_first):
        room = max(0, min(source.room, left.get(source.bank, source.room)))
        if source.bank in left:
            left[source.bank] -= room
        found.append(replace(source, room=room))
    return found


def plan(amount: int, sources: Iterable[Source], home: tuple[str, ...]) -> Plan:
    """Debits that sum to *amount* centavos, at as few banks as can be besides those of *home*, which take part anyway.

    The banks of *home* are drawn on first, in their order; then the others, those that can give most before those that
    can give less. The same sources, in whatever order, give the same plan.
    """
    usable = [Source(s.bank, s.account, min(s.room, MAX_AMOUNT)) for s in sources if s.room > 0]
    largest = sorted(usable, key=_largest_first)
    reachable = sum(source.room for source in largest[:MAX_DEBITS])
    if amount > reachable:
        return Plan((), reachable, crowded=len(usable) > MAX_DEBITS)
    of_bank: dict[str, int] = {}
    for source in usable:
        of_bank[source.bank] = of_bank.get(source.bank, 0) + source.room
    places = {bank: place for place, bank in enumerate(home)}
    ordered = sorted(largest, key=lambda s: (places.get(s.bank, len(home)), -of_bank[s.bank], s.bank))
    if sum(source.room for source in ordered[:MAX_DEBITS]) < amount:
        ordered = largest  # so many small accounts that only the largest fit into one transfer
    debits: list[Source] = []
    for source in ordered:
        taken = min(source.room, amount)
        if taken:
            debits.append(Source(source.bank, source.account, taken))
        amount -= taken
    return Plan(tuple(debits), reachable)


def _largest_first(source: Source) -> tuple[int, str, str]:
    return -source.room, source.bank, source.account
