"""Crash at every point: a bank is killed before and after every write and every message of a story, on real processes.

The points are those that the bank passes (``tests.crashing``). A story is told again and again; each time its victim
dies one point later, comes back, and everything has to end the same at every bank, as it was told, with nothing held,
until the story passes with nobody killed::

    python -m tests.crash_points --rounds 20 --report docs/reports/crashes.md
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from distribank.breakages import Breakage
from distribank.network.client import Answer, centavos
from distribank.network.layout import LocalBank
from distribank.store.group import LAZY_SECONDS
from tests.crashing import arm
from tests.nursery import nursery
from tests.processes import SLOW_MACHINE_S, People, RealBank, network_of, until
from tests.provenance import provenance

MONEY = 10_000_000
FINAL = {"completed", "aborted"}
PATIENT = {"DISTRIBANK_VOTE_DEADLINE": "5"}
"""So that on a busy machine, too, the votes come in time, and a story is told to its end."""


@dataclass
class Town:
    """The people of a network whose banks can be told at which point to die."""

    people: People
    scripts: Path

    @property
    def banks(self) -> list[RealBank]:
        return self.people.banks

    def arm(self, place: int, point: int | str) -> None:
        arm(self._script(place), point)

    def disarm(self, place: int) -> None:
        self._script(place).unlink(missing_ok=True)

    def points_of(self, place: int) -> list[str]:
        """The names of all points that this bank has passed while armed, over all its lives."""
        log = self._log(place)
        return log.read_text().splitlines() if log.exists() else []

    async def die_at(self, place: int, name: str, order: Awaitable[object]) -> None:
        """Have this bank die of *order* at the point *name*; that is no part of the story, nor are its points."""
        passed = self.points_of(place)
        self.arm(place, name)
        await attempt(order)

        async def dead() -> bool:
            return self.banks[place].pid is None

        await until(dead, f"a bank dies {name}", SLOW_MACHINE_S)
        self.disarm(place)
        self._log(place).write_text("".join(f"{point}\n" for point in passed))

    async def up(self, place: int) -> None:
        if self.banks[place].pid is None:
            await self.banks[place].restart()

    async def at_rest(self, place: int) -> bool:
        """Wait until the bank at *place* is dead, or nothing is left to do anywhere; whether it is dead."""

        async def dead_or_quiet() -> bool:
            return self.banks[place].pid is None or await self.people.is_quiet()

        await until(dead_or_quiet, "the bank is dead, or done", SLOW_MACHINE_S)
        if self.banks[place].pid is not None:
            await asyncio.sleep(2 * LAZY_SECONDS)  # what it writes lazily is a point as well
            self.disarm(place)
            await asyncio.sleep(0.1)
        return self.banks[place].pid is None

    def _log(self, place: int) -> Path:
        return Path(f"{self._script(place)}.points")

    def _script(self, place: int) -> Path:
        return self.scripts / self.banks[place].code


@asynccontextmanager
async def town(directory: Path, urls: Sequence[str] = ()) -> AsyncIterator[Town]:
    """Three banks with a counter at their ports, and people there; *urls* are their databases."""
    scripts = directory / "scripts"
    scripts.mkdir(parents=True)

    def program(bank: LocalBank) -> list[str]:
        return ["--script", str(scripts / bank.code)]

    with nursery(directory) as start:
        async with network_of(directory / "network", 3, env=PATIENT, program=program, start=start, urls=urls) as banks:
            people = await People(banks).settle_in(MONEY)
            await people.acquainted()
            yield Town(people, scripts)


async def attempt(order: Awaitable[object]) -> None:
    """What nobody may be there to answer."""
    with suppress(Breakage):
        await order


# The stories ------------------------------------------------------------------------------------------------------


class Story(ABC):
    """What a bank dies of. *victim* is its place; *moments* are words that its points' names must have."""

    victim: int
    moments: tuple[str, ...]

    def __init__(self) -> None:
        self.acknowledged: list[tuple[int, str]] = []
        """Transfers that a bank has called completed, and that bank's place."""

    async def prepare(self, town: Town) -> None:
        """Once, before the first telling."""
        return

    async def before(self, town: Town, key: str) -> None:
        """Each time, before the victim is armed."""
        return

    @abstractmethod
    async def tell(self, town: Town, key: str) -> None:
        """Each time, while the victim is armed; every idempotency key begins with *key*."""

    @abstractmethod
    async def check(self, town: Town, key: str) -> None:
        """Each time, when the victim is back: bring it to an end, and see that it is the right one."""


class TransferStory(Story):
    """A transfer of two debits to one credit, over three banks."""

    def __init__(self, victim: int, *moments: str) -> None:
        super().__init__()
        self.victim, self.moments = victim, moments

    async def tell(self, town: Town, key: str) -> None:
        await attempt(self._order(town, key))

    async def check(self, town: Town, key: str) -> None:
        final = await retried(lambda: self._order(town, key))
        await town.people.quiet()
        await self._same_everywhere(town, final["transfer_id"], final["status"])

    def _order(self, town: Town, key: str) -> Awaitable[Answer]:
        a, b, c = town.people.accounts
        return town.people.sessions[0].transfer([(a, 100), (b, 100)], [(c, 200)], key=key)

    async def _same_everywhere(self, town: Town, transfer: str, status: str) -> None:
        assert {await town.people.status_at(place, transfer) for place in range(3)} - {None} == {status}
        if status == "completed":
            self.acknowledged.append((0, transfer))


class BatchStory(TransferStory):
    """Two transfers under one key, one after the other; each happens once, whichever bank is killed."""

    async def prepare(self, town: Town) -> None:
        self._balance = await self._posted(town)

    async def check(self, town: Town, key: str) -> None:
        body: dict[str, Any] = {}

        async def finished() -> bool:
            nonlocal body
            try:
                body = (await self._order(town, key)).body
            except Breakage:
                return False
            return body.get("status") == "completed" and all(
                item["status"] in FINAL or item["transfer_id"] is None for item in body["results"]
            )

        await until(finished, "the batch has its end", SLOW_MACHINE_S)
        await town.people.quiet()
        for item in body["results"]:
            if item["transfer_id"] is not None:
                await self._same_everywhere(town, item["transfer_id"], item["status"])
                self._balance -= 100 * (item["index"] + 1) if item["status"] == "completed" else 0
        assert await self._posted(town) == self._balance, "a transfer of the batch was done twice, or not at all"

    def _order(self, town: Town, key: str) -> Awaitable[Answer]:
        a, b, c = town.people.accounts
        transfers = [
            {"debits": [a.leg(100)], "credits": [b.leg(100)]},
            {"debits": [a.leg(200)], "credits": [c.leg(200)]},
        ]
        order = {"transfers": transfers, "mode": "sequential", "on_failure": "continue"}
        return town.people.sessions[0].post("/v1/transfer-batches", order, key)

    async def _posted(self, town: Town) -> int:
        posted, _ = await town.people.sessions[0].balances(town.people.accounts[0])
        return posted


class RecoveryStory(TransferStory):
    """A bank that died in the middle of a transfer is killed again, at every point of its recovery."""

    def __init__(self, victim: int, died: str, *moments: str) -> None:
        super().__init__(victim, *moments)
        self._died = died

    async def before(self, town: Town, key: str) -> None:
        await town.die_at(self.victim, self._died, self._order(town, key))

    async def tell(self, town: Town, key: str) -> None:
        await attempt(town.banks[self.victim].restart())  # it may die before it is ready


class ForcedStory(Story):
    """A part is forced to abort while its coordinator, which has committed, is away; then the truth arrives."""

    victim = 1
    moments = ("after", "Resolved")

    async def before(self, town: Town, key: str) -> None:
        self._balance, _ = await town.people.sessions[1].balances(town.people.accounts[1])
        a, b, _ = town.people.accounts
        order = town.people.sessions[0].pay(a, b, 100, key=key)
        await town.die_at(0, f"before Commit to {town.banks[1].code}", order)
        self._transfer = await in_doubt_at(town.banks[1])

    async def tell(self, town: Town, key: str) -> None:
        await attempt(self._force(town))
        await town.up(0)

    async def check(self, town: Town, key: str) -> None:
        operator = await town.banks[1].client.operator()
        await town.people.quiet()
        items = (await operator.get("/v1/operator/heuristics")).expect(200)["items"]
        forced = [item for item in items if item["transaction"] == self._transfer]
        for item in forced:  # none if it died first: then the truth was there before anyone could guess
            assert (item["decision"], item["truth"], item["matched"]) == ("abort", "commit", False)
            assert item["damage"]["accounts"][0]["corrected"] == "1.00"
        posted, _ = await town.people.sessions[1].balances(town.people.accounts[1])
        assert posted == self._balance + 100, "the transfer was credited twice, or not at all"
        self.acknowledged.append((0, self._transfer))

    async def _force(self, town: Town) -> None:
        await force(town.banks[1], self._transfer, "abort")


class AssignmentStory(Story):
    """A centavo out of suspense is debited to an account, once for each key."""

    victim = 1
    moments = ("before", "Assignment")

    async def prepare(self, town: Town) -> None:
        """Leave 500.00 in suspense: forced to commit, withdrawn, and then it was an abort."""
        people, bank = town.people, town.banks[1]
        a, b, _ = people.accounts
        await town.die_at(0, f"after Prepare to {bank.code}", people.sessions[0].pay(a, b, 500_00))
        await force(bank, await in_doubt_at(bank), "commit")
        posted, _ = await people.sessions[1].balances(b)
        (await people.sessions[1].withdraw(b, posted)).expect(201)
        people.total -= posted
        await town.up(0)
        await people.quiet()
        (await people.sessions[1].deposit(b, MONEY)).expect(201)
        people.total += MONEY
        self._owed = await self._open(town)
        assert self._owed == 500_00

    async def tell(self, town: Town, key: str) -> None:
        await attempt(self._assign(town, key))

    async def check(self, town: Town, key: str) -> None:
        (await self._assign(town, key)).expect(201)
        self._owed -= 1
        assert await self._open(town) == self._owed, "it was assigned twice, or not at all"

    async def _assign(self, town: Town, key: str) -> Answer:
        account = town.people.accounts[1].account
        order = {"direction": "debit", "amount": "0.01", "account": account, "reason": "she called"}
        return await (await town.banks[1].client.operator()).post("/v1/operator/suspense/assignments", order, key)

    async def _open(self, town: Town) -> int:
        book = (await (await town.banks[1].client.operator()).get("/v1/operator/suspense")).expect(200)
        return centavos(book["owed"])


async def in_doubt_at(bank: RealBank) -> str:
    """The one transaction that is in doubt at *bank*."""
    (doubt,) = await bank.client.in_doubt()
    return str(doubt["transaction"])


async def force(bank: RealBank, transfer: str, decision: str) -> None:
    order = {"decision": decision, "reason": "its coordinator is away"}
    (await (await bank.client.operator()).post(f"/v1/operator/in-doubt/{transfer}/resolve", order)).expect(200)


async def retried(order: Callable[[], Awaitable[Answer]]) -> dict[str, Any]:
    """The final answer under the same key, asked again until there is one: a client's way to certainty."""
    body: dict[str, Any] = {}

    async def final() -> bool:
        nonlocal body
        try:
            answer = await order()
        except Breakage:
            return False
        body = dict(answer.body)
        if answer.status in (422, 503) and "transfer_id" in body:
            body["status"] = "aborted"
        return body.get("status") in FINAL

    await until(final, "the transfer has its end", SLOW_MACHINE_S)
    return body


COORDINATOR = ("before Prepare", "after Prepare", "after Decided", "before Commit to 99990003", "after Commit", "Ended")
STORIES: dict[str, Callable[[], Story]] = {
    "a transfer, its coordinator killed": lambda: TransferStory(0, *COORDINATOR),
    "a transfer, a participant killed": lambda: TransferStory(1, "after Prepared", "after Resolved"),
    "a batch, its coordinator killed": lambda: BatchStory(0, "after Batch", *COORDINATOR),
    "recovery of a coordinator that had decided": lambda: RecoveryStory(
        0, "before Commit to 99990002", "before Commit", "after Commit", "after Ended"
    ),
    "recovery of a participant in doubt": lambda: RecoveryStory(
        1, "after Prepared is durable", "before Inquire", "after Inquire", "after Resolved"
    ),
    "a forced part and its correction": ForcedStory,
    "an assignment out of suspense": AssignmentStory,
}


# Telling them -----------------------------------------------------------------------------------------------------


@dataclass
class Told:
    """What the tellings of one story came to: seconds until ready and until at rest, by kill; and the points."""

    kills: int = 0
    rounds: int = 0
    ready: list[float] = field(default_factory=list)
    rest: list[float] = field(default_factory=list)
    points: set[str] = field(default_factory=set)
    acknowledged: int = 0

    def add(self, other: Told) -> None:
        self.kills += other.kills
        self.rounds += 1
        self.ready += other.ready
        self.rest += other.rest
        self.points |= other.points
        self.acknowledged += other.acknowledged


async def enumerate_points(story: Story, town: Town, told: Told) -> None:
    """Kill the victim at point 1, 2, 3 … of the story until it passes; raises ``AssertionError`` for a finding."""
    point, dead = 0, True
    while dead:
        point += 1
        key = f"point-{point}"
        await story.before(town, key)
        town.arm(story.victim, point)
        await story.tell(town, key)
        dead = await town.at_rest(story.victim)
        town.disarm(story.victim)
        if dead:
            told.kills += 1
            told.ready.append(await town.banks[story.victim].restart())
        for place in range(len(town.banks)):
            await town.up(place)
        told.rest.append(await until(town.people.is_quiet, "nothing is in doubt anywhere", SLOW_MACHINE_S))
        await story.check(town, key)
        await town.people.check_books()
    assert told.kills > 0, "nobody was killed"
    for place, transfer in story.acknowledged:
        assert await town.people.status_at(place, transfer) == "completed", f"{transfer} is lost"
    told.acknowledged = len(story.acknowledged)
    told.points |= set(town.points_of(story.victim))


async def tell(name: str, directory: Path, urls: Sequence[str] = ()) -> Told:
    """Tell one story in a town of its own, every point once; *urls* are its banks' databases."""
    story, told = STORIES[name](), Told()
    async with town(directory, urls) as made:
        await story.prepare(made)
        await enumerate_points(story, made, told)
    missing = [moment for moment in story.moments if not any(moment in point for point in told.points)]
    assert not missing, f"no point named {missing} was ever reached, only {sorted(told.points)}"
    return told


async def campaign(rounds: int, lanes: int, minutes: float, directory: Path) -> tuple[str, bool]:
    """Tell all stories, round after round, *lanes* at a time; the report, and whether nothing was found."""
    began = time.monotonic()
    free = asyncio.Semaphore(lanes)
    findings: list[str] = []
    all_told = {name: Told() for name in STORIES}

    async def one(name: str, number: int) -> None:
        async with free:
            if time.monotonic() - began > minutes * 60:
                return
            try:
                all_told[name].add(await tell(name, directory / f"{number} {name}".replace(" ", "-")))
            except (AssertionError, Breakage) as wrong:
                findings.append(f"* {name}, round {number}: {wrong}")
            kills = sum(told.kills for told in all_told.values())
            seconds = time.monotonic() - began
            print(f"{seconds:6.0f} s  {kills} kills, {len(findings)} findings, round {number}: {name}", flush=True)

    await asyncio.gather(*(one(name, number) for number in range(1, rounds + 1) for name in STORIES))
    text = REPORT.format(
        rounds=rounds,
        lanes=lanes,
        kills=sum(told.kills for told in all_told.values()),
        seconds=time.monotonic() - began,
        cores=os.cpu_count(),
        load=os.getloadavg()[2],
        provenance=provenance(),
        findings=len(findings),
        table="\n".join(row(name, told) for name, told in all_told.items() if told.rounds),
        points="\n".join(f"* {name}: {', '.join(sorted(told.points))}" for name, told in all_told.items()),
        wrong="\n".join(findings) or "Nothing was found.",
    )
    return text, not findings


def row(name: str, told: Told) -> str:
    ready, rest = (f"{median(all_):.2f} / {max(all_):.2f}" for all_ in (told.ready, told.rest))
    return f"| {name} | {len(told.points)} | {told.rounds} | {told.kills} | {ready} | {rest} |"


REPORT = """# Crash at every point

`make crashes ROUNDS={rounds}`: three real banks, one of which is killed (SIGKILL) before and after every write and
every message of a story, one point later each time, and started again. After each kill every transfer had to end the
same at every bank and as a client was told, nothing stayed held, books had to balance alone, pairwise and by the
network's own audit, and whatever had been acknowledged was looked up again. A bank is a process of its own, forked from
one that has its imports behind it (`tests/nursery.py`), so that *ready again* is the bank's part alone.

{kills} kills in {seconds:.0f} s, {lanes} stories at a time, on {cores} cores whose load (15 minutes) was {load:.1f}
at the end, {provenance}. Findings: **{findings}**.

| story | points by name | rounds | kills | ready again, s: median / most | at rest behind that, s: median / most |
|---|---|---|---|---|---|
{table}

*At rest* is at most about six seconds where a coordinator died with nothing on its disk: who has voted asks a second
behind the vote deadline, which is five seconds here and two by default.

{points}

{wrong}
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash_points", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--lanes", type=int, default=2, help="stories that are told at a time")
    parser.add_argument("--minutes", type=float, default=600, help="no new story begins after that")
    parser.add_argument("--report", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        text, clean = asyncio.run(campaign(given.rounds, given.lanes, given.minutes, Path(directory)))
    print(text)
    if given.report is not None:
        given.report.write_text(text)
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
