"""Values: equal and hashed by their fields, copied with changes, and never changed in place by a decision."""

from __future__ import annotations

import sys
from subprocess import run

import pytest

from distribank.core.clock import Floor
from distribank.core.ledger import Book
from distribank.core.values import replace

FREEZE = """
import dataclasses, sys
from distribank.core import values
values.dataclass, values.replace = dataclasses.dataclass, dataclasses.replace
import pytest
from distribank.core.ledger import Book
with pytest.raises(dataclasses.FrozenInstanceError):
    Book("cash").balance = 1
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""

DECISIONS = [
    f"tests/test_{name}.py"
    for name in ("coordinator_table", "participant_table", "ledger", "consents", "heuristics", "suspense", "planning")
]


def test_values_are_equal_and_hashed_by_their_fields() -> None:
    assert Book("cash", 1, 2) == Book("cash", 1, 2) != Book("cash", 1, 3)
    assert len({Book("cash", 1, 2), Book("cash", 1, 2), Book("cash", 1, 3)}) == 2


def test_a_changed_copy_leaves_the_value_as_it_was() -> None:
    book, floor = Book("cash", 1, 2), Floor(1)
    assert (replace(book, balance=5), book) == (Book("cash", 5, 2), Book("cash", 1, 2))
    assert (replace(floor, stamp=2), floor) == (Floor(2), Floor(1))


def test_what_is_no_field_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        replace(Book("cash"), ballance=1)  # type: ignore[call-arg]


def test_no_decision_changes_a_value_in_place() -> None:
    """With values that ``dataclasses`` freezes, every decision comes out the same."""
    ran = run([sys.executable, "-c", FREEZE, *DECISIONS], capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stdout + ran.stderr
