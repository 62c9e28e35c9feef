"""The network-wide read: one consistent cut of all banks, whatever is under way, and what an auditor finds in it."""

from __future__ import annotations

import asyncio

import pytest

from distribank.bank import auditing, snapshots
from distribank.core.heuristics import Verdict
from distribank.core.protocol import Abort, Commit, Cut, Inquire, Message, Refused, Side, Snapshot, State, Violation
from distribank.core.snapshot import Audit, FindingCode, examine, may_be_on
from tests.engines import on_memory, run
from tests.stories import INCARNATION, prepared
from tests.weather import in_state
from tests.world import World, world

A, B, C = "99990001", "99990002", "99990003"


async def three_banks(net: World) -> tuple[str, str, str]:
    """Maria has 100.00 at A and B, which lets A order debits; Ana has nothing at C."""
    here, there, hers = await net.account(A, 100_00), await net.account(B, 100_00), await net.account(C, which=1)
    await net.consent(B, there, A)
    return here, there, hers


def codes(audit: Audit) -> list[tuple[FindingCode, str | None]]:
    return [(finding.code, finding.bank) for finding in audit.findings]


def customers(audit: Audit) -> int:
    return sum(cut.customers for cut in audit.cuts.values() if cut)


def test_a_quiet_network_holds_and_every_bank_can_ask() -> None:
    async def story() -> None:
        async with world(3) as net:
            here, there, hers = await three_banks(net)
            await net.transfer(A, (A, here, -3_00), (B, there, -2_00), (C, hers, 5_00))
            for bank in (A, B, C):
                audit = await net.banks[bank].bank.auditing.audit()
                assert audit.ok, audit.findings
                assert customers(audit) == 200_00
                assert audit.doubts == []

    run(story())


def test_a_snapshot_holds_every_transfer_acknowledged_before_it_at_a_bank_that_took_no_part() -> None:
    """B's clock runs far behind A's; C, which audits, has heard of neither: two rounds are needed (invariant I12)."""

    async def story() -> None:
        async with world(3) as net:
            here, there = await net.account(A, 100_00), await net.account(B)
            net.clock.now += 30_000
            await net.transfer(A, (A, here, -7_00), (B, there, 7_00))
            net.clock.now -= 30_000
            audit = await net.banks[C].bank.auditing.audit()
            assert audit.ok
            cut = audit.cuts[B]
            assert cut is not None
            assert cut.customers == 7_00

    run(story())


def lose(net: World, *kinds: type[Message], to: str | None = None) -> None:
    async def weather(_sender: str, bank: str, message: Message) -> str:
        return "lose request" if isinstance(message, kinds) and to in (None, bank) else "deliver"

    net.weather = weather


def test_a_part_whose_commit_has_not_arrived_is_counted_as_its_coordinator_knows_it() -> None:
    async def story() -> None:
        async with world(3) as net:
            here, there, hers = await three_banks(net)
            lose(net, Commit, Inquire, to=None)
            result = await net.transfer(A, (A, here, -3_00), (B, there, -2_00), (C, hers, 5_00))
            audit = await net.banks[C].bank.auditing.audit()
            assert audit.ok, audit.findings
            assert {(doubt.bank, doubt.side) for doubt in audit.doubts} == {(B, Side.ON), (C, Side.ON)}
            assert {doubt.part.transaction for doubt in audit.doubts} == {result.transaction.id}
            assert customers(audit) == 197_00  # what is in doubt is listed with its amounts, and settled by the others

    run(story())


def test_more_parts_in_doubt_than_one_question_names_are_asked_about_in_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(auditing, "MAX_ASKED", 2)

    async def story() -> None:
        async with world(3) as net:
            here, _there, hers = await three_banks(net)
            lose(net, Commit, Inquire)
            for _time in range(5):
                await net.transfer(A, (A, here, -3_00), (C, hers, 3_00))
            audit = await net.banks[B].bank.auditing.audit()
            assert audit.ok, audit.findings
            assert [doubt.side for doubt in audit.doubts] == [Side.ON] * 5

    run(story())


def test_what_is_in_doubt_everywhere_is_counted_nowhere_and_named() -> None:
    async def story() -> None:
        async with world(3) as net:
            here, there, hers = await three_banks(net)
            lose(net, Commit, Inquire, Abort)
            await net.transfer(A, (A, here, -3_00), (B, there, -2_00), (C, hers, 5_00))
            await net.crash(A)
            audit = await net.banks[C].bank.auditing.audit()
            assert codes(audit) == [(FindingCode.BANK_UNREACHABLE, A)]
            assert {(doubt.bank, doubt.side) for doubt in audit.doubts} == {(B, Side.IN_DOUBT), (C, Side.IN_DOUBT)}
            assert customers(audit) == 100_00
            net.calm()
            await net.start(A)

    run(story())


def test_a_bank_that_falls_silent_before_it_is_asked_about_doubts_is_unreachable_and_nothing_is_called_wrong() -> None:
    """A has posted its leg and says so in its cut; that B's part is on the cut, too, it can no longer say."""

    async def story() -> None:
        async with world(2) as net:
            here, there = await net.account(A, 100_00), await net.account(B)

            async def weather(_sender: str, to: str, message: Message) -> str:
                asks_about_doubts = isinstance(message, Snapshot) and message.transactions and to == A
                return "lose request" if isinstance(message, Commit | Inquire) or asks_about_doubts else "deliver"

            net.weather = weather
            await net.transfer(A, (A, here, -3_00), (B, there, 3_00))
            audit = await net.banks[B].bank.auditing.audit()
            assert codes(audit) == [(FindingCode.BANK_UNREACHABLE, A)]
            assert [(doubt.bank, doubt.side) for doubt in audit.doubts] == [(B, Side.IN_DOUBT)]
            net.calm()

    run(story())


def test_what_has_its_outcome_within_a_moment_is_waited_for_and_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "WAIT_S", 30.0)

    async def story() -> None:
        async with world(2) as net:
            here, there = await net.account(A, 100_00), await net.account(B)
            looking = asyncio.Event()

            async def late(_sender: str, to: str, message: Message) -> str:
                if to == B and isinstance(message, Snapshot) and message.at is not None:
                    looking.set()
                if isinstance(message, Commit):
                    await looking.wait()
                    await asyncio.sleep(0.3)
                return "deliver"

            net.weather = late
            paying = (await net.transfer(A, (A, here, -3_00), (B, there, 3_00), wait=0)).transaction
            await net.until(lambda: in_state(net, B, paying.id, State.PREPARED))
            audit = await net.banks[A].bank.auditing.audit()
            assert audit.ok
            assert audit.doubts == []
            assert customers(audit) == 100_00

    run(story())


def test_a_bank_that_tells_its_clock_and_not_its_books_is_a_finding() -> None:
    async def story() -> None:
        async with world(2) as net:

            async def silent(_sender: str, to: str, message: Message) -> str:
                is_cut = isinstance(message, Snapshot) and message.at is not None
                return "lose request" if is_cut and to == B else "deliver"

            net.weather = silent
            assert codes(await net.banks[A].bank.auditing.audit()) == [(FindingCode.BANK_UNREACHABLE, B)]

    run(story())


def test_a_vote_at_the_very_stamp_of_the_cut_may_be_on_it() -> None:
    vote = prepared()
    assert vote.prepared_at is not None
    assert may_be_on(vote, vote.prepared_at, INCARNATION)
    assert not may_be_on(vote, vote.prepared_at - 1, INCARNATION)


def test_money_that_nobody_paid_in_is_found_though_each_bank_balances() -> None:
    lonely = Cut(1, 100_00, {"cash": -60_00, "position:99999999": -40_00}, 3)
    assert codes(examine(1, {A: lonely}, [], [])) == [(FindingCode.MONEY_DIFFERS, None)]


def test_a_forced_part_is_named_and_a_wrong_guess_shows_until_it_is_corrected() -> None:
    async def story() -> None:
        async with world(3) as net:
            here, there, hers = await three_banks(net)
            lose(net, Commit, Inquire, Abort)
            result = await net.transfer(A, (A, here, -3_00), (B, there, -2_00), (C, hers, 5_00))
            await net.banks[B].bank.participating.force(result.transaction.id, Verdict.ABORT, "a guess")
            audit = await net.banks[A].bank.auditing.audit()
            assert (FindingCode.FORCED, B) in codes(audit)
            net.calm()
            await net.settle(result.transaction.id)
            net.clock.now += 1000
            audit = await net.banks[A].bank.auditing.audit()
            assert audit.ok, audit.findings

    run(story())


@on_memory
def test_books_that_were_tampered_with_are_found() -> None:
    from dataclasses import replace

    from distribank.core.ledger import Account, BookEntry

    async def story() -> None:
        async with world(3) as net:
            here, there, _hers = await three_banks(net)
            await net.transfer(A, (A, here, -3_00), (B, there, 3_00))
            account = await net.stores[B].get(Account, there)
            assert account is not None
            await net.stores[B].write([replace(account, posted=account.posted + 1)])
            audit = await net.banks[C].bank.auditing.audit()
            assert codes(audit) == [(FindingCode.BOOKS_INCONSISTENT, B)]
            await net.stores[B].write([account, BookEntry("forged", f"position:{A}", 1, 1)])
            audit = await net.banks[C].bank.auditing.audit()
            assert {code for code, _ in codes(audit)} == {
                FindingCode.BOOKS_INCONSISTENT,
                FindingCode.BOOKS_UNBALANCED,
                FindingCode.POSITIONS_DIFFER,
            }

    run(story())


async def cut_at(net: World, at: int) -> Cut:
    """A's books at *at*, asked by a bank whose own clock is at nought."""
    (said,) = await net.banks[A].bank.participating.receive(B, 0, [Snapshot(at)])
    assert isinstance(said, Cut)
    return said


@pytest.mark.parametrize("dies", [False, True])
def test_after_a_snapshot_nothing_is_stamped_by_it_any_more_restarts_included(dies: bool) -> None:
    async def story() -> None:
        async with world(2) as net:
            here = await net.account(A, 100_00)
            at = net.banks[A].bank.rhythm.stamp() + (20_000 << 16)
            assert (await cut_at(net, at)).customers == 100_00
            if dies:
                await net.crash(A)
                await net.start(A)
            await net.cash(A, here, 1_00)
            assert (await cut_at(net, at)).customers == 100_00

    run(story())


@on_memory
def test_the_floor_is_durable_before_anything_is_said_about_it() -> None:
    async def story() -> None:
        async with world(2) as net:
            disk: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            net.stores[A].flush_gate = lambda: disk
            asking = asyncio.ensure_future(cut_at(net, net.banks[A].bank.rhythm.stamp() + 1))
            await asyncio.sleep(60)
            assert not asking.done()
            disk.set_result(None)
            await asking

    run(story())


def test_a_stamp_that_no_sound_clock_could_have_is_refused_and_not_merged() -> None:
    async def story() -> None:
        async with world(2) as net:
            await net.account(A, 1_00)
            before = net.banks[A].bank.rhythm.stamp()
            (said,) = await net.banks[A].bank.participating.receive(B, 0, [Snapshot(before + (61_000 << 16))])
            assert isinstance(said, Refused)
            assert said.code is Violation.CLOCK_AHEAD
            assert net.banks[A].bank.rhythm.stamp() == before

    run(story())


def test_snapshots_under_load_always_have_the_whole_sum() -> None:
    """Money that is on its way is in doubt for a moment; no total is ever wrong."""

    async def story() -> None:
        async with world(3) as net:
            accounts = {code: await net.account(code, 100_00) for code in (A, B, C)}
            total = 300_00

            async def pay(number: int) -> None:
                await asyncio.sleep(number / 50)
                source, target = (A, B, C)[number % 3], (A, B, C)[(number + 1) % 3]
                await net.transfer(source, (source, accounts[source], -1_00), (target, accounts[target], 1_00))

            async def slow(_sender: str, _to: str, message: Message) -> str:
                await asyncio.sleep(0.03 if isinstance(message, Commit) else 0.01)
                return "deliver"

            net.weather = slow
            paying = [asyncio.ensure_future(pay(number)) for number in range(60)]
            seen = 0
            while not all(payment.done() for payment in paying):
                audit = await net.banks[A].bank.auditing.audit()
                assert audit.ok, audit.findings
                settled = sum(doubt.part.customers for doubt in audit.doubts if doubt.side is Side.ON)
                assert customers(audit) + settled == total
                seen += 1
            assert seen > 1
            await asyncio.gather(*paying)

    run(story())
