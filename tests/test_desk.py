"""The operator's desk: what is in doubt is found, explained, asked about and, as the last resort, forced."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from distribank.cli import app
from distribank.network import doubts
from distribank.network.layout import LocalBank, init, load
from distribank.network.processes import free_base_port
from tests.processes import CPFS, PASSWORD, network_of, until

DOUBT = {
    "transaction": "99990001.aa.bb",
    "role": "participant",
    "since": "2026-11-23T12:00:00.000Z",
    "why": "voted yes to 99990001; no outcome heard yet",
    "accounts": [],
    "asked": [],
}
RECORD = {
    "transaction": "99990001.aa.bb",
    "decision": "abort",
    "reason": "the coordinator burnt down",
    "decided_at": "2026-11-23T13:00:00.000Z",
    "truth": None,
    "truth_at": None,
    "matched": None,
    "damage": None,
}


def desk(data: Path, *arguments: str, typed: str = "") -> Result:
    return CliRunner().invoke(app, ["in-doubt", *arguments, "--data-dir", str(data)], input=typed)


async def test_what_is_in_doubt_is_found_and_settled_when_the_coordinator_returns(tmp_path: Path) -> None:
    async with network_of(tmp_path, 2, env={"DISTRIBANK_VOTE_DEADLINE": "60"}) as (a, b):
        maria, there = [await bank.client.join("Maria da Silva", CPFS[0], PASSWORD) for bank in (a, b)]
        hers = [await maria.open_account(), await there.open_account()]
        (await maria.deposit(hers[0], 10_00)).expect(201)
        banks = load(tmp_path)
        assert (await doubts.in_doubt(banks)).as_json() == {"items": [], "unanswered": []}
        b.freeze()
        ordered = (await maria.pay(hers[0], hers[1], 5_00, prefer="respond-async")).expect(202)
        a.kill()
        b.thaw()

        async def voted() -> bool:
            return bool((await doubts.in_doubt(banks)).items)

        await until(voted, "B lists it")
        found = (await doubts.in_doubt(banks)).only(ordered["transfer_id"][-12:])
        assert [item["bank"] for item in found.items] == [b.code]
        assert list(found.unanswered) == [a.code]
        asked = await doubts.inquire(b.bank, ordered["transfer_id"])
        assert asked["in_doubt"] is True
        assert [said["bank"] for said in asked["asked"]] == [a.code]
        await a.restart()

        async def settled() -> bool:
            return not (await doubts.in_doubt(banks)).items

        await until(settled, "the coordinator has told it")


def test_banks_that_do_not_answer_are_named_and_not_fatal(tmp_path: Path) -> None:
    init(tmp_path, 2, free_base_port(2))

    said, as_json = desk(tmp_path, "list"), desk(tmp_path, "list", "--json")

    assert said.exit_code == 0
    assert said.stdout.startswith("nothing is in doubt at the banks that answer\nno list from 99990001: ")
    assert [one["bank"] for one in json.loads(as_json.stdout)["unanswered"]] == ["99990001", "99990002"]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Banks that have one doubt each; what they are told to force."""
    orders: list[tuple[str, ...]] = []

    async def found(banks: list[LocalBank]) -> doubts.Found:
        return doubts.Found([{"bank": bank.code, "bank_name": bank.name, **DOUBT} for bank in banks])

    async def resolve(bank: LocalBank, *order: str) -> dict[str, Any]:
        orders.append((bank.code, *order))
        return RECORD

    monkeypatch.setattr(doubts, "in_doubt", found)
    monkeypatch.setattr(doubts, "resolve", resolve)
    return orders


def test_an_outcome_is_forced_at_one_bank_and_only_if_it_is_meant(tmp_path: Path, told: list[tuple[str, ...]]) -> None:
    init(tmp_path, 2, free_base_port(2))
    order = ("resolve", "aa.bb", "abort", "--reason", "the coordinator burnt down")

    assert desk(tmp_path, *order).exit_code == 1
    assert desk(tmp_path, *order, "--bank", "2", typed="n\n").exit_code == 1
    assert desk(tmp_path, "resolve", "aa.bb", "perhaps", "--reason", "none", "--bank", "2").exit_code == 2
    assert told == []
    meant = desk(tmp_path, *order, "--bank", "2", typed="y\n")
    assert meant.exit_code == 0
    assert "money is made or lost" in meant.stderr
    assert "forced to abort" in meant.stdout
    assert "the truth is not known yet" in meant.stdout
    assert desk(tmp_path, *order, "--bank", "Pitanga", "--yes").exit_code == 0
    assert told == [("99990002", "99990001.aa.bb", "abort", "the coordinator burnt down")] * 2


async def test_a_wrong_guess_is_told_to_the_centavo_once_the_truth_is_known(tmp_path: Path) -> None:
    async with network_of(tmp_path, 2, env={"DISTRIBANK_VOTE_DEADLINE": "60"}) as (a, b):
        maria, there = [await bank.client.join("Maria da Silva", CPFS[0], PASSWORD) for bank in (a, b)]
        hers = [await maria.open_account(), await there.open_account()]
        (await maria.deposit(hers[0], 10_00)).expect(201)
        b.freeze()
        ordered = (await maria.pay(hers[0], hers[1], 5_00, prefer="respond-async")).expect(202)
        a.kill()
        b.thaw()
        banks = load(tmp_path)

        async def voted() -> bool:
            return bool((await doubts.in_doubt(banks)).items)

        async def truth_known() -> bool:
            return (await doubts.forced(banks)).items[0]["truth"] is not None

        await until(voted, "B lists it")
        order = ("resolve", ordered["transfer_id"][-12:], "commit", "--reason", "a phone call", "--bank", "2", "--yes")
        meant = await asyncio.to_thread(desk, tmp_path, *order)
        assert "forced to commit" in meant.stdout, meant.output
        (await there.withdraw(hers[1], 3_00)).expect(201)
        await a.restart()
        await until(truth_known, "B hears of the abort")
        said = (await asyncio.to_thread(desk, tmp_path, "list", "--forced")).stdout

        assert "the truth is abort" in said
        assert f"{hers[1].account}: debit of 5.00 needed, 2.00 corrected, 3.00 to suspense" in said
        assert "position with 99990001: 5.00; suspense: -3.00" in said
        assert (await b.client.books())["balanced"]
