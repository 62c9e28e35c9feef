"""Secrets planted everywhere come out nowhere: not in logs at their most talkative, replies, figures or crashes.

Real processes. Each secret is one of a kind, so that wherever it is found, it has leaked.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import uuid
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from distribank.logs import FIELDS
from tests.counter_hall import hall
from tests.processes import CPFS, RealBank, network_of, until

METRICS_TOKEN = f"canary-metrics-{uuid.uuid4().hex}"
ENV = {"DISTRIBANK_LOG_LEVEL": "DEBUG", "DISTRIBANK_METRICS_TOKEN": METRICS_TOKEN, "PYTHONFAULTHANDLER": "1"}


@dataclass
class Ears:
    """Everything that banks said, and every secret that they must not say. A token may be said where it is given."""

    secrets: dict[str, str] = field(default_factory=dict)
    heard: list[tuple[str, str]] = field(default_factory=list)

    def plant(self, what: str) -> str:
        """A new secret, one of a kind."""
        self.secrets[f"{what} {len(self.secrets)}"] = made = f"canary-{uuid.uuid4().hex}"
        return made

    def listen_to(self, bank: RealBank) -> None:
        async def hear(response: httpx.Response) -> None:
            await response.aread()
            text = response.text
            if response.url.path == "/v1/token" and response.status_code == 200:
                token = response.json()["access_token"]
                self.secrets[f"token {len(self.secrets)}"] = token.rpartition(".")[2]
                text = text.replace(token, "")
            self.heard.append((f"{response.request.method} {response.url.path}", f"{response.headers} {text}"))

        bank.client._http.event_hooks["response"].append(hear)
        values = dict(
            line.split("=", 1) for line in bank.bank.env_file.read_text().splitlines() if line.startswith("DISTRIBANK_")
        )
        for name in ("TOKEN_SECRET", "OPERATOR_PASSWORD"):
            self.secrets[f"{name} of {bank.code}"] = values[f"DISTRIBANK_{name}"]
        key = (bank.bank.directory / "key.pem").read_text().splitlines()
        self.secrets[f"private key of {bank.code}"] = max(key, key=len)[-40:]

    def leaks(self, *logs: Path) -> list[str]:
        """Where a secret was said, and which."""
        said = self.heard + [(str(path), path.read_text(errors="replace")) for path in logs]
        return [f"{what} in {where}" for where, text in said for what, secret in self.secrets.items() if secret in text]


async def people(ears: Ears, banks: list[RealBank]) -> tuple[Any, Any]:
    """Two persons with passwords of their own, and with every way of getting them wrong."""
    sessions = []
    for cpf, name in zip(CPFS[3:5], ("Maria da Silva", "Ana Souza"), strict=True):
        ears.secrets[f"CPF {cpf}"] = cpf
        ears.secrets[f"CPF {cpf} punctuated"] = f"{cpf[:3]}.{cpf[3:6]}.{cpf[6:9]}-{cpf[9:]}"
        password = ears.plant("password")
        sessions.append([await bank.client.join(name, cpf, password) for bank in banks])
        client = banks[0].client
        await client.register(name, cpf, ears.plant("password of somebody who is registered"))
        await client.register("", cpf, ears.plant("password with a bad name"))
        await client.register(name, ears.plant("password as a CPF"), password)
        await client.call("POST", "/v1/holders", json={"name": name, "cpf": cpf, "pasword": ears.plant("misnamed")})
        await client.call("POST", "/v1/holders", content=b'{"password": "%b' % ears.plant("cut short").encode())
        await client.call("POST", "/v1/token", data={"username": cpf, "password": ears.plant("wrong password")})
        await client.call("POST", "/v1/token", data={"username": ears.plant("password as a name"), "password": "x"})
        await client.call("POST", "/v1/token", data={"username": "operator", "password": ears.plant("wrong")})
    return sessions[0], sessions[1]


async def money(banks: list[RealBank], maria: list[Any], ana: list[Any]) -> str:
    """Transfers that succeed, are refused, and are asked after; the id of one."""
    a = banks[0]
    accounts = [await each.open_account() for each in maria]
    theirs = await ana[2].open_account()
    for session, account in zip(maria, accounts, strict=True):
        (await session.deposit(account, 100_00)).expect(201)
    (await maria[1].consent(accounts[1], a.code, 50_00)).expect(201)
    debits = [(accounts[0], 10_00), (accounts[1], 5_00)]
    paid = (await maria[0].transfer(debits, [(theirs, 15_00)], description="rent")).expect(201)
    (await maria[0].pay(accounts[2], theirs, 1_00)).expect(422)
    (await maria[0].pay(accounts[0], theirs, 900_00)).expect(422)
    await ana[0].open_account(type="joint", co_holders=[CPFS[3]], approval="any")
    for media_type in ("application/json", "text/plain", "text/vnd.mermaid"):
        await maria[0].get(f"/v1/transfers/{paid['transfer_id']}/trace", media_type)
    for path in ("/v1/holders/me", "/v1/accounts", "/v1/transfers", "/v1/linked-accounts", "/v1/consents"):
        (await maria[0].get(path)).expect(200)
    await maria[0].get(f"/v1/accounts/{accounts[0].account}/statement", "text/csv")
    return str(paid["transfer_id"])


async def strangers(ears: Ears, bank: RealBank) -> None:
    """Whatever carries a secret to where it does not belong."""
    client = bank.client
    for headers in (
        {"Authorization": f"Bearer {ears.plant('token that is none')}"},
        {"Authorization": f"Basic {ears.plant('basic')}"},
        {"Cookie": f"session={ears.plant('cookie')}"},
        {"Idempotency-Key": f"{ears.plant('key')} x"},
        {"Accept": ears.plant("accept"), "Accept-Language": ears.plant("language")},
        {"Signature": ears.plant("signature"), "Signature-Input": ears.plant("signature input")},
    ):
        for path in ("/v1/accounts", "/interbank/v1/prepare", "/metrics", "/v1/transfers"):
            await client.call("POST", path, headers=headers, content=ears.plant("body").encode())
            await client.call("GET", path, headers=headers)
    for query in ("limit", "cursor", "status", "nothing"):
        await client.call("GET", f"/v1/transfers?{query}={ears.plant('query')}")


async def operators(banks: list[RealBank], transfer: str) -> None:
    for bank in banks:
        operator = await bank.client.operator()
        for path in ("in-doubt", "positions", "books", "heuristics", "suspense"):
            (await operator.get(f"/v1/operator/{path}")).expect(200)
        await operator.get(f"/v1/transfers/{transfer}/trace", "text/plain")
        await operator.post("/v1/operator/audit", {})
        await bank.client.call("GET", "/metrics", headers={"Authorization": f"Bearer {METRICS_TOKEN}"})
        await bank.client.call("GET", "/openapi.json")


async def test_no_secret_is_ever_said(tmp_path: Path) -> None:
    await _nothing_is_said(Ears({"metrics token": METRICS_TOKEN}), tmp_path, ENV)


async def test_no_secret_is_said_to_programs_either(tmp_path: Path) -> None:
    """Lines of JSON, and traces."""
    collector = pytest.importorskip("tests.collector", reason="traces need the extra: pip install 'distribank[otel]'")
    ears = Ears({"metrics token": METRICS_TOKEN})
    with collector.collecting() as traces:
        env = {**ENV, "DISTRIBANK_LOG_FORMAT": "json", "DISTRIBANK_OTLP_ENDPOINT": traces.endpoint}
        logs = await _nothing_is_said(ears, tmp_path, env)
    _check_fields(logs)
    assert len(traces.spans) > 20
    ears.heard = [("what the collector was sent", said) for said in traces.said]
    assert ears.leaks() == []


async def _nothing_is_said(ears: Ears, tmp_path: Path, env: dict[str, str]) -> list[Path]:
    """All that may be said wrong, said to three banks; their logs, in which nothing of it stands."""
    async with network_of(tmp_path, 3, env=env) as banks:
        for bank in banks:
            ears.listen_to(bank)
        maria, ana = await people(ears, banks)
        transfer = await money(banks, maria, ana)
        await strangers(ears, banks[0])
        banks[1].kill()
        await operators([banks[0], banks[2]], transfer)
        await banks[1].restart()
        await until(lambda: _online(banks[0], banks[1].code), "the killed bank is back")
        await operators(banks, transfer)
        _abort(banks[2])
        logs = [bank.bank.log_file for bank in banks]
        assert all(path.stat().st_size > 500 for path in logs), "there is something to listen to"
        assert "Fatal Python error" in logs[2].read_text(), "a crash has been heard"
    assert len(ears.secrets) > 60
    assert len(ears.heard) > 120
    assert ears.leaks(*logs) == []
    return logs


def _check_fields(logs: list[Path]) -> None:
    """Every line, up to what Python itself says of a crash, is an object of fields that are allowed, and no others."""
    lines = [json.loads(line) for log in logs for line in log.read_text().partition("Fatal")[0].splitlines()]
    assert {name for line in lines for name in line} <= set(FIELDS)
    assert len([line for line in lines if "because" in line]) > 10, "transitions are told"


async def _online(bank: RealBank, code: str) -> bool:
    return (await bank.client.network())[code] == "online"


def _abort(bank: RealBank) -> None:
    """Let it crash as a failed assertion in C would, with all that it says then."""
    process = bank._process
    assert process is not None
    os.kill(process.pid, signal.SIGABRT)
    process.wait(10)


async def test_passwords_and_tokens_are_in_no_file_of_the_bank(tmp_path: Path) -> None:
    password = f"canary-{uuid.uuid4().hex}"
    async with network_of(tmp_path, 1) as (bank,):
        await bank.client.join("Maria da Silva", CPFS[0], password)
        await bank.stop()
        with closing(sqlite3.connect(bank.bank.directory / "bank.db")) as database:
            kept = database.execute("SELECT cpf FROM holder").fetchall()
    assert kept == [(CPFS[0],)], "what the bank must know is there"
    for path in bank.bank.directory.iterdir():
        assert password.encode() not in path.read_bytes(), path


async def test_a_bugs_traceback_tells_where_and_nothing_that_was_sent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secret = f"canary-{uuid.uuid4().hex}"
    async with hall() as bank:
        who = await bank.sign_in()

        async def stumble(*_: object) -> None:
            raise KeyError(secret)

        monkeypatch.setattr(bank.apps["99990001"].state.edge.bank.custody, "accounts_of", stumble)
        answer = await bank.client().get(f"/v1/accounts?x={secret}", headers={**who, "X-Secret": secret})

    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert secret not in answer.text + caplog.text
    assert "KeyError" in caplog.text
