"""What must hold in every moment, checked against each group of rows that becomes durable: I2, I5, I7, I8.

The checkers keep sums of their own, of the rows alone, and ask nothing of the code that they check.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from distribank.core.ledger import Account, Book, BookEntry, Entry, Hold
from distribank.core.protocol import Transaction
from distribank.store.group import Group


class Violation(AssertionError):
    """An invariant does not hold; the words begin with its number."""


OPEN = ("preparing", "prepared")
"""The states in which a transaction has holds at a bank: being voted on as its coordinator, or voted on."""


class Ledger:
    """What one bank has on disk, as far as these checks need it."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.posted: dict[str, int] = defaultdict(int)
        self.books: dict[str, int] = defaultdict(int)
        self.legs: set[tuple[str, int]] = set()
        self.placed: dict[str, dict[str, Hold]] = defaultdict(dict)
        self.holds: dict[str, dict[str, Hold]] = defaultdict(dict)
        self.transactions: dict[str, Any] = {}

    def land(self, group: Group) -> None:
        """Check *group*, which is about to be durable; raises ``Violation``."""
        for entry in group.added[Entry]:
            self._post(entry)
        for posting in group.added[BookEntry]:
            self.books[posting.book] += posting.amount
        concerned = dict.fromkeys(group.puts[Transaction])
        self.transactions.update(group.puts[Transaction])
        for hold in group.puts[Hold].values():
            concerned[hold.transaction] = None
            self._hold(hold)
        for account in group.puts[Account].values():
            self._account(account)
        for book in group.puts[Book].values():
            if book.balance != self.books[book.name]:
                raise Violation(f"I8: book {book.name} of {self.code} says {book.balance}, not {self.books[book.name]}")
        for transaction in concerned:
            self._transaction(transaction)

    def _post(self, entry: Entry) -> None:
        leg = (entry.operation, entry.leg)
        if leg in self.legs:
            raise Violation(f"I5: leg {entry.leg} of {entry.operation} is posted twice at {self.code}")
        self.legs.add(leg)
        self.posted[entry.account] += signed(entry)
        if self.posted[entry.account] < 0:
            raise Violation(f"I2: {entry.account} at {self.code} has {self.posted[entry.account]}: {entry}")

    def _hold(self, hold: Hold) -> None:
        if hold.state == "placed":
            self.placed[hold.account][hold.transaction] = hold
            self.holds[hold.transaction][hold.account] = hold
        else:
            self.placed[hold.account].pop(hold.transaction, None)
            self.holds[hold.transaction].pop(hold.account, None)

    def _account(self, account: Account) -> None:
        held = sum(hold.amount for hold in self.placed[account.number].values() if hold.direction == "debit")
        posted = self.posted[account.number]
        if account.posted != posted:
            raise Violation(f"I8: {account.number} at {self.code} says {account.posted}, its entries sum to {posted}")
        if not 0 <= held <= posted:
            raise Violation(f"I2: {held} of the {posted} of {account.number} at {self.code} are held")
        if account.held != held:
            raise Violation(f"I8: {account.number} at {self.code} says that {account.held} are held, not {held}")

    def _transaction(self, identity: str) -> None:
        known, held = self.transactions.get(identity), self.holds[identity]
        wanted = {}
        if known is not None and known.state in OPEN and known.order is not None:
            wanted = nets(leg for leg in known.order.legs if leg.bank == self.code)
        have = {account: hold.amount if hold.direction == "credit" else -hold.amount for account, hold in held.items()}
        if have != wanted:
            state = known.state if known is not None else "unknown"
            raise Violation(f"I7: {identity}, {state} at {self.code}, holds {have}, and its legs come to {wanted}")


def signed(entry: Entry) -> int:
    """What an entry adds to its account."""
    return entry.amount if entry.direction == "credit" else -entry.amount


def nets(legs: Iterable[Any]) -> dict[str, int]:
    """By account, what the legs add to it."""
    sums: dict[str, int] = {}
    for leg in legs:
        sums[leg.account] = sums.get(leg.account, 0) + (leg.amount if leg.direction == "credit" else -leg.amount)
    return sums
