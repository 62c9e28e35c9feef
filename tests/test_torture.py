"""``distribank torture`` on real processes: a short run finds nothing wrong, and a bank that loses money is found."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from distribank.breakages import Misconfigured
from distribank.cli import app
from distribank.network.layout import LocalBank
from distribank.torture.checker import check
from distribank.torture.history import read
from distribank.torture.running import Order, run
from tests.processes import CHEAP

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CHEAP.items():
        monkeypatch.setenv(name, value)


def test_a_short_run_finds_nothing_wrong(tmp_path: Path) -> None:
    data = tmp_path / "torture"
    told = CliRunner().invoke(
        app, ["torture", "--minutes", "0.15", "--banks", "3", "--seed", "7", "--data-dir", str(data), "--json"]
    )

    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert (found["ok"], found["seed"], found["violations"]) == (True, 7, {})
    assert found["transfers"]["ok"] > 0
    assert sum(found["faults"].values()) > 0
    assert "# Torture: nothing is wrong" in (data / "report.md").read_text(encoding="utf-8")
    assert ElementTree.parse(data / "throughput.svg").getroot().tag.endswith("svg")  # noqa: S314 - our own
    again = check(read(data / "history.jsonl"))
    assert (again.valid, again.transfers["ok"]) == (True, found["transfers"]["ok"])


def test_a_bank_that_loses_money_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def program(bank: LocalBank) -> list[str]:
        return [sys.executable, "-m", "tests.sabotaged"] if bank.code == "99990002" else []

    data = tmp_path / "torture"
    assert run(Order(0.1, 2, 7, data, program=program)) == 1

    kinds = {violation.kind for violation in check(read(data / "history.jsonl")).violations}
    assert {"torn", "wrong total", "finding"} <= kinds
    said = capsys.readouterr().out
    assert "WRONG" in said
    assert "Nothing was deleted" in said
    assert "things are wrong" in (data / "report.md").read_text(encoding="utf-8")


def test_a_directory_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    with pytest.raises(Misconfigured, match="is not an empty directory"):
        run(Order(0.1, data_dir=tmp_path))
