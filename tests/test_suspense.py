"""The rules of suspense, on rows alone: whatever is guessed wrong, spent and assigned, nothing is made up or lost."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distribank.core import ledger as books
from distribank.core.heuristics import Heuristic, Verdict, correct, correction_of, transaction_of
from distribank.core.ledger import CASH, Account, Book, BookEntry, Entry, EntryKind, Ledger, LedgerRow
from distribank.core.money import MAX_BALANCE
from distribank.core.refusals import Code, Refusal
from distribank.core.suspense import Assignment, Movement, Open, amount_of, assign, open_after
from distribank.core.transfer import Direction, Leg
from tests.stores import BANK, PEER, account, number, transaction_id

ACCOUNTS = range(1, 4)
WRONG = {Verdict.COMMIT: Verdict.ABORT, Verdict.ABORT: Verdict.COMMIT}


@dataclass
class Teller:
    """One bank's rows, by the rules of core alone; every operation is added up as it is posted."""

    accounts: dict[str, Account] = field(
        default_factory=lambda: {number(n): account(n, posted=100, changes=1) for n in ACCOUNTS}
    )
    balances: dict[str, int] = field(default_factory=lambda: {CASH: -100 * len(ACCOUNTS)})
    movements: list[Movement] = field(default_factory=list)
    stamp: int = 0

    def write(self, rows: tuple[LedgerRow, ...]) -> None:
        total = 0
        for row in rows:
            if isinstance(row, Account):
                self.accounts[row.number] = row
            elif isinstance(row, Entry):
                total += row.amount if row.direction is Direction.CREDIT else -row.amount
            elif isinstance(row, BookEntry):
                total += row.amount
                self.balances[row.book] = self.balances.get(row.book, 0) + row.amount
        assert total == 0, rows

    def cash(self, which: str, amount: int) -> None:
        """Paid in, or, where it is negative and covered, out."""
        before = self.accounts[which]
        leg = Leg(1, BANK, which, Direction.CREDIT if amount > 0 else Direction.DEBIT, abs(amount))
        if not amount or books.check(Ledger(self.accounts, {}), [leg]):
            return
        self.stamp += 1
        rows = books.post(Ledger({which: before}, {}), [leg], f"cash.{self.stamp}", EntryKind.DEPOSIT, self.stamp, 1)
        self.write((*rows, BookEntry(f"cash.{self.stamp}", CASH, -leg.signed, self.stamp)))

    def guess_wrong(self, verdict: Verdict, nets: dict[str, int], spent: dict[str, int]) -> None:
        """Force *verdict* on a transaction that changes accounts by *nets*, if they cover it; the truth differs."""
        legs = tuple(
            Leg(n, BANK, which, Direction.CREDIT if net > 0 else Direction.DEBIT, abs(net))
            for n, (which, net) in enumerate(nets.items(), 1)
            if net
        )
        if not legs or books.check(Ledger(self.accounts, {}), legs):
            return
        self.stamp += 1
        transaction = transaction_id(self.stamp, PEER)
        if verdict is Verdict.COMMIT:
            flow = -sum(leg.signed for leg in legs)
            rows = books.post(Ledger(self.accounts, {}), legs, transaction, EntryKind.TRANSFER, self.stamp, 1)
            self.write((*rows, *books.post_positions({PEER: flow}, transaction, self.stamp)))
        for which, amount in spent.items():
            self.cash(which, -min(amount, self.accounts[which].available))
            self.close_if_empty(which)
        self.stamp += 1
        made = correct(self.accounts, legs, WRONG[verdict], transaction, PEER, self.stamp, 1)
        self.write(made.rows)
        guess = Heuristic(transaction, verdict, "r", 1, WRONG[verdict], self.stamp, matched=False, damage=made.damage)
        self.movements.append(guess)

    def close_if_empty(self, which: str) -> None:
        closed = books.close(self.accounts[which], 1)
        if isinstance(closed, Account) and which == number(1):
            self.accounts[which] = closed

    def assign(self, direction: Direction, amount: int, which: str | None, nth: int | None = None) -> Refusal | None:
        guesses = [movement for movement in self.movements if isinstance(movement, Heuristic)]
        named = guesses[nth % len(guesses)].transaction if nth is not None and guesses else None
        self.stamp += 1
        order = Assignment(f"a{self.stamp}", direction, amount, which, "r", named, self.stamp, self.stamp)
        of_it = open_after(movement for movement in self.movements if movement.transaction == named)
        cash = Book(CASH, self.balances[CASH])
        made = assign(order, Ledger(self.accounts, {}), cash, open_after(self.movements), of_it, BANK)
        if isinstance(made, Refusal):
            return made
        (done,) = (row for row in made if isinstance(row, Assignment))
        self.movements.append(done)
        self.write(tuple(row for row in made if not isinstance(row, Assignment)))
        return None

    def check(self) -> Open:
        left = open_after(self.movements)
        assert min(left.owing, left.owed) >= 0
        assert self.balances.get("suspense", 0) == left.balance == sum(map(amount_of, self.movements))
        assert sum(row.posted for row in self.accounts.values()) + sum(self.balances.values()) == 0
        assert all(0 <= row.held <= row.posted for row in self.accounts.values())
        return left


amounts = st.integers(1, 150)
names = st.sampled_from([number(n) for n in ACCOUNTS])
guesses = st.tuples(
    st.just("guess"),
    st.sampled_from(Verdict),
    st.dictionaries(names, st.integers(-100, 100), min_size=1),
    st.dictionaries(names, st.integers(0, 200)),
)
assignments = st.tuples(
    st.just("assign"), st.sampled_from(Direction), amounts, names | st.none(), st.integers(0, 9) | st.none()
)


@given(st.lists(guesses | assignments | st.tuples(st.just("cash"), names, st.integers(-100, 100)), max_size=30))
def test_whatever_is_guessed_wrong_and_assigned_the_books_balance_and_nobody_is_below_zero(steps: list[object]) -> None:
    bank = Teller()
    for what, *order in steps:  # type: ignore[misc]
        {"guess": bank.guess_wrong, "assign": bank.assign, "cash": bank.cash}[what](*order)
        bank.check()


@given(st.lists(guesses, min_size=1, max_size=5))
def test_all_that_is_in_suspense_can_be_written_off_and_then_nothing_is(steps: list[object]) -> None:
    bank = Teller()
    for _, *order in steps:  # type: ignore[misc]
        bank.guess_wrong(*order)
    for direction in Direction:
        left = bank.check().to(direction)
        if left:
            assert bank.assign(direction, left, None) is None
        refusal = bank.assign(direction, 1, None)
        assert refusal is not None
        assert refusal.code is Code.NOT_IN_SUSPENSE
    assert bank.check() == Open()


def test_claims_of_one_transaction_that_cancel_in_the_book_are_both_open() -> None:
    """Account 1, closed, has 40 to get back; account 2 has spent the 40 that it must give back: the book is at 0."""
    bank = Teller()
    nets = {number(1): -40, number(2): 40}
    bank.guess_wrong(Verdict.COMMIT, nets, {number(1): 60, number(2): 140})
    assert bank.balances.get("suspense", 0) == 0
    assert bank.check() == Open(40, 40)
    assert bank.assign(Direction.CREDIT, 40, number(3), 0) is None
    assert bank.check() == Open(0, 40)
    bank.cash(number(2), 50)
    assert bank.assign(Direction.DEBIT, 40, number(2), 0) is None
    assert (bank.check(), bank.balances["suspense"], bank.accounts[number(2)].posted) == (Open(), 0, 10)


@pytest.mark.parametrize(
    ("nets", "spent", "open_", "wrong"),
    [
        ({number(1): -40}, {number(1): 60}, Open(40, 0), Direction.DEBIT),
        ({number(2): 40}, {number(2): 140}, Open(0, 40), Direction.CREDIT),
    ],
    ids=["what is owed to one who closed", "what is owed by one who spent it"],
)
def test_what_is_open_on_one_side_of_suspense_pays_nothing_on_the_other(
    nets: dict[str, int], spent: dict[str, int], open_: Open, wrong: Direction
) -> None:
    bank = Teller()
    bank.guess_wrong(Verdict.COMMIT, nets, spent)
    assert bank.check() == open_
    refusal = bank.assign(wrong, 1, number(3))
    assert refusal is not None
    assert refusal.code is Code.NOT_IN_SUSPENSE
    assert bank.check() == open_


@pytest.mark.parametrize("named", [None, 0])
def test_an_entry_out_of_suspense_belongs_to_the_transaction_that_was_named(named: int | None) -> None:
    bank = Teller()
    bank.guess_wrong(Verdict.COMMIT, {number(2): 40}, {number(2): 140})
    assert bank.assign(Direction.DEBIT, 5, number(3), named) is None
    guess, made = bank.movements
    assert isinstance(made, Assignment)
    assert transaction_of(made.operation) == made.transaction == (None if named is None else guess.transaction)
    assert (made.change, made.operation != correction_of(guess.transaction)) == (2, True)


def test_no_account_and_no_till_takes_more_than_it_may_hold() -> None:
    bank = Teller()
    bank.guess_wrong(Verdict.COMMIT, {number(1): -40}, {number(1): 60})
    full = number(2)
    bank.accounts[full] = replace(bank.accounts[full], posted=MAX_BALANCE)
    bank.balances[CASH] = MAX_BALANCE
    for which in (full, None):
        refusal = bank.assign(Direction.CREDIT, 1, which)
        assert refusal is not None
        assert (refusal.code, refusal.leg) == (Code.LIMIT_EXCEEDED, None)


@pytest.mark.parametrize(
    ("sums", "truth", "corrected"),
    [
        ({"posted": 100, "held": 70}, Verdict.ABORT, 30),
        ({"posted": MAX_BALANCE - 50, "incoming": 30}, Verdict.COMMIT, 20),
    ],
    ids=["a debit takes nothing that is held", "a credit leaves room for those that are pending"],
)
def test_a_correction_goes_as_far_as_other_holds_let_it(sums: dict[str, int], truth: Verdict, corrected: int) -> None:
    legs = (Leg(1, BANK, number(1), Direction.CREDIT, 40),)
    made = correct({number(1): account(1, **sums)}, legs, truth, transaction_id(1, PEER), PEER, 2, 1)
    assert [(one.corrected, one.to_suspense) for one in made.damage.accounts] == [(corrected, 40 - corrected)]
