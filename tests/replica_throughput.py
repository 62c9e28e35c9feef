"""Two replicas of a bank against one: transfers a second, in turns, on one machine and one PostgreSQL server.

Two banks pay each other, as fast as they are answered, under the same load: each is one process on SQLite, then one on
PostgreSQL, then two replicas on PostgreSQL. ``python -m tests.replica_throughput --report docs/reports/replicas.md``.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

from tests.postgres_server import shared_server
from tests.processes import People, RealBank, network_of
from tests.provenance import provenance
from tests.replicas import MONEY, Payer, replicated

PAYERS = 64
SHAPES = {"SQLite, one process": 0, "PostgreSQL, one process": 1, "PostgreSQL, two replicas": 2}

REPORT = """# Replicas of a bank: throughput

Two banks pay each other; {payers} payers with an account of their own at each, each of whom pays again once it is
answered; {turns} turns of {seconds:.0f} s for each shape, the median of each and its range. Banks, load, balancers and
one PostgreSQL server share two cores, so that a second replica adds no core: replicas are for a bank that must not be
away, not for speed on one machine. The books were right behind every turn.

| each bank is | transfers a second | range | ÷ one process on PostgreSQL |
|---|---|---|---|
{rows}

{provenance}

    python -m tests.replica_throughput --turns {turns} --seconds {seconds:.0f} --report docs/reports/replicas.md
"""


@asynccontextmanager
async def banks_of(shape: int, directory: Path) -> AsyncIterator[list[RealBank]]:
    if shape == 0:
        async with network_of(directory, 2) as banks:
            yield banks
        return
    urls = [await shared_server().database() for _ in range(2)]
    async with replicated(directory, urls, [shape, shape]) as network:
        yield network.fronts


async def rate(shape: int, seconds: float) -> float:
    """Transfers that were answered as committed, a second, behind a second of warming up."""
    with tempfile.TemporaryDirectory(prefix="distribank-replicas-") as directory:
        async with banks_of(shape, Path(directory) / "network") as fronts:
            people = await People(fronts).settle_in(MONEY)
            payers = [await a_payer(people, n) for n in range(PAYERS)]
            stop = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                for payer in payers:
                    group.create_task(payer.pay_until(stop))
                await asyncio.sleep(1)
                before, begun = sum(len(payer.paid) for payer in payers), time.monotonic()
                await asyncio.sleep(seconds)
                paid, took = sum(len(payer.paid) for payer in payers) - before, time.monotonic() - begun
                stop.set()
            await people.quiet()
            for bank in fronts:
                books = await bank.client.books()
                assert books["balanced"], books
            await people.audit(fronts[0])
            return paid / took


async def a_payer(people: People, number: int) -> Payer:
    """One who pays between two accounts that nobody else uses."""
    here, there = number % 2, 1 - number % 2
    debit, credit = await people.sessions[here].open_account(), await people.sessions[there].open_account()
    (await people.sessions[here].deposit(debit, MONEY)).expect(201)
    return Payer(people, here, there, f"payer-{number}", accounts=(debit, credit))


async def measure(turns: int, seconds: float) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in SHAPES}
    for turn in range(turns):
        for name, shape in SHAPES.items():
            found[name].append(await rate(shape, seconds))
            print(f"turn {turn + 1} of {turns}: {name}: {found[name][-1]:.0f} transfers a second", flush=True)
    return found


def told(found: dict[str, list[float]], turns: int, seconds: float) -> str:
    alone = median(found["PostgreSQL, one process"])
    rows = [
        f"| {name} | {median(rates):.0f} | {min(rates):.0f}–{max(rates):.0f} | {median(rates) / alone:.2f} |"
        for name, rates in found.items()
    ]
    return REPORT.format(payers=PAYERS, turns=turns, seconds=seconds, rows="\n".join(rows), provenance=provenance())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--report", type=Path)
    given = parser.parse_args()
    text = told(asyncio.run(measure(given.turns, given.seconds)), given.turns, given.seconds)
    print(text)
    if given.report is not None:
        given.report.write_text(text)
