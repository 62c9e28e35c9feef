"""Moving a bank from one database to another, of either engine, with all that it has promised."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from distribank.breakages import Misconfigured
from distribank.config import PREFIX, Settings
from distribank.ports import Recount
from distribank.store import copying
from distribank.store.marker import write_marker

VARIABLE = PREFIX + "DATABASE_URL"


@dataclass(frozen=True, slots=True)
class Moved:
    """What was moved: both databases add up to *counted*. *aside* is where the former one is, if it is a file."""

    bank: str
    counted: Recount
    aside: Path | None


def move(env_file: Path, url: str, told: Callable[[str, int], None]) -> Moved:
    """Move the bank of *env_file*, which must not run, to the empty database at *url*, and have its settings say so.

    ``StoreInUse`` or ``StoreUnusable`` where that cannot be; then the bank is where it was. Its incarnation stays: it
    has lost nothing.
    """
    settings = Settings.load(env_file)
    wanted = settings.model_copy(update={"database_url": _checked(url)}).resolved(env_file.absolute().parent)
    if wanted.database_url == settings.database_url:
        raise Misconfigured(f"the bank is at {VARIABLE} already; name another database")
    if os.environ.get(VARIABLE):
        raise Misconfigured(f"{VARIABLE} is set in the environment, and wins over {env_file}: unset it first")
    counted = asyncio.run(_copied(settings.database_url, wanted.database_url, told))
    marker = settings.private_key_file.with_suffix(".incarnation")
    write_marker(marker, counted[0], _place_of(wanted.database_url))
    _rewrite(env_file, url)
    former = Path(settings.database_url.removeprefix("sqlite:///"))
    aside = copying.put_aside(former) if settings.database_url.startswith("sqlite:///") else None
    return Moved(settings.bank_code, counted[1], aside)


async def _copied(source_url: str, target_url: str, told: Callable[[str, int], None]) -> tuple[str, Recount]:
    async with (
        copying.opened(source_url, as_target=False) as source,
        copying.opened(target_url, as_target=True) as target,
    ):
        return source.identity.incarnation, await copying.copy(source, target, told)


def _checked(url: str) -> str:
    if not url.startswith(("sqlite:///", "postgresql://")) or url == "sqlite:///":
        raise Misconfigured("--to must be sqlite:///relative/bank.db, sqlite:////absolute/bank.db or postgresql://…")
    return url


def _place_of(url: str) -> str:
    if url.startswith("sqlite:///"):
        return str(Path(url.removeprefix("sqlite:///")).absolute())
    from distribank.store.postgres_opening import place_of  # here: its driver comes with an extra

    return place_of(url)


def _rewrite(env_file: Path, url: str) -> None:
    """The same settings, but for the database, in one step; mode and owner stay."""
    kept = [line for line in env_file.read_text(encoding="utf-8").splitlines() if line.partition("=")[0] != VARIABLE]
    draft = env_file.with_name(env_file.name + ".new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write("\n".join([*kept, f"{VARIABLE}={url}", ""]))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(env_file)
