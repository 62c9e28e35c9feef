"""What `up` shows of its banks in figures: from their metrics, and never waited for."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from distribank.breakages import Breakage
from distribank.network.figures import Figures, follow, read
from distribank.network.layout import init
from distribank.network.processes import BankProcess
from distribank.network.up import _help, _table
from tests.processes import network_of, until


def test_transfers_of_every_outcome_are_counted() -> None:
    metrics = (
        'distribank_transfers_total{outcome="committed"} 3.0\n'
        'distribank_transfers_created{outcome="committed"} 1.7e+09\n'
        'distribank_transfers_total{outcome="aborted"} 1.0\n'
        "distribank_in_doubt 2.0\n"
    )

    assert read(metrics) == (4.0, 2)
    with pytest.raises(Breakage):
        read("something else")


async def test_a_frozen_bank_loses_its_figures_and_gets_them_back(tmp_path: Path) -> None:
    async with network_of(tmp_path, 1) as [bank]:
        figures = Figures()

        async def known() -> bool:
            return figures.shown() == ("0.0", "0")

        async def unknown() -> bool:
            return figures.shown() == ("–", "–")

        async with asyncio.TaskGroup() as group:
            following = group.create_task(follow(bank.bank, figures))
            await until(known, "there are figures")
            bank.freeze()
            await until(unknown, "a frozen bank has none")
            bank.thaw()
            await until(known, "it has some again")
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following


def test_the_table_shows_each_bank_with_its_figures(tmp_path: Path) -> None:
    processes = [BankProcess(bank) for bank in init(tmp_path, 2, 9100)]
    console = Console(width=140, record=True, quiet=False, file=(tmp_path / "shown").open("w"))

    console.print(_table(processes, ["ready", "frozen"], [Figures(12.34, 5), Figures()]))
    console.file.close()

    one, two = (tmp_path / "shown").read_text().splitlines()[4:6]
    assert [cell.strip() for cell in one.split("│")[1:-1]] == [
        *("99990001", "Aroeira", "ready", "–", "http://127.0.0.1:9100/docs", "12.3", "5")
    ]
    assert [cell.strip() for cell in two.split("│")[3:4]] == ["frozen"]
    assert two.count("–") == 3


def test_in_eighty_columns_addresses_and_commands_can_still_be_copied_whole(tmp_path: Path) -> None:
    processes = [BankProcess(bank) for bank in init(tmp_path, 3, 9100)]
    states = ["ready", "ended (exit status 1)", "ready, started elsewhere"]
    console = Console(width=80, file=(tmp_path / "shown").open("w"), soft_wrap=True)

    console.print(_table(processes, states, [Figures(12.34, 5)] * 3, narrow=True), crop=True, soft_wrap=False)
    console.print(_help(processes, states), soft_wrap=False)
    console.file.close()

    said = (tmp_path / "shown").read_text()
    assert all(len(line) <= 80 for line in said.splitlines())
    for bank in (process.bank for process in processes):
        assert f" {bank.url} " in said
        assert f" {bank.name} " in said
    assert f" start 99990002 --data-dir {tmp_path}" in " ".join(said.split())


@pytest.mark.parametrize("seconds", ["0", "121", "soon"])
def test_a_vote_deadline_out_of_bounds_is_a_mistyped_command(tmp_path: Path, seconds: str) -> None:
    command = [sys.executable, "-m", "distribank", "up", "--data-dir", str(tmp_path), "--vote-deadline", seconds]

    assert subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 2
