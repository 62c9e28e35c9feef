"""What one bank shows another: records to those who take part, accounts to those who may draw on them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from distribank.bank.following import Reply
from distribank.core.protocol import Accounts, Answer, Log, Message, ShowAccounts, ShowLog
from distribank.core.refusals import Code, Refusal
from distribank.simulation.loop import run
from tests.engines import on_memory
from tests.weather import once_voted
from tests.world import CPFS, World, world

A, B, C = "99990001", "99990002", "99990003"


async def show(net: World, asker: str, asked: str, message: Message) -> Answer:
    bank = net.banks[asked].bank
    (answer,) = await bank.receive(asker, net.banks[asker].bank.clock_now(), [message])
    return answer


async def test_every_bank_that_takes_part_sees_the_records_of_the_others() -> None:
    async with world(3) as net:
        mine, theirs = await net.account(A, 100_00), await net.account(B, which=1)
        known = (await net.transfer(A, (A, mine, -50_00), (B, theirs, 50_00))).transaction
        await net.settle(known.id)
        for asker, asked, kinds in ((B, A, ["Begun", "Decided", "Ended"]), (A, B, ["Prepared", "Resolved"])):
            answer = await show(net, asker, asked, ShowLog(known.id))
            assert isinstance(answer, Log)
            assert [record.kind for record in answer.records] == kinds
            assert {record.transaction for record in answer.records} == {known.id}


async def test_to_a_bank_without_a_part_a_transaction_looks_like_one_that_never_was() -> None:
    async with world(3) as net:
        mine, theirs = await net.account(A, 100_00), await net.account(B, which=1)
        known = (await net.transfer(A, (A, mine, -50_00), (B, theirs, 50_00))).transaction
        for asked in (A, B):
            assert await show(net, C, asked, ShowLog(known.id)) == Log(known.id, ())
        never = f"{A}.{'0' * 32}.{'0' * 32}"
        assert await show(net, C, A, ShowLog(never)) == Log(never, ())


async def test_a_bank_hears_nothing_of_why_a_third_one_refused_and_all_of_what_it_said_itself() -> None:
    async with world(3) as net:
        mine, poor, hers = await net.account(A, 100_00), await net.account(B), await net.account(C, which=1)
        await net.consent(B, poor, A)
        net.weather = once_voted(net, C, B)
        known = (await net.transfer(A, (A, mine, -3_00), (B, poor, -2_00), (C, hers, 5_00))).transaction
        assert known.because is not None
        assert known.because.code is Code.INSUFFICIENT_FUNDS
        told = {asker: str(await show(net, asker, A, ShowLog(known.id))) for asker in (A, B, C)}
        assert {asker: "insufficient_funds" in words for asker, words in told.items()} == {A: True, B: True, C: False}
        await net.settle(known.id)
        heard = await net.state(C, known.id)
        assert heard is not None
        assert heard.because == Refusal(Code.BANK_REFUSED, "another party's bank refused")


@on_memory
def test_a_batch_of_questions_waits_for_the_disk_once_and_not_once_each() -> None:
    """Else a busy bank with a slow disk takes longer than its peers wait, and is taken for one that is away."""

    async def many_questions() -> float:
        async with world(2) as net:
            mine, theirs = await net.account(A, 100_00), await net.account(B, which=1)
            known = (await net.transfer(A, (A, mine, -50_00), (B, theirs, 50_00))).transaction
            await net.settle(known.id)
            loop, bank = asyncio.get_running_loop(), net.banks[A].bank
            net.stores[A].flush_gate = lambda: asyncio.ensure_future(asyncio.sleep(0.05))
            busy = asyncio.ensure_future(pay_in(net, mine))
            await asyncio.sleep(0.12)
            began = loop.time()
            answers = await bank.receive(B, bank.clock_now(), [ShowLog(known.id)] * 200)
            took = loop.time() - began
            assert all(isinstance(answer, Log) and len(answer.records) == 3 for answer in answers)
            busy.cancel()
            return took

    async def pay_in(net: World, account: str) -> None:
        for _ in range(1000):
            await net.cash(A, account, 1)

    assert run(many_questions()) < 0.5


async def test_who_insists_on_the_same_question_is_answered_each_time_and_asks_every_bank_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with world(3) as net:
        mine, others = await net.account(A, 100_00), [await net.account(code, which=1) for code in (B, C)]
        legs = [(A, mine, -50_00), (B, others[0], 25_00), (C, others[1], 25_00)]
        known = (await net.transfer(A, *legs)).transaction
        await net.settle(known.id)
        following, all_have_asked, waiting = net.banks[A].bank.following, asyncio.Event(), 0

        async def slowly(_sender: str, _bank: str, _message: Message) -> str:
            await all_have_asked.wait()
            return "deliver"

        async def ask_all(questions: Mapping[str, Message]) -> dict[str, Answer | Reply]:
            nonlocal waiting
            waiting += 1
            if waiting == 51:
                hung_up.cancel()
                all_have_asked.set()
            return await type(following).ask_all(following, questions, 60.0)

        net.weather = slowly
        monkeypatch.setattr(following, "ask_all", ask_all)
        hung_up = asyncio.ensure_future(following.trace(known))
        asking = [asyncio.ensure_future(following.trace(known)) for _ in range(50)]
        traces = await asyncio.gather(*asking)
        assert all(set(trace.logs) == {A, B, C} for trace in traces)
        assert net.sent["ShowLog"] == 2
        await following.trace(known)
        assert net.sent["ShowLog"] == 4, "what was answered once is asked anew"


async def test_only_what_its_holder_consents_to_the_asking_bank_is_shown() -> None:
    async with world(3) as net:
        mine = await net.account(B, 100_00)
        await net.account(B, 70_00)
        consent = await net.consent(B, mine, A, each=30_00, total=90_00)
        answer = await show(net, A, B, ShowAccounts(CPFS[0]))
        assert isinstance(answer, Accounts)
        (linked,) = answer.accounts
        assert (linked.account, linked.consent_id, linked.available) == (mine, consent, 100_00)
        assert (linked.max_per_transfer, linked.max_total, linked.used) == (30_00, 90_00, 0)
        for asker, who in ((C, CPFS[0]), (A, CPFS[1])):
            assert await show(net, asker, B, ShowAccounts(who)) == Accounts(())


async def test_what_a_consent_has_paid_is_shown_as_used_and_one_revoked_or_used_up_is_not_shown() -> None:
    async with world(2) as net:
        there, here = await net.account(B, 100_00), await net.account(A)
        consent = await net.consent(B, there, A, each=30_00, total=60_00)
        for used in (30_00, 60_00):
            done = await net.transfer(A, (B, there, -30_00), (A, here, 30_00))
            await net.settle(done.transaction.id)
            answer = await show(net, A, B, ShowAccounts(CPFS[0]))
            assert isinstance(answer, Accounts)
            assert [linked.used for linked in answer.accounts] == ([used] if used < 60_00 else [])
        again = await net.consent(B, there, A)
        assert again != consent
        holder = await net.person(B)
        await net.banks[B].bank.custody.revoke_consent(holder.holder_id, again)
        assert await show(net, A, B, ShowAccounts(CPFS[0])) == Accounts(())


async def test_an_account_that_is_closed_is_not_shown_though_its_consent_is_active() -> None:
    async with world(2) as net:
        closed, kept = await net.account(B), await net.account(B)
        for account in (closed, kept):
            await net.consent(B, account, A)
        holder = await net.person(B)
        await net.banks[B].bank.custody.close_account(holder.holder_id, closed)
        answer = await show(net, A, B, ShowAccounts(CPFS[0]))
        assert isinstance(answer, Accounts)
        assert [linked.account for linked in answer.accounts] == [kept]
