"""What is measured: networks of our own banks, and the peers that they are compared with, each behind the same face.

A subject is started once, driven in turns with the others, and asked in the end whether its money is right. Its
processes are real, and so is its disk; its settings are those that a bank ships with.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from dotenv import dotenv_values

from distribank.api.tokens import Authority, Tokens
from distribank.benchmarks import seeding
from distribank.breakages import Breakage
from distribank.core.documents import account_number
from distribank.network.auditing import audit
from distribank.network.client import AccountRef, BankClient, Session, centavos, client_of
from distribank.network.layout import LocalBank, init
from distribank.network.processes import BankProcess, free_base_port, stop_all

STOP_S: Final = 15.0
CALM_S: Final = 60.0
"""How long what is decided may take until every bank has it."""
TOKEN_S: Final = 86_400
COORDINATOR: Final = "99990001"
CONSENTED: Final = 10**9
"""Centavos that a consent lets another bank debit at a time."""
CONSENTS_AT_ONCE: Final = 16
CANNOT: Final = 3
"""The exit status of a peer that cannot run here; it has said why."""
_FLUSHES: Final = re.compile(r"^distribank_flush_seconds_count (\S+)$", re.MULTILINE)
_REQUESTS: Final = re.compile(r'^distribank_interbank_requests\{kind="(\w+)"[^}]*\} (\S+)$', re.MULTILINE)
PROTOCOL: Final = frozenset({"prepare", "commit", "abort", "inquire"})
"""The kinds of interbank requests that transfers cause: probes and audits are not among them."""

Progress = Callable[[str], None]


class CannotRun(Breakage):
    """This subject cannot run here: says why, and what to do about it."""


class WrongMoney(Breakage):
    """Behind the run a subject's money is not what it should be: nothing that it did counts."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Counters of a subject, all its banks together."""

    flushes: int = 0
    requests: int = 0


class Subject(Protocol):
    """What can be measured. *name* is how it is reported; *accounts* how many each of its banks has."""

    name: str
    accounts: int

    async def start(self, directory: Path, base_port: int | None, say: Progress) -> None:
        """Ready to be driven behind this. Raises ``CannotRun`` where it cannot be here."""

    def port(self, bank: int) -> int:
        """Where to send what is for its *bank*-th bank, from 0."""

    def token(self, bank: int, person: int) -> str:
        """A token of that holder's at that bank."""

    def pids(self) -> Mapping[str, int]:
        """Its processes, by role."""

    async def counts(self) -> Counts | None:
        """Its counters now; ``None`` where it has none."""

    async def verify(self, committed: int | None, legs: int | None) -> None:
        """``WrongMoney`` unless the money is what it was, and what was committed is what clients were told: so many
        transfers, with so many legs together; ``None`` where they were not told of all.
        """

    async def stop(self) -> None: ...


@dataclass
class Network:
    """Our own banks, as they ship: *accounts* at each, and *past* transfers from the first to the second."""

    name: str
    size: int
    accounts: int = 1_000
    past: int = 0
    consents: int = 0
    """How many of the first holders let the first bank debit their first account at every other bank."""
    env: Mapping[str, str] = field(default_factory=dict)
    program: Sequence[str] = ()
    banks: list[LocalBank] = field(default_factory=list, init=False)
    processes: list[BankProcess] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._stack = AsyncExitStack()
        self._clients: list[BankClient] = []
        self._holders: list[str] = []
        self._tokens: list[Tokens] = []

    async def start(self, directory: Path, base_port: int | None, say: Progress) -> None:
        self.banks = init(directory, self.size, free_base_port(self.size, base_port))
        self._holders = await seeding.pattern(self.banks, past=self.past > 0)
        shown = time.monotonic()

        def told(done: int, total: int) -> None:
            nonlocal shown
            if time.monotonic() - shown > seeding.SAID_EVERY:
                shown = time.monotonic()
                say(f"{self.name}: writing its ledger, {done / total:.0%} of {total:,} accounts and transfers")

        await seeding.grow(self.banks, self.accounts, self.past, told)
        self.processes = [BankProcess(bank, self.env, self.program) for bank in self.banks]
        for process in self.processes:
            process.start()
        await asyncio.gather(*(process.wait_ready(seeding.READY_S) for process in self.processes))
        self._clients = [await self._stack.enter_async_context(client_of(bank)) for bank in self.banks]
        for bank, client in zip(self.banks, self._clients, strict=True):
            secret = dotenv_values(bank.env_file, interpolate=False)["DISTRIBANK_TOKEN_SECRET"] or ""
            self._tokens.append(Tokens(bank.code, secret, TOKEN_S, lambda: time.time_ns() // 1_000_000))
            await client.operator()
        for place in range(1, self.size):
            await self._consent(place)

    async def _consent(self, bank: int) -> None:
        """The holders let the first bank debit their first account here."""
        code = self.banks[bank].code
        turns = asyncio.Semaphore(CONSENTS_AT_ONCE)

        async def one(person: int) -> None:
            async with turns:
                session = Session(self._clients[bank], self.token(bank, person))
                account = AccountRef(code, account_number(person + 1))
                (await session.consent(account, COORDINATOR, CONSENTED)).expect(201)

        await asyncio.gather(*(one(person) for person in range(self.consents)))

    def port(self, bank: int) -> int:
        return self.banks[bank].port

    def token(self, bank: int, person: int) -> str:
        return self._tokens[bank].issue(Authority.HOLDER, seeding.holder_id_of(self._holders[bank], person))

    def pids(self) -> Mapping[str, int]:
        roles = ["coordinator", "participant", *(f"bank {place}" for place in range(3, self.size + 1))]
        return {role: process.pid for role, process in zip(roles, self.processes, strict=False) if process.pid}

    async def counts(self) -> Counts:
        flushes = requests = 0.0
        for client in self._clients:
            told = (await (await client.operator()).get("/metrics", "text/plain")).expect(200)
            flushes += sum(map(float, _FLUSHES.findall(told)))
            requests += sum(float(count) for kind, count in _REQUESTS.findall(told) if kind in PROTOCOL)
        return Counts(int(flushes), int(requests))

    async def verify(self, committed: int | None, legs: int | None) -> None:  # noqa: ARG002
        entries = await self.verify_money() - self.size * self.accounts - 2 * self.past
        if legs is not None and entries != legs:
            raise WrongMoney(f"{self.name}: clients were told of {legs} legs, the banks have posted {entries}")

    async def verify_money(self) -> int:
        """How many entries there are, once all is at rest; ``WrongMoney`` if the books do not hold."""
        await self.calm()
        _bank, found = await audit(self.banks)
        if {finding["code"] for finding in found["findings"]} == {"bank_unreachable"}:
            customers, entries = await self._one_by_one()
        elif not found["ok"]:
            raise WrongMoney(f"the audit of {self.name} finds {found['findings'][:3]}")
        else:
            customers = sum(centavos(bank["customers"]) + centavos(bank["suspense"]) for bank in found["banks"])
            entries = sum(bank["entries"] for bank in found["banks"])
        paid_in = self.size * self.accounts * seeding.OPENING
        if customers != paid_in:
            raise WrongMoney(f"{self.name}: customers have {customers} centavos, {paid_in} were paid in")
        return int(entries)

    async def _one_by_one(self) -> tuple[int, int]:
        """Customers' money and the number of entries, where a bank needs longer to add up its books than an audit
        waits; every two banks have to agree on what one owes the other.
        """
        customers = entries = 0
        positions: dict[tuple[str, str], int] = {}
        for client in self._clients:
            books = await client.books()
            if not books["balanced"]:
                raise WrongMoney(f"the books of {client.code} in {self.name}: {books['findings'][:3]}")
            customers += centavos(books["customers"]) + centavos(books["books"].get("suspense", "0.00"))
            entries += books["entries"]
            positions.update({(client.code, peer): owed for peer, owed in (await client.positions()).items()})
        if any(owed != -positions.get((peer, bank), 0) for (bank, peer), owed in positions.items()):
            raise WrongMoney(f"{self.name}: banks do not agree on what they owe one another: {positions}")
        return customers, entries

    async def calm(self) -> None:
        """Wait until nothing is in doubt, or unacknowledged, at any bank."""
        give_up = time.monotonic() + CALM_S
        while any([await client.in_doubt() for client in self._clients]):
            if time.monotonic() > give_up:
                raise WrongMoney(f"{self.name}: something is still in doubt after {CALM_S:.0f} s")
            await asyncio.sleep(0.1)

    async def audit_once(self) -> float:
        """Seconds that the network's own audit takes, a bank that is too busy to answer in time included;
        ``WrongMoney`` if it finds anything else.
        """
        began = time.monotonic()
        _bank, found = await audit(self.banks)
        if {finding["code"] for finding in found["findings"]} - {"bank_unreachable"}:
            raise WrongMoney(f"the audit of {self.name} finds {found['findings'][:3]}")
        return time.monotonic() - began

    async def stop(self) -> None:
        await self._stack.aclose()
        await stop_all(self.processes)


@dataclass
class Peer:
    """A peer of the package ``peers``, as the process that it is."""

    name: str
    module: str
    accounts: int = 1_000

    def __post_init__(self) -> None:
        self._secret = secrets.token_hex(32)
        self._port = 0
        self._pids: dict[str, int] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._log: Any = None
        self._directory = Path()

    async def start(self, directory: Path, base_port: int | None, say: Progress) -> None:  # noqa: ARG002
        directory.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - nothing else waits meanwhile
        self._directory, self._port = directory, free_base_port(1, base_port)
        self._log = (directory / "peer.log").open("wb")
        self._process = process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", self.module, "--port", str(self._port), "--data", str(directory / "data")),
            *("--accounts", str(self.accounts), "--token-secret", self._secret),
            stdout=asyncio.subprocess.PIPE,
            stderr=self._log,
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(seeding.READY_S):
                line = (await process.stdout.readline()).decode()
        except TimeoutError:
            raise CannotRun(f"{self.name} was not ready after {seeding.READY_S:.0f} s") from None
        word, _, rest = line.partition(" ")
        if word == "ready":
            self._pids = json.loads(rest)["processes"]
            return
        status = await process.wait()
        if word == "cannot:":
            raise CannotRun(rest.strip())
        said = (directory / "peer.log").read_text(errors="replace").strip().splitlines()
        raise CannotRun(f"it ended with status {status}: {said[-1] if said else 'it said nothing'}")

    def port(self, bank: int) -> int:  # noqa: ARG002 - both of its banks stand behind one front
        return self._port

    def token(self, bank: int, person: int) -> str:  # noqa: ARG002
        tokens = Tokens(COORDINATOR, self._secret, TOKEN_S, lambda: time.time_ns() // 1_000_000)
        return tokens.issue(Authority.HOLDER, f"{person + 1:032x}")

    def pids(self) -> Mapping[str, int]:
        return self._pids

    async def counts(self) -> None:
        return None

    async def verify(self, committed: int | None, legs: int | None) -> None:  # noqa: ARG002
        async with BankClient("", f"http://127.0.0.1:{self._port}") as client:
            told = (await client.call("GET", "/sum")).expect(200)
        money = 2 * self.accounts * seeding.OPENING
        if told["centavos"] != money:
            raise WrongMoney(f"{self.name}: there are {told['centavos']} centavos, not {money}")
        if committed is not None and told["transfers"] != committed:
            raise WrongMoney(f"{self.name}: clients were told of {committed} transfers, it has {told['transfers']}")

    async def stop(self) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(STOP_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        if self._log is not None:
            self._log.close()


def resident(pid: int) -> float | None:
    """MiB of memory that a process has now, by the system's count; ``None`` where it does not tell."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    return None
