"""What is measured: the shapes of load, the cases that put them beside one another, and what each is to reach."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from distribank.benchmarks.load import Client, Plan
from distribank.benchmarks.seeding import HOLDERS
from distribank.benchmarks.subjects import Network, Peer, Subject

CENT: Final = "0.01"
"""What every transfer moves from each account that it debits."""
TRANSFERS: Final = "/v1/transfers"
BATCHES: Final = "/v1/transfer-batches"
CODE: Final = 99990001


def code(bank: int) -> str:
    """The code of the *bank*-th bank of a network, from 0."""
    return str(CODE + bank)


# Shapes -------------------------------------------------------------------------------------------------------------

Pool = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Way:
    """Whom one client pays: the banks whose accounts are debited (the first is asked, the others have consents), the
    bank that is credited, and whether one account stands for all on either side.
    """

    debits: tuple[int, ...]
    credit: int
    hot_payer: bool = False
    hot_payee: bool = False

    def order(self) -> dict[str, object]:
        credited = f"{len(self.debits) // 100}.{len(self.debits) % 100:02d}"
        return {
            "debits": [{"bank": code(bank), "account": "%s", "amount": CENT} for bank in self.debits],
            "credits": [{"bank": code(self.credit), "account": "%s", "amount": credited}],
        }

    def pools(self, person: int, persons: int, accounts: int) -> list[Pool]:
        """From which serials each leg's account is drawn, for that person at each bank."""
        one = (person + 1, person + 2, 1)
        own = one if self.hot_payer else (person + 1, accounts + 1, persons)
        payee = (1, 2, 1) if self.hot_payee else (1, accounts + 1, 1)
        return [own, *[one for _ in self.debits[1:]], payee]


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of load: the ways that clients take in turn; *batch* transfers in one request where it is not 0."""

    ways: tuple[Way, ...]
    batch: int = 0

    @property
    def legs(self) -> int:
        """Legs of one transfer; all ways have as many."""
        return len(self.ways[0].debits) + 1

    def plan(self, subject: Subject, clients: int, warm_up: float, seconds: float) -> Plan:
        """What the load generator is to do with *subject*."""
        persons = min(subject.accounts, HOLDERS)
        made = []
        for place in range(clients):
            turn = place % len(self.ways)
            way = self.ways[turn]
            person = 0 if way.hot_payer else place % persons
            bank = way.debits[0]
            pools = way.pools(person, persons, subject.accounts)
            made.append(Client(subject.port(bank), subject.token(bank, person), turn, pools))
        return Plan(
            BATCHES if self.batch else TRANSFERS,
            [self._body(way) for way in self.ways],
            made,
            warm_up,
            seconds,
            self.batch or 1,
            list(subject.pids().values()),
        )

    def _body(self, way: Way) -> str:
        if not self.batch:
            return json.dumps(way.order(), separators=(",", ":"))
        return json.dumps({"transfers": [way.order()] * self.batch, "mode": "concurrent"}, separators=(",", ":"))


ONE_WAY: Final = Shape((Way((0,), 1),))
BOTH_WAYS: Final = Shape((Way((0,), 1), Way((1,), 0)))
LOCAL: Final = Shape((Way((0,), 0),))
HOT_PAYEE: Final = Shape((Way((0,), 1, hot_payee=True),))
HOT_PAYER: Final = Shape((Way((0,), 1, hot_payer=True),))


def batch(transfers: int) -> Shape:
    return Shape((Way((0,), 1),), transfers)


def composite(banks: int) -> Shape:
    """Debits at all banks but the last, which is credited with the sum."""
    return Shape((Way(tuple(range(banks - 1)), banks - 1),))


def mesh(banks: int) -> Shape:
    """Every bank pays every other."""
    ways = [Way((payer,), (payer + step) % banks) for step in range(1, banks) for payer in range(banks)]
    return Shape(tuple(ways))


# Cases --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """One line of a case: *subject*, by its name, driven by so many *clients* in this *shape*. With *audited*, the
    network is audited over and over meanwhile.
    """

    name: str
    subject: str
    shape: Shape
    clients: int
    audited: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """Runs that are taken in turns. *parts* measures what one transfer is made of; *starts* how long the first bank of
    every network takes to be ready again, stopped in order and killed under load.
    """

    name: str
    words: str
    subjects: Callable[[Scale], list[Subject]]
    runs: Sequence[Run]
    parts: bool = False
    starts: bool = False


@dataclass(frozen=True, slots=True)
class Scale:
    """How large a run is: seconds to warm up and to measure, turns, the large ledgers, and how often a bank is started
    again to see how long it takes.
    """

    warm_up: float = 1.5
    seconds: float = 5.0
    repeats: int = 5
    large: tuple[int, ...] = (100_000, 1_000_000)
    past: int = 1_000_000
    starts: int = 3


QUICK: Final = Scale(0.7, 1.5, 1, (20_000,), 20_000, 1)

PEERS: Final = "distribank.benchmarks.peers."
OWN: Final = "DistriBank"
NOOP: Final = "no-op FastAPI POST"
NAIVE: Final = "naive two-phase commit"
POSTGRES: Final = "two PostgreSQL servers"


def _payers(_scale: Scale) -> list[Subject]:
    return [
        Network(OWN, 2),
        Peer(NOOP, PEERS + "noop"),
        Peer(NAIVE, PEERS + "naive"),
        Peer(POSTGRES, PEERS + "postgres"),
    ]


PAYMENTS: Final = Case(
    "payments",
    "two banks, one direction and both, local, hot accounts, batches, 1 to 256 clients; and the peers beside them",
    _payers,
    (
        Run("two banks, 64 clients", OWN, ONE_WAY, 64),
        Run("no-op, 64 clients", NOOP, ONE_WAY, 64),
        Run("naive, 64 clients", NAIVE, ONE_WAY, 64),
        Run("PostgreSQL, 64 clients", POSTGRES, ONE_WAY, 64),
        Run("into one hot account, 64 clients", OWN, HOT_PAYEE, 64),
        Run("out of one hot account, 64 clients", OWN, HOT_PAYER, 64),
        Run("both directions, 64 clients", OWN, BOTH_WAYS, 64),
        Run("local, 64 clients", OWN, LOCAL, 64),
        Run("batches of 10, 4 clients", OWN, batch(10), 4),
        Run("batches of 50, 4 clients", OWN, batch(50), 4),
        Run("batches of 200, 4 clients", OWN, batch(200), 4),
        Run("batches of 1,000, 2 clients", OWN, batch(1000), 2),
        Run("two banks, 1 client", OWN, ONE_WAY, 1),
        Run("no-op, 1 client", NOOP, ONE_WAY, 1),
        Run("naive, 1 client", NAIVE, ONE_WAY, 1),
        Run("PostgreSQL, 1 client", POSTGRES, ONE_WAY, 1),
        Run("two banks, 16 clients", OWN, ONE_WAY, 16),
        Run("two banks, 256 clients", OWN, ONE_WAY, 256),
    ),
    parts=True,
)

COMPOSITE: Final = Case(
    "composite",
    "one transfer over 3 and over 8 banks, beside one over two",
    lambda _scale: [Network(OWN, 8, consents=64)],
    (
        Run("over 2 of 8 banks, 64 clients", OWN, ONE_WAY, 64),
        Run("over 3 banks, 64 clients", OWN, composite(3), 64),
        Run("over 8 banks, 64 clients", OWN, composite(8), 64),
    ),
)

BANKS: Final = Case(
    "banks",
    "networks of 2, 4 and 8 banks in which each pays every other",
    lambda _scale: [Network(f"{banks} banks", banks) for banks in (2, 4, 8)],
    tuple(
        Run(f"network of {banks} banks, {clients} clients", f"{banks} banks", mesh(banks), clients)
        for clients in (64, 256)
        for banks in (2, 4, 8)
    ),
)


def _ledgers(scale: Scale) -> list[Subject]:
    return [
        Network("1,000 accounts", 2),
        *[Network(f"{accounts:,} accounts", 2, accounts) for accounts in scale.large],
        Network(f"{scale.past:,} past transfers", 2, past=scale.past),
    ]


def ledger_case(scale: Scale) -> Case:
    """Ledgers of every size; the smallest has no past."""
    names = [subject.name for subject in _ledgers(scale)]
    return Case(
        "ledgers",
        "ledgers of 1 thousand, 100 thousand and 1 million accounts, and of 1 million past transfers",
        _ledgers,
        tuple(Run(f"{name}, 64 clients", name, ONE_WAY, 64) for name in names),
        starts=True,
    )


AUDIT: Final = Case(
    "audit",
    "the network's own audit, over and over, while transfers run",
    lambda scale: [Network(OWN, 2, accounts=min(10_000, scale.past))],
    (
        Run("not audited, 64 clients", OWN, ONE_WAY, 64),
        Run("audited all the time, 64 clients", OWN, ONE_WAY, 64, audited=True),
    ),
)


def cases(scale: Scale) -> list[Case]:
    """Every case, in the order in which they are run."""
    return [PAYMENTS, COMPOSITE, BANKS, AUDIT, ledger_case(scale)]
