"""What DistriBank is compared with does what it is there for: every peer as a real process, and its money counted."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from distribank.api.answers.transfers import Transfer
from distribank.api.tokens import Authority, Tokens
from distribank.benchmarks.peers.front import CANNOT, CREDITOR, DEBTOR, OPENING, wall_ms
from distribank.core.documents import account_number
from distribank.core.money import format_amount
from distribank.network.processes import free_base_port
from tests.processes import SLOW_MACHINE_S

pytestmark = pytest.mark.timeout(300)  # a busy machine is no finding
SECRET = "a secret of this test's own, long enough to be one"
ACCOUNTS = 20
TRANSFERS = 300
MOVING = ["naive", "postgres"]
TOKENS = Tokens(DEBTOR, SECRET, 600, wall_ms)


@dataclass
class Peer:
    process: subprocess.Popen[str]
    processes: dict[str, int]
    client: httpx.AsyncClient

    async def pay(self, debit: int, credit: int, amount: int, key: str, token: str | None = None) -> httpx.Response:
        """Order a transfer between accounts by their serials; *amount* in centavos."""
        content = {
            "debits": [{"account": account_number(debit), "amount": format_amount(amount)}],
            "credits": [{"bank": CREDITOR, "account": account_number(credit), "amount": format_amount(amount)}],
        }
        token = TOKENS.issue(Authority.HOLDER, "a-holder") if token is None else token
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key}
        return await self.client.post("/v1/transfers", json=content, headers=headers)

    async def sum(self) -> dict[str, int]:
        return dict((await self.client.get("/sum")).json())


@contextmanager
def started(name: str, directory: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A peer as a process of its own, killed behind the block if it is still there."""
    port = free_base_port(2)
    program = [sys.executable, "-m", f"distribank.benchmarks.peers.{name}", "--until-stdin-closes"]
    place = ["--port", str(port), "--data", str(directory)]
    process = subprocess.Popen(
        [*program, *place, "--accounts", str(ACCOUNTS), "--token-secret", SECRET],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process, port
    finally:
        process.kill()
        process.communicate()


@asynccontextmanager
async def serving(name: str, directory: Path) -> AsyncIterator[Peer]:
    """The same once it serves; skipped, with the reason, where it says that it cannot run."""
    with started(name, directory) as (process, port):
        assert process.stdout is not None
        word, _, rest = process.stdout.readline().partition(" ")
        if word == "cannot:":
            assert process.wait() == CANNOT
            pytest.skip(rest.strip())
        assert word == "ready"
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=SLOW_MACHINE_S
        ) as client:
            yield Peer(process, json.loads(rest)["processes"], client)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def all_gone(pids: list[int], within: float = SLOW_MACHINE_S) -> bool:
    give_up = time.monotonic() + within
    while any(map(is_running, pids)) and time.monotonic() < give_up:
        time.sleep(0.02)
    return not any(map(is_running, pids))


async def test_the_no_op_takes_and_gives_what_a_bank_does(tmp_path: Path) -> None:
    async with serving("noop", tmp_path / "data") as peer:
        answers = await asyncio.gather(*(peer.pay(1, 1, 100, f"key-{number}") for number in range(TRANSFERS)))
        assert {answer.status_code for answer in answers} == {201}
        assert Transfer.model_validate(answers[0].json()).status == "committed"
        assert (await peer.client.post("/v1/transfers", json={})).status_code == 422
        assert await peer.sum() == {"centavos": 2 * ACCOUNTS * OPENING, "transfers": TRANSFERS}


@pytest.mark.parametrize("name", MOVING)
async def test_many_at_once_move_what_they_say_and_no_more(name: str, tmp_path: Path) -> None:
    async with serving(name, tmp_path / "data") as peer:
        chance = random.Random(1)  # noqa: S311
        orders = [(chance.randint(1, ACCOUNTS), chance.randint(1, ACCOUNTS)) for _ in range(TRANSFERS)]
        answers = await asyncio.gather(
            *(peer.pay(debit, credit, 101, f"key-{number}") for number, (debit, credit) in enumerate(orders))
        )
        assert {answer.status_code for answer in answers} == {201}, answers[0].text
        one = Transfer.model_validate(answers[0].json())
        assert (one.status, one.debits[0].amount, one.credits[0].bank) == ("committed", "1.01", CREDITOR)
        assert len({answer.json()["transfer_id"] for answer in answers}) == TRANSFERS
        assert await peer.sum() == {"centavos": 2 * ACCOUNTS * OPENING, "transfers": TRANSFERS}


@pytest.mark.parametrize("name", MOVING)
async def test_one_account_against_one_account_is_no_deadlock(name: str, tmp_path: Path) -> None:
    async with serving(name, tmp_path / "data") as peer:
        answers = await asyncio.gather(*(peer.pay(1, 1 + number % 2, 1, f"key-{number}") for number in range(100)))
        assert {answer.status_code for answer in answers} == {201}
        assert await peer.sum() == {"centavos": 2 * ACCOUNTS * OPENING, "transfers": 100}


@pytest.mark.parametrize("name", MOVING)
async def test_what_is_not_covered_and_who_is_not_there_is_refused_and_moves_nothing(name: str, tmp_path: Path) -> None:
    async with serving(name, tmp_path / "data") as peer:
        emptied = await peer.pay(1, 1, OPENING - 50, "nearly-all")
        assert emptied.status_code == 201
        for answer, code in [
            (await peer.pay(1, 2, 51, "too-much"), "insufficient_funds"),
            (await peer.pay(ACCOUNTS + 1, 1, 1, "no-debtor"), "account_not_found"),
            (await peer.pay(2, ACCOUNTS + 1, 1, "no-creditor"), "account_not_found"),
            (await peer.pay(2, 2, 1, "nobody's", token="nobody's"), "unauthorized"),
        ]:
            assert answer.json()["code"] == code, answer.text
        assert (await peer.pay(1, 2, 50, "the-rest")).status_code == 201  # nothing is locked or held by a refusal
        assert (await peer.pay(2, ACCOUNTS, 1, "another's")).status_code == 201
        assert await peer.sum() == {"centavos": 2 * ACCOUNTS * OPENING, "transfers": 3}


@pytest.mark.parametrize("name", MOVING)
async def test_the_same_key_moves_money_once(name: str, tmp_path: Path) -> None:
    async with serving(name, tmp_path / "data") as peer:
        answers = await asyncio.gather(*(peer.pay(1, 2, 100, "the-same") for _ in range(10)))
        answers.append(await peer.pay(1, 2, 100, "the-same"))
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.json()["transfer_id"] for answer in answers}) == 1
        assert await peer.sum() == {"centavos": 2 * ACCOUNTS * OPENING, "transfers": 1}


@pytest.mark.parametrize("name", ["noop", *MOVING])
async def test_it_ends_with_all_its_processes_when_it_is_told_to(name: str, tmp_path: Path) -> None:
    async with serving(name, tmp_path / "data") as peer:
        assert all(map(is_running, peer.processes.values()))
        peer.process.terminate()
        assert peer.process.wait(SLOW_MACHINE_S) == 0
        assert all_gone(list(peer.processes.values()))


@pytest.mark.parametrize("name", MOVING)
async def test_nothing_runs_on_behind_one_that_was_killed(name: str, tmp_path: Path) -> None:
    async with serving(name, tmp_path / "data") as peer:
        peer.process.send_signal(signal.SIGKILL)
        peer.process.wait()
        assert all_gone(list(peer.processes.values()))
