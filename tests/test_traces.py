"""Where is my money: what holders, operators and strangers are told of a transfer, also when banks fail."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from distribank.api.answers import traces as answers
from distribank.bank.following import PATIENCE_S
from distribank.core.protocol import Commit, Message, ShowLog
from distribank.core.refusals import Code, Refusal
from tests.counter_hall import Hall, check, hall, leg, order
from tests.engines import ENGINE
from tests.weather import once_voted
from tests.world import codes

A, B, C = codes(3)


@pytest.fixture
async def banks() -> AsyncIterator[Hall]:
    async with hall(3) as made:
        yield made


async def trace(banks: Hall, transfer: str, who: dict[str, str], at: str = A, **headers: str) -> httpx.Response:
    return await banks.client(at).get(f"/v1/transfers/{transfer}/trace", headers={**who, **headers})


async def paid(banks: Hall, amount: str = "50.00", **headers: str) -> str:
    """The id of a transfer from a person at A to others at B and C, of twice *amount*; 100.00 cover it."""
    here = await banks.account("100.00")
    credits_ = [leg(bank, await banks.account("0.00", 1, bank), amount) for bank in (B, C)]
    answer = await order(banks, [leg(A, here, f"{2 * float(amount):.2f}")], credits_, **headers)
    number: str = answer.json()["transfer_id"]
    return number


async def settled(banks: Hall, transfer: str) -> None:
    await banks.world.settle(transfer)


async def test_a_trace_tells_in_clock_order_what_every_bank_did(banks: Hall) -> None:
    transfer = await paid(banks)
    await settled(banks, transfer)
    found = check(answers.Trace, await trace(banks, transfer, await banks.sign_in()))
    records = [(line["bank"], line["record"]) for line in found["lines"]]
    assert records[0] == (A, "Begun")
    assert sorted(records[1:3]) == [(B, "Prepared"), (C, "Prepared")]
    assert records[3] == (A, "Decided")
    assert sorted(records[4:6]) == [(B, "Resolved"), (C, "Resolved")]
    assert records[6:] == [(A, "Ended")]
    stamps = [int(line["stamp"]) for line in found["lines"]]
    assert stamps == sorted(stamps)
    assert (found["status"], found["coordinator"], found["transfer_id"]) == ("completed", A, transfer)
    assert [(bank["bank"], bank["status"]) for bank in found["banks"]] == [(code, "answered") for code in (A, B, C)]


async def test_every_bank_that_takes_part_tells_the_same_to_its_holders_and_its_operator(banks: Hall) -> None:
    transfer = await paid(banks)
    await settled(banks, transfer)
    told = (await trace(banks, transfer, await banks.sign_in())).json()["lines"]
    for at, who in ((A, await banks.operator()), (B, await banks.sign_in(1, B)), (C, await banks.operator(C))):
        assert (await trace(banks, transfer, who, at)).json()["lines"] == told


async def test_a_trace_does_not_exist_for_those_whom_the_transfer_does_not_concern(banks: Hall) -> None:
    transfer = await paid(banks)
    here = await order(banks, [leg(A, await banks.account("1.00"), "1.00")], [leg(A, await banks.account(), "1.00")])
    for who, at, which in (
        (await banks.sign_in(1), A, transfer),
        (await banks.sign_in(0, B), B, transfer),
        (await banks.operator(B), B, here.json()["transfer_id"]),
        (await banks.operator(), A, "x"),
    ):
        refused = await trace(banks, which, who, at)
        assert (refused.status_code, refused.json()["code"]) == (404, "not_found")


async def test_a_transfer_within_one_bank_is_a_story_of_one_line(banks: Hall) -> None:
    ordered = await order(banks, [leg(A, await banks.account("1.00"), "1.00")], [leg(A, await banks.account(), "1.00")])
    found = (await trace(banks, ordered.json()["transfer_id"], await banks.sign_in())).json()
    (line,) = found["lines"]
    assert (line["record"], line["detail"]) == (
        "Decided",
        "committed at once, since all accounts are at this bank; posted every entry",
    )


async def test_why_it_was_refused_is_told_to_whoever_ordered_it_and_not_to_the_others(banks: Hall) -> None:
    there, payee = await banks.account("1.00", 0, B), await banks.account("0.00", 1, C)
    banks.world.weather = once_voted(banks.world, C, B)
    refused = await order(banks, [leg(B, there, "5.00")], [leg(C, payee, "5.00")])
    transfer = refused.json()["transfer_id"]
    assert refused.json()["code"] == "consent_required"
    await settled(banks, transfer)
    mine = (await trace(banks, transfer, await banks.sign_in())).text
    assert mine.count("consent_required") == 1
    assert "no consent lets this bank debit this account" in mine
    theirs = await trace(banks, transfer, await banks.sign_in(1, C), C)
    assert theirs.status_code == 200
    assert "consent" not in theirs.text


async def test_while_in_doubt_the_participant_tells_what_is_known_without_the_coordinator(banks: Hall) -> None:
    async def no_commit(_sender: str, _to: str, message: Message) -> str:
        return "lose request" if isinstance(message, Commit) else "deliver"

    banks.world.weather = no_commit
    transfer = await paid(banks)
    await banks.world.crash(A)
    found = check(answers.Trace, await trace(banks, transfer, await banks.sign_in(1, B), B))
    assert [line["record"] for line in found["lines"]] == ["Prepared", "Prepared"]
    assert (found["status"], found["in_doubt"]) == ("pending", True)
    assert {bank["bank"]: bank["status"] for bank in found["banks"]} == {A: "offline", B: "answered", C: "answered"}
    text = (await trace(banks, transfer, await banks.sign_in(1, B), B, Accept="text/plain")).text
    assert f"{A} Bank {A} did not answer (offline)" in text
    assert text.endswith("At the bank asked it is pending, in doubt.\n")


async def test_a_bank_that_hangs_is_named_and_holds_up_nothing_for_longer_than_its_bound(banks: Hall) -> None:
    transfer = await paid(banks)
    await settled(banks, transfer)

    async def c_hangs(_sender: str, to: str, message: Message) -> str:
        if to == C and isinstance(message, ShowLog):
            await asyncio.Event().wait()
        return "deliver"

    banks.world.weather = c_hangs
    begun = asyncio.get_running_loop().time()
    found = check(answers.Trace, await trace(banks, transfer, await banks.sign_in()))
    assert {bank["bank"]: bank["status"] for bank in found["banks"]} == {A: "answered", B: "answered", C: "silent"}
    assert {line["bank"] for line in found["lines"]} == {A, B}
    assert ENGINE != "memory" or asyncio.get_running_loop().time() - begun == PATIENCE_S


async def test_the_story_is_text_and_the_diagram_shows_every_message(banks: Hall) -> None:
    transfer = await paid(banks)
    await settled(banks, transfer)
    who = await banks.sign_in()
    text = await trace(banks, transfer, who, Accept="text/plain")
    assert text.headers["content-type"].startswith("text/plain")
    assert len(re.findall(r"^\d{4}-\d\d-\d\dT\S+Z  \d{8} Bank \d{8} .*\.$", text.text, re.MULTILINE)) == 7
    drawn = await trace(banks, transfer, who, Accept="text/vnd.mermaid")
    assert drawn.headers["content-type"].startswith("text/vnd.mermaid")
    arrows = drawn.text.splitlines()
    assert arrows[0] == "sequenceDiagram"
    for bank in (B, C):
        kinds = (f"{A}->>{bank}: prepare", f"{bank}-->>{A}: vote yes", f"{A}->>{bank}: commit")
        places = [arrows.index(f"    {arrow}") for arrow in (*kinds, f"{bank}-->>{A}: acknowledge")]
        assert places == sorted(places)


async def test_json_is_what_a_client_gets_that_takes_anything(banks: Hall) -> None:
    transfer = await paid(banks)
    for accept in ("*/*", "text/plain;q=0.5, application/json", "image/png"):
        answer: Any = await trace(banks, transfer, await banks.sign_in(), Accept=accept)
        assert (answer.headers["content-type"], answer.headers["vary"]) == ("application/json", "Accept")


async def test_the_diagram_of_a_refusal_shows_the_no_and_an_abort_for_the_others_alone(banks: Hall) -> None:
    there, payee = await banks.account("1.00", 0, B), await banks.account("0.00", 1, C)
    refused = await order(banks, [leg(B, there, "5.00")], [leg(C, payee, "5.00")])
    transfer = refused.json()["transfer_id"]
    await settled(banks, transfer)
    arrows = (await trace(banks, transfer, await banks.sign_in(), Accept="text/vnd.mermaid")).text
    assert f"{B}-->>{A}: vote no" in arrows
    assert f"Note over {A}: decision to abort" in arrows
    assert f"{A}->>{B}: abort" not in arrows
    assert ": commit" not in arrows


async def test_a_bank_that_refused_tells_its_operator_a_whole_story(banks: Hall) -> None:
    there, payee = await banks.account("1.00", 0, B), await banks.account("0.00", 1, C)
    refused = await order(banks, [leg(B, there, "5.00")], [leg(C, payee, "5.00")])
    transfer = refused.json()["transfer_id"]
    await settled(banks, transfer)
    who = await banks.operator(B)
    text = (await trace(banks, transfer, who, B, Accept="text/plain")).text
    assert f"began, and asked {B} to prepare" in text
    drawn = (await trace(banks, transfer, who, B, Accept="text/vnd.mermaid")).text
    assert drawn.index(f"{A}->>{B}: prepare") < drawn.index(f"{B}-->>{A}: vote no")


async def test_another_banks_words_cannot_steer_a_terminal(banks: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = Refusal(Code.CONSENT_REQUIRED, "no\x1b[2J\r\nnever\u202e\x9b1A")
    monkeypatch.setattr("distribank.core.consents.check", lambda *_: hostile)
    refused = await order(
        banks, [leg(B, await banks.account("9.00", 0, B), "5.00")], [leg(C, await banks.account("0.00", 1, C), "5.00")]
    )
    text = (await trace(banks, refused.json()["transfer_id"], await banks.sign_in(), Accept="text/plain")).text
    assert "no [2J never" in text
    assert all(line.isprintable() for line in text.split("\n"))


async def test_a_bank_that_was_never_asked_is_said_to_have_no_record(banks: Hall) -> None:
    here, payee = await banks.account("1.00"), await banks.account("0.00", 1, B)
    refused = await order(banks, [leg(A, here, "5.00")], [leg(B, payee, "5.00")])
    text = (await trace(banks, refused.json()["transfer_id"], await banks.sign_in(), Accept="text/plain")).text
    assert f"{B} Bank {B} has no record of it to show here." in text
    who = await banks.sign_in()
    drawn = (await trace(banks, refused.json()["transfer_id"], who, Accept="text/vnd.mermaid")).text
    assert f"Note over {A}: decision to abort" in drawn
    assert ">>" not in drawn
