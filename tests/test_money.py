"""Amounts: what is written, what is refused, and that nothing is lost on the way (pitfall 4)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distribank.core.money import AMOUNT_PATTERN, MAX_AMOUNT, MAX_BALANCE, format_amount, parse_amount


@given(st.integers(1, MAX_AMOUNT))
def test_every_amount_survives_being_written_and_read(centavos: int) -> None:
    text = format_amount(centavos)
    assert re.search(AMOUNT_PATTERN, text)
    assert parse_amount(text) == centavos


def test_the_greatest_amount_is_what_the_pattern_can_write() -> None:
    assert parse_amount("9999999999999.99") == MAX_AMOUNT
    assert format_amount(MAX_AMOUNT + 1) == "10000000000000.00"


@pytest.mark.parametrize(
    "text",
    [
        "0.00",
        "0000000000000.00",
        "-1.00",
        "+1.00",
        "1",
        "1.0",
        "1.000",
        ".50",
        "1,00",
        "1 000.00",
        "1e3.00",
        "10000000000000.00",
        "NaN",
        "Infinity",
        "",
        " 1.00",
        "1.00\n",
        "\uff11.00",
        "\u0661.00",
        "1.0\uff10",
    ],
)
def test_what_is_not_a_positive_amount_in_the_contracts_form_is_refused(text: str) -> None:
    """Pitfall 4: negative, zero, fractional, textual and enormous amounts, and digits that only look like some."""
    with pytest.raises(ValueError, match="amount"):
        parse_amount(text)


def test_a_position_is_written_with_its_sign_and_two_decimals() -> None:
    assert [format_amount(n) for n in (0, 5, -5, -150, 100)] == ["0.00", "0.05", "-0.05", "-1.50", "1.00"]


def test_sums_of_two_greatest_balances_fit_a_signed_64_bit_column() -> None:
    assert 2 * MAX_BALANCE < 2**63
