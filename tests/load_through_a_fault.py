"""Load through a fault: of five real banks one dies, is frozen, is cut off; the others are to go on as before.

Workers pay between the four others as fast as they are answered, two more pay from and to the fifth. Rates are those
of the others alone, over a stretch before the fault, during it, and behind its healing::

    python -m tests.load_through_a_fault --seconds 15 --report docs/reports/load-through-a-fault.md
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from distribank.breakages import Breakage
from tests.processes import SLOW_MACHINE_S, People, RealBank, network_of, until
from tests.provenance import provenance

WORKERS = 12
BACK_WITHIN_S = 5.0
"""How long after healing the others' rate is given to be what it was."""
TABLE = "distribank_load_test"


@dataclass
class Load:
    """Who pays, and every answer: when it came, whether the faulty bank had a part, its status."""

    people: People
    answers: list[tuple[float, bool, int]] = field(default_factory=list)
    without_id: list[object] = field(default_factory=list)
    """Server errors that do not name a transfer, of banks that had begun one: a bank that is not ready begins none."""
    stopped: bool = False

    async def pay_on(self, worker: int, faulty: int | None) -> None:
        """Pay one centavo after the other, between healthy banks or, if it is named, with the *faulty* one."""
        chance = random.Random(worker)  # noqa: S311
        number = 0
        while not self.stopped:
            number += 1
            payer, payee = chance.sample(range(4), 2)
            if faulty is not None:
                payer, payee = (payer, faulty) if number % 2 else (faulty, payer)
            key = f"{worker}-{number}"
            try:
                answer = await self.people.sessions[payer].pay(
                    self.people.accounts[payer], self.people.accounts[payee], 1, key=key
                )
            except Breakage:  # nobody there: the faulty bank itself was asked
                await asyncio.sleep(0.1)
                continue
            self.answers.append((time.monotonic(), faulty is not None, answer.status))
            if answer.status >= 500 and "transfer_id" not in answer.body and answer.code != "not_ready":
                self.without_id.append(answer.body)
            if answer.status >= 500:
                await asyncio.sleep(0.05)

    def rate(self, since: float, until_: float) -> float:
        """Transfers completed per second among the healthy banks."""
        done = sum(since <= at < until_ for at, faulty, status in self.answers if not faulty and status == 201)
        return done / (until_ - since)

    def statuses(self, *, faulty: bool) -> dict[int, int]:
        return dict(sorted(Counter(status for _, concerned, status in self.answers if concerned is faulty).items()))


@dataclass(frozen=True)
class Measured:
    """One fault: the others' rates, transfers per second; *back* is from five seconds behind its healing on."""

    fault: str
    before: float
    during: float
    back: float


Act = Callable[[RealBank], Awaitable[None]]


async def kill(bank: RealBank) -> None:
    bank.kill()


async def restart(bank: RealBank) -> None:
    await bank.restart()


async def freeze(bank: RealBank) -> None:
    bank.freeze()


async def thaw(bank: RealBank) -> None:
    bank.thaw()


async def cut_off(bank: RealBank) -> None:
    """Every packet to and from its port is dropped."""
    chain = f"add chain inet {TABLE} input {{ type filter hook input priority 0; }}"
    drops = [f"add rule inet {TABLE} input tcp {side} {bank.bank.port} drop" for side in ("dport", "sport")]
    nft(f"add table inet {TABLE}", chain, *drops)


async def connect(_bank: RealBank) -> None:
    nft(f"delete table inet {TABLE}")


def nft(*commands: str) -> None:
    subprocess.run(["nft", "-f", "-"], input="\n".join(commands), text=True, check=True, capture_output=True)


def can_cut_off() -> bool:
    """Whether this machine lets us drop packets."""
    if shutil.which("nft") is None:
        return False
    try:
        nft(f"add table inet {TABLE}", f"delete table inet {TABLE}")
    except subprocess.CalledProcessError:
        return False
    return True


def faults() -> dict[str, tuple[Act, Act]]:
    """What can be done to a bank here, and undone."""
    all_of_them = {"killed (SIGKILL)": (kill, restart), "frozen (SIGSTOP)": (freeze, thaw)}
    return {**all_of_them, "cut off (packets dropped)": (cut_off, connect)} if can_cut_off() else all_of_them


async def measure(seconds: float, directory: Path, back_within: float = BACK_WITHIN_S) -> tuple[list[Measured], Load]:
    """Each fault in turn, under one load; then everything has to be as it should."""
    measured = []
    async with network_of(directory, 5, env={"DISTRIBANK_VOTE_DEADLINE": "2"}) as banks:
        load = Load(await People(banks).settle_in(1_000_000))
        victim = banks[4]
        async with asyncio.TaskGroup() as group:
            for worker in range(WORKERS):
                group.create_task(load.pay_on(worker, None))
            for worker in (WORKERS, WORKERS + 1):
                group.create_task(load.pay_on(worker, 4))
            await asyncio.sleep(seconds / 2)  # everything is warm
            for fault, (do, undo) in faults().items():
                measured.append(await through(fault, do, undo, victim, load, seconds, back_within))
            load.stopped = True
        await load.people.quiet()
        await load.people.check_books()
    return measured, load


async def through(
    fault: str, do: Act, undo: Act, victim: RealBank, load: Load, seconds: float, back_within: float
) -> Measured:
    async def stretch() -> float:
        began = time.monotonic()
        await asyncio.sleep(seconds)
        return load.rate(began, time.monotonic())

    before = await stretch()
    await do(victim)
    try:
        during = await stretch()
    finally:
        await undo(victim)
    await asyncio.sleep(back_within)
    back = await stretch()

    async def heard_again() -> bool:
        return all([(await bank.client.network())[victim.code] == "online" for bank in load.people.banks[:4]])

    await until(heard_again, "the others know that it is back", SLOW_MACHINE_S)
    return Measured(fault, before, during, back)


REPORT = """# Load through a fault

`make load-through-a-fault`: five real banks under {workers} workers who pay between four of them as fast as they are
answered, and two who pay from and to the fifth. To the fifth this happens; the rates are the four others' completed
transfers per second, over {seconds:.0f} s each: before it, during it, and from {back:.0f} s behind its healing on. On
{cores} cores whose load (1 minute) was {load:.1f} at the end, clients on the same cores; {provenance}.

| the fifth bank is | before | during | during ÷ before | healed | healed ÷ before |
|---|---|---|---|---|---|
{table}

Answers by status: among the four {healthy}; where the fifth had a part {faulty}. Server errors of
ready banks without a transfer id: **{without}**. At the end nothing was in doubt or held, and the books balanced,
alone, pairwise and by the network's own audit.
"""


def report(measured: list[Measured], load: Load, seconds: float) -> str:
    rows = [
        f"| {m.fault} | {m.before:.0f} | {m.during:.0f} | {m.during / m.before:.2f} | {m.back:.0f} | "
        f"{m.back / m.before:.2f} |"
        for m in measured
    ]
    return REPORT.format(
        workers=WORKERS,
        seconds=seconds,
        back=BACK_WITHIN_S,
        cores=os.cpu_count(),
        load=os.getloadavg()[0],
        provenance=provenance(),
        table="\n".join(rows),
        healthy=load.statuses(faulty=False),
        faulty=load.statuses(faulty=True),
        without=len(load.without_id),
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load_through_a_fault", description=__doc__)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--report", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        measured, load = asyncio.run(measure(given.seconds, Path(directory)))
    told = report(measured, load, given.seconds)
    print(told)
    if given.report is not None:
        given.report.write_text(told)
    return 1 if load.without_id else 0


if __name__ == "__main__":
    sys.exit(main())
