"""``distribank torture`` on real processes: a short run finds nothing wrong, and a bank that loses money is found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from distribank.breakages import Misconfigured
from distribank.network.layout import LocalBank
from distribank.network.processes import free_base_port
from distribank.torture.checker import check
from distribank.torture.history import read
from distribank.torture.running import Order, run
from tests.processes import CHEAP

SEED = "26"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CHEAP.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("only", [["--proxies-only"], []], ids=["proxies", "packets"])
def test_a_short_run_finds_nothing_wrong(tmp_path: Path, only: list[str]) -> None:
    """With *SEED*, a fault of packets is among the first, where they can be dropped."""
    data = tmp_path / "torture"
    order = ["torture", "--minutes", "0.15", "--banks", "3", "--seed", SEED, "--data-dir", str(data), "--json"]
    order += ["--base-port", str(free_base_port(6)), *only]
    # a process of its own, for it may leave this machine's network for good
    told = subprocess.run([sys.executable, "-m", "distribank", *order], capture_output=True, text=True)

    assert told.returncode == 0, told.stdout + told.stderr
    found = json.loads(told.stdout)
    assert (found["ok"], found["seed"], found["violations"]) == (True, int(SEED), {})
    assert found["transfers"]["ok"] > 0
    assert sum(found["faults"].values()) > 0
    report = (data / "report.md").read_text(encoding="utf-8")
    assert "# Torture: nothing is wrong" in report
    why = next(read(data / "history.jsonl"))["value"]["proxies_alone"]
    if why is None:
        assert only == []
        assert any(kind.startswith("packets") for kind in found["faults"])
        assert found["messages"]["packets dropped"] > 0
    else:
        assert f"no packets: {why}" in report
        assert f"no packets dropped: {why}" in told.stderr
        assert "packets dropped" not in found["messages"]
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
