"""Prometheus itself reads what banks say of themselves, takes the rules, and answers what the dashboard asks.

The rules and the dashboard are those of ``compose/observability``. Prometheus and its tool are Debian's package
``prometheus``; where they are missing, what needs them is skipped.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from distribank.network.processes import BankProcess
from tests.processes import SLOW_MACHINE_S, People, RealBank, network_of, until

ROOT = Path(__file__).parent.parent
OBSERVABILITY = ROOT / "compose" / "observability"
DASHBOARD = json.loads((OBSERVABILITY / "grafana/dashboards/distribank.json").read_text(encoding="utf-8"))
DOCUMENT = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
TOKEN = "what the scraper was given"

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="no prometheus here: apt-get install prometheus",
)


def promtool(*arguments: str, given: str = "") -> str:
    """What promtool says; an error ends the test with its own words."""
    ended = subprocess.run(
        ["promtool", *arguments], cwd=OBSERVABILITY, input=given, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


@needs_prometheus
def test_the_configuration_and_the_rules_are_what_prometheus_takes() -> None:
    assert "SUCCESS" in promtool("check", "config", "--syntax-only", "prometheus.yml")
    assert "SUCCESS" in promtool("check", "rules", "alerts.yml")


@needs_prometheus
def test_each_alert_comes_when_it_should_and_not_before() -> None:
    assert "SUCCESS" in promtool("test", "rules", "alerts.test.yml")


def test_every_alert_has_a_test_and_a_word_in_the_manual() -> None:
    named = set(re.findall(r"- alert: (\w+)", (OBSERVABILITY / "alerts.yml").read_text(encoding="utf-8")))
    tested = (OBSERVABILITY / "alerts.test.yml").read_text(encoding="utf-8")

    assert len(named) == 13
    assert named == set(re.findall(r"alertname: (\w+)\n\s+exp_alerts:\n", tested))
    assert named == set(re.findall(r"^\| `([A-Z]\w+)` \|", DOCUMENT, re.MULTILINE))


OF_A_BANK = (
    *("in_doubt", "oldest_in_doubt_seconds", "forced", "unacknowledged_commits", "undecided"),
    "position_centavos",
)
"""What is read from the database: every replica says the same."""


def test_what_every_replica_says_of_its_bank_is_counted_once() -> None:
    asked = [*questions(), *re.findall(r"expr: (.*)", (OBSERVABILITY / "alerts.yml").read_text(encoding="utf-8"))]
    for name in OF_A_BANK:
        naming = [expression for expression in asked if f"distribank_{name}" in expression]
        assert naming, name
        for expression in naming:
            assert re.search(rf"max(?: by \(bank(?:, peer)?\) )?\(distribank_{name}\)", expression), expression


@needs_prometheus
def test_a_bank_of_two_replicas_of_which_one_is_away_looks_like_any_other_on_the_dashboard(tmp_path: Path) -> None:
    first, second, other = (
        f'job="banks",bank="{bank}",instance="{instance}"'
        for bank, instance in (("99990001", "bank-001a"), ("99990001", "bank-001b"), ("99990002", "bank-002a"))
    )
    series = {
        f'distribank_position_centavos{{peer="99990002",{first}}}': "500 _",
        f'distribank_position_centavos{{peer="99990002",{second}}}': "500 500",
        f'distribank_position_centavos{{peer="99990001",{other}}}': "-500 -500",
        **{f"up{{{who}}}": "1 1" for who in (second, other)},
        f"up{{{first}}}": "1 0",
        **{f"distribank_audit_ok{{{who}}}": ok for who, ok in ((first, "0 0"), (second, "1 1"))},
        **{f"distribank_audit_findings{{{who}}}": found for who, found in ((first, "3 3"), (second, "0 0"))},
        **{f"distribank_audit_timestamp_seconds{{{who}}}": at for who, at in ((first, "1 1"), (second, "2 2"))},
    }
    expected = {
        "Positions of all banks together": ["{}", 0],
        "Banks that answer": ["{}", 2],
        "The books": ["{}", 1],
        "Findings of the last audit": ['{bank="99990001"}', 0],
    }
    checks = [
        {
            "expr": target["expr"],
            "eval_time": moment,
            "exp_samples": [dict(zip(("labels", "value"), expected[panel["title"]], strict=True))],
        }
        for panel in DASHBOARD["panels"]
        if panel["title"] in expected
        for target in panel["targets"]
        for moment in ("0s", "5s")
    ]
    assert len(checks) == 10
    given = [{"series": name, "values": values} for name, values in series.items()]
    tests = [{"interval": "5s", "input_series": given, "promql_expr_test": checks}]
    (tmp_path / "dashboard.yml").write_text(json.dumps({"evaluation_interval": "5s", "tests": tests}))
    assert "SUCCESS" in promtool("test", "rules", str(tmp_path / "dashboard.yml"))


@contextmanager
def prometheus_over(banks: list[RealBank], directory: Path) -> Iterator[str]:
    """Prometheus with the shipped configuration, told of *banks* as the compose file's script tells it; its url."""
    directory.mkdir()
    (directory / "metrics-token").write_text(TOKEN)
    lines = [f'- {{targets: ["127.0.0.1:{each.bank.port}"], labels: {{bank: "{each.code}"}}}}\n' for each in banks]
    (directory / "banks.yml").write_text("".join(lines))
    shutil.copy(OBSERVABILITY / "alerts.yml", directory)
    config = (OBSERVABILITY / "prometheus.yml").read_text(encoding="utf-8").replace(": 5s", ": 1s")
    (directory / "prometheus.yml").write_text(config.replace("/tmp/", f"{directory}/"))  # noqa: S108
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        "prometheus",
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address={address}",
    ]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait()


async def answer(prometheus: httpx.AsyncClient, question: str) -> dict[str, float]:
    """The values that *question* has now, by their labels."""
    try:
        response = await prometheus.get("/api/v1/query", params={"query": question})
    except httpx.TransportError:
        return {}  # it has not started yet
    if response.status_code == 503:
        return {}  # nor is it ready
    said = response.json()
    assert said["status"] == "success", (question, said)
    return {json.dumps(each["metric"]): float(each["value"][1]) for each in said["data"]["result"]}


@needs_prometheus
@pytest.mark.timeout(600)
async def test_prometheus_scrapes_a_running_network_and_answers_everything_that_the_dashboard_asks(
    tmp_path: Path,
) -> None:
    async with network_of(tmp_path / "network", 2, env={"DISTRIBANK_METRICS_TOKEN": TOKEN}) as banks:
        people = await People(banks).settle_in(100_00)
        await pay(people, 5)
        said = await banks[0].client.call("GET", "/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        assert promtool("check", "metrics", given=said.expect(200)) == ""
        with prometheus_over(banks, tmp_path / "prometheus") as url:
            async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=SLOW_MACHINE_S) as prometheus:

                async def counted(question: str, value: float) -> bool:
                    return list((await answer(prometheus, question)).values()) == [value]

                committed = f'distribank_transfers_total{{outcome="committed",bank="{banks[0].code}"}}'
                await until(lambda: counted(committed, 5), "five transfers are counted", SLOW_MACHINE_S)
                await pay(people, 3)
                (await people.sessions[0].pay(*people.accounts, 10**6)).expect(422)
                await people.audit(banks[0])
                await until(lambda: counted(committed, 8), "three more are counted", SLOW_MACHINE_S)
                await until(lambda: counted('sum(up{job="banks"})', 2), "both banks are scraped", SLOW_MACHINE_S)
                await until(lambda: counted("max(distribank_audit_ok)", 1), "the audit is told", SLOW_MACHINE_S)
                await until(lambda: counted("sum(distribank_position_centavos)", 0), "positions agree", SLOW_MACHINE_S)
                for question in questions():
                    assert await answer(prometheus, question), f"nobody can say: {question}"

                await check_alerts(prometheus, banks[1])


async def pay(people: People, times: int) -> None:
    for _ in range(times):
        (await people.sessions[0].pay(*people.accounts, 1_00)).expect(201)


def questions() -> list[str]:
    """Everything that the dashboard's panels ask, with the times that Grafana fills in."""
    asked = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    assert len(asked) > 20
    return [expression.replace("$__rate_interval", "1m") for expression in asked]


async def check_alerts(prometheus: httpx.AsyncClient, bank: BankProcess) -> None:
    """Nothing but the audits' age has been missed so far; a bank that is killed is."""
    rules = (await prometheus.get("/api/v1/rules")).json()["data"]["groups"]
    assert [rule["name"] for group in rules for rule in group["rules"] if rule["health"] == "err"] == []
    assert not await answer(prometheus, 'ALERTS{alertstate="firing"}')
    bank.kill()
    await until(lambda: fires(prometheus, "BankGone"), "its absence is told", SLOW_MACHINE_S)


async def fires(prometheus: httpx.AsyncClient, alert: str) -> bool:
    await asyncio.sleep(0.2)
    return bool(await answer(prometheus, f'ALERTS{{alertname="{alert}",alertstate="firing"}}'))


def test_every_series_of_a_bank_that_the_rules_or_the_dashboard_name_is_in_the_manual() -> None:
    text = json.dumps(DASHBOARD) + (OBSERVABILITY / "alerts.yml").read_text(encoding="utf-8")
    named = {re.sub(r"_(bucket|count|sum)$", "", each) for each in re.findall(r"\bdistribank_\w+", text)}

    assert len(named) > 12
    assert {name for name in named if f"`{name}" not in DOCUMENT} == set()
