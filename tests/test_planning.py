"""Choosing whose money pays: what every plan keeps to, whatever there is to draw on."""

from __future__ import annotations

import random
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from distribank.core.money import MAX_AMOUNT
from distribank.core.planning import MAX_DEBITS, Plan, Source, plan, within

HOME = ("A", "B")
rooms = st.integers(-5, 50)
sources = st.dictionaries(st.tuples(st.sampled_from("ABCDE"), st.integers(1, 4).map(str)), rooms, max_size=14).map(
    lambda found: [Source(bank, account, room) for (bank, account), room in found.items()]
)


@given(st.integers(1, 400), sources)
def test_a_plan_pays_exactly_what_is_wanted_or_says_how_much_can_be_reached(amount: int, given_: list[Source]) -> None:
    made = plan(amount, given_, HOME)
    assert made.reachable == sum(max(0, source.room) for source in given_)
    assert sum(debit.room for debit in made.debits) == (amount if amount <= made.reachable else 0)


@given(st.integers(1, 400), sources)
def test_no_account_pays_more_than_it_can_or_twice(amount: int, given_: list[Source]) -> None:
    can = {(source.bank, source.account): source.room for source in given_}
    debits = plan(amount, given_, HOME).debits
    assert all(0 < debit.room <= can[debit.bank, debit.account] for debit in debits)
    assert len({(debit.bank, debit.account) for debit in debits}) == len(debits)


@given(st.integers(1, 400), sources)
def test_no_smaller_number_of_further_banks_would_do(amount: int, given_: list[Source]) -> None:
    used = {debit.bank for debit in plan(amount, given_, HOME).debits} - set(HOME)
    for fewer in combinations("CDE", len(used) - 1) if used else ():
        assert sum(max(0, s.room) for s in given_ if s.bank in (*HOME, *fewer)) < amount


@given(st.integers(1, 400), sources, st.integers())
def test_the_order_in_which_sources_are_given_changes_nothing(amount: int, given_: list[Source], seed: int) -> None:
    shuffled = random.Random(seed).sample(given_, len(given_))  # noqa: S311 - repeatable
    assert plan(amount, shuffled, HOME) == plan(amount, given_, HOME)


@given(sources, st.dictionaries(st.sampled_from("ABC"), st.integers(-5, 60)))
def test_no_bank_gives_more_than_its_ceiling_nor_less_than_it_could(
    given_: list[Source], ceilings: dict[str, int]
) -> None:
    found = within(given_, ceilings)
    for bank in "ABCDE":
        could = sum(max(0, source.room) for source in given_ if source.bank == bank)
        assert sum(s.room for s in found if s.bank == bank) == min(could, max(0, ceilings.get(bank, could)))
    can = {(source.bank, source.account): max(0, source.room) for source in given_}
    assert all(0 <= source.room <= can[source.bank, source.account] for source in found)


def test_the_largest_accounts_pay_where_a_transfer_has_no_room_for_all() -> None:
    many = [Source("A", f"{number:02d}", 1) for number in range(70)] + [Source("C", "1", 100)]
    made = plan(150, many, HOME)
    assert (len(made.debits), sum(debit.room for debit in made.debits)) == (51, 150)
    assert plan(163, many, HOME) == Plan((), 100 + MAX_DEBITS - 1, crowded=True)
    assert plan(200, many[:MAX_DEBITS], HOME) == Plan((), MAX_DEBITS)
    assert plan(1, [Source("A", "1", 10 * MAX_AMOUNT)], HOME).reachable == MAX_AMOUNT
