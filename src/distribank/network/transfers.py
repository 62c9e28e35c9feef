"""Following transfers from the outside: asking where one stands, and ordering one while its phases are shown.

All of it goes over the public contract. Standard output is the story, or with JSON the answer as the bank gives it;
what only a person needs to hear goes to standard error.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from distribank.breakages import Breakage
from distribank.core.documents import parse_account_number
from distribank.core.money import parse_amount
from distribank.network.client import AccountRef, Answer, Session, client_of
from distribank.network.layout import LocalBank, code_of, load_some

FOLLOW_SECONDS: Final = 30.0
"""How long an ordered transfer is followed."""
LOOK_SECONDS: Final = 0.1
"""Between two looks at it."""

SIGN_IN_SECONDS: Final = 5.0
"""How long a bank is waited for that may be frozen, before the next one is asked."""

Side = list[tuple[AccountRef, int]]
"""Legs of one side: accounts and centavos."""


async def trace(transfer_id: str, data_dir: Path, media_type: str) -> None:
    """Print the trace of *transfer_id* as *media_type*; ``Breakage`` if no bank of *data_dir* has it."""
    answer = await _trace(transfer_id, load_some(data_dir), media_type)
    if isinstance(answer.body, dict):
        print(json.dumps(answer.body, indent=2, ensure_ascii=False))
    else:
        print(answer.body, end="")


async def transfer(
    bank: LocalBank,
    cpf: str,
    password: str,
    debits: Side,
    credits_: Side,
    description: str | None,
    as_json: bool,
) -> int:
    """Order a transfer at *bank* and show its phases as they happen; 0 only if it is committed."""
    async with client_of(bank) as client:
        session = await client.sign_in(cpf, password)
        ordered = await session.transfer(debits, credits_, description=description, prefer="respond-async")
        transfer_id = ordered.body.get("transfer_id") if isinstance(ordered.body, dict) else None
        if transfer_id is None:
            ordered.expect()
        found = await _follow(session, str(transfer_id), sys.stderr if as_json else sys.stdout)
        known = await session.transfer_status(str(transfer_id))
    if as_json:
        print(json.dumps({**known, "trace": found}, indent=2, ensure_ascii=False))
    else:
        reason = known.get("reason")
        print(f"{transfer_id} is {known['status']}{_because(reason) if reason else ''}")
    return 0 if known["status"] in ("committed", "completed") else 1


def read_leg(text: str, data_dir: Path, at: str) -> tuple[AccountRef, int]:
    """What ``BANK/ACCOUNT=AMOUNT`` means, in centavos: BANK as ``code_of`` takes it, or left out where it is *at*.

    ``ValueError`` says what is wrong with it; ``Misconfigured`` if there is no such bank.
    """
    account, _equals, amount = text.rpartition("=")
    bank, slash, number = account.rpartition("/")
    if not number or (slash and not bank):
        raise ValueError(f"{text!r}: a leg is written BANK/ACCOUNT=AMOUNT, as in 2/00000012-4=150.00")
    try:
        number, centavos = parse_account_number(number), parse_amount(amount)
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from None
    return AccountRef(code_of(data_dir, bank or at), number), centavos


async def _trace(transfer_id: str, banks: Sequence[LocalBank], media_type: str) -> Answer:
    """The first trace that a bank gives, its coordinator asked before the others."""
    coordinator = transfer_id.partition(".")[0]
    silent: list[str] = []
    for bank in sorted(banks, key=lambda bank: bank.code != coordinator):
        try:
            answer = await _ask(bank, transfer_id, media_type)
        except Breakage as breakage:
            silent.append(f"{bank.code}: {breakage}")
            continue
        if answer.status != 404:
            answer.expect(200)
            if silent:
                print(f"Told by {bank.code}, because {silent[0]}", file=sys.stderr)
            return answer
    if silent:
        unheard = "\n  ".join(silent)
        raise Breakage(f"no bank that answers knows transfer {transfer_id}; these did not answer:\n  {unheard}")
    whole = "" if transfer_id.count(".") == 2 else ": give the whole transfer_id, as the answer to its order has it"
    raise Breakage(f"no bank knows transfer {transfer_id}{whole}")


async def _ask(bank: LocalBank, transfer_id: str, media_type: str) -> Answer:
    async with client_of(bank) as client:
        try:
            async with asyncio.timeout(SIGN_IN_SECONDS):
                operator = await client.operator()
        except TimeoutError:
            raise Breakage(f"no answer within {SIGN_IN_SECONDS:.0f} s; is it frozen?") from None
        return await operator.get(f"/v1/transfers/{quote(transfer_id, safe='')}/trace", media_type)


def _because(reason: dict[str, Any]) -> str:
    """Why it was refused, and at which account if one is to blame."""
    where = " ".join(reason[part] for part in ("bank", "account") if part in reason)
    return f": {reason['code']}{f' at {where}' if where else ''}, {reason['detail']}"


async def _follow(session: Session, transfer_id: str, out: Any) -> dict[str, Any]:
    """Print each line of the trace once, as it appears, until all is settled or ``FOLLOW_SECONDS`` have passed."""
    shown: set[tuple[str, str, str]] = set()
    loop = asyncio.get_running_loop()
    until = loop.time() + FOLLOW_SECONDS
    while True:
        found: dict[str, Any] = (await session.get(f"/v1/transfers/{transfer_id}/trace")).expect(200)
        names = {bank["bank"]: bank["name"] for bank in found["banks"]}
        for line in found["lines"]:
            key = (line["bank"], line["stamp"], line["record"])
            if key not in shown:
                shown.add(key)
                print(f"{line['at']}  {line['bank']} {names[line['bank']]} {line['detail']}.", file=out, flush=True)
        if found["status"] in ("completed", "aborted") or loop.time() >= until:
            return found
        await asyncio.sleep(LOOK_SECONDS)
