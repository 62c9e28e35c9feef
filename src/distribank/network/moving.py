"""Moving a bank from one database to another, of either engine, with all that it has promised."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from distribank import files
from distribank.breakages import Misconfigured
from distribank.config import PREFIX, Settings, checked_database
from distribank.ports import Recount
from distribank.store import copying

VARIABLE = PREFIX + "DATABASE_URL"


@dataclass(frozen=True, slots=True)
class Moved:
    """What was moved: both databases add up to *counted*. From the *former* one nobody serves any more."""

    bank: str
    counted: Recount
    former: str


def move(env_file: Path, url: str, told: Callable[[str, int], None]) -> Moved:
    """Move the bank of *env_file*, which must not run, to the empty database at *url*, and have its settings say so.

    ``StoreInUse`` or ``StoreUnusable`` where that cannot be; then the bank is where it was. Its incarnation stays: it
    has lost nothing. A crash in between leaves it where it was, or a former database that says where it is.
    """
    settings = Settings.load(env_file)
    try:
        changes = {"database_url": checked_database(url)}
    except ValueError as error:
        raise Misconfigured(f"--to {error}") from None
    wanted = settings.model_copy(update=changes).resolved(env_file.absolute().parent)
    if wanted.database_url == settings.database_url:
        raise Misconfigured(f"the bank is at {VARIABLE} already; name another database")
    if os.environ.get(VARIABLE):
        raise Misconfigured(f"{VARIABLE} is set in the environment, and wins over {env_file}: unset it first")
    counted = asyncio.run(_move(settings, wanted.database_url, told))
    try:
        _rewrite(env_file, url)
    except OSError as error:
        raise Misconfigured(
            f"the bank has moved, but {env_file} cannot be written: {error.strerror}; "
            f"set {VARIABLE} in it to the new database"
        ) from error
    return Moved(settings.bank_code, counted, copying.place_of(settings.database_url))


async def _move(settings: Settings, url: str, told: Callable[[str, int], None]) -> Recount:
    to = copying.place_of(url)
    async with (
        copying.leaving(settings.database_url, settings.bank_code, settings.marker_file, to) as source,
        copying.entering(url) as target,
    ):
        return await copying.copy(source, target, told)


def _rewrite(env_file: Path, url: str) -> None:
    """The same settings, but for the database."""
    kept = [line for line in env_file.read_text(encoding="utf-8").splitlines() if line.partition("=")[0] != VARIABLE]
    mode = stat.S_IMODE(env_file.stat().st_mode)
    files.replace(env_file, "\n".join([*kept, f"{VARIABLE}={url}", ""]), mode)
