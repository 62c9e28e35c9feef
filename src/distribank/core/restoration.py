"""A restore from a backup: what the bank remembers of it, until everything that was lost with it is accounted for.

A backup is a moment of the past. Behind it this bank may have voted, posted and decided, and its peers rely on all of
that. So a restored bank keeps three kinds of rows: one ``Restoration``, which says what is missing and who has told of
it; a ``Lost`` for each transaction that this bank itself had coordinated meanwhile, as its participants know it; and a
``Supplied`` for each that was posted anew, from a coordinator's word or an operator's. What follows from them is in
``distribank.core.resupplying``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from distribank.core.clock import CLOCK_BOUND_MS, wall_of
from distribank.core.heuristics import AccountDamage
from distribank.core.transfer import Counterparty, Direction, Leg, net_flow
from distribank.core.values import dataclass, replace

MAX_VOTE_BY_AHEAD_MS: Final = 240_000
"""The protocol's constant of that name, built of its parts there: so long before it expires may a vote be cast."""

NUMBERS_LEFT_OUT: Final = 100_000
"""Account numbers that a restored bank never gives: customers whom the backup does not know may have had them."""


@dataclass(frozen=True, slots=True)
class Told:
    """A peer that tells what it knows, how many of its commits were posted, and when (milliseconds since 1970) that was
    all of it: ``None`` until then."""

    bank: str
    at: int | None
    resupplied: int = 0


@dataclass(frozen=True, slots=True)
class Restoration:
    """One restore, by the *incarnation* that it gave the database.

    The backup holds everything up to *stamp*; it was taken at *taken_at*. What happened from then until *restored_at*
    (both in milliseconds since 1970) is missing. *without* are the banks that an operator would not wait for, *told*
    those that have answered.
    """

    incarnation: str
    stamp: int
    taken_at: int
    restored_at: int
    without: tuple[str, ...] = ()
    told: tuple[Told, ...] = ()

    @property
    def since(self) -> int:
        """From when (milliseconds) a transaction may have begun elsewhere whose vote here, or decision, is lost."""
        return max(0, min(wall_of(self.stamp), self.taken_at) - MAX_VOTE_BY_AHEAD_MS - CLOCK_BOUND_MS)

    @property
    def resupplied(self) -> int:
        """How many transactions were posted anew from their coordinators' records."""
        return sum(told.resupplied for told in self.told)

    def may_have_lost_vote(self, commit_at: int) -> bool:
        """Whether this bank's vote on what is committed at this stamp may have been cast, and lost."""
        return self.since <= wall_of(commit_at) <= self.restored_at + MAX_VOTE_BY_AHEAD_MS + CLOCK_BOUND_MS

    def has_told(self, bank: str) -> bool:
        """Whether *bank* has answered."""
        return any(told.bank == bank and told.at is not None for told in self.told)

    def after(self, bank: str, at: int | None, resupplied: int = 0) -> Restoration:
        """The same once so many more commits of *bank*'s are posted or, with *at*, all that it knows is."""
        before = next((told for told in self.told if told.bank == bank), Told(bank, None))
        told = Told(bank, before.at if at is None else at, before.resupplied + resupplied)
        others = [each for each in self.told if each.bank != bank]
        return replace(self, told=tuple(sorted([*others, told], key=lambda each: each.bank)))


class PartFate(StrEnum):
    """What a participant knows of a transaction whose coordinator has lost it."""

    COMMITTED = "committed"
    PREPARED = "prepared"
    ABORTED = "aborted"


@dataclass(frozen=True, slots=True)
class Part:
    """A lost transaction as participant *bank* knows it; *at* is its commit timestamp there, *legs* are that bank's."""

    bank: str
    fate: PartFate
    at: int | None
    legs: tuple[Leg, ...]

    @property
    def flow(self) -> int:
        """What this bank comes to owe the participant by it, in centavos."""
        return net_flow(self.legs)


@dataclass(frozen=True, slots=True)
class Lost:
    """A transaction that this bank coordinated behind the backup, put together from what its participants know.

    *end_to_end_id* and what follows it stand as in the prepare that they were sent; empty where only tombstones tell.
    *begun_at* (milliseconds) is when the first of them heard of it.
    """

    transaction: str
    begun_at: int
    participants: tuple[str, ...]
    end_to_end_id: str
    holder_cpf: str
    description: str | None
    ordered_at: int
    vote_by: int
    counterparties: tuple[Counterparty, ...]
    parts: tuple[Part, ...]

    @property
    def fate(self) -> PartFate:
        """The outcome as far as anyone knows it: one that has committed, or aborted, settles it for all."""
        fates = {part.fate for part in self.parts}
        if PartFate.COMMITTED in fates:
            return PartFate.COMMITTED
        return PartFate.ABORTED if PartFate.ABORTED in fates else PartFate.PREPARED

    def with_part(self, part: Part) -> Lost:
        """The same once *part*'s bank has told, for the first time or anew."""
        others = [other for other in self.parts if other.bank != part.bank]
        return replace(self, parts=tuple(sorted([*others, part], key=lambda each: each.bank)))


@dataclass(frozen=True, slots=True)
class Supplied:
    """What a restored bank posted of a transaction that it had lost, *at* milliseconds since 1970.

    Its coordinator's word stood for it, or, with a *reason*, the operator's. *accounts* had something to gain or lose
    by it, each as far as it could; *unnamed* is what no account was named for, positive where this bank owes it.
    """

    transaction: str
    at: int
    reason: str | None
    accounts: tuple[AccountDamage, ...]
    unnamed: int = 0

    @property
    def suspense(self) -> int:
        """What went to suspense, in centavos; negative for what could not be debited."""
        return self.unnamed + sum(_signed(account) for account in self.accounts)


def _signed(account: AccountDamage) -> int:
    return account.to_suspense if account.direction is Direction.CREDIT else -account.to_suspense
