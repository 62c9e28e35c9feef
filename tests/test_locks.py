"""Locks by name: one at a time, first come first served, and nothing left behind by whoever gives up."""

from __future__ import annotations

import asyncio

import pytest

from distribank.locks import Locks


class Queue:
    """Tasks that hold one name in turn, each for as long as the test lets it."""

    def __init__(self, locks: Locks) -> None:
        self.locks = locks
        self.had: list[str] = []
        self.leave = asyncio.Event()

    async def hold(self, who: str, *names: str) -> None:
        async with self.locks.hold(names):
            self.had.append(who)
            await self.leave.wait()

    async def waiting(self, who: str, *names: str) -> asyncio.Task[None]:
        """*who* as a task that has come as far as it can."""
        task = asyncio.create_task(self.hold(who, *names))
        for _ in range(3):
            await asyncio.sleep(0)
        return task


async def test_a_name_is_held_by_one_at_a_time_in_the_order_of_coming_and_then_forgotten() -> None:
    queue = Queue(Locks())
    tasks = [await queue.waiting(who, "account:1") for who in "abc"]
    assert queue.had == ["a"]
    queue.leave.set()
    await asyncio.gather(*tasks)
    assert queue.had == ["a", "b", "c"]
    assert len(queue.locks) == 0
    assert queue.locks.waited_seconds > 0


async def test_who_comes_while_the_next_one_is_yet_to_wake_does_not_overtake() -> None:
    queue = Queue(Locks())
    assert queue.locks.take("account:1")
    second = await queue.waiting("second", "account:1")
    queue.locks.give("account:1")
    assert not queue.locks.take("account:1")
    queue.leave.set()
    await second
    assert queue.locks.take("account:1")


async def test_other_names_wait_for_nothing() -> None:
    queue = Queue(Locks())
    tasks = [await queue.waiting("a", "account:1", "account:2"), await queue.waiting("b", "account:3")]
    assert queue.had == ["a", "b"]
    queue.leave.set()
    await asyncio.gather(*tasks)


async def test_one_who_gives_up_holds_up_nobody_and_keeps_none_of_its_names() -> None:
    queue = Queue(Locks())
    first = await queue.waiting("first", "account:2")
    second, third = await queue.waiting("second", "account:1", "account:2"), await queue.waiting("third", "account:2")
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert queue.locks.take("account:1")
    queue.leave.set()
    await asyncio.gather(first, third)
    assert queue.had == ["first", "third"]


async def test_one_who_is_cancelled_when_the_turn_has_just_come_passes_it_on() -> None:
    queue = Queue(Locks())
    assert queue.locks.take("account:1")
    second, third = await queue.waiting("second", "account:1"), await queue.waiting("third", "account:1")
    queue.locks.give("account:1")
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    queue.leave.set()
    async with asyncio.timeout(10):
        await third
    assert queue.had == ["third"]
    assert len(queue.locks) == 0
