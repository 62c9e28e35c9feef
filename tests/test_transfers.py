"""Transfers between banks in one process: what a holder may rely on, whatever the banks and the network do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from distribank.breakages import KeyInProgress, KeyReused
from distribank.core.clock import wall_of
from distribank.core.consents import Consent
from distribank.core.ledger import Account, AccountType, EntryKind, Hold
from distribank.core.protocol import Commit, Inquire, Message, Prepare, State, Transaction
from distribank.core.refusals import Code, Refusal
from distribank.ports import Queries
from tests.engines import on_memory
from tests.weather import Gate, in_state, losing, nothing_about_outcomes, once_voted, prepared
from tests.world import World, codes, world

A, B, C, D, E = codes(5)


async def test_a_transfer_within_one_bank_is_one_write_and_no_message() -> None:
    async with world(1) as net:
        one, two = await net.account(A, 100), await net.account(A, which=1)
        done = await net.transfer(A, (A, one, -100), (A, two, 100))
        assert done.transaction.state is State.ENDED
        assert net.sent == {}
        assert [(r.kind, r.after) for r in await net.stores[A].find(Queries.RECORDS_OF, done.transaction.id)] == [
            ("Decided", "ended")
        ]
        assert await net.balance(A, two) == (100, 100)
        assert await net.check_books() == 100


async def test_money_from_three_banks_reaches_a_fourth_all_or_nothing() -> None:
    async with world(4) as net:
        a, b, c, d = [await net.account(code, 100) for code in (A, B, C, D)]
        await net.consent(B, b, A)
        await net.consent(C, c, A)
        done = await net.transfer(A, (A, a, -50), (B, b, -60), (C, c, -70), (D, d, 180))
        assert done.transaction.state is State.ENDED
        assert [await net.balance(*x) for x in ((A, a), (B, b), (C, c), (D, d))] == [
            (50, 50),
            (40, 40),
            (30, 30),
            (280, 280),
        ]
        net.weather = once_voted(net, B, C)
        refused = await net.transfer(A, (A, a, -50), (B, b, -40), (C, c, -31), (D, d, 121))
        assert refused.transaction.because is not None
        assert (refused.transaction.because.code, refused.transaction.because.bank) == (Code.INSUFFICIENT_FUNDS, C)
        await net.settle(refused.transaction.id)
        assert await net.balance(A, a) == (50, 50)
        assert await net.balance(B, b) == (40, 40)
        assert await net.check_books() == 400


async def test_the_coordinator_need_not_hold_a_leg() -> None:
    async with world(3) as net:
        b, c = await net.account(B, 100), await net.account(C)
        await net.account(A)
        await net.consent(B, b, A)
        done = await net.transfer(A, (B, b, -100), (C, c, 100))
        assert done.transaction.state is State.ENDED
        assert await net.balance(C, c) == (100, 100)
        assert {book.name: book.balance for book in await net.stores[A].find(Queries.BOOKS)} == {
            f"position:{B}": -100,
            f"position:{C}": 100,
        }
        assert await net.check_books() == 100


async def test_every_participant_gets_one_prepare_and_one_commit() -> None:
    async with world(4) as net:
        a, b, c, d = [await net.account(code, 100) for code in (A, B, C, D)]
        net.sent.clear()
        done = await net.transfer(A, (A, a, -30), (B, b, 5), (B, b, 5), (C, c, 10), (D, d, 10))
        assert done.transaction.state is State.ENDED
        assert net.sent == {"Prepare": 3, "Commit": 3}


async def test_a_holder_hears_who_has_acknowledged_although_one_bank_has_not() -> None:
    async with world(3, acknowledgement_wait=5) as net:
        a, b, c = [await net.account(code, 100) for code in (A, B, C)]
        open_again = asyncio.Event()

        async def slow(_sender: str, to: str, message: Message) -> str:
            if to == B and isinstance(message, Commit):
                await open_again.wait()
            return ""

        net.weather = slow
        done = (await net.transfer(A, (A, a, -20), (B, b, 10), (C, c, 10))).transaction
        assert done.state is State.COMMITTING
        assert {vote.bank for vote in done.votes if vote.acknowledged_at is not None} == {C}
        open_again.set()
        await net.settle(done.id)
        assert await net.check_books() == 300


@on_memory
async def test_acknowledgements_that_come_together_are_noted_in_one_write() -> None:
    async with world(4) as net:
        a, b, c, d = [await net.account(code, 100) for code in (A, B, C, D)]
        written: list[State] = []
        store, really = net.stores[A], net.stores[A].write

        def write(rows: Any, *, lazy: bool = False) -> asyncio.Future[None]:
            written.extend(row.state for row in rows if isinstance(row, Transaction))
            return really(rows, lazy=lazy)

        store.write = write  # type: ignore[method-assign]
        await net.transfer(A, (A, a, -30), (B, b, 10), (C, c, 10), (D, d, 10))
        assert written == [State.PREPARING, State.COMMITTING, State.ENDED]


async def test_two_hundred_transfers_both_ways_between_two_accounts_all_succeed() -> None:
    async with world(2) as net:
        a, b = await net.account(A, 10_000), await net.account(B, 10_000)
        tries = [net.transfer(A, (A, a, -100), (B, b, 100)) for _ in range(100)]
        tries += [net.transfer(B, (B, b, -100), (A, a, 100)) for _ in range(100)]
        assert {done.transaction.state for done in await asyncio.gather(*tries)} == {State.ENDED}
        assert await net.balance(A, a) == (10_000, 10_000)
        assert await net.check_books() == 20_000


async def test_entries_bear_the_commit_timestamp_which_no_vote_is_later_than() -> None:
    async with world(3) as net:
        a, b, c = [await net.account(code, 100) for code in (A, B, C)]
        net.banks[C].bank.rhythm.hear(net.banks[C].bank.clock_now() + (5000 << 16))
        done = (await net.transfer(A, (A, a, -20), (B, b, 10), (C, c, 10))).transaction
        assert done.commit_at is not None
        for code, number in ((A, a), (B, b), (C, c)):
            entries = await net.stores[code].find(Queries.ENTRIES_SINCE, number, after=(0,))
            assert entries[-1].stamp == done.commit_at
        assert all(vote.prepared_at is not None and vote.prepared_at <= done.commit_at for vote in done.votes)
        spent = (await net.transfer(B, (B, b, -110), (A, a, 110))).transaction
        assert spent.commit_at is not None
        assert spent.commit_at > done.commit_at


async def test_after_a_restart_the_clock_is_above_every_stamp_in_the_store() -> None:
    async with world(2) as net:
        a, b = await net.account(A, 100), await net.account(B)
        net.banks[A].bank.rhythm.hear(net.banks[A].bank.clock_now() + (30_000 << 16))
        done = (await net.transfer(A, (A, a, -10), (B, b, 10))).transaction
        await net.settle(done.id)
        await net.stores[B].flushed()
        await net.crash(B)
        await net.start(B)
        assert done.commit_at is not None
        assert net.banks[B].bank.clock_now() >= done.commit_at


async def test_a_commit_is_never_stamped_past_its_vote_by() -> None:
    async with world(2) as net:
        a, b = await net.account(A, 100), await net.account(B)
        net.weather = gate = Gate(Prepare)
        ordering = asyncio.create_task(net.transfer(A, (A, a, -10), (B, b, 10)))
        await gate.reached.wait()
        net.banks[B].bank.rhythm.merge_commit((net.clock.now + 200_000) << 16)
        gate.open.set()
        done = (await ordering).transaction
        assert done.state is State.ABORTED
        await net.settle(done.id)
        assert await net.check_books() == 100
        assert wall_of(net.banks[A].bank.clock_now()) < net.clock.now + 200_000


# Keys -------------------------------------------------------------------------------------------------------------


async def test_a_retry_with_the_same_key_gets_the_same_transfer_and_moves_nothing() -> None:
    async with world(2) as net:
        a, b = await net.account(A, 100), await net.account(B)
        first = await net.transfer(A, (A, a, -10), (B, b, 10), key="k")
        again = await net.transfer(A, (A, a, -10), (B, b, 10), key="k")
        assert (again.transaction.id, again.replayed, first.replayed) == (first.transaction.id, True, False)
        assert await net.balance(B, b) == (10, 10)
        with pytest.raises(KeyReused):
            await net.transfer(A, (A, a, -11), (B, b, 11), key="k")


async def test_a_refusal_is_remembered_under_its_key() -> None:
    async with world(2) as net:
        a, b = await net.account(A), await net.account(B)
        first = await net.transfer(A, (A, a, -10), (B, b, 10), key="k")
        await net.cash(A, a, 100)
        await net.crash(A)
        await net.start(A)
        again = await net.transfer(A, (A, a, -10), (B, b, 10), key="k")
        assert again.transaction == first.transaction
        assert again.replayed


async def test_a_key_whose_first_request_runs_is_in_progress_and_after_a_202_tells_the_present_state() -> None:
    async with world(2, vote_deadline=60) as net:
        a, b = await net.account(A, 100), await net.account(B)
        net.weather = gate = Gate(Prepare)
        ordering = asyncio.create_task(net.transfer(A, (A, a, -10), (B, b, 10), key="k"))
        await gate.reached.wait()
        with pytest.raises(KeyInProgress) as running:
            await net.transfer(A, (A, a, -10), (B, b, 10), key="k")
        accepted = await net.transfer(A, (A, a, -10), (B, b, 10), key="other", wait=0)
        assert accepted.transaction.state is State.PREPARING
        again = await net.transfer(A, (A, a, -10), (B, b, 10), key="other", wait=0)
        assert (again.transaction.id, again.replayed) == (accepted.transaction.id, True)
        gate.open.set()
        assert (await ordering).transaction.id == running.value.transfer_id
        await net.settle(accepted.transaction.id)
        assert await net.balance(B, b) == (20, 20)


async def test_what_a_202_promised_is_found_after_a_crash_and_what_was_not_answered_runs_anew() -> None:
    async with world(2, vote_deadline=60) as net:
        a, b = await net.account(A, 100), await net.account(B)
        net.weather = losing(Prepare, "lose request")
        promised = await net.transfer(A, (A, a, -10), (B, b, 10), key="promised", wait=0)
        unanswered = asyncio.create_task(net.transfer(A, (A, a, -10), (B, b, 10), key="unanswered"))
        await net.until(lambda: len(net.banks[A].bank.coordinating._live) == 2)
        await net.stores[A].flushed()
        await net.crash(A)
        await asyncio.gather(unanswered, return_exceptions=True)
        net.calm()
        await net.start(A)
        found = await net.transfer(A, (A, a, -10), (B, b, 10), key="promised")
        assert found.transaction.id == promised.transaction.id
        assert found.transaction.because is not None
        assert found.transaction.because.code is Code.INTERRUPTED
        anew = await net.transfer(A, (A, a, -10), (B, b, 10), key="unanswered")
        assert anew.transaction.state is State.ENDED
        assert await net.balance(A, a) == (90, 90)
        assert await net.balance(B, b) == (10, 10)


# Recovery ---------------------------------------------------------------------------------------------------------


async def test_a_transfer_whose_outcome_recovery_brings_is_counted_like_any_other() -> None:
    async with world(2, vote_deadline=60) as net:
        a, b = await net.account(A, 100), await net.account(B)
        net.weather = losing(Prepare, "lose request")
        await net.transfer(A, (A, a, -10), (B, b, 10), wait=0)
        await net.stores[A].flushed()
        await net.crash(A)
        net.calm()
        await net.start(A)
        aborted = net.banks[A].bank.metrics.registry.get_sample_value(
            "distribank_transfers_total", {"outcome": "aborted"}
        )
        assert aborted == 1


async def test_a_coordinator_that_dies_before_deciding_has_aborted() -> None:
    async with world(3, vote_deadline=60) as net:
        a, b, c = [await net.account(code, 100) for code in (A, B, C)]
        await net.consent(B, b, A)

        async def to_b_only(_sender: str, bank: str, message: Message) -> str:
            return "lose request" if bank == C and isinstance(message, Prepare) else "deliver"

        net.weather = to_b_only
        pending = (await net.transfer(A, (A, a, -10), (B, b, -10), (C, c, 20), wait=0)).transaction
        await net.until(lambda: prepared(net, B, pending.id))
        await net.crash(A)
        assert await net.balance(B, b) == (100, 90)
        (doubt,) = await net.banks[B].bank.reading.in_doubt()
        assert doubt.transaction.id == pending.id
        net.calm()
        await net.start(A)
        await net.settle(pending.id)
        assert [await net.balance(*x) for x in ((A, a), (B, b), (C, c))] == [(100, 100)] * 3
        assert await net.banks[B].bank.reading.in_doubt() == []


async def test_a_coordinator_that_dies_after_deciding_commits_everywhere_when_it_is_back() -> None:
    async with world(3) as net:
        a, b, c = [await net.account(code, 100) for code in (A, B, C)]
        net.weather = losing(Commit, "lose request")
        done = (await net.transfer(A, (A, a, -20), (B, b, 10), (C, c, 10))).transaction
        await net.crash(A)
        net.calm()
        await net.start(A)
        await net.settle(done.id)
        assert [await net.balance(*x) for x in ((A, a), (B, b), (C, c))] == [(80, 80), (110, 110), (110, 110)]
        assert await net.check_books() == 300


async def test_a_participant_that_dies_after_its_vote_keeps_the_hold_and_learns_the_outcome() -> None:
    async with world(2) as net:
        a, b = await net.account(A, 100), await net.account(B, 100)
        await net.consent(B, b, A)
        net.weather = nothing_about_outcomes
        done = (await net.transfer(A, (B, b, -30), (A, a, 30))).transaction
        assert done.state is State.COMMITTING
        await net.crash(B)
        await net.start(B)
        assert await net.balance(B, b) == (100, 70)
        net.calm()
        await net.settle(done.id)
        assert await net.balance(B, b) == (70, 70)
        assert await net.check_books() == 200


async def test_a_fellow_participant_that_knows_the_outcome_ends_the_doubt_while_the_coordinator_is_away() -> None:
    async with world(3) as net:
        a, b, c = [await net.account(code, 100) for code in (A, B, C)]

        async def commit_to_b_only(sender: str, bank: str, message: Message) -> str:
            lost = (bank == C and isinstance(message, Commit)) or (bank == A and isinstance(message, Inquire))
            return "lose request" if lost else "deliver"

        net.weather = commit_to_b_only
        done = (await net.transfer(A, (A, a, -20), (B, b, 10), (C, c, 10))).transaction
        await net.crash(A)
        await net.until(lambda: in_state(net, C, done.id, State.COMMITTED))
        assert await net.balance(C, c) == (110, 110)


async def test_a_fellow_participant_that_never_voted_promises_not_to_and_that_is_an_abort() -> None:
    async with world(3) as net:
        a, b, c = [await net.account(code, 100) for code in (A, B, C)]
        await net.consent(B, b, A)

        async def nothing_to_c(_sender: str, bank: str, message: Message) -> str:
            return "lose request" if bank == C and isinstance(message, Prepare) else "deliver"

        net.weather = nothing_to_c
        pending = (await net.transfer(A, (A, a, -10), (B, b, -10), (C, c, 20), wait=0)).transaction
        await net.until(lambda: prepared(net, B, pending.id))
        await net.crash(A)
        await net.until(lambda: in_state(net, B, pending.id, State.ABORTED))
        promise = await net.state(C, pending.id)
        assert promise is not None
        assert (promise.state, promise.order) == (State.ABORTED, None)
        assert await net.balance(B, b) == (100, 100)


async def test_when_everyone_reachable_is_in_doubt_the_hold_stays_and_the_operator_sees_who_knows() -> None:
    async with world(3) as net:
        a, b, c = [await net.account(code, 100) for code in (A, B, C)]
        await net.consent(B, b, A)
        net.weather = losing(Commit, "lose request")
        done = (await net.transfer(A, (B, b, -20), (A, a, 10), (C, c, 10))).transaction
        await net.crash(A)
        net.calm()
        asked = net.banks[B].bank.reading.asked
        await net.until(lambda: asked.get(done.id, {}).keys() == {A, C})
        assert await net.balance(B, b) == (100, 80)
        (doubt,) = await net.banks[B].bank.reading.in_doubt()
        assert doubt.asked[C] == "undecided"
        assert A in doubt.why
        await net.start(A)
        await net.settle(done.id)
        assert await net.balance(B, b) == (80, 80)


async def test_an_operator_can_ask_again_without_waiting() -> None:
    async with world(2) as net:
        a, b = await net.account(A, 100), await net.account(B)
        net.weather = losing(Commit, "lose request")
        done = (await net.transfer(A, (A, a, -20), (B, b, 20))).transaction
        net.calm()
        await net.banks[B].recovery.inquire_now(done.id)
        assert await in_state(net, B, done.id, State.COMMITTED)


@on_memory
async def test_a_bank_is_not_ready_before_its_log_is_read() -> None:
    """Asked earlier, it would say aborted of what it has promised or decided."""
    async with world(2) as net:
        await net.crash(A)
        reading, go_on, find = asyncio.Event(), asyncio.Event(), net.stores[A].find

        async def slowly(query: Any, *key: str, **more: Any) -> Any:
            reading.set()
            await go_on.wait()
            return await find(query, *key, **more)

        net.stores[A].find = slowly  # type: ignore[method-assign]
        starting = asyncio.create_task(net.start(A))
        await reading.wait()
        assert not net.banks[A].bank.ready
        go_on.set()
        await starting
        assert net.banks[A].bank.ready


async def test_holds_and_reservations_of_what_was_begun_are_gone_after_a_restart() -> None:
    async with world(2, vote_deadline=5, position_cap=1000) as net:
        a, b = await net.account(A, 100), await net.account(B, 100)
        await net.consent(B, b, A)
        net.weather = losing(Prepare, "lose request")
        await net.transfer(A, (B, b, -50), (A, a, 50), wait=0)
        await net.crash(A)
        net.calm()
        await net.start(A)
        assert await net.stores[A].find(Queries.PLACED_HOLDS) == []
        assert [book.reserved for book in await net.stores[A].find(Queries.BOOKS) if book.peer] == [0]


# Consents and positions -------------------------------------------------------------------------------------------


async def consent_now(net: World, code: str, consent_id: str) -> Consent:
    consent = await net.stores[code].get(Consent, consent_id)
    assert consent is not None
    return consent


async def test_a_consent_is_used_up_with_the_hold_and_given_back_by_an_abort() -> None:
    async with world(3) as net:
        a, b, c = await net.account(A), await net.account(B, 1000), await net.account(C)
        given = await net.consent(B, b, A, each=300, total=500)
        assert (await net.transfer(A, (B, b, -300), (A, a, 300))).transaction.state is State.ENDED
        assert (await consent_now(net, B, given)).used == 300
        too_much = (await net.transfer(A, (B, b, -201), (A, a, 201))).transaction
        assert too_much.because is not None
        assert too_much.because.code is Code.CONSENT_EXCEEDED
        net.weather = losing(Prepare, "lose request")

        async def nothing_to_c(_sender: str, bank: str, message: Message) -> str:
            return "lose request" if bank == C and isinstance(message, Prepare) else "deliver"

        net.weather = nothing_to_c
        aborted = (await net.transfer(A, (B, b, -200), (C, c, 200))).transaction
        assert aborted.state is State.ABORTED
        await net.settle(aborted.id)
        assert (await consent_now(net, B, given)).used == 300


async def test_a_revoked_or_expired_consent_lets_nobody_debit() -> None:
    async with world(2) as net:
        a, b = await net.account(A), await net.account(B, 1000)
        given = await net.consent(B, b, A)
        net.clock.now += 2 * 86_400_000
        late = (await net.transfer(A, (B, b, -1), (A, a, 1))).transaction
        assert late.because is not None
        assert late.because.code is Code.CONSENT_EXPIRED
        again = await net.consent(B, b, A)
        holder = await net.person(B)
        for consent_id in (given, again):
            assert await net.banks[B].bank.custody.revoke_consent(holder.holder_id, consent_id) is not None
        gone = (await net.transfer(A, (B, b, -1), (A, a, 1))).transaction
        assert gone.because is not None
        assert gone.because.code is Code.CONSENT_REQUIRED


async def test_a_peer_may_not_come_to_owe_more_than_its_cap_prepared_inflows_included() -> None:
    async with world(2, position_cap=150) as net:
        a, b = await net.account(A, 1000), await net.account(B)
        tries = [net.transfer(A, (A, a, -100), (B, b, 100)) for _ in range(3)]
        states = [done.transaction for done in await asyncio.gather(*tries)]
        assert [done.state for done in states].count(State.ENDED) == 1
        refused = next(done for done in states if done.state is State.ABORTED)
        assert refused.because is not None
        assert (refused.because.code, refused.because.bank) == (Code.POSITION_LIMIT, B)
        assert await net.check_books() == 1000


async def test_an_account_with_a_hold_cannot_be_closed() -> None:
    async with world(2) as net:
        a, b = await net.account(A, 100), await net.account(B)
        net.weather = losing(Commit, "lose request")
        done = (await net.transfer(A, (A, a, -100), (B, b, 100))).transaction
        holder = await net.person(B)
        refused = await net.banks[B].bank.custody.close_account(holder.holder_id, b)
        assert isinstance(refused, Refusal)
        assert refused.code is Code.ACCOUNT_NOT_EMPTY
        net.calm()
        await net.settle(done.id)


async def test_a_debit_of_an_account_that_needs_two_holders_is_refused_until_they_can_approve() -> None:
    async with world(1) as net:
        maria, joao = await net.person(A, 0), await net.person(A, 1, "João")
        bank = net.banks[A].bank
        joint = await bank.custody.open_account(maria, AccountType.JOINT, [joao.cpf], 2)
        assert not isinstance(joint, Refusal)
        await net.cash(A, joint.number, 100)
        other = await net.account(A, which=2)
        refused = await net.transfer(A, (A, joint.number, -10), (A, other, 10))
        assert refused.transaction.because is not None
        assert refused.transaction.because.code is Code.APPROVAL_REQUIRED
        withdrawal = await net.cash(A, joint.number, 10, kind=EntryKind.WITHDRAWAL)
        assert withdrawal is not None
        assert withdrawal.code is Code.APPROVAL_REQUIRED


# Watching ---------------------------------------------------------------------------------------------------------


async def test_a_watcher_sees_every_entry_and_hold_and_resumes_where_it_stopped() -> None:
    async with world(2) as net:
        a, b = await net.account(A, 100), await net.account(B)
        reading = net.banks[A].bank.reading
        stream = reading.watch(a)
        first = await anext(stream)
        assert (first[1], first[2].posted) == ("balance", 100)  # type: ignore[union-attr]
        await net.transfer(A, (A, a, -10), (B, b, 10))
        seen: list[tuple[int, str]] = []
        while not seen or seen[-1][1] != "balance" or len(seen) < 3:
            change, kind, _ = await anext(stream)
            seen.append((change, kind))
        await stream.aclose()  # type: ignore[attr-defined]
        assert [kind for _, kind in seen if kind != "balance"].count("entry") == 1
        for _ in range(3):
            await net.transfer(A, (A, a, -10), (B, b, 10))
        resumed = reading.watch(a, after=seen[-1][0])
        missed = [await anext(resumed) for _ in range(10)]
        await resumed.aclose()  # type: ignore[attr-defined]
        assert [kind for _, kind, _ in missed] == ["hold", "hold", "entry"] * 3 + ["balance"]
        assert [row.state for _, _, row in missed if isinstance(row, Hold)] == ["placed", "posted"] * 3
        numbers = [change for change, _, _ in missed[:-1]]
        assert numbers == sorted(set(numbers))


async def test_a_watcher_that_stopped_between_a_hold_and_its_end_is_not_told_again_that_it_was_placed() -> None:
    async with world(2) as net:
        a, b = await net.account(A, 100), await net.account(B)
        reading = net.banks[A].bank.reading
        net.weather = gate = Gate(Prepare)
        ordered = asyncio.create_task(net.transfer(A, (A, a, -10), (B, b, 10)))
        await gate.reached.wait()
        await net.stores[A].flushed()
        before = reading.watch(a)
        stopped_at, _, account = await anext(before)
        await before.aclose()  # type: ignore[attr-defined]
        assert isinstance(account, Account)
        assert account.held == 10
        gate.open.set()
        await ordered
        resumed = reading.watch(a, after=stopped_at)
        told = [await anext(resumed) for _ in range(3)]
        await resumed.aclose()  # type: ignore[attr-defined]
        assert [kind for _, kind, _ in told] == ["hold", "entry", "balance"]
        assert [row.state for _, _, row in told if isinstance(row, Hold)] == ["posted"]
