"""The operator's desk: what is in doubt is found, explained, asked about and, as the last resort, forced."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from distribank.breakages import Breakage
from distribank.cli import app
from distribank.network import desk as doubts
from distribank.network.client import AccountRef, Session, centavos
from distribank.network.layout import LocalBank, init, load
from distribank.network.processes import free_base_port
from tests.processes import CPFS, PASSWORD, RealBank, network_of, until

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


def test_banks_that_do_not_answer_are_named_and_the_exit_status_says_so(tmp_path: Path) -> None:
    init(tmp_path, 2, free_base_port(2))

    said, as_json = desk(tmp_path, "list"), desk(tmp_path, "list", "--json")

    assert (said.exit_code, as_json.exit_code) == (1, 1)
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

    anywhere = desk(tmp_path, *order)
    assert isinstance(anywhere.exception, Breakage)
    assert "choose one with --bank" in str(anywhere.exception)
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


@asynccontextmanager
async def guessed_wrong(tmp_path: Path) -> AsyncIterator[tuple[RealBank, Session, AccountRef]]:
    """Two banks, of which the second has forced a commit of 5.00 that was none, with 3.00 of it withdrawn in between:
    that bank, its customer and her account, which is empty.
    """
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
        yield b, there, hers[1]


async def test_a_wrong_guess_is_told_to_the_centavo_once_the_truth_is_known(tmp_path: Path) -> None:
    async with guessed_wrong(tmp_path) as (b, _, hers):
        said = (await asyncio.to_thread(desk, tmp_path, "list", "--forced")).stdout

        assert "the truth is abort" in said
        assert f"{hers.account}: debit of 5.00 needed, 2.00 corrected, 3.00 to suspense" in said
        assert "position with 99990001: 5.00; suspense: -3.00" in said
        assert (await b.client.books())["balanced"]


async def test_what_a_wrong_guess_has_cost_is_assigned_and_stays_so(tmp_path: Path) -> None:
    async with guessed_wrong(tmp_path) as (b, maria, hers):
        at = hers.account

        async def typed(*arguments: str, yes: str = "y\n") -> Result:
            return await asyncio.to_thread(desk, tmp_path, *arguments, typed=yes)

        def refused(result: Result) -> str:
            assert (result.exit_code, type(result.exception)) == (1, Breakage), result.output
            return str(result.exception)

        before = await b.client.books()
        assert "-3.00 in suspense: it owes 0.00 and is owed 3.00" in (await typed("suspense")).stdout
        [one] = json.loads((await typed("suspense", "--json")).stdout)["items"]
        [transfer] = [movement["transaction"] for movement in one["movements"]]
        pays = ("assign", "debit", "2.00", "--reason", "she pays it back", "--account", at)
        assert "insufficient_funds" in (said := refused(await typed(*pays, "--bank", "2", "--yes")))
        assert "write it off (--write-off)" in said
        (await maria.deposit(hers, 2_50)).expect(201)
        assert (await typed(*pays, yes="n\n")).exit_code == 1
        assert await maria.balances(hers) == (2_50, 2_50)
        meant = await typed(*pays, "--key", "k", "--transaction", transfer[-12:])
        assert meant.exit_code == 0, meant.output
        assert f"will debit 2.00 of {at}, out of 3.00 that are in suspense" in meant.stderr
        b.kill()
        await b.restart()
        again = await typed(*pays, "--key", "k", "--transaction", transfer[-12:], "--json", "--yes")
        assert json.loads(again.stdout)["amount"] == "2.00", again.output
        assert await maria.balances(hers) == (50, 50)
        over = ("assign", "debit", "1.01", "--reason", "we shall not see it again", "--write-off", "--yes")
        assert "1.00 is left in suspense to be debited; `in-doubt suspense` lists" in refused(await typed(*over))
        assert (await typed("assign", "debit", "1.00", *over[3:])).exit_code == 0
        listed = (await typed("suspense")).stdout
        assert "0.00 in suspense: it owes 0.00 and is owed 0.00" in listed
        assert "write off 1.00, which the bank pays: we shall not see it again" in listed
        assert f"debit 2.00 of {at}: she pays it back ({transfer})" in listed
        assert f"debit of 5.00 at {at}, 3.00 left ({transfer})" in listed
        assert refused(await typed(*over)).endswith("anything to debit: none that answers")
        books = await b.client.books()
        assert (books["balanced"], books["books"]["suspense"]) == (True, "0.00")
        assert centavos(books["books"]["cash"]) - centavos(before["books"]["cash"]) == -2_50 - 1_00


async def test_a_bank_killed_amid_a_hundred_assignments_makes_each_once_and_no_more_than_there_was(
    tmp_path: Path,
) -> None:
    async with guessed_wrong(tmp_path) as (b, maria, hers):
        (await maria.deposit(hers, 2_00)).expect(201)
        operator, amid = await b.client.operator(), asyncio.Event()

        async def give(n: int) -> tuple[int, str]:
            """One of 100 of 0.05 each, of which 60 are covered, every other one by the account; under its own key."""
            order = {"direction": "debit", "amount": "0.05", "reason": str(n)}
            paying = {"account": hers.account} if n % 2 else {}
            try:
                answer = await operator.post("/v1/operator/suspense/assignments", {**order, **paying}, f"k{n}")
            except Breakage:
                return 0, ""  # nobody answered: it may have been done
            amid.set()
            return answer.status, answer.body.get("assignment_id", "")

        async def kill() -> None:
            async with asyncio.timeout(20):
                await amid.wait()
            b.kill()

        first, _ = await asyncio.gather(asyncio.gather(*map(give, range(100))), kill())
        await b.restart()
        heard = dict.fromkeys(range(100), (0, ""))
        for _ in range(10):  # of so many new connections at once a slow one may be closed: who hears nothing asks again
            unheard = [n for n, (status, _) in heard.items() if not status]
            heard.update(zip(unheard, await asyncio.gather(*map(give, unheard)), strict=True))
        then = list(heard.values())
        assert {status for status, _ in first} & {0, 503}
        assert sorted(status for status, _ in then) == [201] * 60 + [409] * 40
        assert all(after == before for before, after in zip(first, then, strict=True) if before[0] not in (0, 503))
        book = (await operator.get("/v1/operator/suspense", limit="200")).expect(200)
        made = [item["assignment"] for item in book["items"] if item["assignment"]]
        assert (book["balance"], len({one["assignment_id"] for one in made})) == ("0.00", len(made))
        assert len(made) == 60
        [listed] = (await doubts.suspense([b.bank])).items
        assert listed["movements"] == book["items"], "the desk takes the list page by page, and all of it"
        paid = sum(centavos(one["amount"]) for one in made if one["account"])
        assert await maria.balances(hers) == (2_00 - paid, 2_00 - paid)
        assert (await b.client.books())["balanced"]


def test_what_is_not_said_clearly_is_not_assigned(tmp_path: Path) -> None:
    init(tmp_path, 2, free_base_port(2))
    why = ("--reason", "x", "--yes")

    assert desk(tmp_path, "assign", "give", "1.00", "--write-off", *why).exit_code == 2
    assert desk(tmp_path, "assign", "credit", "1.00", *why).exit_code == 2
    assert desk(tmp_path, "assign", "credit", "1.00", "--write-off", "--account", "00000001-9", *why).exit_code == 2
    silent = desk(tmp_path, "assign", "credit", "1.00", "--write-off", "--bank", "2", *why)
    assert "no answer from 99990002" in str(silent.exception)
