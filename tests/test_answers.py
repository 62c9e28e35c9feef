"""What rows come to in an answer, where no story told over HTTP would notice another word."""

from __future__ import annotations

from dataclasses import replace

from distribank.api.answers import operator
from distribank.api.answers.transfers import transfer
from distribank.bank import InDoubt
from distribank.core.clock import wall_of
from distribank.core.heuristics import AccountDamage
from distribank.core.holders import Holder
from distribank.core.protocol import Role, State
from distribank.core.transfer import Direction
from distribank.moments import format_ms
from distribank.ports import Recount
from tests.stores import BANK, STAMP, damaging, number, transaction

MARIA = Holder("00000000001", "h1", "Maria da Silva", "", 0, None)


def test_a_doubt_is_as_old_as_the_decision_or_the_vote_behind_it() -> None:
    begun = transaction(1)
    decided = transaction(1, State.COMMITTING, decided_at=1_000)
    voted = replace(begun, role=Role.PARTICIPANT, state=State.PREPARED, prepared_at=STAMP)
    since = [operator.in_doubt(InDoubt(row, "why"))["since"] for row in (begun, decided, voted)]
    assert since == [format_ms(1), format_ms(1_000), format_ms(wall_of(STAMP))]


def test_what_is_aborted_is_decided_and_never_completed() -> None:
    aborted = transfer(transaction(1, State.ABORTED, completed_at=5), BANK, MARIA, ())
    ended = transfer(transaction(1, State.ENDED), BANK, MARIA, ())
    assert [("decided_at" in seen, "completed_at" in seen) for seen in (aborted, ended)] == [
        (True, False),
        (True, True),
    ]


def test_only_accounts_whose_part_went_to_suspense_want_it() -> None:
    wrong = damaging(1)
    assert wrong.damage is not None
    whole = AccountDamage(number(2), Direction.DEBIT, 5, 5)
    wrong = replace(wrong, damage=replace(wrong.damage, accounts=(*wrong.damage.accounts, whole)))
    assert [one["account"] for one in operator.movement(wrong)["wanted_by"]] == [number(1)]


def test_the_banks_own_books_are_told_where_nothing_has_moved_them() -> None:
    assert operator.recount(Recount(0, {}, 0, 0, []))["books"] == {"cash": "0.00", "suspense": "0.00"}
