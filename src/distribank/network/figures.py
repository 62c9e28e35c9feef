"""What each bank says of itself in figures, about once a second, for the table of ``up``: by its ``/metrics``.

Each bank is asked by a task of its own, within a limit of time: one that is frozen or dead has no figures, and keeps
nobody waiting.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from typing import Final

from distribank.breakages import Breakage
from distribank.network.client import Session, client_of
from distribank.network.layout import LocalBank

ASK_SECONDS: Final = 1.0
"""How often a bank is asked."""
WITHIN_SECONDS: Final = 2.0
"""How long one answer may take, signing in included."""
_TRANSFERS: Final = re.compile(r"^distribank_transfers_total\{[^}]*\} (\S+)$", re.MULTILINE)
_IN_DOUBT: Final = re.compile(r"^distribank_in_doubt (\S+)$", re.MULTILINE)


@dataclass(slots=True)
class Figures:
    """The latest of one bank; ``None`` where it is not known, or not yet."""

    transfers_per_second: float | None = None
    """Transfers ordered at this bank that found an outcome, over the time between the last two answers."""
    in_doubt: int | None = None

    def shown(self) -> tuple[str, str]:
        rate, doubts = self.transfers_per_second, self.in_doubt
        return "–" if rate is None else f"{rate:.1f}", "–" if doubts is None else str(doubts)


async def follow(bank: LocalBank, figures: Figures) -> None:
    """Keep *figures* up to date until cancelled."""
    session: Session | None = None
    before: tuple[float, float] | None = None
    async with client_of(bank) as client:
        while True:
            try:
                async with asyncio.timeout(WITHIN_SECONDS):
                    session = session or await client.sign_in("operator", bank.operator_password)
                    answer = await session.get("/metrics")
                if answer.status == 401:
                    session = None  # its time is over
                transfers, figures.in_doubt = read(answer.expect(200))
            except (TimeoutError, Breakage):
                before, figures.in_doubt, figures.transfers_per_second = None, None, None
            else:
                now = time.monotonic()
                if before is not None:  # a bank that has started again counts from nought
                    figures.transfers_per_second = max(0.0, transfers - before[1]) / (now - before[0])
                before = now, transfers
            await asyncio.sleep(ASK_SECONDS)


def read(metrics: str) -> tuple[float, int]:
    """Transfers that found an outcome since the bank's start, and how many are in doubt there, from its metrics."""
    found = _IN_DOUBT.search(metrics)
    if found is None:
        raise Breakage("these metrics are no bank's")
    return sum(float(count) for count in _TRANSFERS.findall(metrics)), int(float(found[1]))
