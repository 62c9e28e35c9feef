"""Several real processes of one bank, on one real database: killed, frozen and restarted under load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from distribank.network.client import AccountRef
from distribank.service import EXIT_DURABILITY_LOST
from tests.postgres_server import Server, shared_server
from tests.processes import SLOW_MACHINE_S, People, RealBank, until
from tests.replicas import MONEY, Payer, Replicated, all_there, expected_balances, go_on, payments, replicated

pytestmark = pytest.mark.timeout(400)

IN_DOUBT_AT_MOST_S = 10.0
ENOUGH = 300
"""Payments between one thing that happens and the next."""


async def deadlocks() -> int:
    rows = await shared_server().fetch("SELECT coalesce(sum(deadlocks), 0)::bigint AS met FROM pg_stat_database")
    met: int = rows[0]["met"]
    return met


async def test_a_replica_that_is_killed_under_load_leaves_nothing_in_doubt_and_loses_nothing(tmp_path: Path) -> None:
    server = shared_server()
    urls = [await server.database(), await server.database()]
    before = await deadlocks()
    async with replicated(tmp_path, urls, [2, 2]) as network, load(network) as payers:
        victim = network.replicas[0][0]
        await go_on(payers, ENOUGH)
        victim.kill()
        took = await settled_within(network.replicas[1][0])
        assert took <= IN_DOUBT_AT_MOST_S
        await victim.restart()
        await go_on(payers, ENOUGH)
    print(f"in doubt for at most {took:.1f} s; {told(payers)}")
    assert await deadlocks() == before


async def test_a_replica_that_was_frozen_for_too_long_is_taken_over_and_stops_when_it_wakes_up(tmp_path: Path) -> None:
    server = shared_server()
    urls = [await server.database(), await server.database()]
    async with replicated(tmp_path, urls, [2, 1]) as network, load(network) as payers:
        victim = network.replicas[0][0]
        await go_on(payers, ENOUGH)
        victim.freeze()
        took = await settled_within(network.replicas[1][0])

        async def buried() -> bool:
            rows = await server.fetch("SELECT id FROM replica WHERE buried", urls[0].rpartition("/")[2])
            return len(rows) == 1

        await until(buried, "another replica takes it for dead", SLOW_MACHINE_S)
        victim.thaw()

        async def stopped() -> bool:
            return victim.pid is None

        await until(stopped, "it finds that it was buried", SLOW_MACHINE_S)
        assert victim.exit_status == EXIT_DURABILITY_LOST
        assert "another replica has taken over" in victim.last_words(20)
        await victim.restart()
        await go_on(payers, ENOUGH)
    print(f"in doubt for at most {took:.1f} s; {told(payers)}")


async def test_a_database_that_fails_over_under_load_has_all_that_was_acknowledged(tmp_path: Path) -> None:
    """The primary is gone at once, and its synchronous standby is promoted."""
    primary = Server(synchronous_standby_names="standby").make()
    primary.settings["synchronous_standby_names"] = ""  # until there is one
    primary.start()
    standby = Server().follow(primary, "standby").start()
    try:
        await primary.execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
        primary.stop()
        del primary.settings["synchronous_standby_names"]
        primary.start()
        await follows(primary)
        await primary.execute("CREATE DATABASE bank_a")
        await primary.execute("CREATE DATABASE bank_b")
        urls = [primary.url(name, standby) for name in ("bank_a", "bank_b")]
        async with replicated(tmp_path / "network", urls, [2, 1]) as network, load(network) as payers:
            await go_on(payers, ENOUGH)
            primary.kill()
            before = payments(payers)
            standby.promote()
            took = await go_on(payers, 20)
            await go_on(payers, ENOUGH)
        print(f"{before} paid before the failover; twenty more {took:.1f} s after the promotion; {told(payers)}")
    finally:
        standby.stop()
        primary.stop()


async def test_replicas_under_a_cap_never_wait_for_each_other_in_a_circle(tmp_path: Path) -> None:
    """Everybody pays from an account of their own: where all share one, its lock keeps them in line."""
    server = shared_server()
    urls = [await server.database() for _ in range(3)]
    before = await deadlocks()
    async with replicated(tmp_path, urls, [2, 1, 1], DISTRIBANK_POSITION_LIMIT="10000000.00") as network:
        people = await People(network.fronts).settle_in(MONEY)
        await people.acquainted()

        async def account(bank: int) -> AccountRef:
            made = await people.sessions[bank].open_account()
            (await people.sessions[bank].deposit(made, MONEY)).expect(201)
            return made

        ways = [(0, 1), (0, 2), (1, 0), (2, 0)] * 6
        payers = [
            Payer(people, *way, f"payer-{n}", accounts=(await account(way[0]), await account(way[1])))
            for n, way in enumerate(ways)
        ]
        async with paying(payers):
            await go_on(payers, 2 * ENOUGH)
        await people.quiet()
        await all_there(people, payers)
        await people.check_books()
    print(told(payers))
    assert await deadlocks() == before


async def follows(primary: Server) -> None:
    """Wait until the primary's standby is a synchronous one."""

    async def synchronous() -> bool:
        rows = await primary.fetch("SELECT sync_state FROM pg_stat_replication")
        return [row["sync_state"] for row in rows] == ["sync"]

    await until(synchronous, "the standby follows synchronously", SLOW_MACHINE_S)


@asynccontextmanager
async def load(network: Replicated) -> AsyncIterator[list[Payer]]:
    """Sixteen people pay inside the block; behind it everything that they were told is so, and the books are right."""
    people = await People(network.fronts).settle_in(MONEY)
    payers = [Payer(people, n % 2, 1 - n % 2, f"payer-{n}") for n in range(16)]
    async with paying(payers):
        yield payers
    await people.quiet()
    await all_there(people, payers)
    await expected_balances(people, payers)
    await people.check_books()


@asynccontextmanager
async def paying(payers: Sequence[Payer]) -> AsyncIterator[None]:
    """*payers* pay inside the block."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for payer in payers:
            group.create_task(payer.pay_until(stop))
        yield
        stop.set()


def told(payers: list[Payer]) -> str:
    again = sum(payer.asked_again for payer in payers)
    slowest = max(payer.slowest for payer in payers)
    return f"{payments(payers)} paid, {again} times asked again, slowest answer {slowest:.1f} s"


async def settled_within(bank: RealBank) -> float:
    """How long what is in doubt at *bank* now stays so, seconds."""
    begun = time.monotonic()
    left = {doubt["transfer_id"] for doubt in await bank.client.in_doubt()}

    async def settled() -> bool:
        left.intersection_update([doubt["transfer_id"] for doubt in await bank.client.in_doubt()])
        return not left

    await until(settled, "what was in doubt has its outcome", SLOW_MACHINE_S)
    return time.monotonic() - begun
