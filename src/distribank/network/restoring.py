"""Backups of one bank's database, their return to service, and what is then left to an operator.

``take`` and ``put_back`` work on files of this machine, as the bank's env file names them; whether the bank runs is
found out from its lock. ``found`` and ``settle`` ask running banks, by the contract.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from distribank.breakages import Breakage, Misconfigured
from distribank.config import Settings
from distribank.network.client import Session
from distribank.network.desk import Found, ask_of_each, post, whole_list
from distribank.network.layout import LocalBank
from distribank.peers.roster import Roster
from distribank.store import backup
from distribank.store.backup import Backup, Report, Restored

DAY_MS: Final = 86_400_000

NEXT: Final = {
    "not_settleable": "`restoration` lists what each bank says of it",
    "unbalanced_transfer": "`restoration` shows what it came to at the other banks",
    "account_not_found": "name an account of this bank, or leave it out: what nobody is named for goes to suspense",
    "account_closed": "leave it out: what nobody is named for goes to suspense",
}
"""What an operator can do where a settlement is refused."""

Json = dict[str, Any]


def take(env_file: Path, to: Path, report: Report) -> Backup:
    """Back up the bank of *env_file* to *to*; see ``store.backup.take``."""
    settings = Settings.load(env_file)
    if settings.database_file is None:
        from distribank.store import postgres_backup  # here: its driver comes with an extra

        return postgres_backup.take(settings.database_url, to.absolute(), settings.bank_code, _now_ms(), report)
    return backup.take(settings.database_file, to.absolute(), settings.bank_code, _now_ms(), report)


def put_back(env_file: Path, source: Path, without: Sequence[str], report: Report) -> Restored:
    """Put the backup *source* into service for the bank of *env_file*; see ``store.backup.put_back``."""
    settings = Settings.load(env_file)
    peers = [peer.code for peer in Roster.load(settings.network_file).others(settings.bank_code)]
    for bank in without:
        if bank not in peers:
            raise Misconfigured(f"--without {bank}: the network file names no such other bank ({', '.join(peers)})")
    if settings.database_file is None:
        from distribank.store import postgres_backup  # here: its driver comes with an extra

        restoration = postgres_backup.put_back(
            source.absolute(),
            settings.database_url,
            settings.marker_file,
            settings.bank_code,
            peers,
            without,
            settings.retention_days * DAY_MS,
            _now_ms(),
            random.SystemRandom(),
            report,
        )
        return Restored(restoration, Path("PostgreSQL"), None)
    return backup.put_back(
        source.absolute(),
        settings.database_file,
        settings.marker_file,
        settings.bank_code,
        peers,
        without,
        settings.retention_days * DAY_MS,
        _now_ms(),
        random.SystemRandom(),
        report,
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


# What is left to an operator --------------------------------------------------------------------------------------


async def found(banks: Sequence[LocalBank]) -> Found:
    """What a restore left to be done, by bank; a bank that was never restored is left out."""

    async def ask(operator: Session) -> list[Json]:
        items, first = await whole_list(operator, "/v1/operator/restoration")
        return [{**first, "items": items}] if first["restored_at"] is not None else []

    return await ask_of_each(banks, ask)


async def settle(bank: LocalBank, transfer: str, reason: str, legs: Sequence[Json]) -> Json:
    """Settle what *bank* had decided and lost; the transfer as it stands behind that."""
    answer = await post(bank, f"/v1/operator/restoration/{transfer}/settle", {"reason": reason, "legs": [*legs]})
    try:
        body: Json = answer.expect(200)
    except Breakage as breakage:
        raise Breakage(f"{breakage}; {NEXT[answer.code]}" if answer.code in NEXT else str(breakage)) from None
    return body
