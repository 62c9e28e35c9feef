"""Consents: who may order a debit elsewhere, how much, until when (pitfalls 16b and 28)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distribank.core.consents import (
    Consent,
    ConsentStatus,
    ConsentUse,
    Request,
    check,
    give_back,
    status_of,
    use,
)
from distribank.core.ledger import Account
from distribank.core.money import MAX_BALANCE
from distribank.core.refusals import Code
from distribank.core.transfer import Leg
from tests.stories import ANA_CPF, ANA_THERE, CAIO, CAIO_CPF, RUI_CPF, WALL, A, B, C, account, consent, leg

THERE: Mapping[str, Account] = {
    ANA_THERE: account(ANA_THERE, 10_000),
    CAIO: account(CAIO, 10_000, CAIO_CPF, "Caio Lima"),
}


def request(*legs: Leg, accounts: Mapping[str, Account] = THERE, **more: Any) -> Request:
    return replace(Request(A, ANA_CPF, legs or (leg(2, B, ANA_THERE, -200),), accounts, WALL), **more)


def code(consents: list[Consent], asked: Request) -> Code | None:
    refusal = check(consents, asked)
    return refusal.code if refusal else None


def test_a_debit_that_its_holder_consented_to_passes_and_uses_the_consent_up() -> None:
    assert check([consent()], request()) is None
    used = use([consent()], request())
    assert used.changes == (consent(used=200),)
    assert used.uses == (ConsentUse("consent-1", 200),)


def test_a_credit_needs_no_consent() -> None:
    asked = request(leg(1, B, ANA_THERE, 200))
    assert check([], asked) is None
    assert use([], asked) == use([consent()], asked)
    assert use([], asked).uses == ()


@pytest.mark.parametrize(
    "given_consent",
    [
        consent(initiator_bank=C),
        consent(account=CAIO),
        consent(holder_cpf=RUI_CPF),
        consent(revoked_at=WALL - 1),
    ],
    ids=["to another bank", "on another account", "by another person", "revoked"],
)
def test_without_a_consent_of_this_holder_to_this_bank_on_this_account_no_debit(given_consent: Consent) -> None:
    """Pitfall 28: a coordinator's own word debits nobody."""
    assert code([given_consent], request()) is Code.CONSENT_REQUIRED
    assert code([], request()) is Code.CONSENT_REQUIRED


def test_a_consent_serves_only_the_holder_who_gave_it() -> None:
    assert code([consent()], request(holder_cpf=CAIO_CPF)) is Code.CONSENT_REQUIRED


def test_a_consent_of_one_who_no_longer_holds_the_account_is_worth_nothing() -> None:
    given_by_rui = consent(holder_cpf=RUI_CPF)
    assert code([given_by_rui], request(holder_cpf=RUI_CPF)) is Code.CONSENT_REQUIRED


def test_a_consent_given_by_one_holder_of_an_account_that_needs_two_does_not_suffice() -> None:
    """Pitfall 16b."""
    accounts = {ANA_THERE: account(ANA_THERE, 10_000, approval=2)}
    assert code([consent()], request(accounts=accounts)) is Code.APPROVAL_REQUIRED


def test_an_expired_consent_says_so_unless_another_one_still_serves() -> None:
    expired = consent(consent_id="consent-0", expires_at=WALL)
    assert code([expired], request()) is Code.CONSENT_EXPIRED
    assert code([expired, consent()], request()) is None
    assert use([expired, consent()], request()).uses == (ConsentUse("consent-1", 200),)


def test_a_debit_above_the_ceiling_per_transfer_or_in_total_is_refused() -> None:
    assert code([consent(max_per_transfer=199)], request()) is Code.CONSENT_EXCEEDED
    assert code([consent(used=801)], request()) is Code.CONSENT_EXCEEDED
    assert code([consent(used=800)], request()) is None
    assert code([consent(max_total=None, used=10**9)], request()) is None


def test_what_was_used_of_a_consent_without_a_total_stays_a_number_that_a_store_can_keep() -> None:
    """Else a store could not write it, and the bank would stop at each prepare that uses it."""
    assert code([consent(max_total=None, used=MAX_BALANCE - 200)], request()) is None
    assert code([consent(max_total=None, used=MAX_BALANCE - 199)], request()) is Code.CONSENT_EXCEEDED


def test_several_debits_of_one_account_are_one_debit_of_their_sum() -> None:
    legs = (leg(1, B, ANA_THERE, -300), leg(2, B, ANA_THERE, -201), leg(3, B, ANA_THERE, 400))
    assert code([consent(max_per_transfer=500)], request(*legs)) is Code.CONSENT_EXCEEDED
    assert use([consent(max_per_transfer=501)], request(*legs)).uses == (ConsentUse("consent-1", 501),)


def test_a_refusal_names_the_first_leg_of_the_account_concerned() -> None:
    legs = (leg(4, B, CAIO, 50), leg(5, B, ANA_THERE, -200))
    refusal = check([], request(*legs))
    assert refusal is not None
    assert (refusal.bank, refusal.account, refusal.leg) == (B, ANA_THERE, 5)


def test_the_oldest_consent_with_room_is_used() -> None:
    older = consent(consent_id="older", created_at=WALL - 900, used=900)
    newer = consent(consent_id="newer", created_at=WALL - 100)
    oldest = consent(consent_id="oldest", created_at=WALL - 950)
    assert use([newer, older, oldest], request()).uses == (ConsentUse("oldest", 200),)
    assert use([newer, older], request()).uses == (ConsentUse("newer", 200),)


def test_using_what_check_refused_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="check"):
        use([], request())


def test_a_consents_status_is_what_it_is_worth_now() -> None:
    assert status_of(consent(), WALL) is ConsentStatus.ACTIVE
    assert status_of(consent(used=1000), WALL) is ConsentStatus.USED_UP
    assert status_of(consent(expires_at=WALL), WALL) is ConsentStatus.EXPIRED
    assert status_of(consent(expires_at=WALL + 1), WALL) is ConsentStatus.ACTIVE
    assert status_of(consent(revoked_at=WALL, expires_at=WALL), WALL) is ConsentStatus.REVOKED
    assert status_of(consent(max_total=None, used=10**12), WALL) is ConsentStatus.ACTIVE


def test_an_aborted_transfer_gives_back_what_it_used_even_of_a_consent_revoked_meanwhile() -> None:
    used = use([consent(used=100)], request())
    revoked = replace(used.changes[0], revoked_at=WALL)
    assert give_back([revoked], used.uses) == (consent(used=100, revoked_at=WALL),)
    assert give_back([consent()], ()) == ()


@given(st.lists(st.tuples(st.integers(1, 600), st.booleans()), max_size=30))
def test_what_is_used_never_exceeds_the_total_and_aborts_give_it_all_back(orders: list[tuple[int, bool]]) -> None:
    present, kept = consent(), 0
    for amount, aborts in orders:
        asked = request(leg(1, B, ANA_THERE, -amount))
        if check([present], asked) is not None:
            assert amount > 500 or kept + amount > 1000
            continue
        used = use([present], asked)
        present = used.changes[0]
        assert present.used <= 1000
        if aborts:
            (present,) = give_back([present], used.uses)
        else:
            kept += amount
        assert present.used == kept
