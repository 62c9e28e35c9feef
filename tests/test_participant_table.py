"""The participant's table, cell by cell: each test's name is the claim that the cell makes (``protocol.md``).

Bank B is asked for a debit of 200 from Ana's account there, which she consented to.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from distribank.core import participant
from distribank.core.clock import CLOCK_BOUND_MS, stamp_at
from distribank.core.consents import Consent, ConsentUse
from distribank.core.heuristics import AccountDamage, Damage, Heuristic, Verdict
from distribank.core.ledger import Book, Entry, EntryKind, HoldState, Ledger
from distribank.core.money import MAX_BALANCE
from distribank.core.participant import TABLE, Event, Situation
from distribank.core.protocol import (
    MAX_VOTE_BY_AHEAD_MS,
    Acknowledged,
    Fate,
    Inquire,
    No,
    Outcome,
    RecordKind,
    Refused,
    State,
    Step,
    Transaction,
    Violation,
    Yes,
)
from distribank.core.refusals import Code, Refusal
from distribank.core.transfer import Counterparty, Direction
from tests.stories import (
    ANA_CPF,
    ANA_THERE,
    CAIO,
    CAIO_CPF,
    LEGS,
    THERE_BEFORE,
    THERE_HELD,
    TX,
    VOTE_BY,
    WALL,
    A,
    B,
    C,
    account,
    after,
    book_entries,
    changes_nothing,
    commit,
    committed,
    consent,
    entries,
    holds,
    ledger,
    leg,
    lines,
    now,
    participate,
    prepare,
    prepared,
    released,
    reservations,
    rows,
    stamp,
    tombstone,
    voting,
)

TOLD = {Event.TOLD_COMMITTED, Event.TOLD_ABORTED, Event.NOT_TOLD}
MESSAGES = {Event.PREPARE, Event.COMMIT, Event.ABORT, Event.INQUIRE}
DOCUMENTED = {
    State.NOTHING: MESSAGES | TOLD,
    State.PREPARED: MESSAGES | TOLD | {Event.RESTART, Event.RESOLVE},
    State.FORCED_COMMIT: MESSAGES | TOLD | {Event.RESTART, Event.RESOLVE},
    State.FORCED_ABORT: MESSAGES | TOLD | {Event.RESTART, Event.RESOLVE},
    State.COMMITTED: MESSAGES | TOLD | {Event.RESTART, Event.RESOLVE},
    State.ABORTED: MESSAGES | {Event.TOLD_ABORTED, Event.NOT_TOLD, Event.RESTART, Event.RESOLVE},
}
"""The cells of ``protocol.md`` and ``protocol-tables.md`` §4. W is the queued write, X the two forced, — absent."""

BECAUSE = Refusal(Code.INSUFFICIENT_FUNDS, "not enough", C, CAIO, 3)
YOUNG = VOTE_BY - MAX_VOTE_BY_AHEAD_MS - CLOCK_BOUND_MS
"""A log that reaches back to here, or less far, may have lost a vote on what expires at VOTE_BY."""


def refused(step: Step, known: Transaction | None, code: Violation) -> bool:
    """Refused as a breach of the protocol, with an alarm, and nothing changed."""
    said_so = isinstance(step.answer, Refused) and step.answer.code is code
    return said_so and step.alarm is not None and changes_nothing(step, known)


def no_of(step: Step) -> Refusal:
    assert isinstance(step.answer, No)
    return step.answer.because


def leaves_a_tombstone(step: Step) -> bool:
    left = step.transaction
    assert left is not None
    return (
        (left.state, left.order, left.id) == (State.ABORTED, None, TX)
        and step.changes == (left,)
        and lines(step) == [(RecordKind.RESOLVED, State.NOTHING, State.ABORTED)]
        and not step.messages
    )


# Completeness -----------------------------------------------------------------------------------------------------


def test_the_table_has_exactly_the_documented_cells() -> None:
    assert set(TABLE) == {(state, event) for state, events in DOCUMENTED.items() for event in events}


@pytest.mark.parametrize(
    ("state", "event"), sorted((s, e) for s, e in set(product(State, Event)) - set(TABLE) if s is not State.NOTHING)
)
def test_an_absent_cell_is_refused_with_an_alarm_and_changes_nothing(state: State, event: Event) -> None:
    known = replace(prepared(), state=state)
    step = participant.step(event, Situation(B, TX, known, now(), THERE_HELD))
    assert refused(step, known, Violation.INVALID_MESSAGE)
    assert step.alarm is not None
    assert f"{event} met a transaction that is {state}" in step.alarm


def test_a_restart_of_what_is_not_known_is_refused() -> None:
    assert refused(participate(None, Event.RESTART), None, Violation.INVALID_MESSAGE)


# Nothing known: prepare -------------------------------------------------------------------------------------------


def test_a_prepare_that_passes_every_check_holds_uses_the_consent_and_promises_in_one_forced_write() -> None:
    step = voting()
    known = step.transaction
    assert known is not None
    assert (known.state, known.prepared_at, known.vote_by) == (State.PREPARED, stamp(5), VOTE_BY)
    assert (known.digest, known.participants) == (prepare().digest, (B, C))
    assert known.consents == (ConsentUse("consent-1", 200),)
    assert known.order is not None
    assert (known.order.legs, known.order.holder_id, known.subjects) == (LEGS[1:2], "", (ANA_THERE,))
    assert lines(step) == [(RecordKind.PREPARED, State.NOTHING, State.PREPARED)]
    assert holds(step) == [(ANA_THERE, Direction.DEBIT, 200, HoldState.PLACED)]
    assert [c.used for c in rows(step, Consent)] == [200]
    assert (entries(step), reservations(step)) == ([], [])
    assert known in step.changes
    assert step.answer == Yes(stamp(5), (Counterparty(2, B, Direction.DEBIT, "Ana S***"),))
    assert step.forced
    assert step.alarm is None


def test_a_prepare_of_a_credit_needs_no_consent_and_reserves_what_the_coordinator_will_owe() -> None:
    asked = prepare([leg(3, C, CAIO, 500)])
    step = participate(None, Event.PREPARE, bank=C, prepare=asked, ledger=ledger(account(CAIO)), consents=())
    assert isinstance(step.answer, Yes)
    assert holds(step) == [(CAIO, Direction.CREDIT, 500, HoldState.PLACED)]
    assert reservations(step) == [(f"position:{A}", 500)]
    caio = after(ledger(account(CAIO)), step).accounts[CAIO]
    assert (caio.available, caio.incoming, caio.open_holds) == (0, 500, 1)


def test_a_prepare_past_its_vote_by_is_refused_and_leaves_a_tombstone() -> None:
    step = participate(None, Event.PREPARE, now=now(VOTE_BY - WALL + 1))
    assert no_of(step).code is Code.BANK_REFUSED
    assert leaves_a_tombstone(step)
    assert isinstance(participate(None, Event.PREPARE, now=now(VOTE_BY - WALL)).answer, Yes)


def test_a_prepare_past_its_vote_by_leaves_no_tombstone_where_a_yes_may_have_been_lost() -> None:
    """The tombstone would tell a bank in doubt *aborted*, though this bank's lost yes may have let it commit."""
    step = participate(None, Event.PREPARE, now=now(VOTE_BY - WALL + 1), reaches_back_to=YOUNG)
    assert no_of(step).bank == B
    assert changes_nothing(step, None)


def test_a_prepare_is_refused_without_a_tombstone_where_a_vote_may_have_been_lost() -> None:
    step = participate(None, Event.PREPARE, reaches_back_to=YOUNG)
    assert refused(step, None, Violation.LOG_TOO_YOUNG)
    assert isinstance(participate(None, Event.PREPARE, reaches_back_to=YOUNG - 1).answer, Yes)


def test_a_prepare_whose_clock_is_too_far_ahead_is_refused() -> None:
    bound = stamp_at(WALL + 5 + CLOCK_BOUND_MS)
    assert isinstance(participate(None, Event.PREPARE, sender_clock=bound).answer, Yes)
    step = participate(None, Event.PREPARE, sender_clock=bound + (1 << 16))
    assert refused(step, None, Violation.CLOCK_AHEAD)


def test_a_prepare_whose_vote_by_lies_too_far_ahead_is_refused() -> None:
    bound = WALL + 5 + MAX_VOTE_BY_AHEAD_MS
    assert isinstance(participate(None, Event.PREPARE, prepare=prepare(vote_by=bound)).answer, Yes)
    step = participate(None, Event.PREPARE, prepare=prepare(vote_by=bound + 1))
    assert refused(step, None, Violation.CLOCK_AHEAD)


DEBIT = leg(2, B, ANA_THERE, -200)
NOES: list[tuple[str, Code, dict[str, Any]]] = [
    ("not covered", Code.INSUFFICIENT_FUNDS, {"ledger": ledger(account(ANA_THERE, 199))}),
    ("no account", Code.ACCOUNT_NOT_FOUND, {"ledger": ledger()}),
    ("closed", Code.ACCOUNT_CLOSED, {"ledger": ledger(account(ANA_THERE, 1000, closed_at=WALL))}),
    ("no consent", Code.CONSENT_REQUIRED, {"consents": ()}),
    ("consent exceeded", Code.CONSENT_EXCEEDED, {"consents": (consent(max_per_transfer=199),)}),
    ("consent expired", Code.CONSENT_EXPIRED, {"consents": (consent(expires_at=WALL),)}),
    ("approval", Code.APPROVAL_REQUIRED, {"ledger": ledger(account(ANA_THERE, 1000, approval=2))}),
    ("not the holder", Code.CONSENT_REQUIRED, {"prepare": prepare(holder_cpf=CAIO_CPF)}),
    ("flow", Code.BANK_REFUSED, {"prepare": prepare(flow=-199)}),
    ("not asked to take part", Code.BANK_REFUSED, {"prepare": prepare(participants=(C,))}),
    ("asked by itself", Code.BANK_REFUSED, {"prepare": prepare(transaction=f"{B}.x.y")}),
    ("no legs", Code.BANK_REFUSED, {"prepare": prepare(())}),
    ("numbers twice", Code.BANK_REFUSED, {"prepare": prepare((DEBIT, DEBIT))}),
    ("too many legs", Code.BANK_REFUSED, {"prepare": prepare(leg(n, B, ANA_THERE, -1) for n in range(65))}),
    ("another bank's leg", Code.BANK_REFUSED, {"prepare": prepare((leg(3, C, CAIO, 500),))}),
    ("zero", Code.INVALID_AMOUNT, {"prepare": prepare((replace(DEBIT, amount=0),))}),
    ("negative", Code.INVALID_AMOUNT, {"prepare": prepare((replace(DEBIT, amount=-200),), flow=200)}),
    ("enormous", Code.INVALID_AMOUNT, {"prepare": prepare((replace(DEBIT, amount=10**15),))}),
]


@pytest.mark.parametrize(("code", "more"), [(c, m) for _, c, m in NOES], ids=[name for name, _, _ in NOES])
def test_a_prepare_that_fails_any_check_is_refused_holds_nothing_and_leaves_a_tombstone(
    code: Code, more: dict[str, Any]
) -> None:
    step = participate(None, Event.PREPARE, **more)
    assert (no_of(step).code, no_of(step).bank) == (code, B)
    assert leaves_a_tombstone(step)
    assert not step.forced
    assert step.alarm is None


def test_a_credit_that_lets_the_coordinator_owe_more_than_its_cap_is_refused() -> None:
    asked = prepare([leg(3, C, CAIO, 500)])
    owed = Book(f"position:{A}", balance=-300, reserved=200)
    situation = {"bank": C, "prepare": asked, "ledger": ledger(account(CAIO)), "position": owed}
    assert isinstance(participate(None, Event.PREPARE, cap=1000, **situation).answer, Yes)
    step = participate(None, Event.PREPARE, cap=999, **situation)
    assert no_of(step).code is Code.POSITION_LIMIT
    assert leaves_a_tombstone(step)


def test_a_debit_is_not_refused_by_a_cap_on_what_the_coordinator_may_owe() -> None:
    step = participate(None, Event.PREPARE, position=Book("", balance=-10), cap=0)
    assert isinstance(step.answer, Yes)


# Nothing known: the rest ------------------------------------------------------------------------------------------


def test_a_commit_of_what_is_not_known_is_refused_with_an_alarm_and_never_posted() -> None:
    """Pitfall 17: never post without a hold, never acknowledge."""
    assert refused(participate(None, Event.COMMIT), None, Violation.UNKNOWN_TRANSACTION)


def test_an_abort_before_its_prepare_leaves_a_tombstone() -> None:
    step = participate(None, Event.ABORT, because=BECAUSE)
    assert leaves_a_tombstone(step)
    assert step.transaction is not None
    assert step.transaction.because == BECAUSE
    assert step.answer == Acknowledged()
    assert not step.forced


def test_an_abort_of_what_may_have_been_voted_on_before_a_restore_is_ignored() -> None:
    step = participate(None, Event.ABORT, reaches_back_to=WALL - 1000)
    assert changes_nothing(step, None)
    assert step.answer == Acknowledged()
    assert leaves_a_tombstone(participate(None, Event.ABORT, reaches_back_to=WALL - 3_600_000))


def test_an_inquiry_about_what_is_not_known_is_answered_aborted_only_behind_a_forced_tombstone() -> None:
    step = participate(None, Event.INQUIRE, vote_by=VOTE_BY)
    assert leaves_a_tombstone(step)
    assert step.answer == Outcome(Fate.ABORTED)
    assert step.forced


def test_an_inquiry_about_what_may_have_been_voted_on_before_a_restore_is_answered_unknown() -> None:
    """Pitfall 17."""
    step = participate(None, Event.INQUIRE, vote_by=VOTE_BY, reaches_back_to=YOUNG)
    assert changes_nothing(step, None)
    assert step.answer == Outcome(Fate.UNKNOWN)
    assert leaves_a_tombstone(participate(None, Event.INQUIRE, vote_by=VOTE_BY, reaches_back_to=YOUNG - 1))


def test_an_inquiry_without_a_vote_by_is_never_promised_anything_after_a_restore() -> None:
    assert participate(None, Event.INQUIRE, reaches_back_to=1).answer == Outcome(Fate.UNKNOWN)


@pytest.mark.parametrize("event", sorted(TOLD))
def test_an_outcome_of_what_is_not_known_is_dropped(event: Event) -> None:
    step = participate(None, event, at=stamp(10))
    assert changes_nothing(step, None)
    assert (step.answer, step.alarm) == (None, None)


# PREPARED ---------------------------------------------------------------------------------------------------------


def test_the_same_prepare_again_gets_the_same_vote_and_holds_nothing_twice() -> None:
    """Pitfall 8. The vote waits for the flush: the first one may still be on its way to the disk."""
    step = participate(prepared(), Event.PREPARE, now=now(50))
    assert changes_nothing(step, prepared())
    assert step.answer == voting().answer
    assert step.forced


def test_the_same_prepare_again_gets_the_same_vote_even_past_its_vote_by() -> None:
    step = participate(prepared(), Event.PREPARE, now=now(VOTE_BY - WALL + 1))
    assert step.answer == voting().answer


@pytest.mark.parametrize("make", [prepared, committed, released])
def test_another_prepare_under_a_known_id_is_a_breakage_in_every_state(make: Any) -> None:
    step = participate(make(), Event.PREPARE, prepare=prepare(description="something else"))
    assert refused(step, make(), Violation.DIGEST_MISMATCH)


def test_a_commit_posts_the_entries_at_its_timestamp_and_is_acknowledged_once_durable() -> None:
    step = participate(prepared(), Event.COMMIT)
    known = step.transaction
    assert known is not None
    assert (known.state, known.commit_at, known.completed_at) == (State.COMMITTED, stamp(10), WALL + 5)
    assert lines(step) == [(RecordKind.RESOLVED, State.PREPARED, State.COMMITTED)]
    assert entries(step) == [(ANA_THERE, -200, stamp(10))]
    assert holds(step) == [(ANA_THERE, Direction.DEBIT, 200, HoldState.POSTED)]
    assert book_entries(step) == [(f"position:{A}", 200, stamp(10))]
    assert reservations(step) == []
    assert rows(step, Consent) == []
    assert known in step.changes
    assert step.answer == Acknowledged()
    assert step.forced
    there = after(THERE_HELD, step).accounts[ANA_THERE]
    assert (there.posted, there.held, there.open_holds) == (800, 0, 0)


def test_a_commit_of_a_credit_makes_it_spendable_and_gives_the_reservation_back() -> None:
    asked = prepare([leg(3, C, CAIO, 500)])
    before = ledger(account(CAIO))
    vote = participate(None, Event.PREPARE, bank=C, prepare=asked, ledger=before)
    held = after(before, vote)
    step = participate(vote.transaction, Event.COMMIT, bank=C, ledger=held, commit=commit(legs=asked.legs))
    assert entries(step) == [(CAIO, 500, stamp(10))]
    assert reservations(step) == [(f"position:{A}", -500)]
    assert book_entries(step) == [(f"position:{A}", -500, stamp(10))]
    assert after(held, step).accounts[CAIO].available == 500


def test_a_commit_brings_the_names_that_the_votes_told() -> None:
    parties = (Counterparty(3, C, Direction.CREDIT, "Caio L***"),)
    step = participate(prepared(), Event.COMMIT, commit=replace(commit(), counterparties=parties))
    assert step.transaction is not None
    assert step.transaction.counterparties == parties


def test_a_commit_stamped_past_vote_by_is_a_breakage() -> None:
    at = stamp_at(VOTE_BY + 1)
    assert refused(participate(prepared(), Event.COMMIT, commit=commit(at)), prepared(), Violation.STAMP_PAST_VOTE_BY)
    last = participate(prepared(), Event.COMMIT, commit=commit(at - 1))
    assert last.answer == Acknowledged()


def test_a_commit_stamped_before_this_banks_own_vote_is_a_breakage() -> None:
    step = participate(prepared(), Event.COMMIT, commit=commit(stamp(5) - 1))
    assert refused(step, prepared(), Violation.INVALID_MESSAGE)
    assert participate(prepared(), Event.COMMIT, commit=commit(stamp(5))).answer == Acknowledged()


def test_a_commit_is_not_refused_for_a_clock_ahead_of_local_time() -> None:
    step = participate(prepared(), Event.COMMIT, commit=commit(stamp_at(VOTE_BY)), now=now(0), sender_clock=2**62)
    assert step.answer == Acknowledged()


def test_a_commit_of_other_legs_than_were_prepared_is_a_breakage() -> None:
    other = (replace(DEBIT, amount=201),)
    step = participate(prepared(), Event.COMMIT, commit=commit(legs=other))
    assert refused(step, prepared(), Violation.DIGEST_MISMATCH)


def test_a_commit_or_abort_that_was_not_given_every_hold_is_a_bug_and_leaks_none() -> None:
    for event in (Event.COMMIT, Event.ABORT):
        with pytest.raises(AssertionError, match="holds on"):
            participate(prepared(), event, ledger=THERE_BEFORE)


def test_an_abort_releases_the_hold_and_gives_the_consent_back() -> None:
    step = participate(prepared(), Event.ABORT, because=BECAUSE)
    known = step.transaction
    assert known is not None
    assert (known.state, known.because) == (State.ABORTED, BECAUSE)
    assert lines(step) == [(RecordKind.RESOLVED, State.PREPARED, State.ABORTED)]
    assert holds(step) == [(ANA_THERE, Direction.DEBIT, 200, HoldState.RELEASED)]
    assert [c.used for c in rows(step, Consent)] == [0]
    assert (entries(step), book_entries(step)) == ([], [])
    assert step.answer == Acknowledged()
    assert not step.forced
    there = after(THERE_HELD, step).accounts[ANA_THERE]
    assert (there.posted, there.held, there.open_holds) == (1000, 0, 0)


def test_an_abort_gives_back_what_the_coordinator_would_have_owed() -> None:
    asked = prepare([leg(3, C, CAIO, 500)])
    before = ledger(account(CAIO))
    vote = participate(None, Event.PREPARE, bank=C, prepare=asked, ledger=before)
    step = participate(vote.transaction, Event.ABORT, bank=C, ledger=after(before, vote))
    assert reservations(step) == [(f"position:{A}", -500)]
    assert step.transaction is not None
    assert step.transaction.because is not None
    assert (step.transaction.because.code, step.transaction.because.bank) == (Code.INTERRUPTED, A)


def test_an_inquiry_about_what_is_in_doubt_here_is_answered_undecided() -> None:
    step = participate(prepared(), Event.INQUIRE, vote_by=VOTE_BY)
    assert changes_nothing(step, prepared())
    assert step.answer == Outcome(Fate.UNDECIDED)


def test_after_a_restart_a_participant_in_doubt_keeps_its_holds_and_asks_the_coordinator() -> None:
    """Pitfall 11: even long past every deadline."""
    step = participate(prepared(), Event.RESTART, now=now(86_400_000))
    assert step.transaction == prepared()
    assert step.messages == ((A, Inquire(TX, VOTE_BY)),)
    assert not any((step.records, step.changes, step.answer, step.alarm))


def test_an_inquiry_answered_committed_posts_like_a_commit() -> None:
    step = participate(prepared(), Event.TOLD_COMMITTED, at=stamp(10))
    assert entries(step) == [(ANA_THERE, -200, stamp(10))]
    assert book_entries(step) == [(f"position:{A}", 200, stamp(10))]
    assert step.transaction is not None
    assert (step.transaction.state, step.transaction.commit_at) == (State.COMMITTED, stamp(10))
    assert step.forced


@pytest.mark.parametrize("at", [0, stamp_at(VOTE_BY + 1)])
def test_an_inquiry_answered_committed_at_an_impossible_stamp_posts_nothing(at: int) -> None:
    step = participate(prepared(), Event.TOLD_COMMITTED, at=at)
    assert changes_nothing(step, prepared())
    assert step.alarm is not None


def test_an_inquiry_answered_aborted_releases_like_an_abort() -> None:
    step = participate(prepared(), Event.TOLD_ABORTED)
    assert holds(step) == [(ANA_THERE, Direction.DEBIT, 200, HoldState.RELEASED)]
    assert [c.used for c in rows(step, Consent)] == [0]
    assert step.transaction is not None
    assert step.transaction.state is State.ABORTED


def test_an_inquiry_not_answered_leaves_the_hold_where_it_is() -> None:
    """Pitfall 11: after a yes, time never releases a hold."""
    step = participate(prepared(), Event.NOT_TOLD, now=now(86_400_000))
    assert changes_nothing(step, prepared())
    assert (step.answer, step.alarm) == (None, None)


# COMMITTED --------------------------------------------------------------------------------------------------------


def test_a_prepare_after_the_commit_gets_the_same_yes_again() -> None:
    step = participate(committed(), Event.PREPARE)
    assert changes_nothing(step, committed())
    assert step.answer == voting().answer


def test_a_commit_again_is_acknowledged_again_and_posts_nothing_twice() -> None:
    """Pitfall 8. It waits for the flush: the first acknowledgement may not be durable yet."""
    step = participate(committed(), Event.COMMIT)
    assert changes_nothing(step, committed())
    assert step.answer == Acknowledged(already=True)
    assert step.forced
    assert step.alarm is None


@pytest.mark.parametrize("again", [commit(stamp(11)), commit(legs=(replace(DEBIT, amount=201),))])
def test_another_commit_of_what_is_posted_raises_an_alarm_and_posts_nothing(again: Any) -> None:
    step = participate(committed(), Event.COMMIT, commit=again)
    assert changes_nothing(step, committed())
    assert step.answer == Acknowledged(already=True)
    assert step.alarm is not None


def test_an_abort_after_the_commit_is_ignored_since_a_stale_one_may_legally_arrive() -> None:
    """Pitfall 9: legs that had committed are never undone."""
    step = participate(committed(), Event.ABORT)
    assert changes_nothing(step, committed())
    assert step.answer == Acknowledged(already=True)
    assert step.alarm is None


def test_an_inquiry_after_the_commit_is_answered_committed_with_its_timestamp() -> None:
    step = participate(committed(), Event.INQUIRE)
    assert changes_nothing(step, committed())
    assert step.answer == Outcome(Fate.COMMITTED, stamp(10))


@pytest.mark.parametrize("event", sorted(TOLD))
def test_an_answer_to_an_old_inquiry_after_the_commit_is_dropped(event: Event) -> None:
    step = participate(committed(), event, at=stamp(10))
    assert changes_nothing(step, committed())
    assert (step.answer, step.alarm) == (None, None)


@pytest.mark.parametrize("make", [committed, released, tombstone])
def test_what_is_resolved_stays_so_at_a_restart(make: Any) -> None:
    assert changes_nothing(participate(make(), Event.RESTART), make())


# ABORTED, or a tombstone ------------------------------------------------------------------------------------------


def test_a_late_prepare_after_an_abort_is_refused() -> None:
    """Pitfall 7."""
    for known in (tombstone(), released()):
        step = participate(known, Event.PREPARE)
        assert changes_nothing(step, known)
        assert known.because is not None
        assert no_of(step) == known.because.at(B)
        assert step.alarm is None


def test_a_prepare_refused_once_is_refused_again_for_the_same_reason() -> None:
    known = participate(None, Event.PREPARE, ledger=ledger(account(ANA_THERE, 199))).transaction
    step = participate(known, Event.PREPARE, ledger=ledger(account(ANA_THERE, 1000)))
    assert changes_nothing(step, known)
    assert no_of(step).code is Code.INSUFFICIENT_FUNDS


def test_an_abort_without_a_reason_still_gives_the_late_prepare_one() -> None:
    step = participate(replace(tombstone(), because=None), Event.PREPARE)
    assert no_of(step) == Refusal(Code.BANK_REFUSED, "already aborted", B)


def test_a_commit_after_an_abort_is_refused_with_an_alarm_and_never_posted() -> None:
    for known in (tombstone(), released()):
        assert refused(participate(known, Event.COMMIT), known, Violation.ALREADY_ABORTED)


def test_an_abort_again_is_ignored() -> None:
    step = participate(released(), Event.ABORT)
    assert changes_nothing(step, released())
    assert step.answer == Acknowledged(already=True)
    assert step.alarm is None


def test_an_inquiry_after_an_abort_is_answered_aborted_once_the_tombstone_is_durable() -> None:
    step = participate(tombstone(), Event.INQUIRE)
    assert changes_nothing(step, tombstone())
    assert step.answer == Outcome(Fate.ABORTED)
    assert step.forced


@pytest.mark.parametrize("event", [Event.TOLD_ABORTED, Event.NOT_TOLD])
def test_an_answer_to_an_old_inquiry_after_the_abort_is_dropped(event: Event) -> None:
    step = participate(released(), event)
    assert changes_nothing(step, released())
    assert (step.answer, step.alarm) == (None, None)


def test_an_inquiry_answered_committed_after_an_abort_raises_an_alarm_and_posts_nothing() -> None:
    step = participate(released(), Event.TOLD_COMMITTED, at=stamp(10))
    assert changes_nothing(step, released())
    assert step.alarm is not None


# What holds everywhere --------------------------------------------------------------------------------------------


def test_every_bank_posts_what_sums_to_zero() -> None:
    step = participate(prepared(), Event.COMMIT)
    assert sum(amount for _, amount, _ in entries(step)) + sum(amount for _, amount, _ in book_entries(step)) == 0


def test_debits_of_one_account_in_several_legs_are_one_hold_one_consent_use_and_an_entry_each() -> None:
    """Pitfall 2."""
    legs = (leg(2, B, ANA_THERE, -200), leg(4, B, ANA_THERE, -300), leg(5, B, ANA_THERE, 100))
    vote = participate(None, Event.PREPARE, prepare=prepare(legs))
    assert holds(vote) == [(ANA_THERE, Direction.DEBIT, 400, HoldState.PLACED)]
    assert [c.used for c in rows(vote, Consent)] == [500]
    step = participate(
        vote.transaction, Event.COMMIT, commit=commit(legs=legs), ledger=after(THERE_BEFORE, vote), now=now(20)
    )
    assert entries(step) == [
        (ANA_THERE, 100, stamp(10)),
        (ANA_THERE, -200, stamp(10)),
        (ANA_THERE, -300, stamp(10)),
    ]
    assert prepare().holder_cpf == ANA_CPF


def test_whoever_takes_part_is_the_coordinator_and_the_participants() -> None:
    assert (prepared().coordinator, prepared().banks) == (A, (A, B, C))


# Forced by an operator --------------------------------------------------------------------------------------------

SUSPENSE = "suspense"


def forcing(verdict: Verdict, **more: Any) -> Step:
    return participate(prepared(), Event.RESOLVE, verdict=verdict, reason="its disk is lost", **more)


def guess(verdict: Verdict) -> Heuristic:
    return Heuristic(TX, verdict, "its disk is lost", WALL + 5)


def forced(verdict: Verdict) -> Transaction:
    known = forcing(verdict).transaction
    assert known is not None
    return known


def forced_ledger(verdict: Verdict, **sums: Any) -> Ledger:
    """Ana's account behind the forced outcome, or as she has changed it since, and the resolved hold."""
    there = after(THERE_HELD, forcing(verdict))
    return Ledger({ANA_THERE: replace(there.accounts[ANA_THERE], **sums)}, there.holds)


def learn(verdict: Verdict, event: Event, **more: Any) -> Step:
    """The truth (or anything else) meets what an operator forced."""
    more.setdefault("ledger", forced_ledger(verdict))
    more.setdefault("consents", (consent(used=200),))
    more.setdefault("heuristic", guess(verdict))
    more.setdefault("at", stamp(10))
    return participate(forced(verdict), event, now=now(20), **more)


def damages(step: Step) -> Heuristic:
    (found,) = rows(step, Heuristic)
    assert isinstance(found, Heuristic)
    return found


VERDICTS = list(Verdict)
COMMITS = [Event.COMMIT, Event.TOLD_COMMITTED]
ABORTS = [Event.ABORT, Event.TOLD_ABORTED]


def test_a_forced_commit_posts_at_once_is_recorded_and_raises_an_alarm() -> None:
    step = forcing(Verdict.COMMIT)
    known = step.transaction
    assert known is not None
    assert (known.state, known.commit_at, known.decided_at) == (State.FORCED_COMMIT, None, None)
    assert lines(step) == [(RecordKind.RESOLVED, State.PREPARED, State.FORCED_COMMIT)]
    assert "its disk is lost" not in step.records[0].detail, "fellow banks read the log"
    assert entries(step) == [(ANA_THERE, -200, stamp(5))]
    assert holds(step) == [(ANA_THERE, Direction.DEBIT, 200, HoldState.POSTED)]
    assert book_entries(step) == [(f"position:{A}", 200, stamp(5))]
    assert rows(step, Consent) == []
    assert damages(step) == guess(Verdict.COMMIT)
    assert step.forced
    assert step.alarm is not None
    assert step.messages == ()


def test_a_forced_abort_releases_at_once_is_recorded_and_raises_an_alarm() -> None:
    step = forcing(Verdict.ABORT)
    known = step.transaction
    assert known is not None
    assert (known.state, known.because, known.decided_at) == (State.FORCED_ABORT, None, None)
    assert lines(step) == [(RecordKind.RESOLVED, State.PREPARED, State.FORCED_ABORT)]
    assert (entries(step), book_entries(step)) == ([], [])
    assert holds(step) == [(ANA_THERE, Direction.DEBIT, 200, HoldState.RELEASED)]
    assert rows(step, Consent) == []
    assert damages(step) == guess(Verdict.ABORT)
    assert step.forced
    assert step.alarm is not None


@pytest.mark.parametrize("make", [committed, released, lambda: forced(Verdict.COMMIT), lambda: forced(Verdict.ABORT)])
def test_nothing_but_a_vote_without_an_outcome_can_be_forced(make: Any) -> None:
    step = participate(make(), Event.RESOLVE, verdict=Verdict.COMMIT, reason="again")
    assert isinstance(step.answer, Refused)
    assert changes_nothing(step, make())
    assert step.alarm is None


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_guess_is_told_to_nobody(verdict: Verdict) -> None:
    step = learn(verdict, Event.INQUIRE)
    assert step.answer == Outcome(Fate.UNDECIDED)
    assert changes_nothing(step, forced(verdict))


@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_same_prepare_gets_the_same_vote_even_where_the_part_was_forced(verdict: Verdict) -> None:
    step = learn(verdict, Event.PREPARE)
    assert step.answer == voting().answer
    assert changes_nothing(step, forced(verdict))
    other = learn(verdict, Event.PREPARE, prepare=prepare(description="something else"))
    assert refused(other, forced(verdict), Violation.DIGEST_MISMATCH)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_forced_part_goes_on_inquiring_after_a_restart(verdict: Verdict) -> None:
    step = learn(verdict, Event.RESTART)
    assert step.messages == ((A, Inquire(TX, VOTE_BY)),)
    assert step.transaction == forced(verdict)
    assert step.changes == ()


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_forced_part_that_is_told_nothing_stays(verdict: Verdict) -> None:
    assert changes_nothing(learn(verdict, Event.NOT_TOLD), forced(verdict))


@pytest.mark.parametrize("event", COMMITS)
def test_a_forced_commit_that_was_right_is_acknowledged_and_nothing_is_posted_again(event: Event) -> None:
    step = learn(Verdict.COMMIT, event)
    known = step.transaction
    assert known is not None
    assert (known.state, known.commit_at, known.completed_at) == (State.COMMITTED, stamp(10), WALL + 20)
    assert lines(step) == [(RecordKind.RESOLVED, State.FORCED_COMMIT, State.COMMITTED)]
    assert set(step.changes) == {known, damages(step)}
    told = damages(step)
    assert (told.truth, told.truth_at, told.matched, told.damage) == (Verdict.COMMIT, WALL + 20, True, None)
    assert step.answer == Acknowledged()
    assert step.forced
    assert step.alarm is None


@pytest.mark.parametrize("event", ABORTS)
def test_a_forced_abort_that_was_right_is_settled_and_nothing_is_released_again(event: Event) -> None:
    step = learn(Verdict.ABORT, event, because=BECAUSE if event is Event.ABORT else None)
    known = step.transaction
    assert known is not None
    assert known.state is State.ABORTED
    assert known.because == (BECAUSE if event is Event.ABORT else known.because)
    assert set(step.changes) == {known, damages(step), consent(used=0)}
    assert damages(step).matched is True
    assert step.alarm is None


@pytest.mark.parametrize("event", ABORTS)
def test_a_forced_commit_that_was_wrong_is_taken_back_by_new_entries_in_one_write(event: Event) -> None:
    step = learn(Verdict.COMMIT, event)
    assert step.transaction is not None
    assert step.transaction.state is State.ABORTED
    assert lines(step) == [(RecordKind.RESOLVED, State.FORCED_COMMIT, State.ABORTED)]
    assert entries(step) == [(ANA_THERE, 200, stamp(20))]
    (entry,) = rows(step, Entry)
    assert (entry.kind, entry.operation, entry.leg) == (EntryKind.CORRECTION, f"{TX}.correction", 2)
    assert book_entries(step) == [(f"position:{A}", -200, stamp(20))]
    assert [c.used for c in rows(step, Consent)] == [0]
    told = damages(step)
    assert (told.truth, told.matched) == (Verdict.ABORT, False)
    assert told.damage == Damage((AccountDamage(ANA_THERE, Direction.CREDIT, 200, 200),), A, -200, 0)
    assert step.forced
    assert step.alarm is not None


@pytest.mark.parametrize("event", COMMITS)
def test_a_forced_abort_that_was_wrong_is_posted_after_all_and_acknowledged(event: Event) -> None:
    step = learn(Verdict.ABORT, event)
    known = step.transaction
    assert known is not None
    assert (known.state, known.commit_at) == (State.COMMITTED, stamp(10))
    assert entries(step) == [(ANA_THERE, -200, stamp(20))]
    assert book_entries(step) == [(f"position:{A}", 200, stamp(20))]
    assert rows(step, Consent) == []
    assert damages(step).damage == Damage((AccountDamage(ANA_THERE, Direction.DEBIT, 200, 200),), A, 200, 0)
    assert step.answer == Acknowledged()
    assert step.alarm is not None


def test_a_correction_debits_what_is_available_and_the_rest_goes_to_suspense() -> None:
    spent = forced_ledger(Verdict.ABORT, posted=150, held=20)
    step = learn(Verdict.ABORT, Event.COMMIT, ledger=spent)
    assert entries(step) == [(ANA_THERE, -130, stamp(20))]
    assert book_entries(step) == [(f"position:{A}", 200, stamp(20)), (SUSPENSE, -70, stamp(20))]
    assert damages(step).damage == Damage((AccountDamage(ANA_THERE, Direction.DEBIT, 200, 130),), A, 200, -70)


def test_a_correction_of_an_empty_account_posts_no_entry_of_nothing() -> None:
    step = learn(Verdict.ABORT, Event.COMMIT, ledger=forced_ledger(Verdict.ABORT, posted=0))
    assert entries(step) == []
    assert book_entries(step) == [(f"position:{A}", 200, stamp(20)), (SUSPENSE, -200, stamp(20))]


@pytest.mark.parametrize(("verdict", "event"), [(Verdict.COMMIT, Event.ABORT), (Verdict.ABORT, Event.COMMIT)])
def test_a_closed_account_is_not_corrected_its_part_goes_to_suspense(verdict: Verdict, event: Event) -> None:
    closed = forced_ledger(verdict, posted=0, closed_at=WALL + 15)
    step = learn(verdict, event, ledger=closed)
    owed = 200 if verdict is Verdict.COMMIT else -200
    assert entries(step) == []
    assert book_entries(step) == [(f"position:{A}", -owed, stamp(20)), (SUSPENSE, owed, stamp(20))]


def test_an_account_that_is_full_takes_what_it_may_hold_and_the_rest_waits_in_suspense() -> None:
    """A pending credit counts: its hold promises that it can be posted."""
    full = forced_ledger(Verdict.COMMIT, posted=MAX_BALANCE - 80, incoming=50)
    step = learn(Verdict.COMMIT, Event.ABORT, ledger=full)
    assert entries(step) == [(ANA_THERE, 30, stamp(20))]
    assert book_entries(step) == [(f"position:{A}", -200, stamp(20)), (SUSPENSE, 170, stamp(20))]


def test_legs_that_cancel_out_on_an_account_need_no_correction() -> None:
    legs = (leg(2, B, ANA_THERE, -200), leg(4, B, ANA_THERE, 200))
    before = ledger(account(ANA_THERE, 1000))
    vote = participate(None, Event.PREPARE, prepare=prepare(legs), ledger=before)
    force = participate(vote.transaction, Event.RESOLVE, verdict=Verdict.COMMIT, reason="x", ledger=after(before, vote))
    there = after(after(before, vote), force)
    step = participate(force.transaction, Event.ABORT, ledger=there, heuristic=guess(Verdict.COMMIT), now=now(20))
    assert (entries(step), book_entries(step)) == ([], [])
    assert damages(step).damage == Damage((), A, 0, 0)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_commit_that_cannot_be_the_promised_one_is_refused_where_the_part_was_forced_too(verdict: Verdict) -> None:
    known = forced(verdict)
    late = learn(verdict, Event.COMMIT, commit=commit(stamp(VOTE_BY - WALL + 1)))
    assert refused(late, known, Violation.STAMP_PAST_VOTE_BY)
    early = learn(verdict, Event.COMMIT, commit=commit(stamp(4)))
    assert refused(early, known, Violation.INVALID_MESSAGE)
    other = learn(verdict, Event.COMMIT, commit=commit(legs=[leg(2, B, ANA_THERE, -199)]))
    assert refused(other, known, Violation.DIGEST_MISMATCH)
    assert refused(learn(verdict, Event.TOLD_COMMITTED, at=stamp(4)), known, Violation.INVALID_MESSAGE)
