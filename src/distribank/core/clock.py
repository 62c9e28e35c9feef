"""Arithmetic of the hybrid logical clock (Kulkarni, Demirbas et al., 2014).

A *stamp* is one integer: 48 bits of wall-clock milliseconds since 1970, then 16 bits of counter. Stamps order
everything that is posted, at one bank and across the network: whatever a bank says after hearing a stamp is
stamped later than it. The last stamp itself is kept by ``distribank.bank``; here is only what follows from it.
"""

from __future__ import annotations

from typing import Final

from distribank.core.values import dataclass

COUNTER_BITS: Final = 16
CLOCK_BOUND_MS: Final = 60_000
"""How far ahead of local time a peer's clock may be believed: one bad clock must not infect every bank."""

MAX_STAMP: Final = 2**63 - 1
"""What a store can keep in a signed 64-bit column; reached in the year 6429."""


@dataclass(frozen=True, slots=True)
class Floor:
    """A stamp that the clock must be later than after a restart, although nothing that was posted carries it."""

    stamp: int


def stamp_at(wall_ms: int) -> int:
    """The first stamp of the millisecond *wall_ms*."""
    return wall_ms << COUNTER_BITS


def wall_of(stamp: int) -> int:
    """The milliseconds since 1970 in *stamp*."""
    return stamp >> COUNTER_BITS


def tick(last: int, wall_ms: int) -> int:
    """The next stamp of a bank whose latest was *last*: later than it, and not before the wall clock."""
    return max(last + 1, stamp_at(wall_ms))


def merge(last: int, heard: int) -> int:
    """The latest stamp of a bank that has just heard of *heard*."""
    return max(last, heard)


def too_far_ahead(stamp: int, wall_ms: int) -> bool:
    """Whether *stamp* lies further ahead of local time than a sound clock could be."""
    return wall_of(stamp) > wall_ms + CLOCK_BOUND_MS
