"""How long recovery takes: banks with many transactions in doubt are killed and started again, on real processes.

Half of the transfers are committed and their commits lost on the way, the other half are undecided, the votes lost. So
every one of them is in doubt at the bank that is to be credited. Both banks are killed and started as anybody would,
with ``distribank serve``::

    python -m tests.recovery_times --in-doubt 1000 10000 --report docs/reports/recovery.md
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from distribank.network.client import AccountRef, Session
from distribank.network.layout import LocalBank
from tests.crashing import arm
from tests.processes import SLOW_MACHINE_S, People, RealBank, network_of, until
from tests.provenance import provenance

COUNT = "SELECT count(*) FROM transfer WHERE state = ?"
IMPORTS = "import distribank.cli, distribank.service"
AT_ONCE = 64
"""Orders under way at a time while the doubt is made."""


@dataclass(frozen=True)
class Times:
    """Seconds: until an interpreter has its imports behind it, from the start of each bank until it is ready, and from
    the moment at which both are until nothing is in doubt. *in_doubt* is how many there were."""

    in_doubt: int
    imports: float
    coordinator: float
    participant: float
    resolved: float

    @property
    def beyond(self) -> float:
        """What the slower bank took beyond interpreter and imports."""
        return max(self.coordinator, self.participant) - self.imports


def count(bank: RealBank, *states: str) -> int:
    """How many transactions in the database of *bank*, which need not run, are in these states."""
    with closing(sqlite3.connect(f"file:{bank.bank.directory / 'bank.db'}?mode=ro", uri=True)) as reader:
        return sum(reader.execute(COUNT, (state,)).fetchone()[0] for state in states)


def import_seconds(banks: int) -> float:
    """What an interpreter takes to have all of a bank's modules, here and now, as many at a time as *banks* start."""
    taken = []
    for _ in range(3):
        began = time.monotonic()
        started = [subprocess.Popen([sys.executable, "-c", IMPORTS]) for _ in range(banks)]
        for process in started:
            process.wait()
        taken.append(time.monotonic() - began)
    return median(taken)


async def order(session: Session, debit: AccountRef, credit: AccountRef, transfers: int, name: str) -> None:
    """Order that many transfers of a centavo, and wait for the end of none."""
    numbers = iter(range(transfers))

    async def work() -> None:
        for number in numbers:
            answer = await session.pay(debit, credit, 1, key=f"{name}-{number}", prefer="respond-async")
            answer.expect(201, 202)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


async def measure(in_doubt: int, directory: Path) -> Times:
    """Make that many doubts, kill both banks, start them, and see to it that all is as it should be."""
    scripts = directory / "scripts"
    scripts.mkdir(parents=True)

    def program(bank: LocalBank) -> list[str]:
        return [sys.executable, "-m", "tests.crashing", "--script", str(scripts / bank.code)]

    env = {"DISTRIBANK_VOTE_DEADLINE": "120"}
    async with network_of(directory / "network", 2, env=env, program=program) as banks:
        people = await People(banks).settle_in(1_000_000)
        a, b = people.accounts
        half = in_doubt // 2
        arm(scripts / banks[1].code, "lose Inquire")
        for lost, state, orders in (
            ("lose Commit", "committing", half),
            ("lose Commit\nlose answer to Prepare", "preparing", in_doubt - half),
        ):
            arm(scripts / banks[0].code, lost)
            voted = count(banks[1], "prepared") + orders
            await order(people.sessions[0], a, b, orders, state)

            async def made(state: str = state, orders: int = orders, voted: int = voted) -> bool:
                return count(banks[0], state) == orders and count(banks[1], "prepared") == voted

            await until(made, f"{orders} are {state}", SLOW_MACHINE_S)
        for bank in banks:
            bank.kill()
        imports = import_seconds(len(banks))
        plain = [RealBank(bank.bank, env={}, program=[]) for bank in banks]
        try:
            coordinator, participant = await asyncio.gather(*(bank.restart() for bank in plain))

            async def nothing_in_doubt() -> bool:
                return not any(count(bank, "preparing", "committing", "prepared") for bank in banks)

            resolved = await until(nothing_in_doubt, "nothing is in doubt", SLOW_MACHINE_S)
            await people.check_books()
            posted, _ = await people.sessions[1].balances(b)
            assert posted == 1_000_000 + half, "what was committed has not arrived, or not once"
        finally:
            for bank in plain:
                await bank.stop()
                await bank.client.close()
    return Times(in_doubt, imports, coordinator, participant, resolved)


REPORT = """# Recovery

`make recovery`: two real banks, killed (SIGKILL) with that many transactions in doubt, half of them committed and half
undecided, and started with `distribank serve`. Behind it every commit had arrived once, all else was aborted, nothing
was held, and books balanced alone, pairwise and by the network's own audit. The two banks start at the same time, on
{cores} cores whose load (1 minute) was {load:.1f} at the end; {provenance}.

| in doubt | imports, s | coordinator ready, s | participant ready, s | beyond imports, s | resolved behind, s |
|---|---|---|---|---|---|
{table}
"""


def row(times: Times) -> str:
    told = (times.imports, times.coordinator, times.participant, times.beyond, times.resolved)
    return f"| {times.in_doubt} | {' | '.join(f'{seconds:.2f}' for seconds in told)} |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.recovery_times", description=__doc__)
    parser.add_argument("--in-doubt", type=int, nargs="+", default=[0, 1_000, 10_000])
    parser.add_argument("--report", type=Path)
    given = parser.parse_args()
    rows = []
    for in_doubt in given.in_doubt:
        with tempfile.TemporaryDirectory() as directory:
            rows.append(row(asyncio.run(measure(in_doubt, Path(directory)))))
        print(rows[-1], flush=True)
    told = REPORT.format(cores=os.cpu_count(), load=os.getloadavg()[0], provenance=provenance(), table="\n".join(rows))
    print(told)
    if given.report is not None:
        given.report.write_text(told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
