"""A transfer as arithmetic: legs that balance, told apart by bank."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distribank.core.batches import item_route
from distribank.core.money import MAX_AMOUNT
from distribank.core.refusals import Code, Refusal, iso_reason
from distribank.core.transfer import (
    MAX_LEGS,
    Leg,
    banks_of,
    check_legs,
    check_participant_legs,
    legs_at,
    net_flow,
)
from tests.stories import ANA_HERE, ANA_THERE, CAIO, LEGS, A, B, C, leg


def code(legs: list[Leg]) -> Code | None:
    refusal = check_legs(legs)
    return refusal.code if refusal else None


def test_legs_whose_debits_equal_their_credits_pass() -> None:
    assert check_legs(LEGS) is None


@pytest.mark.parametrize(
    ("legs", "expected"),
    [
        ([], Code.UNBALANCED_TRANSFER),
        ([leg(1, A, ANA_HERE, -300)], Code.UNBALANCED_TRANSFER),
        ([leg(1, A, ANA_HERE, 300)], Code.UNBALANCED_TRANSFER),
        ([leg(1, A, ANA_HERE, -300), leg(2, B, CAIO, 299)], Code.UNBALANCED_TRANSFER),
        ([replace(leg(1, A, ANA_HERE, -1), amount=0), leg(2, B, CAIO, 1)], Code.INVALID_AMOUNT),
        ([replace(leg(1, A, ANA_HERE, -1), amount=-5), leg(2, B, CAIO, 5)], Code.INVALID_AMOUNT),
        ([leg(n, A, ANA_HERE, -1) for n in range(33)] + [leg(n, B, CAIO, 1) for n in range(33)], Code.TOO_MANY_LEGS),
    ],
)
def test_legs_that_do_not_make_a_transfer_are_refused(legs: list[Leg], expected: Code) -> None:
    assert code(legs) is expected


def test_an_unbalanced_transfer_is_told_both_sums() -> None:
    refusal = check_legs([leg(1, A, ANA_HERE, -300), leg(2, B, CAIO, 299)])
    assert refusal is not None
    assert refusal.detail == "debits of 3.00 do not equal credits of 2.99"


def test_as_many_legs_as_the_bound_allows_pass() -> None:
    half = MAX_LEGS // 2
    legs = [leg(n, A, ANA_HERE, -1) for n in range(half)] + [leg(n, B, CAIO, 1) for n in range(half)]
    assert check_legs(legs) is None


def test_the_same_account_number_at_two_banks_is_two_accounts() -> None:
    """Pitfall 3."""
    legs = (leg(1, A, ANA_HERE, -300), leg(2, B, ANA_HERE, 300))
    assert check_legs(legs) is None
    assert legs_at(A, legs) == legs[:1]
    assert legs_at(B, legs) == legs[1:]
    assert banks_of(legs) == (A, B)


def test_an_account_may_stand_on_both_sides_of_one_transfer() -> None:
    assert check_legs([leg(1, A, ANA_HERE, -300), leg(2, A, ANA_HERE, 300)]) is None


@given(st.lists(st.tuples(st.sampled_from([A, B, C]), st.integers(-(10**15), 10**15).filter(bool)), max_size=20))
def test_the_flows_of_all_banks_sum_to_what_the_legs_sum_to(parts: list[tuple[str, int]]) -> None:
    legs = [leg(n, bank, ANA_HERE, signed) for n, (bank, signed) in enumerate(parts)]
    assert sum(net_flow(legs_at(bank, legs)) for bank in banks_of(legs)) == sum(each.signed for each in legs)
    assert sum(len(legs_at(bank, legs)) for bank in banks_of(legs)) == len(legs)


@pytest.mark.parametrize(
    ("legs", "expected"),
    [
        ((leg(2, B, ANA_THERE, -MAX_AMOUNT),), None),
        ((leg(2, B, ANA_THERE, -MAX_AMOUNT - 1),), Code.INVALID_AMOUNT),
        ((replace(leg(2, B, ANA_THERE, -1), amount=0),), Code.INVALID_AMOUNT),
        ((), Code.BANK_REFUSED),
        ((leg(2, B, ANA_THERE, -1), leg(2, B, ANA_THERE, -1)), Code.BANK_REFUSED),
        ((leg(2, C, ANA_THERE, -1),), Code.BANK_REFUSED),
        (tuple(leg(n, B, ANA_THERE, -1) for n in range(MAX_LEGS + 1)), Code.BANK_REFUSED),
    ],
)
def test_a_participant_checks_its_legs_whatever_the_coordinator_had_checked(
    legs: tuple[Leg, ...], expected: Code | None
) -> None:
    refusal = check_participant_legs(B, legs)
    assert (refusal.code if refusal else None) is expected


def test_a_refusal_names_the_bank_it_came_from_once() -> None:
    assert Refusal(Code.BANK_REFUSED, "no").at(B).bank == B
    assert Refusal(Code.BANK_REFUSED, "no", C).at(B).bank == C


def test_every_refusal_has_an_iso_word() -> None:
    assert iso_reason(Code.INSUFFICIENT_FUNDS) == "AM04"
    assert iso_reason(Code.NOT_RUN) == "ED05"
    assert {len(iso_reason(each)) for each in Code} == {4}


def test_the_items_of_a_batch_have_their_own_route_for_keys() -> None:
    assert item_route("batch-1") != item_route("batch-2")
