"""People to try a network out with: they come once, with a password said once, and their transfer works as pasted."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from distribank.breakages import Breakage, Misconfigured
from distribank.network import people
from distribank.network.layout import init, load
from distribank.network.people import seed
from distribank.network.processes import free_base_port
from tests.processes import SLOW_MACHINE_S, RealBank, command, network_of, until

SHELLS = [shell for shell in ("bash", "zsh") if shutil.which(shell)]


def password_in(said: str) -> str:
    found = re.search(r"^export DISTRIBANK_PASSWORD='(.+)'$", said, re.MULTILINE)
    assert found, said
    return found[1]


def block_in(said: str) -> str:
    found = re.search(r"^export (?:.*\n){3}", said, re.MULTILINE)
    assert found, said
    return found[0]


def paste(shell: str, block: str) -> str:
    return subprocess.run([shell, "-c", block], capture_output=True, text=True, timeout=30, check=True).stdout


async def all_accounts(banks: list[RealBank], password: str) -> list[tuple[str, ...]]:
    """(bank, type, posted balance) of every account of Maria and Ana, each account once."""
    seen = []
    for bank in banks:
        for cpf in (people.MARIA[1], people.ANA[1]):
            answer = await bank.client.call("POST", "/v1/token", data={"username": cpf, "password": password})
            if answer.status == 200:
                session = await bank.client.sign_in(cpf, password)
                items = (await session.get("/v1/accounts")).expect(200)["items"]
                seen += [(bank.code[-1], item["type"], item["posted_balance"]) for item in items]
    return sorted(seen)


async def consents(banks: list[RealBank], password: str) -> list[int]:
    sessions = [await bank.client.sign_in(people.MARIA[1], password) for bank in banks[:3]]
    return [len((await session.get("/v1/consents")).expect(200)["items"]) for session in sessions]


@pytest.mark.parametrize("number", [2, 3, 4])
async def test_people_come_once_and_their_transfer_can_be_pasted(tmp_path: Path, number: int) -> None:
    async with network_of(tmp_path, number) as banks:
        said: list[str] = []
        await seed(tmp_path, said.append)
        first = "\n".join(said)
        password = password_in(first)
        before = await all_accounts(banks, password)
        assert before == sorted(
            [(str(place), "individual", "1000.00") for place in range(1, min(number, 3) + 1)]
            + [("2", "joint", "1000.00"), (str(number), "individual", "1000.00"), (str(number), "business", "1000.00")]
        )

        for shell in SHELLS:
            done = paste(shell, block_in(first))
            assert '"status":"completed"' in done

        after, said = await all_accounts(banks, password), []
        await seed(tmp_path, said.append)
        assert "nothing was added" in said[0]
        assert password not in "\n".join(said)
        await seed(tmp_path, said.append, password=password)
        assert "nothing was added" in said[1]
        assert block_in(said[2]) == block_in(first)
        assert await all_accounts(banks, password) == after
        assert await consents(banks, password) == [0, 1, 1][:number]


async def test_seeding_that_was_broken_off_anywhere_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off before every fourth of its calls in turn, each time by a bank that does not answer."""
    async with network_of(tmp_path, 3) as banks:
        really, said = people.BankClient.call, list[str]()
        password, allowed = "", 4

        class Broken(Breakage):
            pass

        while True:
            left = allowed

            async def call(self: object, *arguments: object, **options: object) -> object:
                nonlocal left
                left -= 1
                if left < 0:
                    raise Broken
                return await really(self, *arguments, **options)  # type: ignore[arg-type]

            monkeypatch.setattr(people.BankClient, "call", call)
            try:
                await seed(tmp_path, said.append, password=password or None)
                break
            except Broken:
                allowed += 4
            if not password:
                found = re.search(r"kept nowhere:  (\S+)", said[0])
                assert found, said
                password = found[1]
        monkeypatch.undo()

        assert [entry[:2] for entry in await all_accounts(banks, password)] == [
            ("1", "individual"),
            ("2", "individual"),
            ("2", "joint"),
            ("3", "business"),
            ("3", "individual"),
            ("3", "individual"),
        ]
        assert {entry[2] for entry in await all_accounts(banks, password)} == {"1000.00"}
        assert await consents(banks, password) == [0, 1, 1]
        with pytest.raises(Breakage, match="DISTRIBANK_PASSWORD is not the password that Maria"):
            await seed(tmp_path, said.append, password="another-one-altogether")


async def test_a_password_that_may_be_hers_already_is_said_though_no_answer_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with network_of(tmp_path, 2) as banks:
        really, said = people.BankClient.call, list[str]()

        async def call(self: people.BankClient, method: str, path: str, **options: Any) -> object:
            answer = await really(self, method, path, **options)
            if path == "/v1/holders":
                raise Breakage("the answer was lost")
            return answer

        monkeypatch.setattr(people.BankClient, "call", call)
        with pytest.raises(Breakage, match="the answer was lost"):
            await seed(tmp_path, said.append)
        monkeypatch.undo()
        found = re.search(r"kept nowhere:  (\S+)", said[0])
        assert found, said
        password = found[1]
        await seed(tmp_path, said.append, password=password)
        assert len(await all_accounts(banks, password)) == 5


async def test_addresses_are_shown_as_people_reach_them_and_banks_are_not_waited_for_for_ever(tmp_path: Path) -> None:
    init(tmp_path, 2, free_base_port(2))
    show = people._address

    assert show("http://localhost:{port}/", "http://bank-1:8000", "99990001", 1) == "http://localhost:8000"
    assert show("https://{code}.example", "http://bank-1:8000", "99990001", 1) == "https://99990001.example"
    assert show("http://localhost:800{number}", "http://bank-1:8000", "99990001", 1) == "http://localhost:8001"
    with pytest.raises(Misconfigured, match="not as"):
        show("http://{host}", "http://bank-1:8000", "99990001", 1)
    with pytest.raises(Breakage, match="was not ready after 0 s"):
        await seed(tmp_path, print, wait=0)


async def test_banks_of_the_network_file_that_are_not_wanted_need_not_run(tmp_path: Path) -> None:
    async with network_of(tmp_path, 2) as banks:
        init(tmp_path, 3)
        said: list[str] = []
        with pytest.raises(Breakage, match="Sapucaia was not ready"):
            await seed(tmp_path, said.append, wait=0.5)
        await seed(tmp_path, said.append, wait=0.5, banks=2)

        assert '"status":"completed"' in paste("bash", block_in(said[-1]))
        assert len(await all_accounts(banks, password_in(said[-1]))) == 5


async def test_one_bank_is_too_few(tmp_path: Path) -> None:
    init(tmp_path, 1)

    with pytest.raises(Misconfigured, match="two banks or more"):
        await seed(tmp_path, print)


async def test_up_brings_people_and_the_command_alone_needs_the_network_file_only(tmp_path: Path) -> None:
    data, said, alone = tmp_path / "data", tmp_path / "said", tmp_path / "alone"
    up = ("up", "--people", "--banks", "2", "--data-dir", str(data), "--base-port", str(free_base_port(2)))
    with command(*up, "--vote-deadline", "60", out=said) as process:

        async def shown() -> bool:
            assert process.poll() is None, said.read_text()
            return said.read_text().count("  ready") == 2

        await until(shown, "both banks are shown as ready")
        alone.mkdir()
        shutil.copy(data / "network.json", alone)
        password = password_in(said.read_text())
        assert password not in "".join(path.read_text(errors="replace") for path in data.rglob("*") if path.is_file())
        environment = dict(os.environ)
        os.environ.update(DISTRIBANK_PASSWORD=password, DISTRIBANK_SHOW_AS="http://localhost:{port}")
        try:
            with command("people", "--data-dir", str(alone), out=tmp_path / "again") as once:
                assert once.wait(SLOW_MACHINE_S) == 0
        finally:
            os.environ.clear()
            os.environ.update(environment)
    again = (tmp_path / "again").read_text()
    assert "nothing was added" in again
    assert f"curl -s http://localhost:{load(data)[0].port}/v1/transfers" in again
