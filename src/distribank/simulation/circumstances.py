"""What a seed draws before anything happens: how many banks, how patient, how slow, how unlucky, for how long.

Every time-out of the shipped code is drawn, too. Those that are parameters are given to the banks; those that are
constants of a module are replaced for the run by ``swarmed``, and put back behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Final

from distribank import recovery
from distribank.bank import auditing, coordinating, snapshots
from distribank.peers import line
from distribank.store import group, sharing


@dataclass(frozen=True, slots=True)
class Circumstances:
    """One run's. Times are in seconds; *skew* in milliseconds."""

    banks: int
    storm: float
    """How long the faults last."""
    transfers: int
    tellers: int
    batches: int
    audits: int
    vote_deadline: float
    patience: float
    """How long a request to another bank may take."""
    probe: float
    slow_disk: float
    lost: float
    twice: float
    late: float
    tail: float
    skew: int
    wild_clocks: bool
    """Whether a clock may be set beyond what the protocol believes."""
    troubles: float
    """Seconds between two faults, about."""
    hang_up: float
    zeal: float
    """How often operators force parts in doubt, from 0 to 1."""
    position_cap: int | None
    consent_total: int | None
    shared: int
    """How many banks run as two processes over one database."""
    lost_commits: float
    """How often a COMMIT to such a database is not heard of, does not arrive, or is not vouched for."""
    shuffled: bool
    """Whether what is ready runs in an order that is drawn, or first come, first served."""


def draw(chance: Random) -> Circumstances:
    """The circumstances of one seed."""
    quiet = chance.random() < 0.1
    return Circumstances(
        banks=chance.choice([2, 3, 3, 4, 5]),
        storm=chance.choice([5.0, 10.0, 30.0, 50.0]),
        transfers=chance.randint(48, 64),
        tellers=chance.randint(0, 8),
        batches=chance.choice([0, 0, 1, 2]),
        audits=chance.choice([2, 3, 3, 4]),
        vote_deadline=chance.choice([0.05, 0.3, 1.0, 2.0]),
        patience=chance.choice([0.1, 0.5, 2.0]),
        probe=chance.choice([0.5, 1.0, 2.0]),
        slow_disk=chance.choice([0.0, 0.002, 0.02, 0.3]),
        lost=0.0 if quiet else chance.uniform(0, 0.2),
        twice=0.0 if quiet else chance.choice([0.0, 0.05, 0.2]),
        late=chance.choice([0.0, 0.01, 0.1, 0.4]),
        tail=0.0 if quiet else chance.choice([0.0, 0.01, 0.03]),
        skew=chance.choice([0, 50, 2_000, 20_000]),
        wild_clocks=chance.random() < 0.15,
        troubles=chance.choice([0.3, 1.0, 3.0]),
        hang_up=chance.choice([0.0, 0.1, 0.3]),
        zeal=chance.choice([0.0, 0.0, 0.3, 1.0]),
        position_cap=chance.choice([None, None, 400]),
        consent_total=chance.choice([None, None, 300]),
        shared=chance.choice([0, 0, 0, 1, 1, 2]),
        lost_commits=0.0 if quiet else chance.choice([0.0, 0.02, 0.1]),
        shuffled=chance.random() < 0.7,
    )


DRAWN: Final = (
    (recovery, "INQUIRY_MARGIN", (0.01, 0.3, 1.0)),
    (recovery, "FIRST_RETRY", (0.05, 0.2, 0.5)),
    (recovery, "LAST_RETRY", (0.5, 2.0, 5.0)),
    (recovery, "SWEEP", (0.25, 0.4, 0.6)),
    (recovery, "CLAIM_EVERY", (0.3, 1.0)),
    (snapshots, "WAIT_S", (0.05, 0.3, 1.0)),
    (snapshots, "LOOK_S", (0.02, 0.1)),
    (auditing, "ANSWER_S", (0.3, 1.0, 2.0)),
    (auditing, "BOOKS_S", (0.3, 5.0)),
    (coordinating, "ACKNOWLEDGEMENT_WAIT", (0.0, 0.2, 1.0)),
    (line, "BACK_OFF_S", ((0.1, 0.2, 0.4), (0.01, 0.02, 0.04), (0.5, 1.0, 2.0))),
    (group, "LAZY_SECONDS", (0.02, 0.3, 1.0)),
    (sharing, "LEASE_S", (2.0, 4.0)),
    (sharing, "BEAT_S", (0.3, 1.0)),
    (sharing, "AWAY_S", (1.0, 3.0, 10.0)),
)
"""The modules' own times and from what each is drawn; what is shipped among it."""


@contextmanager
def swarmed(chance: Random) -> Iterator[None]:
    """While this lasts, the modules' times are drawn."""
    before = [(module, name, getattr(module, name)) for module, name, _ in DRAWN]
    try:
        for module, name, values in DRAWN:
            setattr(module, name, chance.choice(values))
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
