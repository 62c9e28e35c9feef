"""A bank that is restored from a backup: what its peers had decided is posted once, what it had itself is settled.

Banks in one process, over stores in memory; ``tests/test_restoring.py`` does the same to real ones.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from distribank.core.heuristics import Verdict
from distribank.core.ledger import Account, Book, Entry
from distribank.core.protocol import Commit, Decisions, Inquire, Message, Prepare, ShowDecisions, State, Transaction
from distribank.core.refusals import Code, Refusal
from distribank.core.restoration import Lost, PartFate, Restoration, Supplied
from distribank.core.snapshot import FindingCode
from distribank.core.transfer import Direction
from tests.restores import backup, put_back, restored
from tests.weather import losing
from tests.world import World, world

A, B, C = "99990001", "99990002", "99990003"


async def entries(net: World, code: str, transaction: str) -> list[tuple[str, int, int]]:
    """(account, signed amount, stamp) of what is posted of a transaction."""
    await net.stores[code].flushed()
    rows: list[Entry] = list(net.stores[code].disk.rows[Entry].values())
    return [
        (row.account, row.amount if row.direction is Direction.CREDIT else -row.amount, row.stamp)
        for row in rows
        if row.operation == transaction
    ]


async def in_suspense(net: World, code: str) -> int:
    book = await net.stores[code].get(Book, "suspense")
    return book.balance if book is not None else 0


async def differences(net: World, at: str) -> dict[tuple[str | None, str | None], str]:
    """What the audit finds to differ, by pair of banks; and, under no pair, what else it finds."""
    audit = await net.banks[at].bank.auditing.audit()
    for finding in audit.findings:
        assert finding.code in (FindingCode.POSITIONS_DIFFER, FindingCode.MONEY_DIFFERS), finding
    return {(finding.bank, finding.peer): finding.detail for finding in audit.findings}


async def holds(net: World) -> None:
    """The audit finds nothing, and the books agree."""
    assert await differences(net, A) == {}
    await net.check_books()


async def settle(
    net: World, code: str, transaction: str, *legs: tuple[str, Direction, int], reason: str = "her receipt"
) -> Any:
    return await net.banks[code].bank.restoring.settle(transaction, reason, legs)


async def test_a_bank_that_was_never_restored_has_nothing_to_ask() -> None:
    async with world(2) as net:
        restoring = net.banks[A].bank.restoring
        assert (restoring.present, restoring.awaited, restoring.can_tell) == (None, set(), True)
        assert await restoring.listed(10) == []
        assert not restoring.is_due(1e9)
        assert net.sent["ShowDecisions"] == 0


async def test_what_a_peer_had_decided_is_posted_once_at_its_own_stamp() -> None:
    async with world(3) as net:
        mine, theirs = await net.account(A, 100_00), await net.account(B, 50_00)
        await net.consent(B, theirs, A)
        taken = await backup(net, B)
        paid = (await net.transfer(A, (A, mine, -5_00), (B, theirs, 5_00))).transaction
        drawn = (await net.transfer(A, (B, theirs, -7_00), (A, mine, 7_00))).transaction
        assert paid.commit_at is not None
        bank = (await restored(net, B, taken)).bank
        assert await net.balance(B, theirs) == (48_00, 48_00)
        assert await entries(net, B, paid.id) == [(theirs, 5_00, paid.commit_at)]
        assert await entries(net, B, drawn.id) == [(theirs, -7_00, drawn.commit_at)]
        present = bank.restoring.present
        assert present is not None
        assert present.resupplied == 2
        assert {told.bank: told.resupplied for told in present.told} == {A: 2, C: 0}
        known = await net.state(B, paid.id)
        assert known is not None
        assert (known.state, known.order and known.order.end_to_end_id) == (
            State.COMMITTED,
            paid.order and paid.order.end_to_end_id,
        )
        await holds(net)
        asked = net.sent["ShowDecisions"]
        await net.crash(B)
        await net.start(B)
        assert net.sent["ShowDecisions"] == asked, "who has told is not asked again"
        await holds(net)


async def test_a_prepare_or_commit_that_comes_again_finds_what_was_posted_anew() -> None:
    async with world(2) as net:
        mine, theirs = await net.account(A, 100_00), await net.account(B)
        taken, kept = await backup(net, B), []

        async def keep(_sender: str, _to: str, message: Message) -> str:
            if isinstance(message, Prepare | Commit):
                kept.append(message)
            return "deliver"

        net.weather = keep
        await net.transfer(A, (A, mine, -5_00), (B, theirs, 5_00))
        bank = (await restored(net, B, taken)).bank
        alarms = bank.metrics.alarms._value.get()
        for message in kept:
            await bank.participating.receive(A, net.banks[A].bank.rhythm.stamp(), [message])
        assert bank.metrics.alarms._value.get() == alarms
        assert await net.balance(B, theirs) == (5_00, 5_00)


async def test_money_that_came_in_is_there_before_it_goes_out_again_whoever_tells_first() -> None:
    async with world(3) as net:
        at_a, at_b, at_c = await net.account(A), await net.account(B), await net.account(C, 100_00)
        await net.consent(B, at_b, A)
        taken = await backup(net, B)
        await net.transfer(C, (C, at_c, -9_00), (B, at_b, 9_00))
        await net.transfer(A, (B, at_b, -9_00), (A, at_a, 9_00))
        await restored(net, B, taken)
        assert await in_suspense(net, B) == 0
        assert await net.balance(B, at_b) == (0, 0)
        await holds(net)


async def test_what_no_account_can_take_goes_to_suspense_and_can_be_assigned() -> None:
    async with world(2) as net:
        mine, theirs = await net.account(A, 100_00), await net.account(B, 10_00)
        await net.consent(B, theirs, A)
        taken = await backup(net, B)
        opened = await net.account(B, which=1)  # lost with the database
        await net.cash(B, theirs, 5_00)  # and so is this
        to_nobody = (await net.transfer(A, (A, mine, -3_00), (B, opened, 3_00))).transaction
        too_much = (await net.transfer(A, (B, theirs, -14_00), (A, mine, 14_00))).transaction
        bank = (await restored(net, B, taken)).bank
        assert await net.stores[B].get(Account, opened) is None
        assert await net.balance(B, theirs) == (0, 0)
        assert await in_suspense(net, B) == 3_00 - 4_00
        await holds(net)
        book = await bank.assigning.suspense(10)
        assert (book.open.owing, book.open.owed) == (3_00, 4_00)
        assert {movement.transaction for movement in book.movements} == {to_nobody.id, too_much.id}
        done = await bank.assigning.assign(Direction.CREDIT, 3_00, theirs, "the same person", to_nobody.id, "k", "f")
        assert done.assignment is not None
        assert await net.balance(B, theirs) == (3_00, 3_00)
        again = await net.account(B, which=1)
        assert again != opened, "a number that somebody may have had is not given again"
        await holds(net)


async def test_nobody_is_debited_on_a_coordinators_word_alone() -> None:
    """Pitfall 28, where a vote is lost: the consent is in the backup, or the debit waits in suspense."""
    async with world(2) as net:
        mine, theirs = await net.account(A, 100_00), await net.account(B, 50_00)
        taken = await backup(net, B)
        await net.consent(B, theirs, A)
        await net.transfer(A, (B, theirs, -7_00), (A, mine, 7_00))
        await restored(net, B, taken)
        assert await net.balance(B, theirs) == (50_00, 50_00)
        assert await in_suspense(net, B) == -7_00
        await holds(net)


async def test_a_consent_that_was_used_stays_used() -> None:
    async with world(2) as net:
        mine, theirs = await net.account(A, 100_00), await net.account(B, 50_00)
        consent = await net.consent(B, theirs, A, total=10_00)
        taken = await backup(net, B)
        await net.transfer(A, (B, theirs, -7_00), (A, mine, 7_00))
        bank = (await restored(net, B, taken)).bank
        holder = await net.person(B)
        (given,) = await bank.custody.consents_of(holder.holder_id, 10)
        assert (given.consent_id, given.used) == (consent, 7_00)
        assert await net.balance(B, theirs) == (43_00, 43_00)


async def test_what_the_bank_itself_had_decided_is_listed_and_settled_once() -> None:
    async with world(3) as net:
        at_a, at_b, at_c = await net.account(A), await net.account(B, 50_00), await net.account(C)
        taken = await backup(net, B)
        lost = (await net.transfer(B, (B, at_b, -5_00), (A, at_a, 2_00), (C, at_c, 3_00))).transaction
        await net.settle(lost.id)
        bank = (await restored(net, B, taken)).bank
        assert await net.balance(B, at_b) == (50_00, 50_00)
        (item,) = await bank.restoring.listed(10)
        assert (item.lost.transaction, item.lost.fate, item.known) == (lost.id, PartFate.COMMITTED, None)
        assert {part.bank: part.flow for part in item.lost.parts} == {A: 2_00, C: 3_00}
        assert {part.at for part in item.lost.parts} == {lost.commit_at}
        assert await differences(net, C) == {
            (A, B): f"{A} says that it owes {B} -2.00, which says 0.00",
            (B, C): f"{B} says that it owes {C} 0.00, which says 3.00",
            (None, None): "customers and suspense have 55.00, cash paid in less paid out is 50.00",
        }
        settled = await settle(net, B, lost.id, (at_b, Direction.DEBIT, 5_00))
        assert settled.supplied is not None
        assert (settled.supplied.reason, settled.supplied.suspense) == ("her receipt", 0)
        assert await entries(net, B, lost.id) == [(at_b, -5_00, lost.commit_at)]
        await holds(net)
        again = await settle(net, B, lost.id, reason="again")
        assert again.supplied == settled.supplied
        await net.until(lambda: _is(net, B, lost.id, State.ENDED))
        await holds(net)
        await net.crash(B)
        await net.start(B)
        await holds(net)


async def _is(net: World, code: str, transaction: str, state: State) -> bool:
    known = await net.state(code, transaction)
    return known is not None and known.state is state


async def test_what_nobody_is_named_for_is_settled_against_suspense() -> None:
    async with world(2) as net:
        at_a, at_b = await net.account(A, 20_00), await net.account(B, 50_00)
        await net.consent(A, at_a, B)
        taken = await backup(net, B)
        out = (await net.transfer(B, (B, at_b, -5_00), (A, at_a, 5_00))).transaction
        into = (await net.transfer(B, (A, at_a, -8_00), (B, at_b, 8_00))).transaction
        bank = (await restored(net, B, taken)).bank
        await settle(net, B, out.id, (at_b, Direction.DEBIT, 2_00))
        assert await in_suspense(net, B) == -3_00
        await settle(net, B, into.id)
        assert await in_suspense(net, B) == 5_00
        await holds(net)
        for direction, amount, which in ((Direction.DEBIT, 3_00, out), (Direction.CREDIT, 8_00, into)):
            done = await bank.assigning.assign(direction, amount, at_b, "found it", which.id, str(amount), "f")
            assert done.assignment is not None
        assert await in_suspense(net, B) == 0
        assert await net.balance(B, at_b) == (53_00, 53_00)
        await holds(net)


async def test_what_is_only_prepared_elsewhere_is_in_doubt_there_and_not_settled_here() -> None:
    async with world(3) as net:
        at_a, at_b, at_c = await net.account(A), await net.account(B, 50_00), await net.account(C)
        taken = await backup(net, B)
        net.weather = losing(Commit, "lose request")
        ordered = await net.transfer(B, (B, at_b, -5_00), (A, at_a, 2_00), (C, at_c, 3_00), wait=0.2)
        lost = ordered.transaction
        await net.crash(B)
        net.calm()
        put_back(net, B, taken)
        bank = (await net.start(B)).bank
        (item,) = await bank.restoring.listed(10)
        assert (item.lost.fate, {part.fate for part in item.lost.parts}) == (PartFate.PREPARED, {PartFate.PREPARED})
        refused = await settle(net, B, lost.id)
        assert isinstance(refused, Refusal)
        assert refused.code is Code.NOT_SETTLEABLE
        audit = await net.banks[A].bank.auditing.audit()
        assert {doubt.bank for doubt in audit.doubts} == {A, C}
        # C's operator goes by a receipt; a guess, for which B's word, that it was committed, would be the truth.
        await net.banks[C].bank.participating.force(lost.id, Verdict.ABORT, "nobody knows")
        assert await _is(net, C, lost.id, State.FORCED_ABORT)
        await bank.restoring.look()
        (item,) = await bank.restoring.listed(10)
        assert item.lost.fate is PartFate.PREPARED, "a guess does not spread"


async def test_a_participant_that_hears_of_it_elsewhere_is_asked_again() -> None:
    """C was not reached by the commit and not there to tell; A was: both are told by the settlement."""
    async with world(3) as net:
        at_a, at_b, at_c = await net.account(A), await net.account(B, 50_00), await net.account(C)
        taken = await backup(net, B)
        net.weather = losing(Commit, "lose request", to=C)
        lost = (await net.transfer(B, (B, at_b, -5_00), (A, at_a, 2_00), (C, at_c, 3_00))).transaction
        net.weather = losing(Inquire, "lose request")
        await net.crash(B)
        put_back(net, B, taken, without=[C])
        net.weather = losing(ShowDecisions, "lose request", to=C)
        bank = (await net.start(B)).bank
        refused = await settle(net, B, lost.id)
        assert isinstance(refused, Refusal)
        assert refused.detail.startswith(f"{C} has not told yet")
        net.calm()
        await bank.restoring.look()
        (item,) = await bank.restoring.listed(10)
        assert {part.bank: part.fate for part in item.lost.parts} == {A: PartFate.COMMITTED, C: PartFate.PREPARED}
        settled = await settle(net, B, lost.id, (at_b, Direction.DEBIT, 5_00))
        assert settled.known is not None
        await net.until(lambda: _is(net, C, lost.id, State.COMMITTED))
        await net.until(lambda: _is(net, B, lost.id, State.ENDED))
        await holds(net)


async def test_the_bank_waits_for_every_peer_but_those_it_need_not() -> None:
    async with world(3) as net:
        mine, theirs, at_b = await net.account(A, 100_00), await net.account(C, 100_00), await net.account(B)
        taken = await backup(net, B)
        await net.transfer(A, (A, mine, -5_00), (B, at_b, 5_00))
        await net.transfer(C, (C, theirs, -6_00), (B, at_b, 6_00))
        await net.crash(B)
        put_back(net, B, taken)
        net.weather = losing(ShowDecisions, "lose request", to=C)
        starting = asyncio.ensure_future(net.start(B))
        await net.until(lambda: B in net.banks and net.banks[B].bank.restoring.awaited == {C})
        bank = net.banks[B].bank
        assert not bank.ready
        assert await net.stores[B].get(Transaction, "x") is None
        starting.cancel()
        await net.crash(B)

        put_back(net, B, taken, without=[C])
        bank = (await net.start(B)).bank
        assert bank.ready
        assert await net.balance(B, at_b) == (5_00, 5_00)
        present = bank.restoring.present
        assert present is not None
        assert [told.bank for told in present.told] == [A]
        assert set(await differences(net, A)) == {(B, C), (None, None)}
        net.calm()
        await bank.restoring.look()
        assert await net.balance(B, at_b) == (11_00, 11_00)
        await holds(net)


async def test_two_banks_that_are_restored_at_once_tell_each_other() -> None:
    async with world(3) as net:
        at_a, at_b = await net.account(A, 100_00), await net.account(B, 100_00)
        of_a, of_b = await backup(net, A), await backup(net, B)
        lost = (await net.transfer(A, (A, at_a, -5_00), (B, at_b, 5_00))).transaction
        await net.crash(A)
        await net.crash(B)
        put_back(net, A, of_a)
        await net.start(C) if C not in net.banks else None
        starting = asyncio.ensure_future(net.start(A))
        await asyncio.sleep(0.01)
        put_back(net, B, of_b)
        await net.start(B)
        await starting
        assert net.banks[A].bank.ready
        assert net.banks[B].bank.ready
        assert await net.state(A, lost.id) is None
        await holds(net)  # both have lost it: nobody remembers, and nothing differs


async def test_a_vote_that_was_lost_is_carried_out_when_its_commit_comes_later() -> None:
    async with world(2) as net:
        mine, theirs = await net.account(A, 100_00), await net.account(B, 50_00)
        await net.consent(B, theirs, A)
        taken = await backup(net, B)
        voted = asyncio.Event()

        async def hold_votes(_sender: str, _to: str, message: Message) -> str:
            if isinstance(message, Commit | ShowDecisions):
                await voted.wait()
            return "deliver"

        net.weather = hold_votes
        ordered = await net.transfer(A, (B, theirs, -7_00), (A, mine, 7_00), wait=0.2)
        await net.crash(B)
        put_back(net, B, taken, without=[A])
        bank = (await net.start(B)).bank  # A is not asked before its commit arrives
        voted.set()
        net.calm()
        await net.until(lambda: _is(net, A, ordered.transaction.id, State.ENDED))
        assert await net.balance(B, theirs) == (43_00, 43_00)
        known = await net.state(B, ordered.transaction.id)
        assert known is not None
        assert (known.state, known.participants) == (State.COMMITTED, (B,))
        assert bank.metrics.alarms._value.get() == 1
        assert bank.restoring.is_due(0.0), "it is asked for what the commit alone did not tell"
        await bank.restoring.look()
        known = await net.state(B, ordered.transaction.id)
        assert known is not None
        assert known.order is not None
        assert ordered.transaction.order is not None
        assert known.order.end_to_end_id == ordered.transaction.order.end_to_end_id
        assert known.subjects == (theirs,)
        await holds(net)


async def test_a_commit_that_cannot_have_been_voted_on_before_the_restore_is_refused() -> None:
    async with world(2) as net:
        mine, theirs = await net.account(A, 100_00), await net.account(B)
        taken = await backup(net, B)
        bank = (await restored(net, B, taken)).bank
        done = (await net.transfer(A, (A, mine, -1_00), (A, await net.account(A), 1_00))).transaction
        present = bank.restoring.present
        assert present is not None
        late = (present.restored_at + 400_000) << 16
        assert done.order is not None
        leg = done.order.legs[1]
        forged = Commit(f"{A}.{'a' * 32}.{'b' * 32}", late, (type(leg)(1, B, theirs, Direction.CREDIT, 5),))
        (answer,) = await bank.participating.receive(A, 0, [forged])
        assert "no vote" in getattr(answer, "detail", "")
        assert await net.balance(B, theirs) == (0, 0)


async def test_a_bank_that_dies_in_the_middle_posts_each_of_them_once_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("distribank.bank.restoring.AT_ONCE", 2)
    async with world(2) as net:
        mine, theirs = await net.account(A, 100_00), await net.account(B)
        taken = await backup(net, B)
        paid = [(await net.transfer(A, (A, mine, -1_00), (B, theirs, 1_00))).transaction for _ in range(7)]
        await net.crash(B)
        put_back(net, B, taken)
        flushes = 0

        def gate() -> asyncio.Future[None]:
            nonlocal flushes
            flushes += 1
            return asyncio.ensure_future(asyncio.sleep(0 if flushes < 2 else 3600))

        net.stores[B].flush_gate = gate
        starting = asyncio.ensure_future(net.start(B))
        await net.until(lambda: len(net.stores[B].disk.rows[Supplied]) > 0)
        assert not net.banks[B].bank.ready
        await net.crash(B)
        starting.cancel()
        posted = len(net.stores[B].disk.rows[Supplied])
        assert 0 < posted < 7
        bank = (await net.start(B)).bank
        for transaction in paid:
            assert await entries(net, B, transaction.id) == [(theirs, 1_00, transaction.commit_at)]
        present = bank.restoring.present
        assert present is not None
        assert present.resupplied == 7
        await holds(net)


async def test_what_takes_several_answers_is_asked_for_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page holds three, and a bank reads two of its own for one answer: most of what A has is no business of B's."""
    monkeypatch.setattr("distribank.bank.restoring.MAX_DECISIONS", 3)
    monkeypatch.setattr("distribank.bank.restoring.LOOKS", 2)
    async with world(2) as net:
        mine, other, theirs = await net.account(A, 100_00), await net.account(A), await net.account(B)
        taken = await backup(net, B)
        for n in range(12):
            to = (B, theirs, 1_00) if n % 4 == 0 else (A, other, 1_00)
            await net.transfer(A, (A, mine, -1_00), to)
        await restored(net, B, taken)
        assert net.sent["ShowDecisions"] > 2
        assert await net.balance(B, theirs) == (3_00, 3_00)
        await holds(net)


async def test_a_bank_that_tells_the_same_again_and_again_counts_as_silent() -> None:
    async with world(2) as net:
        await net.account(B)
        taken = await backup(net, B)
        await net.crash(B)
        put_back(net, B, taken, without=[A])
        for_ever = Decisions((), (7, f"{A}.x"))
        net.banks[A].bank.restoring.tell = lambda _asker, _question: asyncio.sleep(0, for_ever)  # type: ignore[assignment,method-assign,misc]
        bank = (await net.start(B)).bank
        await bank.restoring.look()
        assert net.sent["ShowDecisions"] >= 2
        present = bank.restoring.present
        assert present is not None
        assert not present.has_told(A)


async def test_what_is_prepared_in_the_backup_goes_the_ordinary_way() -> None:
    async with world(2) as net:
        mine, theirs = await net.account(A, 100_00), await net.account(B)
        net.weather = losing(Commit, "lose request")
        ordered = await net.transfer(A, (A, mine, -5_00), (B, theirs, 5_00), wait=0.1)
        taken = await backup(net, B)
        net.calm()
        await net.settle(ordered.transaction.id)
        await restored(net, B, taken)
        await net.settle(ordered.transaction.id)
        assert await net.balance(B, theirs) == (5_00, 5_00)
        assert await net.stores[B].get(Supplied, ordered.transaction.id) is None
        await holds(net)


async def test_an_aborted_transfer_is_listed_and_asks_for_nothing() -> None:
    async with world(2) as net:
        at_b = await net.account(B, 50_00)
        taken = await backup(net, B)
        refused = (await net.transfer(B, (B, at_b, -5_00), (A, "00000099-0", 5_00))).transaction
        assert refused.state is State.ABORTED
        bank = (await restored(net, B, taken)).bank
        (item,) = await bank.restoring.listed(10)
        assert item.lost.fate is PartFate.ABORTED
        assert item.lost.participants == ()
        assert isinstance(await settle(net, B, refused.id), Refusal)
        await holds(net)


async def test_a_restore_behind_a_restore_knows_of_both() -> None:
    async with world(2) as net:
        mine, theirs = await net.account(A, 100_00), await net.account(B)
        taken = await backup(net, B)
        await net.transfer(A, (A, mine, -5_00), (B, theirs, 5_00))
        await restored(net, B, taken)
        second = await backup(net, B)
        net.clock.now += 600_000
        await net.transfer(A, (A, mine, -6_00), (B, theirs, 6_00))
        bank = (await restored(net, B, second)).bank
        assert len(net.stores[B].disk.rows[Restoration]) == 2
        present = bank.restoring.present
        assert present is not None
        assert present.resupplied == 1
        assert await net.balance(B, theirs) == (11_00, 11_00)
        await holds(net)


async def test_what_a_bank_tells_is_not_believed_beyond_its_own_business() -> None:
    async with world(3) as net:
        mine, theirs = await net.account(A, 100_00), await net.account(B)
        taken = await backup(net, B)
        paid = (await net.transfer(A, (A, mine, -5_00), (B, theirs, 5_00))).transaction
        told = await net.banks[A].bank.restoring.tell(B, ShowDecisions(0))
        net.banks[C].bank.restoring.tell = lambda _asker, _question: asyncio.sleep(0, told)  # type: ignore[assignment,method-assign,misc]
        bank = (await restored(net, B, taken)).bank
        assert bank.metrics.alarms._value.get() == 1
        present = bank.restoring.present
        assert present is not None
        assert {each.bank: each.resupplied for each in present.told} == {A: 1, C: 0}
        assert await entries(net, B, paid.id) == [(theirs, 5_00, paid.commit_at)]
        assert await net.stores[B].get(Lost, paid.id) is None


async def test_a_request_asks_for_decisions_once() -> None:
    async with world(2) as net:
        answers = await net.banks[A].bank.participating.receive(B, 0, [ShowDecisions(0)] * 2)
        assert [type(answer).__name__ for answer in answers] == ["Refused"] * 2
