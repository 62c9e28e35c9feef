"""The simulation's loop: time moves when nothing is left to do, order is drawn, processes die at once and alone."""

from __future__ import annotations

import asyncio
import random

import pytest

from distribank.core.ledger import Account, AccountType, Entry, EntryKind
from distribank.core.transfer import Direction
from distribank.simulation.landing import Ledger, Violation
from distribank.simulation.loop import Process, SimulatedLoop, run
from distribank.store.group import Group


def test_hours_pass_in_a_moment_and_a_deadline_is_kept() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await asyncio.sleep(7200)
        return asyncio.get_running_loop().time()

    assert run(main()) == 3600


def test_where_nobody_will_wake_anybody_it_says_so() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="everybody waits"):
        run(main())


def test_there_are_no_threads() -> None:
    async def main() -> None:
        await asyncio.to_thread(print)

    with pytest.raises(RuntimeError, match="no threads"):
        run(main())


def test_the_order_of_what_is_ready_is_drawn_and_comes_again() -> None:
    async def main() -> list[int]:
        order: list[int] = []
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(note(number, order))
        return order

    async def note(number: int, order: list[int]) -> None:
        order.append(number)

    assert run(main()) == list(range(20))
    drawn = [run(main(), random.Random(seed)) for seed in (1, 1, 2)]  # noqa: S311 - repeatable, not secret
    assert drawn[0] == drawn[1] != drawn[2]
    assert sorted(drawn[0]) == list(range(20))


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_process_dies_before_the_step_that_was_named_and_only_unwinds(steps: int) -> None:
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        did: list[str] = []
        process = Process("bank")
        process.countdown, process.on_step = steps, lambda: loop.kill(process)

        async def work() -> None:
            try:
                for number in range(1, 9):
                    did.append(f"step {number}")
                    await asyncio.sleep(0)
            finally:
                did.append("unwound")

        async with asyncio.TaskGroup() as group:
            group.create_task(work(), context=process.context())
        return did

    lived = [f"step {number}" for number in range(1, steps)]
    assert run(main()) == [*lived, *(["unwound"] if lived else [])]


async def _ticking(process: Process, ticks: list[float], ended: list[float]) -> None:
    loop = asyncio.get_running_loop()
    try:
        while True:
            await asyncio.sleep(1)
            ticks.append(loop.time())
    finally:
        ended.append(loop.time())


@pytest.mark.parametrize("killed", [False, True], ids=["thaws", "is killed"])
def test_a_frozen_process_misses_its_time_and_goes_on_where_it_was(killed: bool) -> None:
    async def main() -> tuple[list[float], list[float]]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        process = Process("frozen")
        ticks: list[float] = []
        ended: list[float] = []
        task = loop.create_task(_ticking(process, ticks, ended), context=process.context())
        await asyncio.sleep(1.5)
        loop.freeze(process)
        await asyncio.sleep(3)
        assert ticks == [1]
        if killed:
            loop.kill(process)
        else:
            loop.thaw(process)
        await asyncio.sleep(2)
        task.cancel()
        await asyncio.wait([task])
        return ticks, ended

    ticks, ended = run(main())
    assert (ticks, ended) == (([1], [4.5]) if killed else ([1, 4.5, 5.5], [6.5]))


# What is checked against each flush -------------------------------------------------------------------------------


def landed(*rows: Account | Entry) -> Group:
    group = Group()
    for row in rows:
        if isinstance(row, Account):
            group.puts[Account][row.number] = row
        else:
            group.added[Entry].append(row)
    return group


def entry(change: int, leg: int, direction: Direction = Direction.CREDIT) -> Entry:
    return Entry("1-9", change, "T", leg, EntryKind.TRANSFER, direction, 5, 5, change, 0)


def account(posted: int, held: int = 0) -> Account:
    return Account("1-9", AccountType.INDIVIDUAL, (), 1, 0, posted=posted, held=held)


@pytest.mark.parametrize(
    ("group", "number"),
    [
        (landed(entry(1, 1, Direction.DEBIT)), "I2"),
        (landed(entry(1, 1), entry(2, 1)), "I5"),
        (landed(entry(1, 1), account(6)), "I8"),
        (landed(entry(1, 1), account(5, held=1)), "I8"),
    ],
)
def test_a_group_that_breaks_a_rule_is_named_by_its_number(group: Group, number: str) -> None:
    with pytest.raises(Violation, match=f"^{number}: "):
        Ledger("99990001").land(group)


def test_a_group_that_breaks_none_lands() -> None:
    Ledger("99990001").land(landed(entry(1, 1), account(5)))
