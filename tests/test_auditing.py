"""``distribank audit`` on real processes: the books of a running network hold, and what is silent is named."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from distribank.cli import app
from distribank.peers.roster import Roster
from distribank.peers.signatures import Verifier
from distribank.service import SystemClock
from tests.conforming import flaws
from tests.processes import CPFS, PASSWORD, RealBank, network_of, until


def audit(data: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["audit", "--data-dir", str(data), *arguments])


async def pay(banks: list[RealBank], amount: int) -> None:
    """Maria pays Ana, from one bank to another."""
    maria = await banks[0].client.join("Maria da Silva", CPFS[0], PASSWORD)
    ana = await banks[1].client.join("Ana Souza", CPFS[1], PASSWORD)
    hers, theirs = await maria.open_account(), await ana.open_account()
    (await maria.deposit(hers, 100_00)).expect(201)
    (await maria.pay(hers, theirs, amount)).expect(201)


async def test_a_running_network_is_audited_and_a_dead_bank_is_a_finding(tmp_path: Path) -> None:
    async with network_of(tmp_path, 3) as banks:
        await pay(banks, 30_00)
        operator = await banks[2].client.operator()
        found: dict[str, Any] = {}

        async def all_answer() -> bool:  # a bank that a busy machine keeps from answering in time is a finding, too
            found.update((await operator.post("/v1/operator/audit", {})).expect(200))
            return not [each for each in found["findings"] if each["code"] == "bank_unreachable"]

        await until(all_answer, "every bank answers the auditor")
        models = (await banks[2].client.call("GET", "/openapi.json")).expect(200)["components"]["schemas"]
        assert flaws(found, models["Audit"], models) == []
        assert [bank.get("customers") for bank in found["banks"]] == ["70.00", "30.00", "0.00"]
        assert {"bank": banks[0].code, "peer": banks[1].code, "owes": "30.00", "owed": "30.00"} in found["positions"]
        assert found["ok"]
        verify(tmp_path, found)
        banks[1].kill()
        silent: dict[str, Any] = (await operator.post("/v1/operator/audit", {})).expect(200)
        assert not silent["ok"]
        assert [(each["code"], each["bank"]) for each in silent["findings"]] == [("bank_unreachable", banks[1].code)]


def verify(data: Path, found: dict[str, Any]) -> None:
    """Anybody who has the network file can verify what the other banks said."""
    roster = Roster.load(data / "network.json")
    signed = [bank for bank in found["banks"] if "signed" in bank]
    assert len(signed) == 2
    for bank in signed:
        headers = [(name.encode(), value.encode()) for name, value in bank["signed"]["headers"].items()]
        (nonce,) = re.findall(r'nonce="([0-9a-f]{32})"', bank["signed"]["headers"]["signature-input"])
        content = bank["signed"]["body"].encode()
        Verifier(roster.keys, SystemClock()).verify_response(200, headers, content, bank=bank["bank"], nonce=nonce)
        (said,) = json.loads(content)["answers"]
        assert said["at"] == found["stamp"]


async def test_the_command_tells_the_five_checks(tmp_path: Path) -> None:
    async with network_of(tmp_path, 2) as banks:
        await pay(banks, 30_00)
        told = await asyncio.to_thread(audit, tmp_path)
        assert told.exit_code == 0, told.output
        assert told.output.count("✓") == 5
        assert "customers          70.00" in told.output
        banks[1].kill()
        told = await asyncio.to_thread(audit, tmp_path, "--at", "1")
        assert told.exit_code == 1
        assert "? 2. every two banks agree" in told.output
        assert f"bank_unreachable {banks[1].code}" in told.output
