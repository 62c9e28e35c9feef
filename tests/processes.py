"""Real banks for tests: a network of bank processes on free ports, in a directory of the test's own.

``network_of`` is the fixture's inside, for tests that choose how many banks, or run another program in a bank's place;
the fixture ``network`` gives three. All banks are gone behind the test; if it failed inside ``network_of``, their last
words are printed, and the logs stay in the test's directory.

    async def test_a_bank_returns(network):
        a, b = network[0], network[1]
        maria = await a.client.join("Maria da Silva", CPFS[0], PASSWORD)
        a.kill(); await a.restart()
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Any

import pytest_asyncio

from distribank.breakages import Breakage
from distribank.network.client import AccountRef, BankClient, Session, centavos, client_of
from distribank.network.layout import LocalBank, init
from distribank.network.processes import BankProcess, Process, free_base_port, running

CPFS = ["52998224725", "11144477735", "12345678909", "39053344705", "98765432100", "22233366638"]
PASSWORD = "correct horse battery staple"
SLOW_MACHINE_S = 120.0
"""No bank takes so long to start, nor a network to come to rest, on however busy a machine."""
CHEAP = {"DISTRIBANK_PASSWORD_PROFILE": "cheap-for-tests"}
UNHURRIED = {"DISTRIBANK_VOTE_DEADLINE": "10"}
"""Votes get the time that they need, so that no transfer is refused because the machine is busy."""

Program = Callable[[LocalBank], list[str]]
Begin = Callable[[list[str], IO[bytes], Mapping[str, str], int], Process]
"""How a bank's process is begun: its command, its log, its environment, and the file that it keeps locked."""


class RealBank(BankProcess):
    """A bank process with a client that speaks to it."""

    def __init__(self, bank: LocalBank, env: Mapping[str, str], program: list[str], start: Begin | None = None) -> None:
        super().__init__(bank, env, program)
        if start is not None:
            self._begin = start  # type: ignore[method-assign]
        self.code = bank.code
        self.client: BankClient = client_of(bank)

    async def wait_ready(self, within: float = SLOW_MACHINE_S) -> float:
        return await super().wait_ready(within)


class People:
    """One person with an account and a consent at every bank; the network's money is what was deposited."""

    def __init__(self, banks: list[RealBank]) -> None:
        self.banks = banks
        self.sessions: list[Session] = []
        self.accounts: list[AccountRef] = []
        self.total = 0

    async def settle_in(self, money: int, password: str = PASSWORD) -> People:
        for bank in self.banks:
            session = await bank.client.join("Maria da Silva", CPFS[0], password)
            account = await session.open_account()
            (await session.deposit(account, money)).expect(201)
            self.total += money
            self.sessions.append(session)
            self.accounts.append(account)
        for session, account in zip(self.sessions, self.accounts, strict=True):
            for other in self.banks:
                if other.code != account.bank:
                    (await session.consent(account, other.code, 10**9)).expect(201)
        return self

    async def status_at(self, place: int, transfer: str) -> str | None:
        """What one bank says became of a transfer; ``None`` where it knows of none (or none that concerns her)."""
        answer = await self.sessions[place].get(f"/v1/transfers/{transfer}")
        return None if answer.status == 404 else str(answer.expect(200)["status"])

    async def quiet(self) -> None:
        """Wait until no bank has anything in doubt or unacknowledged."""
        await until(self.is_quiet, "nothing is in doubt anywhere", SLOW_MACHINE_S)

    async def is_quiet(self) -> bool:
        try:
            return not any([await bank.client.in_doubt() for bank in self.banks])
        except Breakage:
            return False

    async def acquainted(self) -> None:
        """Wait until every bank has found every other: one that started sooner than another takes it to be away."""

        async def online() -> bool:
            return all([{*(await bank.client.network()).values()} <= {"online"} for bank in self.banks])

        await until(online, "every bank finds every other", SLOW_MACHINE_S)

    async def check_books(self) -> None:
        """Each bank's books balance alone, with every other's, and over the network, which says so itself."""
        customers = suspense = 0
        positions: dict[tuple[str, str], int] = {}
        for bank in self.banks:
            books = await bank.client.books()
            assert books["balanced"], books
            assert books["findings"] == []
            suspense += centavos(books["books"]["suspense"])
            for peer, amount in (await bank.client.positions()).items():
                positions[bank.code, peer] = amount
        for (one, other), amount in positions.items():
            assert amount == -positions.get((other, one), 0), f"{one} and {other} do not agree"
        for session, account in zip(self.sessions, self.accounts, strict=True):
            posted, available = await session.balances(account)
            assert posted == available, f"something is still held on {account}"
            customers += posted
        assert customers + suspense == self.total
        await self.audit(self.banks[0])

    async def audit(self, bank: RealBank) -> None:
        """*bank* finds every bank there and nothing wrong on one consistent cut of them all."""
        operator = await bank.client.operator()
        found: dict[str, Any] = {}

        async def answered() -> bool:
            nonlocal found
            found = (await operator.post("/v1/operator/audit", {})).expect(200)
            return all(finding["code"] != "bank_unreachable" for finding in found["findings"])

        await until(answered, "every bank answers the auditor", SLOW_MACHINE_S)  # a busy machine is no finding
        assert found["ok"], found


@asynccontextmanager
async def network_of(
    directory: Path,
    banks: int = 3,
    *,
    env: Mapping[str, str] | None = None,
    program: Program | None = None,
    start: Begin | None = None,
    urls: Sequence[str] = (),
) -> AsyncIterator[list[RealBank]]:
    """*banks* bank processes, ready, in *directory*. *env* adds to their environment, in which votes have ten seconds.

    *program* replaces ``python -m distribank serve`` for a bank (``--env-file FILE`` is appended to it), *start* how it
    becomes a process. *urls* are their databases, if not those that ``network init`` names.
    """
    made = init(directory, banks, free_base_port(banks))
    for bank, url in zip(made, urls, strict=False):
        settings = bank.env_file.read_text().replace("sqlite:///bank.db", url)
        bank.env_file.write_text(settings)
    network = [
        RealBank(bank, {**CHEAP, **UNHURRIED, **(env or {})}, program(bank) if program else [], start) for bank in made
    ]
    async with AsyncExitStack() as stack:
        for bank in network:
            await stack.enter_async_context(bank.client)
        try:
            await stack.enter_async_context(running(network))
            yield network
        except BaseException:
            for bank in network:
                print(bank.last_words(40))  # pytest shows it with the failure
            raise


@pytest_asyncio.fixture
async def network(tmp_path: Path) -> AsyncIterator[list[RealBank]]:
    """Three real banks."""
    async with network_of(tmp_path / "network", 3) as banks:
        yield banks


@contextmanager
def command(*arguments: str, out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``distribank`` with *arguments*, running inside the block, what it says going to *out*; killed behind it."""
    with out.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "distribank", *arguments],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, **CHEAP, "NO_COLOR": "1"},
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def until(holds: Callable[[], Awaitable[bool]], what: str, within: float = SLOW_MACHINE_S) -> float:
    """Ask again every few milliseconds until *holds* says yes; seconds taken. Fails, naming *what*, past *within*."""
    begun = time.monotonic()
    while not await holds():
        assert time.monotonic() - begun < within, f"still not so after {within} s: {what}"
        await asyncio.sleep(0.02)
    return time.monotonic() - begun
