"""The audit of a network, asked of one of its banks as operator, by the public contract."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from distribank.breakages import Breakage
from distribank.network.client import client_of
from distribank.network.layout import LocalBank

Json = dict[str, Any]


async def audit(banks: Sequence[LocalBank]) -> tuple[LocalBank, Json]:
    """The first audit that one of *banks* gives, and that bank; ``Breakage`` if none does."""
    silent: list[str] = []
    for bank in banks:
        try:
            async with client_of(bank) as client:
                body: Json = (await (await client.operator()).post("/v1/operator/audit", {})).expect(200)
                return bank, body
        except Breakage as breakage:
            silent.append(f"{bank.name} ({bank.code}): {breakage}")
    raise Breakage(f"no bank gives an audit: {'; '.join(silent)}")


def audited(banks: Sequence[LocalBank]) -> tuple[LocalBank, Json]:
    """The same, where no event loop runs."""
    return asyncio.run(audit(banks))
