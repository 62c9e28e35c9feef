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
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest_asyncio

from distribank.network.client import BankClient, client_of
from distribank.network.layout import LocalBank, init
from distribank.network.processes import BankProcess, free_base_port, running

CPFS = ["52998224725", "11144477735", "12345678909", "39053344705", "98765432100", "22233366638"]
PASSWORD = "correct horse battery staple"
CHEAP = {"DISTRIBANK_PASSWORD_PROFILE": "cheap-for-tests"}

Program = Callable[[LocalBank], list[str]]


class RealBank(BankProcess):
    """A bank process with a client that speaks to it."""

    def __init__(self, bank: LocalBank, env: Mapping[str, str], program: list[str]) -> None:
        super().__init__(bank, env, program)
        self.code = bank.code
        self.client: BankClient = client_of(bank)


@asynccontextmanager
async def network_of(
    directory: Path, banks: int = 3, *, env: Mapping[str, str] | None = None, program: Program | None = None
) -> AsyncIterator[list[RealBank]]:
    """*banks* bank processes, ready, in *directory*. *env* adds to their environment; *program* replaces
    ``python -m distribank serve`` for a bank (``--env-file FILE`` is appended to it).
    """
    made = init(directory, banks, free_base_port(banks))
    network = [RealBank(bank, {**CHEAP, **(env or {})}, program(bank) if program else []) for bank in made]
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


async def until(holds: Callable[[], Awaitable[bool]], what: str, within: float = 15.0) -> float:
    """Ask again every few milliseconds until *holds* says yes; seconds taken. Fails, naming *what*, past *within*."""
    begun = time.monotonic()
    while not await holds():
        assert time.monotonic() - begun < within, f"still not so after {within} s: {what}"
        await asyncio.sleep(0.02)
    return time.monotonic() - begun
