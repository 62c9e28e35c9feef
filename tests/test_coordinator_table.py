"""The coordinator's table, cell by cell: each test's name is the claim that the cell makes (``protocol.md``)."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from distribank.core import coordinator
from distribank.core.clock import CLOCK_BOUND_MS, stamp_at
from distribank.core.coordinator import TABLE, Event, commit_for, prepare_for, state_of, unacknowledged
from distribank.core.ledger import Book, HoldState
from distribank.core.money import MAX_BALANCE
from distribank.core.protocol import (
    Abort,
    Commit,
    Fate,
    Inquire,
    No,
    Outcome,
    Prepare,
    RecordKind,
    State,
    Transaction,
    Vote,
    Voted,
)
from distribank.core.refusals import Code, Refusal
from distribank.core.transfer import Counterparty, Direction
from tests.stories import (
    ANA_HERE,
    ANA_THERE,
    CAIO,
    INCARNATION,
    LEGS,
    OTHER_INCARNATION,
    OWN_BEFORE,
    OWN_HELD,
    TX,
    VOTE_BY,
    WALL,
    A,
    B,
    C,
    aborted,
    account,
    after,
    begin,
    book_entries,
    changes_nothing,
    committing,
    coordinate,
    deciding,
    ended,
    entries,
    half_voted,
    holds,
    ledger,
    leg,
    lines,
    no,
    now,
    own_legs,
    preparing,
    reservations,
    rows,
    stamp,
    yes,
)

DOCUMENTED = {
    State.PREPARING: {Event.YES, Event.NO, Event.DEADLINE, Event.INQUIRE, Event.RESTART},
    State.DECIDING: {Event.YES, Event.DEADLINE, Event.INQUIRE},
    State.COMMITTING: {Event.YES, Event.DEADLINE, Event.ACKNOWLEDGE, Event.MISSING, Event.INQUIRE, Event.RESTART},
    State.ABORTED: {Event.YES, Event.NO, Event.DEADLINE, Event.INQUIRE, Event.RESTART},
    State.ENDED: {
        Event.YES,
        Event.NO,
        Event.DEADLINE,
        Event.ACKNOWLEDGE,
        Event.MISSING,
        Event.INQUIRE,
        Event.RESTART,
    },
    State.NOTHING: {Event.YES, Event.NO, Event.ACKNOWLEDGE, Event.INQUIRE},
    State.FOREIGN: {Event.YES, Event.NO, Event.ACKNOWLEDGE, Event.INQUIRE},
    State.RESTORED: {Event.INQUIRE, Event.RESTART, Event.FOUND_COMMITTED, Event.FOUND_ABORTED},
}
"""The cells of ``protocol.md`` and ``protocol-tables.md`` §3 that say what to do; breakages and — are absent."""


def known_in(state: State) -> Transaction | None:
    """A transaction that is in *state* at the coordinator."""
    made = {
        State.PREPARING: preparing,
        State.DECIDING: committing,
        State.COMMITTING: committing,
        State.ABORTED: aborted,
        State.ENDED: ended,
        State.RESTORED: preparing,
    }
    return made[state]() if state in made else None


def told(step: coordinator.Step) -> list[tuple[str, type]]:
    return [(bank, type(message)) for bank, message in step.messages]


# Completeness -----------------------------------------------------------------------------------------------------


def test_the_table_has_exactly_the_documented_cells() -> None:
    assert set(TABLE) == {(state, event) for state, events in DOCUMENTED.items() for event in events}


@pytest.mark.parametrize(("state", "event"), sorted(set(product(State, Event)) - set(TABLE)))
def test_an_absent_cell_raises_an_alarm_and_changes_nothing(state: State, event: Event) -> None:
    known = known_in(state)
    step = coordinator.step(state, event, coordinator.Situation(known, now(), OWN_HELD, bank=B))
    assert changes_nothing(step, known)
    assert step.alarm == f"{event} met a transaction that is {state}"
    assert step.answer is None
    assert not step.forced


def test_the_state_follows_from_what_is_stored_what_is_durable_and_whose_incarnation_it_is() -> None:
    assert state_of(None, TX, INCARNATION) is State.NOTHING
    assert state_of(None, TX, OTHER_INCARNATION) is State.FOREIGN
    assert state_of(None, "no id at all", INCARNATION) is State.FOREIGN
    assert state_of(preparing(), TX, INCARNATION) is State.PREPARING
    assert state_of(preparing(), TX, OTHER_INCARNATION) is State.RESTORED
    assert state_of(committing(), TX, INCARNATION, durable=False) is State.DECIDING
    assert state_of(committing(), TX, OTHER_INCARNATION) is State.COMMITTING
    assert state_of(aborted(), TX, INCARNATION, durable=False) is State.ABORTED


def test_an_acknowledgement_being_written_does_not_make_the_decision_look_undurable() -> None:
    """Acknowledgements are written lazily: the second must not meet DECIDING because the first is still queued."""
    known = coordinate(committing(), Event.ACKNOWLEDGE, bank=B).transaction
    assert state_of(known, TX, INCARNATION, durable=False) is State.COMMITTING


# Begin ------------------------------------------------------------------------------------------------------------


def test_a_transfer_begins_by_holding_its_own_legs_and_asking_every_other_bank_to_prepare() -> None:
    step = begin()
    assert step.transaction is not None
    assert step.transaction.state is State.PREPARING
    assert step.transaction.participants == (B, C)
    assert step.transaction.subjects == ("holder-ana", ANA_HERE)
    assert lines(step) == [(RecordKind.BEGUN, State.NOTHING, State.PREPARING)]
    assert holds(step) == [(ANA_HERE, Direction.DEBIT, 300, HoldState.PLACED)]
    assert reservations(step) == [(f"position:{B}", 200)]
    assert entries(step) == []
    assert step.transaction in step.changes
    assert told(step) == [(B, Prepare), (C, Prepare)]
    assert (step.answer, step.forced, step.alarm) == (None, False, None)


def test_a_prepare_names_all_legs_of_one_bank_and_its_net_flow() -> None:
    asked = dict(begin().messages)
    assert isinstance(asked[B], Prepare)
    assert isinstance(asked[C], Prepare)
    assert (asked[B].legs, asked[B].flow) == (own_legs(B), -200)
    assert (asked[C].legs, asked[C].flow) == (own_legs(C), 500)
    assert asked[B].participants == (B, C)
    assert [(p.leg, p.name_masked) for p in asked[C].counterparties] == [(1, "Ana S***"), (2, None), (3, None)]


def test_a_prepare_sent_again_after_a_vote_brought_names_is_the_same_to_the_last_byte() -> None:
    names = (Counterparty(2, B, Direction.DEBIT, "Ana S***"),)
    known = coordinate(preparing(), Event.YES, vote=yes(B, names=names)).transaction
    assert known is not None
    assert prepare_for(known, C).digest == prepare_for(preparing(), C).digest


def test_a_digest_covers_every_field_of_a_prepare() -> None:
    asked = prepare_for(preparing(), B)
    others = [
        replace(asked, transaction=TX + "0"),
        replace(asked, participants=(B,)),
        replace(asked, legs=(replace(asked.legs[0], amount=201),)),
        replace(asked, legs=(replace(asked.legs[0], direction=Direction.CREDIT),)),
        replace(asked, flow=-201),
        replace(asked, holder_cpf="11144477735"),
        replace(asked, end_to_end_id="E"),
        replace(asked, description=None),
        replace(asked, ordered_at=WALL + 1),
        replace(asked, counterparties=()),
        replace(asked, vote_by=VOTE_BY + 1),
    ]
    assert len({each.digest for each in [asked, *others]}) == len(others) + 1


def test_a_transfer_within_the_bank_is_one_atomic_write_and_no_protocol() -> None:
    legs = (leg(1, A, ANA_HERE, -300), leg(2, A, CAIO, 300))
    step = begin(legs, ledger(account(ANA_HERE, 1000), account(CAIO)))
    assert step.transaction is not None
    assert step.transaction.state is State.ENDED
    assert step.transaction.commit_at == stamp()
    assert lines(step) == [(RecordKind.DECIDED, State.NOTHING, State.ENDED)]
    assert entries(step) == [(CAIO, 300, stamp()), (ANA_HERE, -300, stamp())]
    assert (holds(step), book_entries(step), reservations(step), step.messages) == ([], [], [], ())
    assert step.forced


def test_a_transfer_refused_by_the_own_ledger_is_a_durable_abort_that_no_other_bank_hears_of() -> None:
    step = begin(before=ledger(account(ANA_HERE, 299)))
    assert step.transaction is not None
    assert step.transaction.state is State.ABORTED
    assert step.transaction.because is not None
    assert (step.transaction.because.code, step.transaction.because.bank) == (Code.INSUFFICIENT_FUNDS, A)
    assert step.transaction.subjects == ("holder-ana",)
    assert lines(step) == [(RecordKind.DECIDED, State.NOTHING, State.ABORTED)]
    assert step.changes == (step.transaction,)
    assert step.messages == ()
    assert step.forced


def test_a_refusal_found_before_the_ledger_is_asked_wins_over_it() -> None:
    offline = Refusal(Code.BANK_UNREACHABLE, "offline", C)
    step = begin(before=ledger(account(ANA_HERE, 299)), refusal=offline)
    assert step.transaction is not None
    assert step.transaction.because == offline


def test_a_transfer_that_lets_a_peer_owe_more_than_its_cap_is_refused_with_that_peers_name() -> None:
    positions = {f"position:{B}": Book(f"position:{B}", balance=-100, reserved=50)}
    assert begin(positions=positions, cap=350).transaction == preparing()
    step = begin(positions=positions, cap=349)
    assert step.transaction is not None
    assert step.transaction.because is not None
    assert (step.transaction.because.code, step.transaction.because.bank) == (Code.POSITION_LIMIT, B)


def test_a_transfer_between_two_other_banks_is_coordinated_without_a_leg_of_ones_own() -> None:
    step = begin((leg(1, B, ANA_THERE, -200), leg(2, C, CAIO, 200)), ledger())
    assert holds(step) == []
    assert reservations(step) == [(f"position:{B}", 200)]
    known = step.transaction
    for bank in (B, C):
        step = coordinate(known, Event.YES, vote=yes(bank), ledger=ledger())
        known = step.transaction
    assert book_entries(step) == [(f"position:{B}", -200, stamp(10)), (f"position:{C}", 200, stamp(10))]


# PREPARING --------------------------------------------------------------------------------------------------------


def test_a_yes_that_is_not_the_last_is_counted_and_nothing_is_said() -> None:
    step = coordinate(preparing(), Event.YES, vote=yes(B, stamp(7)))
    assert step.transaction is not None
    assert step.transaction.votes == (Voted(B, True, stamp(7)), Voted(C))
    assert step.transaction.state is State.PREPARING
    assert not any((step.records, step.changes, step.messages, step.alarm, step.forced))


def test_the_last_yes_decides_commit_with_the_own_entries_in_one_forced_write() -> None:
    step = deciding()
    assert step.transaction is not None
    assert step.transaction.state is State.COMMITTING
    assert step.transaction.commit_at == stamp(10)
    assert lines(step) == [(RecordKind.DECIDED, State.PREPARING, State.COMMITTING)]
    assert entries(step) == [(ANA_HERE, -300, stamp(10))]
    assert holds(step) == [(ANA_HERE, Direction.DEBIT, 300, HoldState.POSTED)]
    assert reservations(step) == [(f"position:{B}", -200)]
    assert book_entries(step) == [(f"position:{B}", -200, stamp(10)), (f"position:{C}", 500, stamp(10))]
    assert step.transaction in step.changes
    assert step.messages == (
        (B, Commit(TX, stamp(10), own_legs(B), step.transaction.counterparties)),
        (C, Commit(TX, stamp(10), own_legs(C), step.transaction.counterparties)),
    )
    assert step.forced
    own = after(OWN_HELD, step).accounts[ANA_HERE]
    assert (own.posted, own.held, own.open_holds) == (700, 0, 0)


def test_the_commit_timestamp_is_the_greatest_of_the_votes_and_the_coordinators_clock() -> None:
    known = coordinate(preparing(), Event.YES, vote=yes(B, stamp(20, 3))).transaction
    step = coordinate(known, Event.YES, vote=yes(C, stamp(8)))
    assert step.transaction is not None
    assert step.transaction.commit_at == stamp(20, 3)
    assert entries(step) == [(ANA_HERE, -300, stamp(20, 3))]


def test_votes_stamped_past_vote_by_abort_instead_of_committing_too_late() -> None:
    late = VOTE_BY + 1 - WALL
    step = coordinate(half_voted(), Event.YES, vote=yes(C, stamp(late)), now=now(late - CLOCK_BOUND_MS))
    assert step.transaction is not None
    assert step.transaction.state is State.ABORTED
    assert told(step) == [(B, Abort), (C, Abort)]
    on_time = coordinate(half_voted(), Event.YES, vote=yes(C, stamp(late) - 1), now=now(late - CLOCK_BOUND_MS))
    assert on_time.transaction is not None
    assert on_time.transaction.state is State.COMMITTING


def test_a_yes_from_a_clock_too_far_ahead_counts_as_a_no_and_its_hold_is_told_to_go() -> None:
    ahead = stamp_at(WALL + 10 + CLOCK_BOUND_MS + 1)
    step = coordinate(half_voted(), Event.YES, vote=yes(C, ahead))
    assert step.transaction is not None
    assert step.transaction.state is State.ABORTED
    assert step.transaction.because is not None
    assert (step.transaction.because.code, step.transaction.because.bank) == (Code.BANK_REFUSED, C)
    assert told(step) == [(B, Abort), (C, Abort)]


def test_a_bank_whose_own_time_has_run_out_is_named_alone() -> None:
    step = coordinate(preparing(), Event.DEADLINE, bank=C)
    assert step.transaction is not None
    assert step.transaction.because is not None
    assert (step.transaction.because.code, step.transaction.because.bank) == (Code.BANK_UNREACHABLE, C)
    assert told(step) == [(B, Abort), (C, Abort)]


def test_the_same_yes_again_is_not_counted_twice() -> None:
    step = coordinate(half_voted(), Event.YES, vote=yes(B))
    assert changes_nothing(step, half_voted())
    assert step.alarm is None


def test_another_yes_from_the_same_bank_raises_an_alarm_and_the_first_one_counts() -> None:
    step = coordinate(half_voted(), Event.YES, vote=yes(B, stamp(9)))
    assert changes_nothing(step, half_voted())
    assert step.alarm is not None


@pytest.mark.parametrize(("event", "vote"), [(Event.YES, yes("99990009")), (Event.NO, no("99990009"))])
def test_a_vote_of_a_bank_that_takes_no_part_raises_an_alarm_and_decides_nothing(event: Event, vote: Vote) -> None:
    step = coordinate(half_voted(), event, vote=vote)
    assert changes_nothing(step, half_voted())
    assert step.alarm is not None


def test_a_vote_tells_the_masked_names_at_its_own_bank_and_of_no_other_bank() -> None:
    names = (Counterparty(2, B, Direction.DEBIT, "Ana S***"), Counterparty(3, C, Direction.CREDIT, "Mallory"))
    step = coordinate(preparing(), Event.YES, vote=yes(B, names=names))
    assert step.transaction is not None
    assert [p.name_masked for p in step.transaction.counterparties] == ["Ana S***", "Ana S***", None]


def test_one_no_decides_abort_releases_the_own_hold_and_tells_whoever_may_have_prepared() -> None:
    step = coordinate(half_voted(), Event.NO, vote=no(C))
    assert step.transaction is not None
    assert step.transaction.state is State.ABORTED
    assert step.transaction.because == Refusal(Code.ACCOUNT_CLOSED, "this account is closed", C, CAIO, 3)
    assert step.transaction.votes == (Voted(B, True, stamp(5)), Voted(C, False))
    assert lines(step) == [(RecordKind.DECIDED, State.PREPARING, State.ABORTED)]
    assert holds(step) == [(ANA_HERE, Direction.DEBIT, 300, HoldState.RELEASED)]
    assert reservations(step) == [(f"position:{B}", -200)]
    assert (entries(step), book_entries(step)) == ([], [])
    assert step.messages == ((B, Abort(TX, Refusal(Code.BANK_REFUSED, "another party's bank refused"))),)
    assert not step.forced
    own = after(OWN_HELD, step).accounts[ANA_HERE]
    assert (own.posted, own.held, own.open_holds) == (1000, 0, 0)


def test_a_no_after_a_yes_of_the_same_bank_aborts_while_votes_are_collected() -> None:
    """Legal: the first yes crossed with a fellow participant's promise, and the repeated prepare met the abort."""
    step = coordinate(half_voted(), Event.NO, vote=no(B))
    assert step.transaction is not None
    assert step.transaction.state is State.ABORTED
    assert step.alarm is None
    assert told(step) == [(C, Abort)]


def test_a_no_cannot_blame_another_bank_nor_let_the_key_run_anew() -> None:
    """``interrupted`` is the coordinator's own word: under it an idempotency key runs anew."""
    vote = Vote(C, No(Refusal(Code.INTERRUPTED, "whatever", B)))
    step = coordinate(preparing(), Event.NO, vote=vote)
    assert step.transaction is not None
    assert step.transaction.because == Refusal(Code.BANK_REFUSED, "whatever", C)


def test_the_deadline_aborts_and_tells_the_silent_banks_too() -> None:
    """Pitfall 10: a prepare that timed out may still have prepared."""
    step = coordinate(half_voted(), Event.DEADLINE)
    assert step.transaction is not None
    assert step.transaction.state is State.ABORTED
    assert step.transaction.because is not None
    assert (step.transaction.because.code, step.transaction.because.bank) == (Code.BANK_UNREACHABLE, C)
    assert told(step) == [(B, Abort), (C, Abort)]
    assert holds(step) == [(ANA_HERE, Direction.DEBIT, 300, HoldState.RELEASED)]
    assert reservations(step) == [(f"position:{B}", -200)]
    assert lines(step) == [(RecordKind.DECIDED, State.PREPARING, State.ABORTED)]


def test_an_inquiry_while_votes_are_collected_is_answered_undecided() -> None:
    """Pitfall 12."""
    for known in (preparing(), half_voted()):
        step = coordinate(known, Event.INQUIRE, bank=B)
        assert changes_nothing(step, known)
        assert step.answer == Outcome(Fate.UNDECIDED)


def test_what_had_only_begun_at_a_restart_is_aborted_and_everyone_is_told_once() -> None:
    step = coordinate(preparing(), Event.RESTART)
    assert step.transaction is not None
    assert step.transaction.state is State.ABORTED
    assert step.transaction.because is not None
    assert step.transaction.because.code is Code.INTERRUPTED
    assert told(step) == [(B, Abort), (C, Abort)]
    assert holds(step) == [(ANA_HERE, Direction.DEBIT, 300, HoldState.RELEASED)]
    assert reservations(step) == [(f"position:{B}", -200)]


@pytest.mark.parametrize("event", [Event.NO, Event.DEADLINE])
def test_an_abort_that_forgets_a_hold_of_its_own_is_a_bug(event: Event) -> None:
    with pytest.raises(AssertionError, match="holds on"):
        coordinate(preparing(), event, vote=no(C), ledger=OWN_BEFORE)


def test_a_commit_without_its_own_hold_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="holds on"):
        coordinate(half_voted(), Event.YES, vote=yes(C), ledger=OWN_BEFORE)


# DECIDING: the decision is being forced ---------------------------------------------------------------------------


def test_a_yes_while_the_decision_is_forced_is_ignored() -> None:
    step = coordinate(committing(), Event.YES, vote=yes(B), durable=False)
    assert changes_nothing(step, committing())
    assert step.alarm is None


def test_the_deadline_while_the_decision_is_forced_does_nothing() -> None:
    step = coordinate(committing(), Event.DEADLINE, durable=False)
    assert changes_nothing(step, committing())
    assert step.alarm is None


def test_an_inquiry_while_the_decision_is_forced_is_answered_undecided() -> None:
    step = coordinate(committing(), Event.INQUIRE, bank=B, durable=False)
    assert changes_nothing(step, committing())
    assert step.answer == Outcome(Fate.UNDECIDED)


# COMMITTING -------------------------------------------------------------------------------------------------------


def test_a_yes_after_the_commit_is_ignored() -> None:
    step = coordinate(committing(), Event.YES, vote=yes(B))
    assert changes_nothing(step, committing())
    assert step.alarm is None


def test_the_deadline_after_the_commit_does_nothing() -> None:
    step = coordinate(committing(), Event.DEADLINE)
    assert changes_nothing(step, committing())
    assert step.alarm is None


def test_an_acknowledgement_that_is_not_the_last_is_noted() -> None:
    step = coordinate(committing(), Event.ACKNOWLEDGE, bank=B)
    assert step.transaction is not None
    assert step.transaction.state is State.COMMITTING
    assert unacknowledged(step.transaction) == (C,)
    assert step.changes == (step.transaction,)
    assert not any((step.records, step.messages, step.forced, step.alarm))


def test_the_last_acknowledgement_ends_the_transaction() -> None:
    known = coordinate(committing(), Event.ACKNOWLEDGE, bank=B).transaction
    step = coordinate(known, Event.ACKNOWLEDGE, bank=C)
    assert step.transaction is not None
    assert step.transaction.state is State.ENDED
    assert step.transaction.completed_at == WALL + 10
    assert unacknowledged(step.transaction) == ()
    assert lines(step) == [(RecordKind.ENDED, State.COMMITTING, State.ENDED)]
    assert step.changes == (step.transaction,)
    assert not any((step.messages, step.forced))


def test_the_same_acknowledgement_twice_does_not_stand_for_two_banks() -> None:
    """Pitfall 13: a coordinator forgets a commit only after every acknowledgement."""
    known = coordinate(committing(), Event.ACKNOWLEDGE, bank=B).transaction
    step = coordinate(known, Event.ACKNOWLEDGE, bank=B)
    assert changes_nothing(step, known)
    assert step.alarm is None


def test_an_acknowledgement_of_a_bank_that_takes_no_part_raises_an_alarm() -> None:
    step = coordinate(committing(), Event.ACKNOWLEDGE, bank="99990009")
    assert changes_nothing(step, committing())
    assert step.alarm is not None


def test_a_participant_that_lost_what_it_voted_on_raises_an_alarm_and_is_never_taken_as_done() -> None:
    """Pitfall 17."""
    step = coordinate(committing(), Event.MISSING, bank=B)
    assert changes_nothing(step, committing())
    assert unacknowledged(committing()) == (B, C)
    assert step.alarm == f"{B} has lost a transaction that it voted yes on"


def test_an_inquiry_after_the_commit_is_answered_committed_with_its_timestamp() -> None:
    step = coordinate(committing(), Event.INQUIRE, bank=B)
    assert changes_nothing(step, committing())
    assert step.answer == Outcome(Fate.COMMITTED, stamp(10))


def test_a_commit_found_at_a_restart_is_sent_again_to_whoever_has_not_acknowledged() -> None:
    """Pitfall 9: a commit that cannot be delivered is delivered again, never turned into an abort."""
    known = coordinate(committing(), Event.ACKNOWLEDGE, bank=B).transaction
    assert known is not None
    step = coordinate(known, Event.RESTART)
    assert step.transaction == known
    assert step.messages == ((C, commit_for(known, C)),)
    assert not any((step.records, step.changes, step.alarm))


def test_a_commit_found_after_a_restore_is_still_a_commit() -> None:
    step = coordinate(committing(), Event.RESTART, incarnation=OTHER_INCARNATION)
    assert told(step) == [(B, Commit), (C, Commit)]


# ABORTED ----------------------------------------------------------------------------------------------------------


def test_a_late_yes_after_the_abort_is_ignored_since_it_will_inquire() -> None:
    step = coordinate(aborted(), Event.YES, vote=yes(B))
    assert changes_nothing(step, aborted())
    assert step.alarm is None


def test_a_late_no_after_the_abort_is_ignored() -> None:
    step = coordinate(aborted(), Event.NO, vote=no(B))
    assert changes_nothing(step, aborted())
    assert step.alarm is None


def test_the_deadline_after_the_abort_does_nothing() -> None:
    step = coordinate(aborted(), Event.DEADLINE)
    assert changes_nothing(step, aborted())
    assert step.alarm is None


def test_an_inquiry_after_the_abort_is_answered_aborted() -> None:
    step = coordinate(aborted(), Event.INQUIRE, bank=B)
    assert changes_nothing(step, aborted())
    assert step.answer == Outcome(Fate.ABORTED)


def test_an_abort_found_at_a_restart_stays_as_it_was_and_is_not_sent_again() -> None:
    step = coordinate(aborted(), Event.RESTART)
    assert changes_nothing(step, aborted())
    assert step.alarm is None


# ENDED ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("event", "vote"), [(Event.YES, yes(B)), (Event.NO, no(B)), (Event.DEADLINE, None)])
def test_votes_and_the_deadline_after_the_end_are_ignored(event: Event, vote: Vote | None) -> None:
    step = coordinate(ended(), event, vote=vote)
    assert changes_nothing(step, ended())
    assert step.alarm is None


def test_an_acknowledgement_after_the_end_is_ignored() -> None:
    step = coordinate(ended(), Event.ACKNOWLEDGE, bank=B)
    assert changes_nothing(step, ended())
    assert step.alarm is None


def test_a_participant_that_lost_what_it_had_acknowledged_raises_an_alarm() -> None:
    step = coordinate(ended(), Event.MISSING, bank=C)
    assert changes_nothing(step, ended())
    assert step.alarm == f"{C} has lost a transaction that it voted yes on"


def test_an_inquiry_after_the_end_is_answered_as_recorded() -> None:
    step = coordinate(ended(), Event.INQUIRE, bank=B)
    assert changes_nothing(step, ended())
    assert step.answer == Outcome(Fate.COMMITTED, stamp(10))


def test_what_has_ended_stays_so_at_a_restart() -> None:
    assert changes_nothing(coordinate(ended(), Event.RESTART), ended())


# No record --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("incarnation", [INCARNATION, OTHER_INCARNATION])
@pytest.mark.parametrize(("event", "vote"), [(Event.YES, yes(B)), (Event.NO, no(B)), (Event.ACKNOWLEDGE, None)])
def test_votes_and_acknowledgements_of_what_is_not_recorded_are_ignored(
    incarnation: str, event: Event, vote: Vote | None
) -> None:
    step = coordinate(None, event, vote=vote, bank=B, incarnation=incarnation)
    assert changes_nothing(step, None)
    assert step.alarm is None


def test_an_inquiry_without_a_record_is_answered_aborted_by_presumption() -> None:
    step = coordinate(None, Event.INQUIRE, bank=B)
    assert changes_nothing(step, None)
    assert step.answer == Outcome(Fate.ABORTED)


def test_an_inquiry_about_another_incarnation_without_a_record_is_answered_unknown() -> None:
    step = coordinate(None, Event.INQUIRE, bank=B, incarnation=OTHER_INCARNATION)
    assert changes_nothing(step, None)
    assert step.answer == Outcome(Fate.UNKNOWN)


# RESTORED: Begun in another incarnation ---------------------------------------------------------------------------


def test_an_inquiry_about_what_was_begun_before_a_restore_is_answered_unknown() -> None:
    step = coordinate(preparing(), Event.INQUIRE, bank=B, incarnation=OTHER_INCARNATION)
    assert changes_nothing(step, preparing())
    assert step.answer == Outcome(Fate.UNKNOWN)


def test_after_a_restore_nothing_is_decided_and_the_participants_are_asked() -> None:
    step = coordinate(preparing(), Event.RESTART, incarnation=OTHER_INCARNATION)
    assert step.transaction == preparing()
    assert not any((step.records, step.changes))
    assert step.messages == ((B, Inquire(TX, VOTE_BY)), (C, Inquire(TX, VOTE_BY)))


def test_a_participant_that_committed_settles_a_restored_transaction_at_its_own_timestamp() -> None:
    step = coordinate(preparing(), Event.FOUND_COMMITTED, bank=B, at=stamp(9), incarnation=OTHER_INCARNATION)
    assert step.transaction is not None
    assert step.transaction.state is State.COMMITTING
    assert step.transaction.commit_at == stamp(9)
    assert [v.yes for v in step.transaction.votes] == [True, True]
    assert lines(step) == [(RecordKind.DECIDED, State.PREPARING, State.COMMITTING)]
    assert step.records[0].detail == f"commit: {B} has committed"
    assert entries(step) == [(ANA_HERE, -300, stamp(9))]
    assert book_entries(step) == [(f"position:{B}", -200, stamp(9)), (f"position:{C}", 500, stamp(9))]
    assert told(step) == [(B, Commit), (C, Commit)]
    assert step.forced


@pytest.mark.parametrize("at", [0, stamp(-1), stamp_at(VOTE_BY + 1)])
def test_a_timestamp_that_this_bank_cannot_have_decided_settles_nothing(at: int) -> None:
    step = coordinate(preparing(), Event.FOUND_COMMITTED, bank=B, at=at, incarnation=OTHER_INCARNATION)
    assert changes_nothing(step, preparing())
    assert step.alarm is not None


def test_a_participant_that_aborted_settles_a_restored_transaction() -> None:
    step = coordinate(preparing(), Event.FOUND_ABORTED, bank=B, incarnation=OTHER_INCARNATION)
    assert step.transaction is not None
    assert step.transaction.state is State.ABORTED
    assert holds(step) == [(ANA_HERE, Direction.DEBIT, 300, HoldState.RELEASED)]
    assert told(step) == [(B, Abort), (C, Abort)]


# What holds everywhere --------------------------------------------------------------------------------------------


def test_every_bank_posts_what_sums_to_zero() -> None:
    step = deciding()
    assert sum(amount for _, amount, _ in entries(step)) + sum(amount for _, amount, _ in book_entries(step)) == 0


def test_what_begins_and_what_ends_it_reserve_and_give_back_the_same() -> None:
    reserved = reservations(begin())
    assert rows(begin(), coordinator.Book) == []
    for step in (deciding(), coordinate(preparing(), Event.DEADLINE), coordinate(preparing(), Event.RESTART)):
        assert reservations(step) == [(book, -amount) for book, amount in reserved]


def test_without_a_cap_only_the_bound_of_all_sums_refuses() -> None:
    positions = {f"position:{B}": Book(f"position:{B}", balance=-MAX_BALANCE + 199)}
    step = begin(positions=positions)
    assert step.transaction is not None
    assert step.transaction.state is State.ABORTED
    assert LEGS[1].amount == 200
