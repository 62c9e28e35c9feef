"""Banks of several real processes each, on PostgreSQL, behind one address; and people who pay while some of them die.

``OneAddress`` is the load balancer that an operator would put there: it hands each connection to a replica that takes
it, in turn. A ``Payer`` pays under keys and asks again under the same key until it hears what became of it, so that
at the end every balance is known to the centavo.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from distribank.breakages import Breakage
from distribank.network.client import AccountRef
from distribank.network.layout import HOST, LocalBank, init
from distribank.network.processes import free_base_port, running
from tests.processes import CHEAP, SLOW_MACHINE_S, People, RealBank, until

MONEY = 10_000_000


class OneAddress:
    """Connections to *port* go to one of *backends* (ports) each, in turn; those that refuse are passed over."""

    def __init__(self, port: int, backends: Sequence[int]) -> None:
        self._port = port
        self._backends = list(backends)
        self._turn = count()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> OneAddress:
        self._server = await asyncio.start_server(self._serve, HOST, self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = next(self._turn)
        for place in range(len(self._backends)):
            backend = self._backends[(first + place) % len(self._backends)]
            with contextlib.suppress(OSError):
                theirs = await asyncio.open_connection(HOST, backend)
                await self._between((reader, writer), theirs)
                return
        writer.transport.abort()

    async def _between(
        self,
        ours: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        theirs: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        """Carry bytes both ways until either side has ended; then both have."""
        self._open.update((ours[1], theirs[1]))
        carriers = [
            asyncio.ensure_future(_carry(ours[0], theirs[1])),
            asyncio.ensure_future(_carry(theirs[0], ours[1])),
        ]
        try:
            await asyncio.wait(carriers, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for carrier in carriers:
                carrier.cancel()
            await asyncio.wait(carriers)
            for writer in (ours[1], theirs[1]):
                self._open.discard(writer)
                writer.transport.abort()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()


@dataclass
class Replicated:
    """The network: each bank's *front*, where it is spoken to, and its *replicas*, which live and die."""

    fronts: list[RealBank]
    replicas: list[list[RealBank]]


@asynccontextmanager
async def replicated(
    directory: Path, urls: Sequence[str], replicas: Sequence[int], **env: str
) -> AsyncIterator[Replicated]:
    """A bank for each of *urls* (its database), of so many *replicas*; all ready, all gone behind it."""
    ports = free_base_port(len(urls) + sum(replicas))
    banks = init(directory, len(urls), ports)
    next_port = count(ports + len(urls))
    settings = {**CHEAP, **env}
    made: list[list[RealBank]] = []
    async with AsyncExitStack() as stack:
        fronts = [RealBank(bank, settings, []) for bank in banks]
        for bank, url, number in zip(banks, urls, replicas, strict=True):
            made.append(
                [RealBank(_replica(bank, url, next(next_port), place), settings, []) for place in range(number)]
            )
            backends = [each.bank.port for each in made[-1]]
            await stack.enter_async_context(OneAddress(bank.port, backends))
        for each in (*fronts, *(replica for group in made for replica in group)):
            await stack.enter_async_context(each.client)
        try:
            await stack.enter_async_context(running(replica for group in made for replica in group))
            yield Replicated(fronts, made)
        except BaseException:
            for group in made:
                for replica in group:
                    print(replica.last_words(60))
            raise


def _replica(bank: LocalBank, url: str, port: int, place: int) -> LocalBank:
    """The files of one replica: the bank's own settings, but for the port and the database."""
    directory = bank.directory.with_name(f"{bank.code}-{place + 1}")
    directory.mkdir(mode=0o700)
    changes = {
        "DISTRIBANK_PORT": str(port),
        "DISTRIBANK_DATABASE_URL": url,
        "DISTRIBANK_PRIVATE_KEY_FILE": f"../{bank.code}/key.pem",
    }
    lines = [line for line in bank.env_file.read_text().splitlines() if line.partition("=")[0] not in changes]
    made = replace(bank, directory=directory, port=port)
    made.env_file.touch(mode=0o600)
    made.env_file.write_text("\n".join([*lines, *(f"{name}={value}" for name, value in changes.items()), ""]))
    return made


@dataclass
class Payer:
    """One who pays one centavo after the other from *here* to *there*, and knows of each whether it was paid."""

    people: People
    here: int
    there: int
    name: str
    paid: list[str] = field(default_factory=list)
    """Ids of the transfers that were answered as committed."""
    refused: int = 0
    asked_again: int = 0
    slowest: float = 0.0
    accounts: tuple[AccountRef, AccountRef] | None = None
    """From which to which, if not those that everybody has in common."""

    async def pay_until(self, stop: asyncio.Event, patience: float = 60.0) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            await self.pay(f"{self.name}-{number}", patience)

    async def pay(self, key: str, patience: float) -> None:
        """Pay once, whatever happens to banks meanwhile: the same key again until there is an outcome."""
        session = self.people.sessions[self.here]
        debit, credit = self.accounts or (self.people.accounts[self.here], self.people.accounts[self.there])
        begun = time.monotonic()
        while True:
            assert time.monotonic() - begun < patience, f"nobody says what became of {key}"
            try:
                answer = await session.pay(debit, credit, 1, key=key)
            except Breakage:
                answer = None
            if answer is not None and answer.status == 201:
                self.paid.append(answer.body["transfer_id"])
                break
            if (
                answer is not None
                and answer.status not in (202, 409)
                and answer.code in ("bank_unreachable", "interrupted")
            ):
                self.refused += 1  # nothing moved, and the key says so for ever
                break
            assert answer is None or answer.status in (202, 409, 502, 503, 504), answer  # a balancer's own words, too
            self.asked_again += 1
            await asyncio.sleep(0.05 + random.random() / 10)  # noqa: S311
        self.slowest = max(self.slowest, time.monotonic() - begun)


def payments(payers: Iterable[Payer]) -> int:
    """How many transfers they were told are committed."""
    return sum(len(payer.paid) for payer in payers)


async def go_on(payers: Sequence[Payer], count: int) -> float:
    """Return once *payers* have paid *count* times more; seconds taken."""
    wanted = payments(payers) + count

    async def reached() -> bool:
        return payments(payers) >= wanted

    return await until(reached, f"{count} more are paid", SLOW_MACHINE_S)


async def expected_balances(people: People, payers: Sequence[Payer]) -> None:
    """Every account has what was paid to it and not what was paid from it: no update is lost, and none is made up."""
    for place, (session, account) in enumerate(zip(people.sessions, people.accounts, strict=True)):
        out = sum(len(payer.paid) for payer in payers if payer.here == place)
        into = sum(len(payer.paid) for payer in payers if payer.there == place)
        assert await session.balances(account) == (MONEY - out + into, MONEY - out + into)


async def all_there(people: People, payers: Sequence[Payer]) -> None:
    """Every transfer that was answered as committed is committed where it was ordered."""
    for payer in payers:
        for transfer in payer.paid:
            assert await people.status_at(payer.here, transfer) in ("completed", "committed"), transfer
