"""The ledger's rules, as properties over random histories and as small stories about what they forbid."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distribank.core import ledger as books
from distribank.core.holders import Counter
from distribank.core.ledger import (
    CASH,
    Account,
    Book,
    BookEntry,
    Company,
    Entry,
    EntryKind,
    Hold,
    HoldState,
    Ledger,
    LedgerRow,
    Reservation,
)
from distribank.core.money import MAX_BALANCE
from distribank.core.refusals import Code, Refusal
from distribank.core.transfer import Direction, Leg, banks_of, legs_at, net_flow
from tests.stories import ANA_HERE, ANA_THERE, CAIO, WALL, A, B, C, account, ledger, ledger_after, leg

NUMBERS = (ANA_HERE, ANA_THERE, CAIO)


@dataclass
class Bank:
    """One bank's rows, kept as a store would keep them."""

    code: str
    accounts: dict[str, Account]
    holds: dict[tuple[str, str], Hold] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    book_entries: list[BookEntry] = field(default_factory=list)
    reserved: dict[str, int] = field(default_factory=dict)

    def ledger(self, legs: tuple[Leg, ...], transaction: str) -> Ledger:
        numbers = {each.account for each in legs}
        held = [h for (number, tx), h in self.holds.items() if tx == transaction and number in numbers]
        return ledger(*(self.accounts[n] for n in numbers if n in self.accounts), holds=held)

    def keep(self, rows: tuple[LedgerRow, ...]) -> None:
        for row in rows:
            if isinstance(row, Account):
                self.accounts[row.number] = row
            elif isinstance(row, Hold):
                self.holds[row.account, row.transaction] = row
            elif isinstance(row, Entry):
                self.entries.append(row)
            elif isinstance(row, BookEntry):
                self.book_entries.append(row)
            else:
                self.reserved[row.book] = self.reserved.get(row.book, 0) + row.amount

    def position(self, peer: str) -> int:
        return sum(entry.amount for entry in self.book_entries if entry.book == books.position_book(peer))

    def check(self) -> None:
        """What holds at every moment: nothing is overdrawn, and every kept sum is what its rows add up to."""
        for number, kept in self.accounts.items():
            mine = [e for e in self.entries if e.account == number]
            placed = [h for h in self.holds.values() if h.account == number and h.state is HoldState.PLACED]
            assert kept.available >= 0
            assert kept.posted == sum(_signed(e) for e in mine)
            assert kept.held == sum(h.debit for h in placed)
            assert kept.incoming == sum(h.credit for h in placed)
            assert kept.open_holds == len(placed)
            numbers = [e.change for e in mine]
            assert len(set(numbers)) == len(numbers)
            assert max(numbers, default=0) <= kept.changes
        assert sum(_signed(e) for e in self.entries) + sum(e.amount for e in self.book_entries) == 0


def _signed(entry: Entry) -> int:
    return entry.amount if entry.direction is Direction.CREDIT else -entry.amount


def bank(code: str, *balances: int) -> Bank:
    """A bank whose accounts were filled in cash."""
    made = Bank(code, {n: account(n) for n in NUMBERS})
    for number, amount in zip(NUMBERS, balances, strict=False):
        if amount:
            legs = (leg(1, code, number, amount),)
            operation = f"deposit-{number}"
            made.keep(books.post(made.ledger(legs, operation), legs, operation, EntryKind.DEPOSIT, 1, WALL))
            made.keep((BookEntry(operation, CASH, -amount, 1),))
    made.check()
    return made


# Properties -------------------------------------------------------------------------------------------------------

own_legs = st.lists(
    st.tuples(st.sampled_from(NUMBERS), st.integers(-400, 400).filter(bool)), min_size=1, max_size=6
).map(lambda parts: tuple(leg(n, A, number, signed) for n, (number, signed) in enumerate(parts, 1)))


@given(st.lists(st.tuples(own_legs, st.sampled_from(["post", "release", "wait"])), max_size=12))
def test_no_sequence_of_holds_posts_and_releases_overdraws_an_account_or_loses_a_sum(
    history: list[tuple[tuple[Leg, ...], str]],
) -> None:
    """Pitfalls 2, 5 and 6."""
    here = bank(A, 500, 300, 0)
    waiting: list[tuple[str, tuple[Leg, ...]]] = []
    for n, (legs, then) in enumerate(history):
        transaction = f"tx-{n}"
        before = here.ledger(legs, transaction)
        nets = books.net_per_account(legs)
        refusal = books.check(before, legs)
        covered = all(-net <= before.accounts[number].available for number, net in nets.items())
        assert (refusal is None) is covered
        if refusal is not None:
            continue
        here.keep(books.place(before, legs, transaction, n))
        here.check()
        waiting.append((transaction, legs))
        if then == "wait":
            continue
        transaction, legs = waiting.pop(0)
        held = here.ledger(legs, transaction)
        if then == "release":
            here.keep(books.release(held, n))
        else:
            here.keep(books.post(held, legs, transaction, EntryKind.TRANSFER, n, WALL))
            here.keep(books.post_positions({B: -net_flow(legs)}, transaction, n))
        here.check()


order_legs = st.lists(
    st.tuples(st.sampled_from([A, B, C]), st.sampled_from(NUMBERS), st.integers(1, 200), st.sampled_from([A, B, C])),
    min_size=1,
    max_size=5,
)


@given(st.lists(order_legs, max_size=8))
def test_over_random_transfers_each_banks_books_balance_and_positions_mirror_each_other(
    orders: list[list[tuple[str, str, int, str]]],
) -> None:
    banks = {code: bank(code, 500, 300, 100) for code in (A, B, C)}
    total = sum(a.posted for each in banks.values() for a in each.accounts.values())
    for n, parts in enumerate(orders):
        legs: tuple[Leg, ...] = ()
        for source, number, amount, target in parts:
            legs += (leg(len(legs) + 1, source, number, -amount), leg(len(legs) + 2, target, CAIO, amount))
        coordinator, transaction = (A, B, C)[n % 3], f"tx-{n}"
        if any(books.check(banks[b].ledger(legs_at(b, legs), transaction), legs_at(b, legs)) for b in banks_of(legs)):
            continue
        flows = {b: net_flow(legs_at(b, legs)) for b in banks_of(legs) if b != coordinator}
        for code in {coordinator, *banks_of(legs)}:
            own, here = legs_at(code, legs), banks[code]
            flow = flows if code == coordinator else {coordinator: -flows[code]}
            here.keep(books.place(here.ledger(own, transaction), own, transaction, n))
            here.keep(books.reserve_positions(flow))
            here.keep(books.post(here.ledger(own, transaction), own, transaction, EntryKind.TRANSFER, n, WALL))
            here.keep(books.reserve_positions(flow, give_back=True))
            here.keep(books.post_positions(flow, transaction, n))
    for code, here in banks.items():
        here.check()
        assert not any(here.reserved.values())
        for other in banks:
            assert here.position(other) == -banks[other].position(code)
    assert sum(a.posted for each in banks.values() for a in each.accounts.values()) == total


# Holds ------------------------------------------------------------------------------------------------------------


def test_two_debits_of_one_account_are_checked_together() -> None:
    """Pitfall 2."""
    legs = (leg(1, A, ANA_HERE, -300), leg(2, A, ANA_HERE, -300))
    refusal = books.check(ledger(account(ANA_HERE, 500)), legs)
    assert refusal is not None
    assert (refusal.code, refusal.account, refusal.leg) == (Code.INSUFFICIENT_FUNDS, ANA_HERE, 1)
    assert books.check(ledger(account(ANA_HERE, 600)), legs) is None


def test_several_legs_of_one_account_are_one_hold_of_their_net() -> None:
    """Pitfall 2: the second leg neither waits for the first nor overwrites it."""
    legs = (leg(1, A, ANA_HERE, -300), leg(2, A, ANA_HERE, -300), leg(3, A, ANA_HERE, 150))
    rows = books.place(ledger(account(ANA_HERE, 500)), legs, "tx", 7)
    assert [(r.direction, r.amount) for r in rows if isinstance(r, Hold)] == [(Direction.DEBIT, 450)]
    (kept,) = [r for r in rows if isinstance(r, Account)]
    assert (kept.available, kept.held, kept.open_holds) == (50, 450, 1)


def test_legs_that_cancel_out_hold_nothing_but_still_keep_the_account_from_closing() -> None:
    legs = (leg(1, A, ANA_HERE, -300), leg(2, A, ANA_HERE, 300))
    before = ledger(account(ANA_HERE, 0))
    assert books.check(before, legs) is None
    held = ledger_after(before, books.place(before, legs, "tx", 7))
    assert held.holds[ANA_HERE].amount == 0
    assert (held.accounts[ANA_HERE].open_holds, held.accounts[ANA_HERE].available) == (1, 0)
    posted = ledger_after(held, books.post(held, legs, "tx", EntryKind.TRANSFER, 8, WALL))
    assert (posted.accounts[ANA_HERE].open_holds, posted.accounts[ANA_HERE].posted) == (0, 0)


def test_a_pending_credit_cannot_be_spent_and_a_pending_debit_reduces_what_is_available() -> None:
    """Pitfall 5."""
    before = ledger(account(ANA_HERE, 100))
    credited = ledger_after(before, books.place(before, (leg(1, A, ANA_HERE, 500),), "in", 7))
    assert credited.accounts[ANA_HERE].available == 100
    assert books.check(credited, (leg(1, A, ANA_HERE, -101),)) is not None
    debited = ledger_after(before, books.place(before, (leg(1, A, ANA_HERE, -60),), "out", 7))
    assert books.check(debited, (leg(1, A, ANA_HERE, -41),)) is not None
    assert books.check(debited, (leg(1, A, ANA_HERE, -40),)) is None


def test_a_missing_or_closed_account_is_refused_on_either_side() -> None:
    for signed in (-1, 1):
        missing = books.check(ledger(), (leg(1, A, ANA_HERE, signed),))
        closed = books.check(ledger(account(ANA_HERE, 10, closed_at=WALL)), (leg(1, A, ANA_HERE, signed),))
        assert missing is not None
        assert missing.code is Code.ACCOUNT_NOT_FOUND
        assert closed is not None
        assert closed.code is Code.ACCOUNT_CLOSED


def test_only_an_account_without_money_and_without_holds_closes_and_once_closed_it_stays_as_it_is() -> None:
    for kept in (account(ANA_HERE, 10), account(ANA_HERE, open_holds=1)):
        refused = books.close(kept, WALL)
        assert isinstance(refused, Refusal)
        assert refused.code is Code.ACCOUNT_NOT_EMPTY
    closed = books.close(account(ANA_HERE), WALL)
    assert isinstance(closed, Account)
    assert (closed.closed_at, closed.changes) == (WALL, 1)
    assert books.close(closed, WALL + 1) == closed


def test_no_account_may_hold_more_than_the_bound_pending_credits_included() -> None:
    full = account(ANA_HERE, MAX_BALANCE - 100, incoming=60)
    refusal = books.check(ledger(full), (leg(1, A, ANA_HERE, 41),))
    assert refusal is not None
    assert refusal.code is Code.LIMIT_EXCEEDED
    assert books.check(ledger(full), (leg(1, A, ANA_HERE, 40),)) is None
    assert books.check(ledger(full), (leg(1, A, ANA_HERE, -1),)) is None


def test_holding_more_than_is_available_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="available"):
        books.place(ledger(account(ANA_HERE, 100)), (leg(1, A, ANA_HERE, -101),), "tx", 7)


def test_posting_more_than_is_available_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="available"):
        books.post(ledger(account(ANA_HERE, 1)), (leg(1, A, ANA_HERE, -2),), "tx", EntryKind.TRANSFER, 7, WALL)


def test_a_hold_is_resolved_once() -> None:
    legs = (leg(1, A, ANA_HERE, -60),)
    before = ledger(account(ANA_HERE, 100))
    held = ledger_after(before, books.place(before, legs, "tx", 7))
    freed = ledger_after(held, books.release(held, 9))
    assert freed.accounts[ANA_HERE].available == 100
    assert (freed.holds[ANA_HERE].state, freed.holds[ANA_HERE].resolved_at) == (HoldState.RELEASED, 9)
    with pytest.raises(AssertionError, match="released"):
        books.release(freed, 10)


# Entries ----------------------------------------------------------------------------------------------------------


def test_credits_post_before_debits_and_each_entry_tells_the_balance_after_it() -> None:
    legs = (leg(1, A, ANA_HERE, -300), leg(2, A, CAIO, 250), leg(3, A, ANA_HERE, 50))
    rows = books.post(ledger(account(ANA_HERE, 260), account(CAIO, 5)), legs, "tx", EntryKind.TRANSFER, 7, WALL)
    posted = [(r.account, r.leg, r.balance_after) for r in rows if isinstance(r, Entry)]
    assert posted == [(CAIO, 2, 255), (ANA_HERE, 3, 310), (ANA_HERE, 1, 10)]


def test_the_changes_of_an_account_are_numbered_without_a_gap() -> None:
    """A listener resumes by these numbers."""
    legs = (leg(1, A, ANA_HERE, -60), leg(2, A, ANA_HERE, 10))
    before = ledger(account(ANA_HERE, 100))
    placed = books.place(before, legs, "tx", 7)
    held = ledger_after(before, placed)
    posted = books.post(held, legs, "tx", EntryKind.TRANSFER, 8, WALL)
    numbers = [r.change for rows in (placed, posted) for r in rows if isinstance(r, Entry | Hold)]
    assert numbers == [1, 2, 3, 4]
    after = ledger_after(held, posted)
    assert after.accounts[ANA_HERE].changes == 4
    assert after.holds[ANA_HERE].placed_change == 1


# Positions --------------------------------------------------------------------------------------------------------


def test_what_a_peer_owes_and_may_yet_owe_counts_against_its_cap() -> None:
    position = Book("position", balance=-300, reserved=200)
    assert books.check_position(position, 500, 1000) is None
    refusal = books.check_position(position, 501, 1000)
    assert refusal is not None
    assert refusal.code is Code.POSITION_LIMIT


def test_what_this_bank_owes_a_peer_leaves_room_below_its_cap() -> None:
    assert books.check_position(Book("position", balance=300), 1300, 1000) is None


def test_no_position_may_outgrow_the_bound_of_all_sums_whatever_its_cap() -> None:
    assert books.check_position(Book("position"), MAX_BALANCE + 1, 10 * MAX_BALANCE) is not None


def test_only_what_a_peer_would_come_to_owe_is_reserved_and_given_back() -> None:
    flows = {B: -200, C: 500}
    assert books.reserve_positions(flows) == (Reservation(f"position:{B}", 200),)
    assert books.reserve_positions(flows, give_back=True) == (Reservation(f"position:{B}", -200),)


def test_a_flow_of_zero_posts_nothing() -> None:
    assert books.post_positions({B: 0, C: 5}, "tx", 7) == (BookEntry("tx", f"position:{C}", 5, 7),)


# Names ------------------------------------------------------------------------------------------------------------


def test_counterparties_see_a_companys_name_and_a_persons_initials() -> None:
    person = account(ANA_HERE)
    company = replace(person, company=Company("11222333000181", "Padaria Sol Ltda", ANA_HERE))
    assert (person.masked_name, company.masked_name) == ("Ana S***", "Padaria Sol Ltda")
    assert person.is_held_by(person.opener.cpf)
    assert not person.is_held_by("11144477735")


def test_a_position_names_its_peer_and_the_other_books_name_none() -> None:
    assert Book(books.position_book(B)).peer == B
    assert Book(CASH).peer is None


def test_the_counters_of_a_bank_start_below_the_first_number_drawn() -> None:
    assert Counter("accounts").value == 0
