"""Amounts: positive integers of centavos inside, decimal strings such as ``"150.00"`` at the public edge.

Never a float, never a JSON number: 150, 150.0 and 15000 are how money gets lost.
"""

from __future__ import annotations

import re
from typing import Final

AMOUNT_PATTERN: Final = r"^[0-9]{1,13}\.[0-9]{2}$"
MAX_AMOUNT: Final = 10**15 - 1
"""Centavos in the greatest amount that the pattern can write, ``9999999999999.99``."""
MAX_BALANCE: Final = 4 * 10**18
"""Centavos that one account, the cash or one position may reach: sums of two still fit 64 bits."""

_AMOUNT: Final = re.compile(AMOUNT_PATTERN)


def parse_amount(text: str) -> int:
    """Centavos of *text*; ``ValueError`` unless it is a positive amount written as the contract says."""
    if not _AMOUNT.fullmatch(text):
        raise ValueError('an amount is a string such as "150.00": digits, a point and two decimals')
    centavos = int(text[:-3] + text[-2:])
    if centavos == 0:
        raise ValueError("an amount is greater than zero")
    return centavos


def format_amount(centavos: int) -> str:
    """*centavos* as a decimal string; a minus sign stands before a negative position."""
    sign, magnitude = ("-", -centavos) if centavos < 0 else ("", centavos)
    return f"{sign}{magnitude // 100}.{magnitude % 100:02d}"
