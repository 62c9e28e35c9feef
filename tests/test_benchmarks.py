"""The benchmark: its arithmetic, its ledgers, the counts that carry no noise, and that wrong money has no figure."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from distribank.benchmarks import bench, report, seeding
from distribank.benchmarks.cases import BATCHES, ONE_WAY, OWN, QUICK, Case, Run, Scale, batch, cases, composite, mesh
from distribank.benchmarks.figures import AT_LEAST, AT_MOST, Figure, Goal, figure, percentile, ratios
from distribank.benchmarks.running import Results, Turn, run_case
from distribank.benchmarks.subjects import Network
from distribank.breakages import Misconfigured
from distribank.core.documents import parse_cpf
from distribank.network.client import client_of
from tests.processes import CHEAP, SLOW_MACHINE_S, UNHURRIED


def turn(rate: float, **more: float) -> Turn:
    quantities = {"p50": 1.0, "p95": 2.0, "p99": 3.0, "cores": 1.0, "elsewhere": 0.0, "generator": 50.0, **more}
    return Turn(rate=rate, cpu={"coordinator": 300.0}, flushes=0.1, requests=0.05, resident={}, **quantities)


# Arithmetic -------------------------------------------------------------------------------------------------------


def test_a_figure_is_the_median_with_its_spread() -> None:
    assert figure([3.0, 1.0, 2.0]) == Figure(2.0, 1.0, 3.0)
    assert figure([4.0, 1.0]) == Figure(2.5, 1.0, 4.0)
    assert figure([]) is None
    assert Figure(1234.4, 1200.0, 1300.0).shown() == "1,234 (1,200–1,300)"
    assert Figure(0.0513, 0.0513, 0.0513).shown() == "0.051"


@pytest.mark.parametrize(("part", "value"), [(0.0, 1), (0.5, 5), (0.51, 6), (0.95, 10), (0.99, 10), (1.0, 10)])
def test_a_percentile_is_a_value_that_was_measured(part: float, value: int) -> None:
    assert percentile(range(1, 11), part) == value
    assert percentile([], part) == 0


def test_ratios_are_taken_turn_by_turn_and_never_of_a_turn_that_is_missing() -> None:
    assert ratios([10, 30], [5, 10]) == [2, 3]
    assert ratios([10, 30], [5]) == [2]
    assert ratios([10, 30], [0, 10]) == [3]


def test_a_goal_is_met_by_the_median_on_its_side_of_the_bound() -> None:
    reached = Figure(0.8, 0.5, 2.0)
    assert Goal(AT_LEAST, 0.8).met(reached)
    assert not Goal(AT_LEAST, 0.81).met(reached)
    assert Goal(AT_MOST, 0.8).met(reached)
    assert not Goal(AT_MOST, 0.79).met(reached)


def test_the_report_compares_turn_by_turn_and_says_why_a_row_has_no_figure() -> None:
    results = Results()
    results.turns = {
        "two banks, 64 clients": [turn(1000), turn(900), turn(3000)],
        "no-op, 64 clients": [turn(2000), turn(1000), turn(3000)],
    }
    results.missing = {"two PostgreSQL servers": "install it"}

    rows = {row.what: row for row in report.rows(results, Scale())}

    first = rows["two-bank transfers, 64 clients ÷ no-op FastAPI POST"]
    assert first.reached == Figure(0.9, 0.5, 1.0)
    assert first.met
    postgres = rows["the same ÷ two PostgreSQL servers"]
    assert (postgres.reached, postgres.met, postgres.why) == (None, None, "install it")
    assert rows["the same ÷ naive two-phase commit"].why == report.NOT_MEASURED
    assert rows["flushes per two-bank transfer, 64 clients"].reached == Figure(0.1, 0.1, 0.1)


def test_every_goal_of_the_issue_has_its_row_and_each_row_its_runs() -> None:
    """One turn of everything that is ever run: no goal is left without a figure, but for what is measured apart."""
    results = Results()
    for case in cases(Scale()):
        results.turns |= {run.name: [turn(1000)] for run in case.runs}
    goals = [row for row in report.rows(results, Scale()) if row.goal is not None]

    assert len(goals) == 15
    apart = {"start to ready", "memory of", "two-bank p50"}
    assert {row.what for row in goals if row.reached is None} == {
        row.what for row in goals if any(row.what.startswith(word) for word in apart)
    }


def test_a_busy_machine_is_said_to_have_been_one() -> None:
    quiet, crowded = Results(), Results()
    quiet.turns, crowded.turns = {"a": [turn(1)]}, {"a": [turn(1, elsewhere=1.5)]}

    assert report.busy(quiet) == ""
    assert "took 1.50 of" in report.text(crowded, Scale())


def test_the_report_and_the_json_say_the_same() -> None:
    results = Results()
    results.turns = {"two banks, 64 clients": [turn(1000)], "no-op, 64 clients": [turn(2000)]}

    document = json.loads(json.dumps(report.document(results, Scale(), Path())))
    told = report.markdown(results, Scale(), Path(), "bench.png")

    assert document["rows"][0]["reached"]["median"] == 0.5
    assert document["rows"][0]["met"] is False
    assert "| two-bank transfers, 64 clients ÷ no-op FastAPI POST | ≥ 0.8 | 0.50 | NOT met |" in told
    assert "(bench.png)" in told


# Shapes -----------------------------------------------------------------------------------------------------------


@dataclass
class Somebody:
    """A subject that is only looked at."""

    accounts: int = 1_000
    name: str = "somebody"

    def port(self, bank: int) -> int:
        return 1 + bank

    def token(self, bank: int, person: int) -> str:
        return f"{bank} {person}"

    def pids(self) -> dict[str, int]:
        return {}


def test_whoever_pays_debits_an_account_of_their_own() -> None:
    plan = ONE_WAY.plan(Somebody(), 300, 0, 1)  # type: ignore[arg-type]

    assert len(plan.clients) == 300
    for place, client in enumerate(plan.clients):
        own, _ = client.pools
        assert client.token == f"0 {place % seeding.HOLDERS}"
        assert {(serial - 1) % seeding.HOLDERS for serial in range(*own)} == {place % seeding.HOLDERS}
        assert max(range(*own)) <= 1_000


@pytest.mark.parametrize("shape", [ONE_WAY, batch(3), composite(3), composite(8), mesh(4)])
def test_what_is_ordered_balances(shape: object) -> None:
    assert isinstance(shape, type(ONE_WAY))
    plan = shape.plan(Somebody(), 12, 0, 1)  # type: ignore[arg-type]

    assert (plan.path == BATCHES) == bool(shape.batch)
    for template in plan.templates:
        body = json.loads(template)
        for order in body.get("transfers", [body]):
            amounts = [[float(leg["amount"]) for leg in order[side]] for side in ("debits", "credits")]
            assert round(sum(amounts[0]), 2) == round(sum(amounts[1]), 2)
            assert len(order["debits"]) + len(order["credits"]) == shape.legs


def test_unknown_cases_and_directories_that_are_not_empty_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no case nonsense"):
        bench.run(bench.Order(cases=("nonsense",)))
    (tmp_path / "something").write_text("")
    with pytest.raises(Misconfigured, match="not an empty directory"):
        bench.run(bench.Order(cases=("audit",), data_dir=tmp_path))


def test_the_command_lists_its_cases() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "distribank", "bench", "--list"], capture_output=True, text=True, check=True
    ).stdout

    assert all(case.name in said for case in cases(QUICK))


# Ledgers ----------------------------------------------------------------------------------------------------------


def test_every_person_has_a_cpf_of_their_own() -> None:
    cpfs = {seeding.cpf_of(person) for person in range(seeding.HOLDERS)}

    assert len(cpfs) == seeding.HOLDERS
    assert {parse_cpf(cpf) for cpf in cpfs} == cpfs


@pytest.mark.timeout(300)
async def test_a_seeded_ledger_holds_and_goes_on(tmp_path: Path, cheap: None) -> None:
    """More past transfers than accounts, at two banks that agree on each of them."""
    network = Network("seeded", 2, 300, past=1_000)
    try:
        await network.start(tmp_path, None, lambda _words: None)

        assert await network.verify_money() == 2 * 300 + 2 * 1_000
        async with client_of(network.banks[0]) as client:
            books = await client.books()
            assert books["findings"] == []
            assert books["holds"] == 0
    finally:
        await network.stop()


# Real runs --------------------------------------------------------------------------------------------------------


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CHEAP.items():
        monkeypatch.setenv(name, value)


@pytest.mark.timeout(300)
async def test_a_turn_says_what_it_cost(tmp_path: Path, cheap: None) -> None:
    network = [Network(OWN, 2, accounts=300, env={"DISTRIBANK_VOTE_DEADLINE": "60"})]
    case = Case("cost", "", lambda _scale: [*network], (Run("turn", OWN, ONE_WAY, 8),))
    results = Results()

    await run_case(case, Scale(0.5, 1.0, 2), tmp_path, None, results, lambda _words: None)

    assert not results.wrong
    assert not results.failed
    assert len(results.turns["turn"]) == 2
    for measured in results.turns["turn"]:
        assert measured.rate > 0
        assert 0 < measured.p50 <= measured.p95 <= measured.p99
        assert set(measured.cpu) == {"coordinator", "participant"}
        assert min(measured.resident.values()) > 10


class Forger(Network):
    """A network in which a centavo appears while it is driven: one account is credited behind the bank's back."""

    async def verify(self, committed: int | None, legs: int | None) -> None:
        await self.calm()
        await self.processes[1].stop()
        forge(self.banks[1].directory / "bank.db")
        self.processes[1].start()
        await self.processes[1].wait_ready(SLOW_MACHINE_S)
        await super().verify(committed, legs)


def forge(database: Path) -> None:
    """One centavo more on one account, with an entry for it, so that the account itself adds up."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE account SET posted = posted + 1, changes = changes + 1 WHERE number = '00000003-5'")
        connection.execute(
            "INSERT INTO entry SELECT account, change + 1, 'cash.forged', 1, kind, 'credit', 1, balance_after + 1, "
            "stamp, posted_at FROM entry WHERE account = '00000003-5' ORDER BY change DESC LIMIT 1"
        )


@pytest.mark.timeout(300)
def test_a_run_whose_money_is_wrong_has_no_figure_and_fails(
    tmp_path: Path, cheap: None, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = (Run("two banks, 64 clients", "forger", ONE_WAY, 8),)
    case = Case("forged", "", lambda _scale: [Forger("forger", 2, accounts=300, env=UNHURRIED)], runs)
    order = bench.Order(
        seconds=0.5, repeats=1, data_dir=tmp_path / "data", json_file=tmp_path / "bench.json", quick=True
    )

    status = bench.run(order, [case])

    told = capsys.readouterr().out
    document = json.loads((tmp_path / "bench.json").read_text())
    assert status == 1
    assert "forger: WRONG MONEY, no figures" in told
    assert document["runs"] == {}
    assert all(row["reached"] is None for row in document["rows"])
    assert "forger" in document["wrong"]


class Forgetful(Network):
    """A network in which what clients were told of is not what was posted."""

    async def verify(self, committed: int | None, legs: int | None) -> None:
        assert legs is not None
        await super().verify(committed, legs + 2)


@pytest.mark.timeout(300)
def test_a_transfer_that_only_a_client_knows_of_is_wrong_money(tmp_path: Path, cheap: None) -> None:
    case = Case(
        "lost", "", lambda _: [Forgetful("lost", 2, accounts=300, env=UNHURRIED)], (Run("lost", "lost", ONE_WAY, 8),)
    )

    assert bench.run(bench.Order(seconds=0.5, repeats=1, data_dir=tmp_path / "data", quick=True), [case]) == 1
