"""Signed messages that were altered or are played again: none counts. ``make hostile`` tries every alteration."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.hostile.examples import Scene, settled
from tests.hostile.tampering import one_of_each, quiet, try_all, try_answers, try_requests
from tests.hostile.town import ask


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with settled() as made:
        yield made


async def test_no_altered_request_is_taken(scene: Scene) -> None:
    tally = await try_requests(scene, most=200)

    assert tally.tried >= 1_500
    assert tally.accepted == []


async def test_no_altered_answer_is_taken(scene: Scene) -> None:
    tally = await try_answers(scene, most=120)

    assert tally.tried >= 900
    assert tally.accepted == []


async def test_every_message_of_a_busy_day_is_refused_when_it_is_played_again(scene: Scene) -> None:
    town = scene.town
    await quiet(scene, forgetful=False)
    before = town.money()
    for one in list(town.exchanges):
        for _ in range(3):
            reply = await ask(town.houses[one.to].app, "POST", one.path, one.headers, one.body)
            assert reply.status == 401, (one.kind, reply)

    await town.settle()
    assert town.money() == before


async def test_played_again_after_a_restart_it_is_the_same_message_once_more_and_moves_nothing(scene: Scene) -> None:
    """The memory of nonces is gone; that the protocol's own tables answer a repetition is what protects."""
    town = scene.town
    await quiet(scene)
    before = town.money()
    taken = 0
    for one in list(town.exchanges):
        for again in range(3):
            reply = await ask(town.houses[one.to].app, "POST", one.path, one.headers, one.body)
            assert reply.status == (401 if again else 200), (one.kind, reply)
            taken += reply.status == 200

    await town.settle()
    assert taken == len(town.exchanges) > 20
    assert town.money() == before


@pytest.mark.parametrize("restarted", [False, True])
async def test_played_again_after_its_window_it_is_refused(scene: Scene, restarted: bool) -> None:
    town = scene.town
    await quiet(scene, forgetful=restarted)
    town.clock.now += 61_000
    for one in list(town.exchanges):
        reply = await ask(town.houses[one.to].app, "POST", one.path, one.headers, one.body)
        assert reply.status == 401, (one.kind, reply)


async def test_played_to_another_bank_it_is_refused(scene: Scene) -> None:
    town = scene.town
    await quiet(scene)
    before = town.money()
    for one in one_of_each(scene):
        for code in town.keys:
            if code != one.to:
                reply = await ask(town.houses[code].app, "POST", one.path, one.headers, one.body)
                assert reply.status == 401, (one.kind, code, reply)

    await town.settle()
    assert town.money() == before


async def test_a_campaign_leaves_the_money_where_it_is() -> None:
    asked, answered = await try_all(most=20)

    assert (asked.accepted, answered.accepted) == ([], [])
