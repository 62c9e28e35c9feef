"""Where a cut leaves a transaction, by what one bank knows of it; and what banks' answers about it settle."""

from __future__ import annotations

from typing import Any

import pytest

from distribank.core.protocol import Part, Role, Side, State, Transaction
from distribank.core.snapshot import FindingCode, settle, side_of

A, B, C = "99990001", "99990002", "99990003"
HERE, ELSEWHERE = "0a" * 16, "0b" * 16
AT = 1_000
PART = Part("t", (A, B, C), 100, {A: -100})


def known(state: State, role: Role = Role.PARTICIPANT, incarnation: str = HERE, **more: Any) -> Transaction:
    return Transaction(f"{A}.{incarnation}.{'1c' * 16}", role, state, 0, **more)


@pytest.mark.parametrize(
    ("transaction", "side"),
    [
        (known(State.COMMITTED, commit_at=AT), Side.ON),
        (known(State.COMMITTED, commit_at=AT + 1), Side.OFF),
        (known(State.ABORTED), Side.OFF),
        (known(State.PREPARED, prepared_at=AT), Side.IN_DOUBT),
        (known(State.PREPARED, prepared_at=AT + 1), Side.OFF),
        (known(State.FORCED_COMMIT, prepared_at=AT, commit_at=AT), Side.IN_DOUBT),
        (known(State.FORCED_ABORT, prepared_at=AT), Side.IN_DOUBT),
        (known(State.PREPARING, Role.COORDINATOR), Side.OFF),  # it decides later than the clock, which is past AT
        (known(State.PREPARING, Role.COORDINATOR, ELSEWHERE), Side.IN_DOUBT),  # of a log that was restored
        (known(State.COMMITTING, Role.COORDINATOR, commit_at=AT), Side.ON),
    ],
)
def test_the_side_of_a_transaction_is_what_can_not_change_any_more(transaction: Transaction, side: Side) -> None:
    assert side_of(transaction, True, AT, HERE) is side


def test_what_a_bank_does_not_know_only_its_coordinator_can_rule_out() -> None:
    assert side_of(None, True, AT, HERE) is Side.OFF
    assert side_of(None, False, AT, HERE) is Side.IN_DOUBT


@pytest.mark.parametrize("side", [Side.ON, Side.OFF])
def test_one_bank_that_knows_settles_a_doubt(side: Side) -> None:
    doubt, findings = settle(B, PART, {A: side, C: Side.IN_DOUBT})

    assert (doubt.side, findings) == (side, [])


def test_nobody_that_knows_leaves_a_doubt() -> None:
    doubt, findings = settle(B, PART, {C: Side.IN_DOUBT})

    assert (doubt.side, findings) == (Side.IN_DOUBT, [])


def test_banks_that_contradict_each_other_settle_nothing_and_are_found() -> None:
    doubt, (finding,) = settle(B, PART, {A: Side.ON, C: Side.OFF})

    assert doubt.side is Side.IN_DOUBT
    assert (finding.code, finding.bank, finding.transaction) == (FindingCode.OUTCOMES_DIFFER, B, "t")
    assert f"{A} says on, {C} says off" in finding.detail
