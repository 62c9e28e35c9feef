"""The rules of getting back what a restore had lost, on rows alone: what is told, believed, posted and settled."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from distribank.core import coordinator, participant, resupplying
from distribank.core.clock import CLOCK_BOUND_MS, stamp_at
from distribank.core.consents import Consent
from distribank.core.heuristics import AccountDamage, Heuristic, Verdict
from distribank.core.ledger import Account
from distribank.core.protocol import (
    MAX_VOTE_BY_AHEAD_MS,
    Acknowledged,
    Decision,
    Record,
    RecordKind,
    Refused,
    State,
    Step,
    Transaction,
    Violation,
)
from distribank.core.refusals import Code, Refusal
from distribank.core.restoration import MAX_VOTE_BY_AHEAD_MS as AS_LONG
from distribank.core.restoration import Lost, Part, PartFate, Restoration, Supplied, Told
from distribank.core.story import diagram, tell, with_reason
from distribank.core.suspense import Open, amount_of, open_after
from distribank.core.transfer import Counterparty, Direction, Leg
from tests.stories import (
    ANA_CPF,
    ANA_HERE,
    ANA_THERE,
    CAIO,
    RUI_CPF,
    TX,
    WALL,
    A,
    B,
    C,
    account,
    book_entries,
    changes_nothing,
    commit,
    committed,
    committing,
    consent,
    ended,
    entries,
    leg,
    lines,
    now,
    participate,
    prepared,
    preparing,
    released,
    rows,
    stamp,
    tombstone,
)

RESTORED = Restoration("c" * 32, stamp(-1000), WALL - 1000, WALL + 60_000)
AT = stamp(10)


def test_two_modules_that_cannot_import_each_other_have_one_number() -> None:
    assert AS_LONG == MAX_VOTE_BY_AHEAD_MS


# The restore ------------------------------------------------------------------------------------------------------


def test_peers_are_asked_for_whatever_may_have_begun_before_a_vote_that_is_lost() -> None:
    margin = MAX_VOTE_BY_AHEAD_MS + CLOCK_BOUND_MS
    assert RESTORED.since == WALL - 1000 - margin
    assert replace(RESTORED, stamp=stamp(-5000)).since == WALL - 5000 - margin, "an idle bank's stamps are older"
    assert replace(RESTORED, stamp=stamp(9000)).since == WALL - 1000 - margin, "stamps may run ahead of a wall clock"
    assert replace(RESTORED, stamp=0).since == 0


@pytest.mark.parametrize(
    ("at", "may"),
    [
        (RESTORED.since - 1, False),
        (RESTORED.since, True),
        (RESTORED.restored_at + MAX_VOTE_BY_AHEAD_MS + CLOCK_BOUND_MS, True),
        (RESTORED.restored_at + MAX_VOTE_BY_AHEAD_MS + CLOCK_BOUND_MS + 1, False),
    ],
)
def test_a_vote_may_be_lost_within_a_window_alone(at: int, may: bool) -> None:
    assert RESTORED.may_have_lost_vote(stamp_at(at)) is may


def test_who_has_told_is_counted_while_it_is_posted_and_noted_when_that_is_all() -> None:
    half = RESTORED.after(C, None, 2).after(A, None, 1).after(C, None, 3)
    assert half.told == (Told(A, None, 1), Told(C, None, 5))
    assert (half.resupplied, half.has_told(C)) == (6, False)
    whole = half.after(C, WALL)
    assert whole.told == (Told(A, None, 1), Told(C, WALL, 5))
    assert (whole.has_told(C), whole.has_told(A), whole.has_told(B)) == (True, False, False)


# What a bank tells ------------------------------------------------------------------------------------------------


def told(bank: str, asker: str, known: Transaction) -> Decision:
    decision = resupplying.tell(bank, asker, known)
    assert decision is not None
    return decision


@pytest.mark.parametrize("known", [committing(), ended()])
def test_a_coordinator_tells_a_participant_its_own_legs_of_what_is_committed(known: Transaction) -> None:
    decision = told(A, B, known)
    assert (decision.fate, decision.at) == (PartFate.COMMITTED, known.commit_at)
    assert [each.bank for each in decision.legs] == [B]
    assert (decision.participants, decision.holder_cpf, decision.description) == ((B, C), ANA_CPF, "rent")
    assert resupplying.tell(A, "99990009", known) is None


def test_a_coordinator_tells_nothing_of_what_is_undecided() -> None:
    assert resupplying.tell(A, B, preparing()) is None


@pytest.mark.parametrize(
    ("known", "fate"),
    [
        (committed(), PartFate.COMMITTED),
        (prepared(), PartFate.PREPARED),
        (released(), PartFate.ABORTED),
        (tombstone(), PartFate.ABORTED),
        (replace(prepared(), state=State.FORCED_COMMIT), PartFate.PREPARED),
    ],
)
def test_a_participant_tells_the_coordinator_its_own_part(known: Transaction, fate: PartFate) -> None:
    decision = told(B, A, known)
    assert (decision.fate, decision.at) == (fate, known.commit_at if fate is PartFate.COMMITTED else None)
    assert {each.bank for each in decision.legs} <= {B}
    assert resupplying.tell(B, C, known) is None


# What is believed -------------------------------------------------------------------------------------------------

OTHERS = told(A, B, committing())
"""A coordinates, B was restored: a debit of 200 from Ana's account at B."""
OURS = told(B, A, committed())
"""A was restored and had coordinated it; B tells its part."""


def flaw(own: str, sender: str, decision: Decision) -> str | None:
    return resupplying.flaw(own, sender, decision, RESTORED, now(60_000))


def test_what_is_a_banks_own_to_tell_is_believed() -> None:
    assert flaw(B, A, OTHERS) is None
    assert flaw(A, B, OURS) is None
    assert flaw(A, B, told(B, A, tombstone())) is None
    assert flaw(A, B, told(B, A, prepared())) is None


@pytest.mark.parametrize(
    ("own", "sender", "decision"),
    [
        (B, C, OTHERS),
        (B, A, replace(OTHERS, fate=PartFate.PREPARED, at=None)),
        (B, A, replace(OTHERS, at=None)),
        (A, B, replace(OURS, fate=PartFate.PREPARED)),
        (B, A, replace(OTHERS, at=stamp_at(RESTORED.since - 1))),
        (B, A, replace(OTHERS, at=stamp_at(WALL + 60_000 + CLOCK_BOUND_MS + 1))),
        (B, A, replace(OTHERS, participants=(C,))),
        (B, A, replace(OTHERS, legs=())),
        (B, A, replace(OTHERS, legs=(leg(2, C, CAIO, -200),))),
        (A, B, replace(OURS, participants=(C,))),
        (A, B, replace(OURS, legs=(leg(1, A, ANA_HERE, 5),))),
    ],
)
def test_anything_else_is_not(own: str, sender: str, decision: Decision) -> None:
    words = flaw(own, sender, decision)
    assert words is not None
    assert words.startswith(f"{sender} told of")


# What others had decided ------------------------------------------------------------------------------------------


def supply(
    decision: Decision = OTHERS, *accounts: Account, consents: tuple[Consent, ...] = (consent(),)
) -> tuple[Step, Supplied]:
    there = accounts or (account(ANA_THERE, 1000),)
    step = resupplying.supply(B, decision, {each.number: each for each in there}, consents, now(60_000))
    (supplied,) = rows(step, Supplied)
    posted = sum(amount for _, amount, _ in entries(step)) + sum(amount for _, amount, _ in book_entries(step))
    assert posted == 0
    assert {at for *_, at in (*entries(step), *book_entries(step))} <= {decision.at}
    return step, supplied


def test_a_lost_commit_is_posted_at_its_own_stamp_with_its_position_and_its_consent() -> None:
    step, supplied = supply()
    assert OTHERS.at is not None
    assert entries(step) == [(ANA_THERE, -200, OTHERS.at)]
    assert book_entries(step) == [(f"position:{A}", 200, OTHERS.at)]
    assert [row.used for row in rows(step, Consent)] == [200]
    assert (step.answer, step.forced, step.alarm) == (Acknowledged(), True, None)
    assert lines(step) == [(RecordKind.RESOLVED, State.NOTHING, State.COMMITTED)]
    assert supplied == Supplied(TX, WALL + 60_000, None, (AccountDamage(ANA_THERE, Direction.DEBIT, 200, 200),))
    known = step.transaction
    assert known is not None
    assert (known.state, known.commit_at, known.prepared_at) == (State.COMMITTED, OTHERS.at, OTHERS.at)
    assert known.subjects == (ANA_THERE,)


def test_it_then_meets_a_prepare_and_a_commit_that_come_again_as_though_it_had_voted() -> None:
    step, _ = supply()
    known = step.transaction
    again = participate(known, participant.Event.PREPARE, prepare=coordinator.prepare_for(committing(), B))
    assert again.alarm is None
    assert again.answer is not None
    assert not isinstance(again.answer, Refused)
    assert OTHERS.at is not None
    acknowledged = participate(known, participant.Event.COMMIT, commit=commit(OTHERS.at))
    assert (acknowledged.answer, acknowledged.alarm) == (Acknowledged(already=True), None)


@pytest.mark.parametrize(
    ("there", "consents", "taken"),
    [
        ((account(ANA_THERE, 150),), (consent(),), 150),
        ((account(ANA_THERE, 150, held=150),), (consent(),), 0),
        ((account(ANA_THERE, 0, closed_at=WALL),), (consent(),), 0),
        ((account(CAIO, 1000),), (consent(),), 0),
        ((account(ANA_THERE, 1000),), (), 0),
        ((account(ANA_THERE, 1000),), (consent(max_per_transfer=199),), 0),
        ((account(ANA_THERE, 1000),), (consent(holder_cpf=RUI_CPF),), 0),
        ((account(ANA_THERE, 1000),), (consent(initiator_bank=C),), 0),
    ],
    ids=["too little", "held", "closed", "unknown", "no consent", "too much", "somebody else's", "another bank's"],
)
def test_a_debit_goes_as_far_as_it_can_and_the_rest_to_suspense(
    there: tuple[Account, ...], consents: tuple[Consent, ...], taken: int
) -> None:
    step, supplied = supply(OTHERS, *there, consents=consents)
    assert OTHERS.at is not None
    assert entries(step) == ([(ANA_THERE, -taken, OTHERS.at)] if taken else [])
    assert book_entries(step) == [(f"position:{A}", 200, OTHERS.at), ("suspense", taken - 200, OTHERS.at)]
    assert supplied.accounts == (AccountDamage(ANA_THERE, Direction.DEBIT, 200, taken),)
    assert (supplied.suspense, amount_of(supplied)) == (taken - 200, taken - 200)
    assert open_after([supplied]) == Open(0, 200 - taken)


def test_a_credit_for_an_account_that_is_gone_is_owed_to_somebody() -> None:
    paid = replace(OTHERS, legs=(leg(2, B, CAIO, 200), leg(4, B, ANA_THERE, 50)))
    step, supplied = supply(paid, consents=())
    assert [(which, amount) for which, amount, _ in entries(step)] == [(ANA_THERE, 50)]
    assert [amount for _, amount, _ in book_entries(step)] == [-250, 200]
    assert open_after([supplied]) == Open(200, 0)


def test_an_account_that_gains_what_it_loses_is_posted_leg_by_leg() -> None:
    both = replace(OTHERS, legs=(leg(2, B, ANA_THERE, -200), leg(4, B, ANA_THERE, 200)))
    step, supplied = supply(both)
    assert [amount for _, amount, _ in entries(step)] == [200, -200]
    assert (supplied.accounts, supplied.suspense) == ((), 0)


def test_a_commit_alone_is_posted_where_its_vote_may_be_lost_and_an_alarm_says_so() -> None:
    step = participate(None, participant.Event.COMMIT, restoration=RESTORED)
    assert entries(step) == [(ANA_THERE, -200, AT)]
    assert step.answer == Acknowledged()
    assert step.alarm is not None
    assert "vote was lost" in step.alarm
    known = step.transaction
    assert known is not None
    assert known.order is not None
    assert (known.participants, known.order.end_to_end_id) == ((B,), resupplying.UNKNOWN_END_TO_END_ID)


def test_what_a_commit_alone_did_not_tell_is_filled_in_once_its_coordinator_has() -> None:
    alone = participate(None, participant.Event.COMMIT, restoration=RESTORED, commit=commit(OTHERS.at or 0)).transaction
    assert alone is not None
    whole = resupplying.named(alone, OTHERS)
    voted, _ = supply()
    assert voted.transaction is not None
    assert (whole.order, whole.digest, whole.participants) == (
        voted.transaction.order,
        voted.transaction.digest,
        (B, C),
    )
    assert resupplying.named(whole, replace(OTHERS, description="other")) == whole
    assert resupplying.named(alone, replace(OTHERS, at=stamp(99))) == alone


def test_its_parties_tell_who_takes_part() -> None:
    parties = tuple(Counterparty(n, bank, Direction.DEBIT, None) for n, bank in enumerate((A, B, C, C), 1))
    decision = resupplying.as_decision(B, replace(commit(), counterparties=parties))
    assert decision.participants == (B, C)


def test_of_a_commit_alone_any_holders_consent_serves_and_none_is_no_debit() -> None:
    alone = resupplying.as_decision(B, commit())
    two = (consent(consent_id="c0", holder_cpf=RUI_CPF), consent())
    step, _ = supply(alone, consents=two)
    assert [row.consent_id for row in rows(step, Consent)] == ["consent-1"]
    step, supplied = supply(alone, consents=())
    assert (entries(step), supplied.suspense) == ([], -200)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"restoration": RESTORED, "commit": commit(stamp_at(RESTORED.since) - 1)},
        {"restoration": RESTORED, "commit": commit(legs=(leg(2, C, CAIO, -200),))},
        {"restoration": RESTORED, "commit": commit(stamp(200_000))},
    ],
    ids=["never restored", "before the backup", "another bank's legs", "a stamp from the future"],
)
def test_any_other_commit_without_a_vote_is_refused(more: dict[str, Any]) -> None:
    step = participate(None, participant.Event.COMMIT, **more)
    assert isinstance(step.answer, Refused)
    assert step.answer.code is Violation.UNKNOWN_TRANSACTION
    assert changes_nothing(step, None)


# What the bank had decided itself ---------------------------------------------------------------------------------

_ORDER = committed().order
assert _ORDER is not None
AT_C = told(C, A, replace(committed(), order=replace(_ORDER, legs=(leg(3, C, CAIO, 500),))))


def lost(*decisions: tuple[str, Decision]) -> Lost:
    """What A knows of the transaction once these banks have told their parts."""
    found: Lost | None = None
    for bank, decision in decisions:
        found = resupplying.found(bank, decision, found)
    assert found is not None
    return found


BOTH = lost((B, OURS), (C, AT_C))


def test_a_lost_transaction_is_put_together_from_its_participants() -> None:
    assert BOTH.participants == (B, C)
    assert [(part.bank, part.flow, part.at) for part in BOTH.parts] == [(B, -200, AT), (C, 500, AT)]
    assert BOTH.fate is PartFate.COMMITTED
    assert lost((B, OURS), (C, AT_C), (B, OURS)) == BOTH


def test_a_tombstone_says_only_that_it_was_aborted_until_another_knows_more() -> None:
    stone = told(B, A, tombstone())
    assert (lost((B, stone)).fate, lost((B, stone)).participants) == (PartFate.ABORTED, ())
    more = lost((B, stone), (C, replace(AT_C, fate=PartFate.PREPARED, at=None)))
    assert (more.fate, more.participants, more.holder_cpf) == (PartFate.ABORTED, (B, C), ANA_CPF)
    assert {part.bank: part.fate for part in more.parts} == {B: PartFate.ABORTED, C: PartFate.PREPARED}


def settle(row: Lost, *named: Leg, there: tuple[Account, ...] = (account(ANA_HERE, 1000),), holder: str = "h") -> Any:
    return resupplying.settle(A, row, named, holder, {each.number: each for each in there}, "a receipt", now(60_000))


def own(signed: int, where: str = ANA_HERE) -> Leg:
    return leg(0, A, where, signed)


def test_what_was_decided_is_settled_at_its_stamp_and_told_like_any_other_commit() -> None:
    step = settle(BOTH, own(-300))
    assert entries(step) == [(ANA_HERE, -300, AT)]
    assert book_entries(step) == [(f"position:{B}", -200, AT), (f"position:{C}", 500, AT)]
    known = step.transaction
    assert (known.state, known.commit_at, known.participants, known.subjects) == (
        State.COMMITTING,
        AT,
        (B, C),
        ("h", ANA_HERE),
    )
    assert [each.number for each in known.order.legs] == [1, 2, 3], "no two legs of it have one number"
    (supplied,) = rows(step, Supplied)
    assert (supplied.reason, supplied.unnamed, supplied.suspense) == ("a receipt", 0, 0)
    assert lines(step) == [(RecordKind.DECIDED, State.NOTHING, State.COMMITTING)]


@pytest.mark.parametrize(
    ("named", "balance", "taken"), [((), 1000, 0), ((own(-100),), 1000, 100), ((own(-300),), 120, 120)]
)
def test_the_rest_is_owed_by_somebody(named: tuple[Leg, ...], balance: int, taken: int) -> None:
    step = settle(BOTH, *named, there=(account(ANA_HERE, balance),), holder="")
    (supplied,) = rows(step, Supplied)
    assert sum(amount for _, amount, _ in entries(step)) == -taken
    assert supplied.suspense == taken - 300
    assert book_entries(step)[-1] == ("suspense", taken - 300, AT)
    assert open_after([supplied]) == Open(0, 300 - taken)


def test_the_rest_is_owed_to_somebody() -> None:
    step = settle(lost((B, replace(OURS, participants=(B,)))), own(50))
    (supplied,) = rows(step, Supplied)
    assert (supplied.unnamed, open_after([supplied])) == (150, Open(150, 0))
    assert [amount for _, amount, _ in entries(step)] == [50]


def test_one_that_has_only_prepared_it_is_told_of_the_commit_by_what_is_settled() -> None:
    step = settle(lost((B, replace(OURS, fate=PartFate.PREPARED, at=None)), (C, AT_C)), own(-300))
    assert step.transaction.participants == (B, C)
    assert [vote.acknowledged_at for vote in step.transaction.votes] == [None, None]


def test_one_that_has_aborted_it_has_no_flow() -> None:
    step = settle(lost((B, told(B, A, released())), (C, AT_C)), own(-500))
    assert (step.transaction.participants, book_entries(step)) == ((C,), [(f"position:{C}", 500, AT)])


@pytest.mark.parametrize(
    ("row", "named", "code"),
    [
        (lost((B, told(B, A, prepared()))), (), Code.NOT_SETTLEABLE),
        (lost((B, told(B, A, released()))), (), Code.NOT_SETTLEABLE),
        (lost((B, OURS), (C, replace(AT_C, at=stamp(11)))), (), Code.NOT_SETTLEABLE),
        (BOTH, (own(-301),), Code.UNBALANCED_TRANSFER),
        (BOTH, (own(1),), Code.UNBALANCED_TRANSFER),
        (lost((B, OURS)), (own(201),), Code.UNBALANCED_TRANSFER),
        (lost((B, OURS)), (own(-1),), Code.UNBALANCED_TRANSFER),
        (BOTH, (own(-1, CAIO),), Code.ACCOUNT_NOT_FOUND),
    ],
)
def test_nothing_is_settled_that_nobody_has_committed_or_that_does_not_add_up(
    row: Lost, named: tuple[Leg, ...], code: Code
) -> None:
    refusal = settle(row, *named)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.leg) == (code, None)


# How it is told ---------------------------------------------------------------------------------------------------


def test_a_trace_says_what_was_posted_anew_and_what_was_settled() -> None:
    step, _ = supply()
    logs: dict[str, tuple[Record, ...]] = {B: step.records, A: settle(BOTH, own(-300)).records}
    told_lines = {line.bank: line.words for line in tell(logs, (B, C), frank=True)}
    assert "had lost its vote" in told_lines[B]
    assert "its operator settled it" in told_lines[A]
    whole = with_reason(tell(logs, (B, C), frank=True), A, "a receipt")
    assert {line.bank: line.words for line in whole if line.words.endswith("; because: a receipt")}.keys() == {A}
    assert with_reason(whole, A, None) == whole
    drawn = diagram(tell(logs, (B, C), frank=True), {A: "A", B: "B", C: "C"}, A, (B, C))
    assert f"{B}-->>{A}: acknowledge" in drawn
    assert "vote no" not in drawn


def test_a_wrong_guess_beside_it_still_counts_in_suspense() -> None:
    guess = Heuristic(TX, Verdict.COMMIT, "a call", WALL)
    assert (amount_of(guess), open_after([guess])) == (0, Open())
    assert Part(B, PartFate.PREPARED, None, ()).flow == 0
