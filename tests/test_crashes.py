"""Real processes, real disks, SIGKILL: whatever dies, and whenever, nothing is lost and nothing is made.

A bank is killed at every point at which it writes or sends (``tests.crash_points`` finds them), and at random moments
under load. Each time it comes back, every transaction ends the same at every bank, and the books are asked from
outside, over HTTP.
"""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import suppress
from pathlib import Path

import pytest

from distribank.breakages import Breakage
from distribank.network.client import AccountRef, Answer, Session
from tests.crash_points import STORIES, tell
from tests.load_through_a_fault import measure as through_every_fault
from tests.postgres_server import shared_server
from tests.processes import People, RealBank, network_of, until
from tests.recovery_times import measure

FEWEST = {"a transfer, its coordinator killed": 12, "a batch, its coordinator killed": 18}
"""Points that a story has at least, where they are many: fewer, and it would not have been told to its end."""
FEWEST_ON_POSTGRESQL = 2


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", STORIES)
async def test_a_bank_killed_at_any_write_or_message_comes_back_and_everything_ends_the_same_everywhere(
    tmp_path: Path, name: str
) -> None:
    told = await tell(name, tmp_path)
    assert told.kills >= FEWEST.get(name, 2), told.points


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", STORIES)
async def test_the_same_on_postgresql(tmp_path: Path, name: str) -> None:
    told = await tell(name, tmp_path, [await shared_server().database() for _ in range(3)])
    assert told.kills >= FEWEST_ON_POSTGRESQL, told.points


@pytest.mark.timeout(600)
async def test_a_thousand_transactions_in_doubt_are_resolved_once_both_banks_are_up(tmp_path: Path) -> None:
    """How long it takes is printed, and measured by ``make recovery``: a busy machine is no finding."""
    print(await measure(1_000, tmp_path))


@pytest.mark.timeout(300)
async def test_banks_killed_at_random_under_load_lose_nothing_and_make_nothing(tmp_path: Path) -> None:
    """Every acknowledged transfer is there, the total is unchanged, and nothing stays in doubt.

    Another campaign: ``DISTRIBANK_KILL_SEED=7 make test ARGS='-k killed_at_random'``.
    """
    chance = random.Random(os.environ.get("DISTRIBANK_KILL_SEED", "20261123"))  # noqa: S311 - not secret
    async with network_of(tmp_path / "network", 3) as banks:
        people = await People(banks).settle_in(1_000_000)
        acknowledged: list[tuple[int, str]] = []
        restarts: list[float] = []
        stop = asyncio.Event()

        async def pay_on(worker: int) -> None:
            number = 0
            while not stop.is_set():
                number += 1
                place = chance.randrange(3)
                debit, credit = chance.sample(people.accounts, 2)
                try:
                    answer = await people.sessions[place].pay(debit, credit, 100, key=f"{worker}-{number}")
                except Breakage:
                    await asyncio.sleep(0.05)  # nobody there: a client waits before it tries somebody else
                    continue
                if answer.status == 201:
                    acknowledged.append((place, answer.body["transfer_id"]))
                else:
                    assert answer.status in (202, 401, 503), answer.body
                    await asyncio.sleep(0.01)

        async def kill_on() -> None:
            for _ in range(6):
                bank = chance.choice(banks)
                await asyncio.sleep(chance.uniform(0.3, 1.0))  # a moment of load between two kills
                bank.kill()
                await asyncio.sleep(chance.uniform(0.0, 0.5))
                restarts.append(await bank.restart())
            stop.set()

        async with asyncio.TaskGroup() as group:
            for worker in range(16):
                group.create_task(pay_on(worker))
            group.create_task(kill_on())
        await people.quiet()
        print(f"{len(acknowledged)} acknowledged; ready again after {[round(s, 2) for s in restarts]} s")
        assert len(acknowledged) > 50
        for place, transfer in acknowledged:
            assert await people.status_at(place, transfer) == "completed"
        await people.check_books()


async def test_of_64_concurrent_debits_of_a_balance_that_covers_one_exactly_one_succeeds(tmp_path: Path) -> None:
    async with network_of(tmp_path / "network", 2) as banks:
        people = await People(banks).settle_in(10_000)
        a, b = people.accounts
        answers = await asyncio.gather(*(people.sessions[0].pay(a, b, 10_000) for _ in range(64)))
        assert sorted(answer.status for answer in answers) == [201] + [422] * 63
        assert {answer.code for answer in answers} == {None, "insufficient_funds"}
        await people.check_books()


async def test_200_concurrent_transfers_both_ways_between_two_accounts_at_two_banks_all_succeed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And pitfall 25a: the proxies of the user's environment, dead ones here, have no say in any of it."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with network_of(tmp_path / "network", 2) as banks:
        people = await People(banks).settle_in(100_00)
        a, b = people.accounts

        async def pay(session: Session, debit: AccountRef, credit: AccountRef, key: str) -> Answer:
            """A slow one of so many new connections at once may be closed: then the same key again."""
            for _ in range(10):
                with suppress(Breakage):
                    return await session.pay(debit, credit, 100, key=key)
            raise AssertionError("ten times no answer")

        orders = [pay(people.sessions[0], a, b, f"there-{n}") for n in range(100)]
        orders += [pay(people.sessions[1], b, a, f"back-{n}") for n in range(100)]
        answers = await asyncio.gather(*orders)
        assert {answer.status for answer in answers} == {201}  # "committed" is as good where a bank is slow to hear

        async def arrived() -> bool:
            return [await s.balances(x) for s, x in zip(people.sessions, (a, b), strict=True)] == [(10_000, 10_000)] * 2

        await until(arrived, "every transfer has arrived")
        await people.check_books()


async def test_a_dead_bank_costs_the_others_not_one_request_and_is_refused_without_one(tmp_path: Path) -> None:
    """With one of five banks dead, transfers between the others cost what they cost before (pitfalls 23 and 24)."""
    async with network_of(tmp_path / "network", 5) as banks:
        people = await People(banks).settle_in(100_000)
        a, b, _, _, dead = people.accounts

        async def cost() -> dict[str, float]:
            before = await requests_of(banks[0])
            for _ in range(10):
                (await people.sessions[0].pay(a, b, 100)).expect(201)
            after = await requests_of(banks[0])
            return {line: after[line] - before.get(line, 0) for line in after if "probe" not in line}

        fault_free = await cost()
        banks[4].kill()

        async def noticed() -> bool:
            return (await banks[0].client.network())[dead.bank] == "offline"

        await until(noticed, "the dead bank is known to be away")
        assert await cost() == fault_free
        before = await requests_of(banks[0])
        refused = await people.sessions[0].pay(a, dead, 100)
        assert (refused.status, refused.code, refused.body["bank"]) == (503, "bank_unreachable", dead.bank)
        after = await requests_of(banks[0])
        assert {k: v for k, v in after.items() if "probe" not in k} == {
            k: v for k, v in before.items() if "probe" not in k
        }
        await banks[4].restart()

        async def back() -> bool:
            return (await people.sessions[0].pay(a, dead, 100)).status == 201

        await until(back, "the returned bank is used again")


@pytest.mark.timeout(600)
async def test_under_load_a_dead_frozen_or_cut_off_bank_costs_nobody_else_a_transfer(tmp_path: Path) -> None:
    """``make load-through-a-fault`` measures the rates; here it has to be right, however busy the machine."""
    measured, load = await through_every_fault(2, tmp_path, back_within=0)
    assert load.without_id == []
    assert set(load.statuses(faulty=False)) <= {201, 202, 503}
    assert all(each.during > 0 for each in measured), measured


async def requests_of(bank: RealBank) -> dict[str, float]:
    """Requests that *bank* has sent to others, by the metric's labels."""
    text = (await (await bank.client.operator()).get("/metrics")).expect(200)
    lines = [line for line in text.splitlines() if line.startswith("distribank_interbank_requests{")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}
