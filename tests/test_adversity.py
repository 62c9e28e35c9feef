"""Hostile peers, hostile holders, and the worst moments: a crash or a hang-up at every turn of the loop."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from distribank import recovery
from distribank.bank.rhythm import transaction_lock
from distribank.breakages import Breakage
from distribank.core.ledger import Account, AccountType
from distribank.core.protocol import (
    Abort,
    Acknowledged,
    Commit,
    Fate,
    Inquire,
    Message,
    No,
    Outcome,
    Prepare,
    RecordKind,
    Refused,
    State,
    Transaction,
    Violation,
    Yes,
)
from distribank.core.refusals import Code, Refusal
from distribank.ports import Queries, Unit
from distribank.simulation.people import make_legs
from tests.engines import ENGINE, nobody_holds
from tests.weather import Gate, in_state, losing, nothing_about_outcomes, prepared
from tests.world import World, codes, world

A, B, C, D = codes(4)
TURNS = range(0, 60, 3) if ENGINE == "memory" else (3, 30, 100)
"""How many turns of the loop pass before the worst happens; a transfer between two banks takes about fifty."""


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def nothing(_unit: Unit) -> None:
    return


def states(results: list[Any]) -> list[object]:
    return [r.state if isinstance(r, Transaction) else r.code if isinstance(r, Refusal) else r for r in results]


# An operator ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own_leg", [True, False], ids=["with a leg here", "with all legs elsewhere"])
async def test_an_operators_question_about_a_transfer_that_is_being_driven_decides_nothing(own_leg: bool) -> None:
    async with world(3, vote_deadline=5) as net:
        a, b, c = await net.account(A, 100), await net.account(B, 100), await net.account(C)
        await net.consent(B, b, A)
        net.weather = gate = Gate(Prepare)
        payer = (A, a, -10) if own_leg else (B, b, -10)
        ordered = (await net.transfer(A, payer, (C, c, 10), wait=0)).transaction
        await gate.reached.wait()
        await net.banks[A].recovery.inquire_now(ordered.id)
        assert await in_state(net, A, ordered.id, State.PREPARING)
        gate.open.set()
        await net.settle(ordered.id)
        assert await in_state(net, A, ordered.id, State.ENDED)
        assert await net.balance(C, c) == (10, 10)


@pytest.mark.parametrize("count", TURNS)
async def test_an_operators_question_at_any_moment_sends_no_commit_before_the_decision_is_durable(count: int) -> None:
    async with world(2, vote_deadline=5) as net:
        a, b = await net.account(A, 100), await net.account(B)
        premature: list[str] = []

        async def look(_sender: str, _bank: str, message: Message) -> str:
            if isinstance(message, Commit):
                lines = await net.stores[A].find(Queries.RECORDS_OF, message.transaction)
                premature.extend(["early"] * (RecordKind.DECIDED not in {line.kind for line in lines}))
            return "deliver"

        net.weather = look
        net.stores[A].flush_gate = lambda: asyncio.ensure_future(turns(10))
        ordering = asyncio.create_task(net.transfer(A, (A, a, -10), (B, b, 10)))
        await turns(count)
        for identity in list(net.banks[A].bank.coordinating._live):
            await net.banks[A].recovery.inquire_now(identity)
        assert (await ordering).transaction.state is State.ENDED
        assert premature == []
        assert await net.balance(B, b) == (10, 10)


# Crashes and hang-ups at every turn -------------------------------------------------------------------------------


@pytest.mark.parametrize("count", TURNS)
async def test_a_client_that_hangs_up_at_any_turn_finds_one_transfer_under_its_key(count: int) -> None:
    for wait in (0.0, 5.0):
        async with world(2) as net:
            a, b = await net.account(A, 100), await net.account(B)
            ordering = asyncio.create_task(net.transfer(A, (A, a, -10), (B, b, 10), key="k", wait=wait))
            await turns(count)
            ordering.cancel()
            await asyncio.wait([ordering])
            await net.stores[A].decide([], nothing)  # behind what was asked for before
            await net.until(lambda: not net.banks[A].bank.coordinating._live)
            again = await net.transfer(A, (A, a, -10), (B, b, 10), key="k")
            assert again.transaction.state is State.ENDED
            assert await net.balance(B, b) == (10, 10)
            assert nobody_holds(net.stores[A])


@pytest.mark.parametrize("victim", [A, B], ids=["the coordinator", "the participant"])
@pytest.mark.parametrize("count", TURNS)
async def test_a_crash_at_any_turn_leaves_one_transfer_under_its_key(count: int, victim: str) -> None:
    """Whether what was being flushed had reached the disk, or not."""
    for kept in (True, False):
        async with world(2) as net:
            a, b = await net.account(A, 100), await net.account(B)
            ordering = asyncio.create_task(net.transfer(A, (A, a, -10), (B, b, 10), key="k", wait=1))
            await turns(count)
            await net.crash(victim, keep_in_flight=kept)
            await net.start(victim)
            await asyncio.wait([ordering])
            try:
                told = ordering.result().transaction
            except Breakage:
                told = None
            again = (await net.transfer(A, (A, a, -10), (B, b, 10), key="k")).transaction
            await net.settle(again.id)
            ended = await net.state(A, again.id)
            assert ended is not None
            assert told is None or told.id == ended.id
            assert await net.balance(B, b) == ((10, 10) if ended.commit_at else (0, 0))
            assert await net.stores[A].find(Queries.PLACED_HOLDS) == []
            assert await net.check_books() == 100


# Recovery ---------------------------------------------------------------------------------------------------------


async def test_nothing_is_kept_of_what_was_asked_about_a_transaction_that_was_settled_meanwhile() -> None:
    async with world(3) as net:
        a, b, c = [await net.account(code, 100) for code in (A, B, C)]
        asking, decided = asyncio.Event(), asyncio.Event()

        async def commit_overtakes_the_question(_sender: str, bank: str, message: Message) -> str:
            if isinstance(message, Inquire):
                asking.set()
                await decided.wait()
                return "lose answer"
            return "lose request" if bank == B and isinstance(message, Commit) and not asking.is_set() else "deliver"

        net.weather = commit_overtakes_the_question
        done = (await net.transfer(A, (A, a, -20), (B, b, 10), (C, c, 10))).transaction
        await net.banks[B].recovery.inquire_now("unknown")
        await asking.wait()
        await net.settle(done.id)
        decided.set()
        await net.until(lambda: net.banks[B].recovery._running == 0)
        assert net.banks[B].bank.reading.asked == {}
        assert net.banks[B].recovery._due == {}


async def test_a_peer_that_returns_while_it_is_being_asked_in_vain_is_asked_again_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with world(2) as net:
        a, b = await net.account(A, 100), await net.account(B)
        net.weather = losing(Commit, "lose request")
        done = (await net.transfer(A, (A, a, -20), (B, b, 20))).transaction
        again, failing = asyncio.Event(), asyncio.Event()

        async def hang_once(_sender: str, _bank: str, message: Message) -> str:
            if isinstance(message, Commit) and not again.is_set():
                again.set()
                await failing.wait()
                return "lose request"
            return "lose request" if isinstance(message, Inquire) else "deliver"

        net.weather = hang_once
        await again.wait()
        for delay in ("FIRST_RETRY", "LAST_RETRY"):
            monkeypatch.setattr(recovery, delay, 1000.0)
        net.banks[A].wire.on_return(B)
        started = asyncio.get_running_loop().time()
        failing.set()
        await net.settle(done.id)
        assert asyncio.get_running_loop().time() - started < (0.3 if ENGINE == "memory" else 20)


# Hostile banks ----------------------------------------------------------------------------------------------------


def forged(net: World, b: str, c: str, own: Transaction) -> dict[str, Message]:
    """What bank C may try at bank B. *own* is a transfer that B coordinates and in which C takes no part."""
    ours = f"{C}.{net.stores[C].incarnation}.{'0' * 32}"
    theirs = f"{A}.{net.stores[A].incarnation}.{'0' * 32}"

    def prepare(identity: str, *legs: tuple[str, str, int], participants: tuple[str, ...] = (B,)) -> Prepare:
        made = make_legs(*legs)
        flow = sum(leg.signed for leg in made)
        return Prepare(identity, participants, made, flow, "52998224725", "E", None, 0, (), net.clock.now + 1000)

    because = Refusal(Code.BANK_REFUSED, "")
    one = make_legs((B, b, 5))
    return {
        "another bank's id": prepare(theirs, (B, b, 5)),
        "an id of the bank asked": prepare(own.id, (B, b, 5)),
        "a commit of the asked bank's own": Commit(own.id, 1 << 60, one),
        "an abort of the asked bank's own": Abort(own.id, because),
        "an abort of another bank's": Abort(theirs, because),
        "a question about what is not theirs": Inquire(own.id, own.vote_by),
        "a commit of what was never prepared": Commit(ours, 1 << 60, one),
        "a leg at another bank": prepare(ours, (B, b, 5), (C, c, 5)),
        "a leg number twice": Prepare(
            ours, (B,), (*one, *one), 10, "52998224725", "E", None, 0, (), net.clock.now + 1000
        ),
        "another flow than the legs'": Prepare(
            ours, (B,), one, 4, "52998224725", "E", None, 0, (), net.clock.now + 1000
        ),
        "participants without the bank asked": prepare(ours, (B, b, 5), participants=(A, D)),
        "a debit on its own word": prepare(ours, (B, b, -5)),
        "a debit hidden by a credit": prepare(ours, (B, b, -5), (B, b, 5)),
        "more legs than a transfer has": prepare(ours, *[(B, b, 1)] * 65),
        "a vote asked for the far future": Prepare(
            ours, (B,), one, 5, "52998224725", "E", None, 0, (), net.clock.now + 10**9
        ),
    }


async def test_a_hostile_bank_moves_nothing_holds_nothing_and_decides_nothing() -> None:
    async with world(3, vote_deadline=60) as net:
        a, b, c = await net.account(A), await net.account(B, 100), await net.account(C)
        net.weather = gate = Gate(Prepare)
        own = (await net.transfer(B, (B, b, -10), (A, a, 10), wait=0)).transaction
        await gate.reached.wait()
        for name, message in forged(net, b, c, own).items():
            (answer,) = await net.banks[B].bank.participating.receive(C, 0, [message])
            assert isinstance(answer, Refused | No), name
            assert [hold.transaction for hold in await net.stores[B].find(Queries.PLACED_HOLDS)] == [own.id]
            assert await net.balance(B, b) == (100, 90)
        gate.open.set()
        await net.settle(own.id)
        assert await in_state(net, B, own.id, State.ENDED)
        assert await net.check_books() == 100


async def test_a_bank_without_a_part_neither_learns_nor_settles_what_others_have_in_doubt() -> None:
    async with world(3, vote_deadline=5) as net:
        a, b = await net.account(A, 100), await net.account(B)
        net.weather = nothing_about_outcomes
        known = (await net.transfer(A, (A, a, -10), (B, b, 10))).transaction
        part = net.banks[B].bank.participating
        (answer,) = await part.receive(C, 0, [Inquire(known.id, known.vote_by)])
        assert isinstance(answer, Refused)
        assert answer.code is Violation.NOT_YOUR_TRANSACTION
        for outcome in (Outcome(Fate.ABORTED), Outcome(Fate.COMMITTED, known.commit_at)):
            await part.told(known.id, C, outcome)
            assert await in_state(net, B, known.id, State.PREPARED)
        await part.told(known.id, A, Outcome(Fate.UNKNOWN))  # its coordinator, but it has lost its disk
        assert await in_state(net, B, known.id, State.PREPARED)
        net.calm()
        await net.settle(known.id)
        assert await net.balance(B, b) == (10, 10)


async def test_a_clock_that_cannot_be_sound_is_not_merged_whatever_it_comes_with() -> None:
    async with world(2) as net:
        await net.account(A)
        clock, minute = net.banks[A].bank.rhythm, 60_000 << 16
        before = clock.stamp()
        await net.banks[A].bank.participating.receive(B, (net.clock.now << 16) + minute + (1 << 16), [])
        assert clock.stamp() == before
        await net.banks[A].bank.participating.receive(B, (net.clock.now << 16) + minute, [])
        assert clock.stamp() > before


async def test_a_commit_of_other_legs_than_were_prepared_is_refused_and_the_hold_stays() -> None:
    async with world(2) as net:
        a, b = await net.account(A, 100), await net.account(B)
        net.weather = nothing_about_outcomes
        done = (await net.transfer(A, (A, a, -10), (B, b, 10))).transaction
        assert done.commit_at is not None
        forgery = Commit(done.id, done.commit_at, make_legs((A, a, -10), (B, b, 1000))[1:])
        (answer,) = await net.banks[B].bank.participating.receive(A, 0, [forgery])
        assert isinstance(answer, Refused)
        assert answer.code is Violation.DIGEST_MISMATCH
        assert await prepared(net, B, done.id)
        net.calm()
        await net.settle(done.id)
        assert await net.balance(B, b) == (10, 10)


# Hostile holders --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [A, B], ids=["here", "elsewhere"])
async def test_sixty_four_legs_on_one_account_are_one_hold_and_sixty_four_entries(at: str) -> None:
    async with world(2) as net:
        there, other = await net.account(at, 100), await net.account(A, 100)
        if at == B:
            await net.consent(B, there, A, each=10**18)
        huge = 10**15 - 1
        legs = [(at, there, -huge)] * 31 + [(at, there, huge)] * 31 + [(at, there, -100), (A, other, 100)]
        done = (await net.transfer(A, *legs)).transaction
        await net.settle(done.id)
        assert done.state is State.ENDED, done.because
        assert await net.balance(at, there) == (0, 0)
        assert len(await net.stores[at].find(Queries.ENTRIES_SINCE, there, after=(0,))) == 64
        assert await net.check_books() == 200


async def test_a_transfer_to_oneself_moves_nothing_and_needs_no_money() -> None:
    async with world(2) as net:
        a, b = await net.account(A), await net.account(B)
        done = (await net.transfer(A, (A, a, -100), (A, a, 100))).transaction
        assert done.state is State.ENDED
        assert await net.balance(A, a) == (0, 0)
        both = (await net.transfer(A, (A, a, -100), (A, a, 100), (A, a, -1), (B, b, 1))).transaction
        assert both.because is not None
        assert both.because.code is Code.INSUFFICIENT_FUNDS


async def test_either_holder_of_a_joint_account_pays_from_it_and_elsewhere_only_by_their_own_consent() -> None:
    async with world(2) as net:
        maria, joao = await net.person(A, 0), await net.person(A, 1, "João")
        joint = await net.banks[A].bank.custody.open_account(maria, AccountType.JOINT, [joao.cpf])
        assert isinstance(joint, Account)
        await net.cash(A, joint.number, 100)
        there = await net.account(B, which=1)
        here = (await net.transfer(A, (A, joint.number, -10), (B, there, 10), which=1)).transaction
        assert here.state is State.ENDED
        await net.consent(A, joint.number, B, which=0)
        hers = (await net.transfer(B, (A, joint.number, -10), (B, there, 10), which=1)).transaction
        assert hers.because is not None
        assert hers.because.code is Code.CONSENT_REQUIRED
        await net.consent(A, joint.number, B, which=1)
        his = (await net.transfer(B, (A, joint.number, -10), (B, there, 10), which=1)).transaction
        assert his.state is State.ENDED
        assert await net.balance(A, joint.number) == (80, 80)


# Ceilings under concurrency ---------------------------------------------------------------------------------------


async def test_of_many_transfers_at_once_no_more_pass_than_a_consent_covers() -> None:
    async with world(3, vote_deadline=5) as net:
        b, targets = await net.account(B, 1000), [(code, await net.account(code)) for code in (A, C)]
        await net.consent(B, b, A, total=250)
        tries = [net.transfer(A, (B, b, -100), (*targets[i % 2], 100)) for i in range(10)]
        done = [result.transaction for result in await asyncio.gather(*tries)]
        assert states(list(done)).count(State.ENDED) == 2
        assert {d.because.code for d in done if d.because} == {Code.CONSENT_EXCEEDED}
        assert await net.balance(B, b) == (800, 800)


async def test_a_consent_revoked_between_two_transfers_serves_the_first_alone() -> None:
    async with world(2, vote_deadline=5) as net:
        a, b = await net.account(A), await net.account(B, 1000)
        given = await net.consent(B, b, A)
        holder = await net.person(B)
        net.weather = gate = Gate(Commit)
        first = asyncio.create_task(net.transfer(A, (B, b, -100), (A, a, 100)))
        await gate.reached.wait()
        assert await net.banks[B].bank.custody.revoke_consent(holder.holder_id, given) is not None
        second = (await net.transfer(A, (B, b, -100), (A, a, 100))).transaction
        assert second.because is not None
        assert second.because.code is Code.CONSENT_REQUIRED
        gate.open.set()
        assert (await first).transaction.state is State.ENDED


async def test_a_coordinator_lets_no_peer_come_to_owe_it_more_than_its_cap() -> None:
    async with world(2, vote_deadline=5, position_cap=250) as net:
        a, b = await net.account(A), await net.account(B, 1000)
        await net.consent(B, b, A)
        tries = [net.transfer(A, (B, b, -100), (A, a, 100)) for _ in range(5)]
        done = [result.transaction for result in await asyncio.gather(*tries)]
        assert states(list(done)).count(State.ENDED) == 2
        assert {d.because.code for d in done if d.because} == {Code.POSITION_LIMIT}
        assert [book.reserved for book in await net.stores[A].find(Queries.BOOKS) if book.peer] == [0]


async def test_what_a_peer_says_is_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with world(2) as net:
        forged = Refusal(Code.BANK_REFUSED, "no\n99990002 ALARM: all is lost")
        abort = Abort(f"{A}.{'0' * 32}.{'0' * 32}", forged)
        with caplog.at_level(logging.DEBUG):
            await net.banks[B].bank.participating.receive(A, 0, [abort])
        assert "all is lost" in caplog.text
        assert not any(line.startswith("99990002 ALARM") for line in caplog.text.splitlines())


async def test_a_participant_that_hangs_keeps_no_other_from_its_commit() -> None:
    async with world(3) as net:
        a, b, c = [await net.account(code, 100) for code in (A, B, C)]
        net.weather = losing(Commit, "lose request")
        done = (await net.transfer(A, (A, a, -20), (B, b, 10), (C, c, 10))).transaction
        hangs = asyncio.Event()

        async def b_hangs(_sender: str, bank: str, _message: Message) -> str:
            if bank == B:
                await hangs.wait()
            return "deliver"

        net.weather = b_hangs
        await net.until(lambda: in_state(net, C, done.id, State.COMMITTED))
        assert await net.balance(C, c) == (110, 110)
        hangs.set()
        await net.settle(done.id)
        assert await net.check_books() == 300


async def test_an_abort_that_waits_behind_its_prepare_releases_what_that_has_just_held() -> None:
    async with world(2, vote_deadline=5) as net:
        a, b = await net.account(A), await net.account(B, 100)
        await net.consent(B, b, A)
        asked: asyncio.Queue[Prepare] = asyncio.Queue()

        async def no_prepare_arrives(_sender: str, _bank: str, message: Message) -> str:
            if isinstance(message, Prepare):
                asked.put_nowait(message)
            return "lose request"

        net.weather = no_prepare_arrives
        await net.transfer(A, (B, b, -10), (A, a, 10), wait=0)
        prepare, bank = await asked.get(), net.banks[B].bank
        abort = Abort(prepare.transaction, Refusal(Code.BANK_REFUSED, "another bank refused", A))
        let_go = asyncio.Event()

        async def hold(_unit: Unit) -> None:
            await let_go.wait()

        holding = asyncio.ensure_future(net.stores[B].decide([transaction_lock(prepare.transaction)], hold))
        await turns(1)
        answers = [asyncio.ensure_future(bank.receive(A, bank.clock_now(), [said])) for said in (prepare, abort)]
        await turns(10)
        assert not any(answer.done() for answer in answers)
        let_go.set()
        await holding
        (vote,), acknowledged = await answers[0], await answers[1]
        assert isinstance(vote, Yes)
        assert acknowledged == [Acknowledged()]
        assert await in_state(net, B, prepare.transaction, State.ABORTED)
        assert await net.balance(B, b) == (100, 100)
