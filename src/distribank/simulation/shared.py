"""The database that the processes of one simulated bank share: how slow it is, what it loses, and what it meets.

The database itself is ``store.shared_memory``; here its manners are drawn from the seed. While there is no storm it
is quick and loses nothing.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from distribank.core.protocol import Record
from distribank.store.group import Group
from distribank.store.shared_memory import Manners, SharedMemory

if TYPE_CHECKING:
    from distribank.simulation.world import World

QUICKEST: Final = 0.0002
"""Seconds that a statement, or a COMMIT, takes at least."""
LOSSES: Final = ("unheard of", "lost", "unsure")


def database_of(code: str, world: World) -> SharedMemory:
    """The database of one bank."""
    chance, at = world.chance, world.circumstances

    def slow(power: int, scale: float) -> float:
        return QUICKEST + (chance.random() ** power * scale if world.stormy else 0.0)

    def fate() -> str:
        return chance.choice(LOSSES) if world.stormy and chance.random() < at.lost_commits else ""

    def landing(group: Group) -> None:
        world.landing(code, group)
        for record in group.added[Record]:
            world.tell(code, "has on disk", record)

    def note(what: str) -> None:
        world.seen[what] += 1

    return SharedMemory(
        chance=chance,
        manners=Manners(
            statement=partial(slow, 4, at.slow_disk / 4),
            commit=partial(slow, 3, at.slow_disk),
            fate=fate,
            keep=lambda: chance.random() < 0.5,
            landing=landing,
            note=note,
        ),
    )
