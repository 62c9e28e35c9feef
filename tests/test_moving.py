"""`distribank migrate-store`: real banks that move from one database to another, and go on as though nothing were."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path

import pytest

from distribank.breakages import Misconfigured
from distribank.network.layout import init
from distribank.network.moving import move
from tests.crashing import arm
from tests.postgres_server import drop, shared_server
from tests.processes import People, RealBank, network_of
from tests.test_restoring import distribank

MONEY = 100_00


async def migrate_store(bank: RealBank, to: str, *more: str) -> str:
    return await distribank("migrate-store", "--env-file", str(bank.bank.env_file), "--to", to, *more)


async def paid(people: People, amount: int) -> None:
    """From the second bank to the first, which both are told of."""
    (await people.sessions[1].pay(people.accounts[1], people.accounts[0], amount)).expect(201)


async def test_a_bank_moves_to_postgresql_and_back_in_the_middle_of_its_business(tmp_path: Path) -> None:
    url = await shared_server().database()
    async with network_of(tmp_path / "data", 2) as banks:
        people = await People(banks).settle_in(MONEY)
        _, moving = banks
        await paid(people, 1_00)
        moving.kill()

        said = await migrate_store(moving, url)
        assert re.search(rf"Bank {moving.code} has moved: \d+ entries, R\$ [\d,.]+ of customers", said)
        assert "no bank starts on it any more" in said
        await moving.restart()
        await paid(people, 2_00)
        await people.quiet()
        await people.check_books()

        was = moving.bank.env_file.read_text()
        mode = moving.bank.env_file.stat().st_mode
        await moving.stop()
        moving.bank.env_file.write_text(re.sub("(?m)^DISTRIBANK_DATABASE_URL=.*$", "", was) + "\n")  # where it was
        moving.start()
        assert moving._process is not None
        assert moving._process.wait() != 0
        assert f"bank {moving.code} has moved from" in moving.last_words()
        moving.bank.env_file.write_text(was)

        counted = json.loads(await migrate_store(moving, "sqlite:///back.db", "--json"))
        assert counted["bank"] == moving.code
        assert counted["findings"] == []
        assert "postgres:" not in counted["former_database"]
        assert moving.bank.env_file.stat().st_mode == mode
        await moving.restart()
        assert (moving.bank.directory / "back.db").exists()
        await paid(people, 3_00)
        await people.quiet()
        await people.check_books()
        assert (await people.sessions[1].balances(people.accounts[1]))[0] == MONEY - 6_00
    await drop(url)


async def test_what_is_in_doubt_moves_along_and_has_its_outcome_behind_the_move(tmp_path: Path) -> None:
    url = await shared_server().database()
    script = tmp_path / "script"
    crashing = [sys.executable, "-m", "tests.crashing", "--script", str(script)]
    async with network_of(
        tmp_path / "data", 2, program=lambda bank: crashing if bank.code == "99990002" else []
    ) as banks:
        people = await People(banks).settle_in(MONEY)
        moving, coordinator = banks
        await people.acquainted()
        arm(script, "lose Commit")
        (await people.sessions[1].pay(people.accounts[1], people.accounts[0], 5_00)).expect(201, 202)
        coordinator.kill()
        script.unlink()
        [in_doubt] = await moving.client.in_doubt()
        assert in_doubt["role"] == "participant"
        moving.kill()

        counted = json.loads(await migrate_store(moving, url, "--json"))
        assert (counted["holds"], counted["unfinished"]) == (1, 1)
        await asyncio.gather(moving.restart(), coordinator.restart())
        await people.quiet()
        await people.check_books()
        assert await people.sessions[0].balances(people.accounts[0]) == (MONEY + 5_00, MONEY + 5_00)
    await drop(url)


@pytest.mark.parametrize(
    ("to", "why"),
    [
        ("mysql://host/bank", "--to must be sqlite:///"),
        ("sqlite:///", "--to must be sqlite:///"),
        ("sqlite:///bank.db", "the bank is at DISTRIBANK_DATABASE_URL already"),
    ],
)
def test_where_a_bank_cannot_move_is_said(tmp_path: Path, to: str, why: str) -> None:
    [bank] = init(tmp_path, 1)
    with pytest.raises(Misconfigured, match=re.escape(why)):
        move(bank.env_file, to, lambda _table, _done: None)


def test_a_setting_that_would_win_over_the_env_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [bank] = init(tmp_path, 1)
    monkeypatch.setenv("DISTRIBANK_DATABASE_URL", "sqlite:///elsewhere.db")
    with pytest.raises(Misconfigured, match="is set in the environment, and wins over"):
        move(bank.env_file, "sqlite:///other.db", lambda _table, _done: None)
