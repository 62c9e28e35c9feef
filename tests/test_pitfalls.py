"""Failures found in real systems of this kind, each with the test that would have caught it.

The numbers are those of the project's list of pitfalls. Here stand the ones about money, protocol, concurrency and
availability that show between banks; those of one layer stand with that layer's tests, under the same numbers.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from distribank.bank import KeyName
from distribank.breakages import KeyReused
from distribank.core.ledger import AccountType, EntryKind
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
    Refused,
    State,
    Violation,
    Yes,
)
from distribank.core.refusals import Code, Refusal
from distribank.ports import Queries
from distribank.recovery import AT_ONCE
from distribank.simulation.people import make_legs
from distribank.store.memory import MemoryStore
from tests.engines import ENGINE, on_memory
from tests.weather import Gate, in_state, losing, no_vote_arrives, prepared
from tests.world import World, codes, world

A, B, C, D, E = codes(5)


async def prepare_at(net: World, bank: str) -> tuple[Prepare, Any]:
    """The first prepare that *bank* got, and its answer."""
    return next((m, a) for _, to, m, a in net.answered if to == bank and isinstance(m, Prepare))


async def test_a_refused_debit_leaves_no_credit_anywhere() -> None:
    """Pitfall 1: a refused withdrawal is followed by its deposit all the same, and money is made."""
    async with world(2) as net:
        mine, theirs = await net.account(A, 100), await net.account(B)
        done = await net.transfer(A, (A, mine, -101), (B, theirs, 101))
        assert done.transaction.because is not None
        assert done.transaction.because.code is Code.INSUFFICIENT_FUNDS
        assert await net.balance(A, mine) == (100, 100)
        assert await net.balance(B, theirs) == (0, 0)
        assert await net.check_books() == 100


async def test_a_debit_refused_at_another_bank_leaves_no_credit_anywhere() -> None:
    """Pitfall 1, between banks: the payer is at a participant, the payee at the coordinator."""
    async with world(2) as net:
        mine, theirs = await net.account(A), await net.account(B, 100)
        await net.consent(B, theirs, A)
        done = await net.transfer(A, (B, theirs, -101), (A, mine, 101))
        assert done.transaction.because is not None
        assert (done.transaction.because.code, done.transaction.because.bank) == (Code.INSUFFICIENT_FUNDS, B)
        await net.settle(done.transaction.id)
        assert await net.balance(A, mine) == (0, 0)
        assert await net.balance(B, theirs) == (100, 100)


@pytest.mark.parametrize("coordinator", [A, B])
async def test_two_debit_legs_on_one_account_are_checked_against_their_sum(coordinator: str) -> None:
    """Pitfall 2: each of two legs is checked against the full balance, waits for the other, or overwrites it."""
    async with world(2) as net:
        payer, payee = await net.account(B, 100), await net.account(A)
        await net.consent(B, payer, A)
        refused = await net.transfer(coordinator, (B, payer, -60), (B, payer, -60), (A, payee, 120))
        assert refused.transaction.because is not None
        assert refused.transaction.because.code is Code.INSUFFICIENT_FUNDS
        done = await net.transfer(coordinator, (B, payer, -60), (B, payer, -40), (A, payee, 100))
        assert done.transaction.state is State.ENDED
        assert await net.balance(B, payer) == (0, 0)
        assert await net.balance(A, payee) == (100, 100)


async def test_the_same_account_number_at_two_banks_is_two_accounts() -> None:
    """Pitfall 3: the same number at source and destination is taken for one account."""
    async with world(2) as net:
        mine, theirs = await net.account(A, 100), await net.account(B)
        assert mine == theirs
        done = await net.transfer(A, (A, mine, -30), (B, theirs, 30))
        assert done.transaction.state is State.ENDED
        assert await net.balance(A, mine) == (70, 70)
        assert await net.balance(B, theirs) == (30, 30)


async def test_a_pending_credit_cannot_be_spent_and_a_pending_debit_is_counted() -> None:
    """Pitfall 5: a credit that is only pending is spendable; a pending debit is not counted."""
    async with world(2) as net:
        mine, theirs = await net.account(A, 100), await net.account(B)
        net.weather = gate = Gate(Commit)
        async with asyncio.TaskGroup() as group:
            paying = group.create_task(net.transfer(A, (A, mine, -80), (B, theirs, 80)))
            await gate.reached.wait()
            assert await net.balance(B, theirs) == (0, 0)
            spending = await net.cash(B, theirs, 80, kind=EntryKind.WITHDRAWAL)
            assert spending is not None
            assert spending.code is Code.INSUFFICIENT_FUNDS
            gate.open.set()
        await net.settle(paying.result().transaction.id)
        assert await net.balance(B, theirs) == (80, 80)


class HesitantStore(MemoryStore):
    """A store whose every read lets everybody else go first, as a database server's would."""

    async def get(self, kind: Any, *key: str) -> Any:
        row = await super().get(kind, *key)
        await asyncio.sleep(0)
        return row


def hesitant(_code: str, on_flush: Any) -> MemoryStore:
    return HesitantStore(on_flush=on_flush)


async def test_of_64_concurrent_debits_of_a_balance_that_covers_one_exactly_one_succeeds() -> None:
    """Pitfall 6: check and hold happen in two steps with an await between them: two transfers pass on one balance."""
    async with world(2, make_store=hesitant) as net:
        mine, theirs = await net.account(A, 100), await net.account(B)
        tries = [net.transfer(A, (A, mine, -100), (B, theirs, 100)) for _ in range(64)]
        states = [done.transaction.state for done in await asyncio.gather(*tries)]
        assert states.count(State.ENDED) == 1
        assert states.count(State.ABORTED) == 63
        assert await net.balance(A, mine) == (0, 0)
        assert await net.check_books() == 100


@on_memory
async def test_an_order_waits_its_turn_behind_a_vote_on_the_same_account() -> None:
    """Pitfall 6, by two ways in: an order here and a debit by consent from elsewhere pass on one balance."""
    async with world(2) as net:
        mine, other, theirs = await net.account(B, 100), await net.account(B, 0, 1), await net.account(A)
        await net.consent(B, mine, A)
        looking, go_on, find = asyncio.Event(), asyncio.Event(), net.stores[B].find

        async def slowly(query: Any, *key: str, **more: Any) -> Any:
            if query is Queries.CONSENTS_ON_ACCOUNT:
                looking.set()
                await go_on.wait()
            return await find(query, *key, **more)

        net.stores[B].find = slowly  # type: ignore[method-assign]
        drawn = asyncio.create_task(net.transfer(A, (B, mine, -100), (A, theirs, 100)))
        await looking.wait()
        spent = asyncio.create_task(net.transfer(B, (B, mine, -100), (B, other, 100)))
        await asyncio.sleep(0.1)
        go_on.set()
        done = [(await each).transaction.state for each in (drawn, spent)]
        assert done == [State.ENDED, State.ABORTED]
        assert await net.check_books() == 100


async def test_of_concurrent_inflows_no_more_pass_than_a_peer_may_owe() -> None:
    """Pitfall 6, of a position: it is checked and reserved in one moment, like an account."""
    async with world(2, make_store=hesitant, position_cap=250, vote_deadline=5) as net:
        mine = await net.account(A, 1000)
        theirs = [await net.account(B) for _ in range(5)]
        net.weather = gate = Gate(Prepare)  # they arrive at one moment
        tries = [asyncio.create_task(net.transfer(A, (A, mine, -100), (B, to, 100))) for to in theirs]
        await asyncio.sleep(1)
        gate.open.set()
        states = [done.transaction.state for done in await asyncio.gather(*tries)]
        assert states.count(State.ENDED) == 2
        assert await net.check_books() == 1000


async def test_a_late_prepare_after_an_abort_is_refused_and_holds_nothing() -> None:
    """Pitfall 7: an abort arrives before its prepare; the late prepare then holds money for ever."""
    async with world(2) as net:
        mine, theirs = await net.account(A, 100), await net.account(B)
        net.weather = losing(Prepare, "lose request")
        done = await net.transfer(A, (A, mine, -50), (B, theirs, 50))
        assert done.transaction.state is State.ABORTED
        await net.until(lambda: any(isinstance(m, Abort) for _, _, m, _ in net.answered))
        from distribank.core.coordinator import prepare_for

        late = prepare_for(done.transaction, B)
        (answer,) = await net.banks[B].bank.participating.receive(A, 0, [late])
        assert isinstance(answer, No)
        assert await net.stores[B].find(Queries.PLACED_HOLDS) == []


async def test_a_repeated_prepare_holds_once_and_a_repeated_commit_posts_once() -> None:
    """Pitfall 8: a repeated prepare holds twice; a repeated commit posts twice, or is answered with "failed"."""
    async with world(2) as net:
        mine, theirs = await net.account(A, 100), await net.account(B)
        done = await net.transfer(A, (A, mine, -50), (B, theirs, 50))
        prepare, first = await prepare_at(net, B)
        commit = next(m for _, _, m, _ in net.answered if isinstance(m, Commit))
        again = await net.banks[B].bank.participating.receive(A, 0, [prepare, commit, prepare, commit])
        assert [type(answer) for answer in again] == [Yes, Acknowledged, Yes, Acknowledged]
        assert again[0] == first
        await net.settle(done.transaction.id)
        assert await net.balance(B, theirs) == (50, 50)
        assert await net.check_books() == 100


async def test_a_commit_that_times_out_is_delivered_again_and_never_undone() -> None:
    """Pitfall 9: a commit that times out is treated as an abort, and legs that had committed are undone."""
    async with world(3) as net:
        mine, yours, theirs = await net.account(A, 100), await net.account(B), await net.account(C)
        net.weather = losing(Commit, "lose request", to=C)
        done = await net.transfer(A, (A, mine, -100), (B, yours, 60), (C, theirs, 40))
        assert done.transaction.state is State.COMMITTING
        assert await net.balance(B, yours) == (60, 60)
        assert await net.balance(C, theirs) == (0, 0)
        net.calm()
        await net.settle(done.transaction.id)
        assert await net.balance(C, theirs) == (40, 40)
        assert await net.check_books() == 100


async def test_a_participant_whose_vote_was_lost_is_told_to_abort() -> None:
    """Pitfall 10: a prepare that timed out is not told to abort."""
    async with world(2) as net:
        mine, theirs = await net.account(A, 100), await net.account(B)
        net.weather = losing(Prepare, "lose answer")
        done = await net.transfer(A, (A, mine, -50), (B, theirs, 50))
        assert done.transaction.because is not None
        assert done.transaction.because.code is Code.BANK_UNREACHABLE
        await net.until(lambda: any(isinstance(m, Abort) for _, _, m, _ in net.answered))
        known = await net.state(B, done.transaction.id)
        assert known is not None
        assert known.state is State.ABORTED
        await net.stores[B].flushed()
        assert await net.stores[B].find(Queries.PLACED_HOLDS) == []


async def test_after_a_yes_no_time_out_releases_the_hold() -> None:
    """Pitfall 11: a time-out releases a hold after a yes vote."""
    async with world(2) as net:
        mine, theirs = await net.account(A, 100), await net.account(B, 10)
        await net.consent(B, theirs, A)
        net.weather = no_vote_arrives
        done = await net.transfer(A, (B, theirs, -10), (A, mine, 10), wait=0)
        await net.until(lambda: prepared(net, B, done.transaction.id))
        await net.crash(A)
        net.clock.now += 10 * 86_400_000
        await net.until(lambda: net.banks[B].bank.reading.asked.get(done.transaction.id, {}).get(A) is not None)
        assert await net.balance(B, theirs) == (10, 0)
        net.calm()
        await net.start(A)
        await net.settle(done.transaction.id)
        assert await net.balance(B, theirs) == (10, 10)


async def test_an_inquiry_while_votes_are_collected_is_answered_undecided() -> None:
    """Pitfall 12: an inquiry while the coordinator is still collecting votes is answered "aborted"."""
    async with world(3, vote_deadline=60) as net:
        mine, yours, theirs = await net.account(A, 100), await net.account(B), await net.account(C)
        held = asyncio.Event()

        async def slow_to_c(_sender: str, bank: str, message: Message) -> str:
            if bank == C and isinstance(message, Prepare):
                await held.wait()
            return "deliver"

        net.weather = slow_to_c
        pending = await net.transfer(A, (A, mine, -100), (B, yours, 60), (C, theirs, 40), wait=0)
        assert pending.transaction.state is State.PREPARING
        await net.until(lambda: prepared(net, B, pending.transaction.id))
        inquiry = Inquire(pending.transaction.id, pending.transaction.vote_by)
        (answer,) = await net.banks[A].bank.participating.receive(B, 0, [inquiry])
        assert answer == Outcome(Fate.UNDECIDED)
        held.set()
        await net.settle(pending.transaction.id)
        assert await net.balance(B, yours) == (60, 60)


@on_memory
async def test_an_inquiry_while_the_decision_is_being_forced_is_answered_undecided() -> None:
    """Pitfall 12, the moment of forcing: what a crash could still take back is told to nobody."""
    async with world(2) as net:
        mine, theirs = await net.account(A, 100), await net.account(B)
        store = net.stores[A]
        net.weather = gate = Gate(Prepare)
        ordering = asyncio.create_task(net.transfer(A, (A, mine, -10), (B, theirs, 10)))
        await gate.reached.wait()
        await store.flushed()
        forcing, at_the_disk = asyncio.Event(), asyncio.Event()

        async def slow_disk() -> None:
            at_the_disk.set()
            await forcing.wait()

        store.flush_gate = lambda: asyncio.ensure_future(slow_disk())
        gate.open.set()
        await at_the_disk.wait()
        (identity,) = net.banks[A].bank.coordinating._live
        assert await in_state(net, A, identity, State.COMMITTING)
        asking = asyncio.create_task(net.banks[A].bank.participating.receive(B, 0, [Inquire(identity, 0)]))
        await asyncio.sleep(0)
        forcing.set()
        assert await asking == [Outcome(Fate.UNDECIDED)]
        assert (await ordering).transaction.state is State.ENDED


async def test_a_commit_is_remembered_until_every_participant_has_acknowledged() -> None:
    """Pitfall 13: the coordinator forgets a commit before all have acknowledged, then presumes abort."""
    async with world(2) as net:
        mine, theirs = await net.account(A, 100), await net.account(B)
        net.weather = losing(Commit, "lose request")
        done = await net.transfer(A, (A, mine, -50), (B, theirs, 50))
        assert done.transaction.state is State.COMMITTING
        await net.crash(A)
        net.clock.now += 30 * 86_400_000
        await net.start(A)
        inquiry = Inquire(done.transaction.id, done.transaction.vote_by)
        (answer,) = await net.banks[A].bank.participating.receive(B, 0, [inquiry])
        assert answer == Outcome(Fate.COMMITTED, done.transaction.commit_at)
        net.calm()
        await net.settle(done.transaction.id)
        assert await net.balance(B, theirs) == (50, 50)


async def test_ids_made_after_a_crash_never_repeat_those_from_before() -> None:
    """Pitfall 14: ids restart at zero after a crash, or wrap, and collide."""
    async with world(1) as net:
        before = {net.banks[A].bank.rhythm.transaction_id() for _ in range(1000)}
        await net.crash(A)
        await net.start(A)
        after = {net.banks[A].bank.rhythm.transaction_id() for _ in range(1000)}
        assert len(before | after) == 2000


async def test_a_client_that_hangs_up_changes_nothing() -> None:
    """Pitfall 15: the client hangs up and the transaction is cancelled half-way."""
    async with world(2) as net:
        mine, theirs = await net.account(A, 100), await net.account(B)
        net.weather = gate = Gate(Prepare)
        ordering = asyncio.create_task(net.transfer(A, (A, mine, -50), (B, theirs, 50), key="mine"))
        await gate.reached.wait()
        ordering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ordering
        gate.open.set()
        (identity,) = net.banks[A].bank.coordinating._live
        await net.settle(identity)
        assert await net.balance(B, theirs) == (50, 50)


@on_memory
async def test_a_vote_a_decision_and_an_acknowledgement_leave_only_once_they_are_durable() -> None:
    """Pitfall 16: the remote call is made before the record that it is being made. B's disk is slower than A's."""
    async with world(2) as net:
        mine, theirs = await net.account(A, 100), await net.account(B)
        net.stores[A].flush_gate = lambda: asyncio.ensure_future(asyncio.sleep(0.05))
        net.stores[B].flush_gate = lambda: asyncio.ensure_future(asyncio.sleep(0.1))
        durable: list[tuple[str, str]] = []

        async def look(sender: str, bank: str, message: Message) -> str:
            for code in (A, B):
                lines = await net.stores[code].find(Queries.RECORDS_OF, message.transaction)
                durable.extend((type(message).__name__, f"{code} {line.kind}") for line in lines)
            return "deliver"

        net.weather = look
        done = await net.transfer(A, (A, mine, -50), (B, theirs, 50))
        assert done.transaction.state is State.ENDED
        assert {("Commit", f"{B} Prepared"), ("Commit", f"{A} Decided")} <= set(durable)
        lines = await net.stores[B].find(Queries.RECORDS_OF, done.transaction.id)
        assert [line.kind for line in lines] == ["Prepared", "Resolved"]


async def test_two_holders_must_agree_before_another_bank_may_draw_on_their_account() -> None:
    """Pitfall 16b: a consent given by one holder of an account that needs two."""
    async with world(2) as net:
        maria, joao = await net.person(A, 0), await net.person(A, 1, "João Souza")
        bank = net.banks[A].bank
        account = await bank.custody.open_account(maria, AccountType.JOINT, [joao.cpf], "all")
        assert not isinstance(account, Refusal)
        refused = await bank.custody.give_consent(maria, account.number, B, 100, None, net.clock.now + 1000)
        assert isinstance(refused, Refusal)
        assert refused.code is Code.APPROVAL_REQUIRED


@on_memory
async def test_a_bank_that_lost_its_disk_says_unknown_and_promises_nothing() -> None:
    """Pitfall 17: a participant that lost its disk answers "unknown" and is believed to have nothing to do."""

    def young(code: str, on_flush: Any) -> MemoryStore:
        return MemoryStore(reaches_back_to=WALL if code == B else 0, on_flush=on_flush)

    async with world(3, make_store=young) as net:
        identity = f"{A}.{net.stores[A].incarnation}.{'0' * 32}"
        inquiry = Inquire(identity, WALL + 62_000)
        (answer,) = await net.banks[B].bank.participating.receive(C, 0, [inquiry])
        assert answer == Outcome(Fate.UNKNOWN)
        assert await net.state(B, identity) is None
        commit = Commit(identity, 1, make_legs((B, await net.account(B), 10)))
        (answer,) = await net.banks[B].bank.participating.receive(A, 0, [commit])
        assert isinstance(answer, Refused)
        assert answer.code is Violation.UNKNOWN_TRANSACTION


async def test_unrelated_transfers_do_not_wait_for_each_other() -> None:
    """Pitfall 18: one token, one queue or one total order for the whole network."""
    async with world(3, vote_deadline=60) as net:
        mine, yours, other = await net.account(A, 100), await net.account(B), await net.account(C)
        held = asyncio.Event()

        async def slow_to_b(_sender: str, bank: str, _message: Message) -> str:
            if bank == B:
                await held.wait()
            return "deliver"

        net.weather = slow_to_b
        waiting = await net.transfer(A, (A, mine, -10), (B, yours, 10), wait=0)
        done = await net.transfer(A, (A, mine, -10), (C, other, 10))
        assert done.transaction.state is State.ENDED
        assert (await net.state(A, waiting.transaction.id)).state is State.PREPARING  # type: ignore[union-attr]
        held.set()
        await net.settle(waiting.transaction.id)


async def test_fifty_concurrent_transfers_on_one_account_all_succeed() -> None:
    """Pitfall 19: a busy account is answered "locked, try again" instead of waiting its turn."""
    async with world(2, make_store=hesitant) as net:
        mine, theirs = await net.account(A, 5000), await net.account(B)
        tries = [net.transfer(A, (A, mine, -100), (B, theirs, 100)) for _ in range(50)]
        assert {done.transaction.state for done in await asyncio.gather(*tries)} == {State.ENDED}
        assert await net.balance(A, mine) == (0, 0)
        assert await net.balance(B, theirs) == (5000, 5000)


async def test_transfers_that_cross_each_other_never_deadlock() -> None:
    """Pitfall 20: locks taken in different orders in two places."""
    async with world(2, make_store=hesitant) as net:
        one, two = await net.account(A, 10_000), await net.account(A, 10_000)
        far = await net.account(B, 10_000)
        await net.consent(B, far, A)
        await net.consent(A, one, B)
        tries = [net.transfer(A, (A, one, -1), (A, two, 1)) for _ in range(20)]
        tries += [net.transfer(A, (A, two, -1), (A, one, 1)) for _ in range(20)]
        tries += [net.transfer(A, (A, two, -1), (B, far, 1)) for _ in range(20)]
        tries += [net.transfer(B, (B, far, -1), (A, one, 1)) for _ in range(20)]
        tries += [net.transfer(A, (B, far, -1), (A, two, 1)) for _ in range(20)]
        async with asyncio.timeout(20):
            assert {done.transaction.state for done in await asyncio.gather(*tries)} == {State.ENDED}
        assert await net.check_books() == 30_000


@on_memory
async def test_no_lock_is_held_while_another_bank_is_asked() -> None:
    """Pitfall 20, the other half: locks held across an HTTP call."""
    async with world(2) as net:
        mine, theirs = await net.account(A, 100), await net.account(B)
        held: list[int] = []

        async def look(sender: str, _bank: str, _message: Message) -> str:
            held.append(len(net.stores[sender].locks))
            return "deliver"

        net.weather = look
        await net.transfer(A, (A, mine, -50), (B, theirs, 50))
        assert held == [0, 0]


async def test_a_dead_bank_stops_only_the_transfers_that_need_it() -> None:
    """Pitfall 23: one bank that is down stops transfers that do not involve it."""
    async with world(3) as net:
        mine, yours, theirs = await net.account(A, 100), await net.account(B), await net.account(C)
        await net.crash(C)
        net.banks[A].wire.offline.add(C)
        net.sent.clear()
        done = await net.transfer(A, (A, mine, -10), (B, yours, 10))
        assert done.transaction.state is State.ENDED
        assert net.sent == {"Prepare": 1, "Commit": 1}
        refused = await net.transfer(A, (A, mine, -10), (C, theirs, 10))
        assert refused.transaction.because is not None
        assert refused.transaction.because.code is Code.BANK_UNREACHABLE


async def test_a_bank_known_to_be_away_is_not_asked_again_by_each_transfer() -> None:
    """Pitfall 24: a dead peer is discovered afresh, at full time-out, by every transfer."""
    async with world(2, vote_deadline=20) as net:
        mine, theirs = await net.account(A, 100), await net.account(B)
        await net.crash(B)
        net.banks[A].wire.offline.add(B)
        net.sent.clear()
        started = asyncio.get_running_loop().time()
        tries = [net.transfer(A, (A, mine, -1), (B, theirs, 1)) for _ in range(20)]
        assert {done.transaction.state for done in await asyncio.gather(*tries)} == {State.ABORTED}
        assert asyncio.get_running_loop().time() - started < (2 if ENGINE == "memory" else 20)
        assert net.sent == {}
        assert await net.balance(A, mine) == (100, 100)


async def test_a_bank_that_comes_back_is_not_flooded_by_recovery() -> None:
    """Pitfall 25: recovery of many transactions at once floods a bank that has just come back."""
    async with world(2, vote_deadline=60) as net:
        mine, theirs = await net.account(A, 100_000), await net.account(B)
        net.weather = losing(Commit, "lose request")
        many = [net.transfer(A, (A, mine, -1), (B, theirs, 1)) for _ in range(AT_ONCE + 100)]
        assert {done.transaction.state for done in await asyncio.gather(*many)} == {State.COMMITTING}
        await net.crash(A)
        under_way: Counter[str] = Counter()
        most: Counter[str] = Counter()

        async def count(_sender: str, bank: str, _message: Message) -> str:
            under_way[bank] += 1
            most[bank] = max(most[bank], under_way[bank])
            await asyncio.sleep(0)
            under_way[bank] -= 1
            return "deliver"

        net.weather = count
        await net.start(A)
        await net.until(lambda: balance_is(net, B, theirs, AT_ONCE + 100))
        assert most.keys() == {A, B}  # inquiries to the bank that is back, its commits to the other
        assert max(most.values()) <= AT_ONCE
        assert await net.check_books() == 100_000


async def test_a_coordinator_cannot_debit_an_account_elsewhere_on_its_own_word() -> None:
    """Pitfall 28: a coordinator debits any account at any bank on its own word."""
    async with world(2) as net:
        mine, theirs = await net.account(A), await net.account(B, 100)
        for amount in (50, 101):  # covered or not: without a consent, nobody learns of the balance
            refused = await net.transfer(A, (B, theirs, -amount), (A, mine, amount))
            assert refused.transaction.because is not None
            assert refused.transaction.because.code is Code.CONSENT_REQUIRED
            await net.settle(refused.transaction.id)
        assert await net.balance(B, theirs) == (100, 100)


async def test_a_key_never_answers_with_somebody_elses_result() -> None:
    """Pitfall 31: the same idempotency key on another account, or by another holder."""
    async with world(1) as net:
        mine, hers = await net.account(A, 100, which=0), await net.account(A, 100, which=1)
        done = await net.transfer(A, (A, mine, -10), (A, hers, 10), which=0, key="k")
        other = await net.transfer(A, (A, hers, -20), (A, mine, 20), which=1, key="k")
        assert other.transaction.id != done.transaction.id
        holder, bank = await net.person(A, 0), net.banks[A].bank
        with pytest.raises(KeyReused):
            await bank.ordering.order(
                holder,
                make_legs((A, mine, -1), (A, hers, 1)),
                None,
                KeyName(holder.holder_id, "transfers", "k", "x"),
                5,
            )


# What tests wait for ----------------------------------------------------------------------------------------------

WALL = 1_800_000_000_000


async def balance_is(net: World, code: str, number: str, posted: int) -> bool:
    return (await net.balance(code, number))[0] == posted
