"""``distribank trace`` and ``distribank transfer``, against real banks."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distribank.breakages import Misconfigured
from distribank.network.client import AccountRef
from distribank.network.layout import find, init
from distribank.network.transfers import read_leg
from tests.processes import CPFS, PASSWORD, network_of

A, B = "99990001", "99990002"


async def run(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, on the banks of *directory*; it does not hold up this test's event loop."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DISTRIBANK_")}
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "distribank", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**inherited, "DISTRIBANK_DATA_DIR": str(directory), **environment},
        stdin=subprocess.DEVNULL,
        check=False,
    )


async def test_a_transfer_is_ordered_followed_and_found_again_when_its_coordinator_is_gone(tmp_path: Path) -> None:
    async with network_of(tmp_path, 2) as (a, b):
        maria = await a.client.join("Maria da Silva", CPFS[0], PASSWORD)
        joao = await b.client.join("João Souza", CPFS[1], PASSWORD)
        mine, theirs = await maria.open_account(), await joao.open_account()
        (await maria.deposit(mine, 100_00)).expect(201)
        legs = ("--debit", f"{mine.account}=60.00", "--credit", f"pitanga/{theirs.account}=60.00")
        order = ("transfer", "--at", A, "--cpf", CPFS[0], *legs)

        told = await run(tmp_path, *order, DISTRIBANK_PASSWORD=PASSWORD)
        assert told.returncode == 0, told.stderr
        *phases, last = told.stdout.splitlines()
        assert [
            word
            for phase in sorted(phases, key=lambda line: line.split()[0])
            for word in ("began", "prepared", "decided commit", "heard of", "ended")
            if word in phase
        ] == ["began", "prepared", "decided commit", "heard of", "ended"]
        transfer_id, _, status = last.partition(" is ")
        assert status == "completed"

        refused = await run(tmp_path, *order, "--json", DISTRIBANK_PASSWORD=PASSWORD)
        assert refused.returncode == 1
        assert "insufficient_funds" in refused.stdout + refused.stderr
        plainly = await run(tmp_path, *order, DISTRIBANK_PASSWORD=PASSWORD)
        assert f" is aborted: insufficient_funds at {A} {mine.account}, the " in plainly.stdout
        partial = await run(tmp_path, "trace", transfer_id[-8:])
        assert (partial.returncode, "give the whole transfer_id" in partial.stderr) == (1, True)

        drawn = await run(tmp_path, "trace", transfer_id, "--mermaid")
        assert (drawn.returncode, drawn.stdout.startswith("sequenceDiagram\n")) == (0, True)
        a.freeze()
        told = await run(tmp_path, "trace", transfer_id)
        assert (told.returncode, "no answer within 5 s; is it frozen?" in told.stderr) == (0, True)
        a.kill()
        found = await run(tmp_path, "trace", transfer_id, "--json")
        assert found.returncode == 0, found.stderr
        assert f"Told by {B}, because {A}" in found.stderr
        assert "no bank can be reached there; does it run?" in found.stderr
        trace = json.loads(found.stdout)
        assert {line["bank"] for line in trace["lines"]} == {B}
        unknown = await run(tmp_path, "trace", transfer_id[:-4] + "0000")
        assert unknown.returncode == 1
        assert unknown.stderr.startswith("distribank: no bank that answers knows transfer")


async def test_what_is_mistyped_is_said_before_any_bank_is_asked(tmp_path: Path) -> None:
    order = ("transfer", "--at", A, "--cpf", CPFS[0], "--credit", f"{B}/00000001-9=1.00")
    odd = await run(tmp_path, *order, "--debit", f"{A}/00000001-9:1.00")
    assert odd.returncode == 2
    nowhere = await run(tmp_path, *order, "--debit", f"{A}/00000001-9=1.00", DISTRIBANK_PASSWORD="x")
    assert (nowhere.returncode, "holds no banks" in nowhere.stderr) == (1, True)
    init(tmp_path, 2)
    silent = await run(tmp_path, *order, "--debit", f"{A}/00000001-9=1.00")
    assert (silent.returncode, "--password-stdin" in silent.stderr) == (1, True)
    both = await run(tmp_path, "trace", "x", "--json", "--mermaid")
    assert both.returncode == 2


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "BANK/ACCOUNT=AMOUNT"),
        ("99990001", "BANK/ACCOUNT=AMOUNT"),
        ("99990001/00000001-9", "BANK/ACCOUNT=AMOUNT"),
        ("/00000001-9=1.00", "BANK/ACCOUNT=AMOUNT"),
        ("99990001/=1.00", "BANK/ACCOUNT=AMOUNT"),
        ("=1.00", "BANK/ACCOUNT=AMOUNT"),
        ("99990001/00000001-8=1.00", "check digit"),
        ("00000001=1.00", "check digit"),
        ("99990001/00000001-9=", "two decimals"),
        ("99990001/00000001-9=1,50", "two decimals"),
        ("99990001/00000001-9=0.00", "greater than zero"),
    ],
)
def test_a_leg_that_cannot_be_read_is_refused(tmp_path: Path, text: str, why: str) -> None:
    init(tmp_path, 1)
    with pytest.raises(ValueError, match=why):
        read_leg(text, tmp_path, A)


@pytest.mark.parametrize("bank", ["99990002/", "2/", "Pitanga/", "pitanga/", ""])
def test_a_legs_bank_goes_by_code_number_or_name_or_is_where_it_is_ordered(tmp_path: Path, bank: str) -> None:
    init(tmp_path, 2)
    assert read_leg(f"{bank}00000001-9=1.50", tmp_path, "2") == (AccountRef(B, "00000001-9"), 150)


def test_a_legs_bank_may_have_its_files_elsewhere_and_must_be_in_the_network(tmp_path: Path) -> None:
    init(tmp_path, 2)
    shutil.rmtree(tmp_path / B)
    assert read_leg("pitanga/00000001-9=1.50", tmp_path, A) == (AccountRef(B, "00000001-9"), 150)
    with pytest.raises(Misconfigured, match="does not hold the files of bank 99990002"):
        find(tmp_path, "pitanga")
    with pytest.raises(Misconfigured, match=r"no bank '99990003' .*; there are 1 = 99990001 Aroeira, 2 = 99990002"):
        read_leg("99990003/00000001-9=1.50", tmp_path, A)
