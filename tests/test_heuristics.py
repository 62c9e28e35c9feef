"""An operator forces a part in doubt, and the truth arrives: every guess with every truth, on running banks.

A coordinates, B's part is forced. The truth comes as A's own message or as the answer to B's inquiry, with B killed
and started again in between.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from distribank.core.heuristics import Heuristic, Verdict
from distribank.core.ledger import Account, EntryKind
from distribank.core.protocol import (
    Abort,
    Acknowledged,
    Commit,
    Fate,
    Inquire,
    Log,
    Message,
    Outcome,
    ShowLog,
    State,
    Transaction,
)
from distribank.core.refusals import Code, Refusal
from distribank.core.transfer import legs_at
from tests.weather import in_state, losing, no_vote_arrives, nothing_about_outcomes, only_inquiries
from tests.world import World, codes, world

A, B, C = codes(3)
FORCED = {Verdict.COMMIT: State.FORCED_COMMIT, Verdict.ABORT: State.FORCED_ABORT}
SETTLED = {Verdict.COMMIT: State.COMMITTED, Verdict.ABORT: State.ABORTED}


def banks(truth: Verdict) -> AbstractAsyncContextManager[World]:
    """A and B; where no vote arrives, A waits but a moment for it, and else as long as it takes."""
    return world(2, vote_deadline=0.3) if truth is Verdict.ABORT else world(2)


async def in_doubt(net: World, truth: Verdict, signed: int) -> tuple[Transaction, str]:
    """B's account with 100, a transfer that changes it by *signed*, and B in doubt about it; its coordinator is not."""
    mine, theirs = await net.account(A, 100), await net.account(B, 100)
    await net.consent(B, theirs, A)
    net.weather = nothing_about_outcomes if truth is Verdict.COMMIT else no_vote_arrives
    done = await net.transfer(A, (A, mine, -signed), (B, theirs, signed), wait=5)
    outcome = State.COMMITTING if truth is Verdict.COMMIT else State.ABORTED
    await net.until(lambda: in_state(net, A, done.transaction.id, outcome))
    await net.until(lambda: in_state(net, B, done.transaction.id, State.PREPARED))
    net.weather = nothing_about_outcomes
    return done.transaction, theirs


async def forced(net: World, transaction: str, verdict: Verdict) -> Heuristic:
    made = await net.banks[B].bank.participating.force(transaction, verdict, "the coordinator is gone")
    assert isinstance(made, Heuristic), made
    return made


async def told_by_message(net: World, ordered: Transaction, truth: Verdict) -> None:
    """The message that A sends, or would have sent, arrives at B; then everything arrives."""
    at_a = await net.state(A, ordered.id)
    assert at_a is not None
    assert at_a.order is not None
    message: Message = Abort(ordered.id, at_a.because or Refusal(Code.BANK_REFUSED, "no"))
    if truth is Verdict.COMMIT:
        assert at_a.commit_at is not None
        message = Commit(ordered.id, at_a.commit_at, legs_at(B, at_a.order.legs))
    bank = net.banks[B].bank
    assert await bank.receive(A, bank.clock_now(), [message]) == [Acknowledged()]


async def told_by_inquiry(net: World, ordered: Transaction, truth: Verdict) -> None:
    net.weather = only_inquiries
    await net.until(lambda: in_state(net, B, ordered.id, SETTLED[truth]))


async def settled(net: World, ordered: Transaction) -> Heuristic:
    net.calm()
    await net.settle(ordered.id)
    await net.check_books()
    kept = await net.stores[B].get(Heuristic, ordered.id)
    assert kept is not None
    return kept


async def book(net: World, name: str) -> int:
    return (await net.stores[B].recount()).books.get(name, 0)


@pytest.mark.parametrize("signed", [-30, 30], ids=["debit", "credit"])
@pytest.mark.parametrize("crash", [False, True], ids=["", "killed in between"])
@pytest.mark.parametrize("told", [told_by_message, told_by_inquiry])
@pytest.mark.parametrize("truth", list(Verdict), ids=lambda verdict: f"truth-{verdict}")
@pytest.mark.parametrize("verdict", list(Verdict), ids=lambda verdict: f"forced-{verdict}")
async def test_whatever_was_forced_the_books_come_to_the_truth(
    verdict: Verdict, truth: Verdict, told: Any, crash: bool, signed: int
) -> None:
    async with banks(truth) as net:
        ordered, theirs = await in_doubt(net, truth, signed)
        await forced(net, ordered.id, verdict)
        assert await net.balance(B, theirs) == ((100 + signed,) * 2 if verdict is Verdict.COMMIT else (100, 100))
        assert (await net.stores[B].recount()).findings == []
        if crash:
            await net.crash(B)
            await net.start(B)
            assert await in_state(net, B, ordered.id, FORCED[verdict])
        await told(net, ordered, truth)
        kept = await settled(net, ordered)
        assert (kept.truth, kept.matched) == (truth, truth is verdict)
        assert (kept.damage is None) is kept.matched
        assert await net.balance(B, theirs) == ((100 + signed,) * 2 if truth is Verdict.COMMIT else (100, 100))
        assert await book(net, "suspense") == 0
        consent = (await net.banks[B].bank.custody.consents_of((await net.person(B)).holder_id, 10))[0]
        assert consent.used == (30 if signed < 0 and truth is Verdict.COMMIT else 0)
        alarms = net.banks[B].bank.metrics.alarms._value.get()
        assert alarms == (not crash) + (not kept.matched)
        if crash:
            await net.crash(B)
            await net.start(B)
        assert await in_state(net, B, ordered.id, SETTLED[truth])
        await net.check_books()


async def test_what_was_spent_meanwhile_is_owed_to_suspense_to_the_centavo() -> None:
    async with banks(Verdict.ABORT) as net:
        ordered, theirs = await in_doubt(net, Verdict.ABORT, 30)
        await forced(net, ordered.id, Verdict.COMMIT)
        assert await net.cash(B, theirs, 117, kind=EntryKind.WITHDRAWAL) is None
        await told_by_inquiry(net, ordered, Verdict.ABORT)
        kept = await settled(net, ordered)
        assert await net.balance(B, theirs) == (0, 0)
        assert kept.damage is not None
        (account,) = kept.damage.accounts
        assert (account.wanted, account.corrected, account.to_suspense) == (30, 13, 17)
        assert (kept.damage.suspense, await book(net, "suspense")) == (-17, -17)
        assert await book(net, f"position:{A}") == 0


async def test_a_debit_that_was_forced_away_takes_what_is_left() -> None:
    async with world(2) as net:
        ordered, theirs = await in_doubt(net, Verdict.COMMIT, -30)
        await forced(net, ordered.id, Verdict.ABORT)
        assert await net.cash(B, theirs, 99, kind=EntryKind.WITHDRAWAL) is None
        await told_by_message(net, ordered, Verdict.COMMIT)
        kept = await settled(net, ordered)
        assert await net.balance(B, theirs) == (0, 0)
        assert kept.damage is not None
        assert (kept.damage.position, kept.damage.suspense) == (30, -29)
        assert (await book(net, "suspense"), await book(net, f"position:{A}")) == (-29, 30)


@pytest.mark.parametrize(
    ("verdict", "truth", "signed", "suspense"),
    [(Verdict.ABORT, Verdict.COMMIT, 30, 30), (Verdict.COMMIT, Verdict.ABORT, -30, 30)],
    ids=["a credit that was forced away", "a debit that was forced"],
)
async def test_what_a_closed_account_cannot_be_credited_waits_in_suspense(
    verdict: Verdict, truth: Verdict, signed: int, suspense: int
) -> None:
    async with banks(truth) as net:
        ordered, theirs = await in_doubt(net, truth, signed)
        await forced(net, ordered.id, verdict)
        posted, _ = await net.balance(B, theirs)
        assert await net.cash(B, theirs, posted, kind=EntryKind.WITHDRAWAL) is None
        holder = await net.person(B)
        assert isinstance(await net.banks[B].bank.custody.close_account(holder.holder_id, theirs), Account)
        await told_by_inquiry(net, ordered, truth)
        kept = await settled(net, ordered)
        assert await net.balance(B, theirs) == (0, 0)
        assert kept.damage is not None
        assert (kept.damage.suspense, await book(net, "suspense")) == (suspense, suspense)


async def test_a_guess_lets_nobody_draw_beyond_a_consent() -> None:
    """What a part in doubt has used of it is given back by the truth alone: until then it may have been debited."""
    async with world(2) as net:
        mine, theirs = await net.account(A), await net.account(B, 100)
        await net.consent(B, theirs, A, total=30)
        net.weather = nothing_about_outcomes
        first = (await net.transfer(A, (A, mine, 30), (B, theirs, -30), wait=5)).transaction
        await forced(net, first.id, Verdict.ABORT)
        second = (await net.transfer(A, (A, mine, 30), (B, theirs, -30), wait=5)).transaction
        assert second.because is not None
        assert second.because.code is Code.CONSENT_EXCEEDED
        await settled(net, first)
        assert await net.balance(B, theirs) == (70, 70)


async def test_a_forced_outcome_does_not_spread_to_a_fellow_participant() -> None:
    """B and C are in doubt; A is gone. B is forced, and C, who asks B, stays in doubt."""
    async with world(3) as net:
        mine, b, c = await net.account(A, 100), await net.account(B), await net.account(C)
        net.weather = losing(Commit, "lose request")
        await net.transfer(A, (A, mine, -30), (B, b, 10), (C, c, 20), wait=5)
        (page,) = await net.banks[B].bank.reading.in_doubt()
        transaction = page.transaction.id
        await net.crash(A)
        net.calm()
        await forced(net, transaction, Verdict.ABORT)
        bank = net.banks[B].bank
        (said,) = await bank.receive(C, bank.clock_now(), [Inquire(transaction, page.transaction.vote_by)])
        assert said == Outcome(Fate.UNDECIDED)
        await net.until(lambda: net.banks[C].bank.reading.asked.get(transaction, {}).get(B) == "undecided")
        assert await in_state(net, C, transaction, State.PREPARED)
        await net.start(A)
        await net.settle(transaction)
        assert await in_state(net, C, transaction, State.COMMITTED)
        assert await net.balance(B, b) == (10, 10)
        await net.check_books()


async def test_fellow_banks_see_that_a_part_was_forced_and_not_why() -> None:
    async with world(2) as net:
        ordered, _ = await in_doubt(net, Verdict.COMMIT, 30)
        await forced(net, ordered.id, Verdict.ABORT)
        bank = net.banks[B].bank
        (log,) = await bank.receive(A, bank.clock_now(), [ShowLog(ordered.id)])
        assert isinstance(log, Log)
        assert log.records[-1].after == State.FORCED_ABORT
        assert "the coordinator is gone" not in str(log)


async def test_nothing_is_forced_twice_nor_at_the_coordinator() -> None:
    async with world(2) as net:
        ordered, _ = await in_doubt(net, Verdict.COMMIT, 30)
        await forced(net, ordered.id, Verdict.COMMIT)
        for code in (A, B):
            before = net.banks[code].bank.metrics.alarms._value.get()
            again = await net.banks[code].bank.participating.force(ordered.id, Verdict.ABORT, "again")
            assert isinstance(again, Refusal)
            assert again.code is Code.NOT_RESOLVABLE
            assert net.banks[code].bank.metrics.alarms._value.get() == before
        assert await in_state(net, B, ordered.id, State.FORCED_COMMIT)


@pytest.mark.parametrize("late", range(4))
async def test_an_operator_and_the_truth_at_the_same_moment_settle_it_once(late: int) -> None:
    async with world(2) as net:
        ordered, theirs = await in_doubt(net, Verdict.COMMIT, 30)

        async def force() -> Heuristic | Refusal:
            for _ in range(late):
                await asyncio.sleep(0)
            return await net.banks[B].bank.participating.force(ordered.id, Verdict.ABORT, "the coordinator is gone")

        made, _ = await asyncio.gather(force(), told_by_message(net, ordered, Verdict.COMMIT))
        net.calm()
        await net.settle(ordered.id)
        assert await net.balance(B, theirs) == (130, 130)
        kept = await net.stores[B].get(Heuristic, ordered.id)
        assert (kept is None) is isinstance(made, Refusal)
        if isinstance(made, Refusal):
            assert made.detail.startswith("its outcome has just become known")
            assert net.banks[B].bank.metrics.alarms._value.get() == 0
        await net.check_books()


async def test_a_forced_part_is_counted_until_the_truth_is_known() -> None:
    async with world(2) as net:
        ordered, _ = await in_doubt(net, Verdict.COMMIT, 30)
        await forced(net, ordered.id, Verdict.COMMIT)
        bank = net.banks[B].bank
        (doubt,) = await bank.reading.in_doubt()
        assert doubt.why == "forced commit by the operator: the coordinator is gone; the truth is not known yet"
        await bank.refresh_metrics()
        assert (bank.metrics.forced._value.get(), bank.metrics.in_doubt._value.get()) == (1, 1)
        net.calm()
        await net.settle(ordered.id)
        await bank.refresh_metrics()
        assert (bank.metrics.forced._value.get(), bank.metrics.in_doubt._value.get()) == (0, 0)
        assert await bank.reading.in_doubt() == []
