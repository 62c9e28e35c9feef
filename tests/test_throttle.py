"""Token buckets: a burst, then a steady rate; bounded in memory; an address is what one subscriber has."""

from __future__ import annotations

import asyncio

from distribank.api.holders import LATEST_REFUSAL_S, REFUSALS_PER_S
from distribank.api.throttle import Throttle, network_of
from tests.counter_hall import Stopwatch, hall


def spend(throttle: Throttle, key: str, times: int) -> int:
    """How many of so many attempts went through."""
    through = 0
    for _ in range(times):
        if throttle.wait(key) == 0:
            throttle.charge(key)
            through += 1
    return through


def test_a_burst_goes_through_and_no_more() -> None:
    throttle = Throttle(10, 1 / 6, Stopwatch())

    assert spend(throttle, "a", 1000) == 10
    assert throttle.wait("a") == 6.0


def test_tokens_come_back_with_time_up_to_the_burst() -> None:
    stopwatch = Stopwatch()
    throttle = Throttle(10, 0.5, stopwatch)
    spend(throttle, "a", 10)

    stopwatch.seconds += 3.9
    assert spend(throttle, "a", 10) == 1
    stopwatch.seconds += 3600
    assert spend(throttle, "a", 100) == 10


def test_a_refund_makes_an_attempt_free() -> None:
    throttle = Throttle(2, 0.001, Stopwatch())

    for _ in range(100):
        assert throttle.wait("a") == 0
        throttle.charge("a")
        throttle.refund("a")
    assert len(throttle) == 0


def test_keys_do_not_share_their_tokens() -> None:
    throttle = Throttle(1, 0.001, Stopwatch())
    spend(throttle, "a", 5)

    assert throttle.wait("b") == 0


def test_a_flood_of_keys_stays_within_the_bound_and_forgets_the_oldest_first() -> None:
    throttle = Throttle(1, 0.001, Stopwatch(), max_buckets=100)

    for number in range(1000):
        throttle.charge(str(number))

    assert len(throttle) == 100
    assert throttle.wait("999") > 0
    assert throttle.wait("0") == 0


def test_addresses_of_one_ipv6_subscriber_count_as_one() -> None:
    assert network_of("2001:db8:1:2:3:4:5:6") == network_of("2001:db8:1:2:ffff::1") == "2001:db8:1:2::"
    assert network_of("2001:db8:1:3::1") != network_of("2001:db8:1:2::1")
    assert network_of("::ffff:192.0.2.7") == network_of("192.0.2.7") == "192.0.2.7"
    assert network_of("testclient") == "testclient"


async def test_throttled_attempts_are_refused_in_turn_and_a_lone_one_at_once() -> None:
    """So a flood of guesses cannot have all of a bank's time: what waits costs nothing."""
    loop = asyncio.get_running_loop()
    async with hall() as bank:

        async def guess() -> tuple[int, float]:
            began = loop.time()
            answer = await bank.client().post("/v1/token", data={"username": "operator", "password": "a guess"})
            return answer.status_code, loop.time() - began

        for _ in range(10):
            assert await guess() == (401, 0.0)
        assert await guess() == (429, 0.0)
        crowd = sorted(await asyncio.gather(*(guess() for _ in range(150))))

    assert {status for status, _seconds in crowd} == {429}
    assert sum(seconds < 0.5 for _status, seconds in crowd) <= REFUSALS_PER_S / 2 + 1
    assert max(seconds for _status, seconds in crowd) <= LATEST_REFUSAL_S
