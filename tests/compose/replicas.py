"""Banks of two replicas on PostgreSQL, in containers, on a real engine: `make test-compose`, behind ``containers.py``.

One story: three banks, and twelve people who pay all the while. ``POSTGRES_IMAGE`` and ``BALANCER_IMAGE`` say what
databases and addresses are made of. Where they are not said but ``BASE_IMAGE`` is, as on a machine that reaches no
registry, both are made from that, which must be a Debian that reaches its packages (``images``).
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import cast

import pytest

from distribank.breakages import Breakage
from distribank.network.client import BankClient
from distribank.service import EXIT_DURABILITY_LOST
from tests.compose import containers
from tests.compose.containers import code, name, said_by, say
from tests.compose.engine import docker
from tests.processes import People, RealBank, until
from tests.replicas import MONEY, Payer, all_there, expected_balances, go_on, payments

BANKS = 3
PAYERS = 12
IN_DOUBT_AT_MOST_S = 10.0
ENOUGH = 200
"""Payments between one thing that happens and the next."""
BACK_S = 60.0
"""How long a container may take until it is healthy, on a busy machine."""
ON_POSTGRES = {
    "COMPOSE_FILE": "compose/postgres.yaml",
    "COMPOSE_PROJECT_NAME": "distribank-test-postgres",
    "IMAGE": "distribank:test-postgres",
    "DISTRIBANK_VOTE_DEADLINE": "2",
}
NAMES = {f"{kind}-{k:03}{which}" for k in range(1, 17) for kind in ("bank", "db") for which in ("", "a", "b")}

pytestmark = containers.pytestmark


def compose(*arguments: str, banks: int = BANKS) -> str:
    return containers.compose(banks, *arguments, **ON_POSTGRES, **images())


def images() -> dict[str, str]:
    """What databases and addresses are made of."""
    said = {variable: os.environ.get(variable) for variable in ("POSTGRES_IMAGE", "BALANCER_IMAGE")}
    if "BASE_IMAGE" in os.environ:
        return {
            "POSTGRES_IMAGE": said["POSTGRES_IMAGE"] or "distribank-test:postgres",
            "BALANCER_IMAGE": said["BALANCER_IMAGE"] or "distribank-test:balancer",
        }
    return {variable: image for variable, image in said.items() if image}


@pytest.fixture
def stage() -> Iterator[None]:
    taken = set(docker("ps", "-a", "--format", "{{.Names}}").split()) & NAMES
    taken |= set(docker("network", "ls", "--format", "{{.Name}}").split()) & {"distribank", "distribank-databases"}
    if taken:
        pytest.skip(f"there are containers or a network of these names already: {', '.join(sorted(taken))}")
    for kind in ("postgres", "balancer"):
        if images().get(f"{kind.upper()}_IMAGE") == f"distribank-test:{kind}":
            containers.compose(BANKS, "build", kind, COMPOSE_FILE="tests/compose/images/compose.yaml")
    compose("build")
    try:
        yield
    except BaseException:
        print(compose("--profile", "*", "logs", "--tail", "60"))
        raise
    finally:
        compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "15")
        docker("image", "rm", ON_POSTGRES["IMAGE"])


@dataclass(frozen=True)
class Addressed:
    """As much of a bank as people need who only know its address."""

    client: BankClient

    @property
    def code(self) -> str:
        return self.client.code


class Load:
    """People who pay; how long, since last asked, none of those was told of a payment who have to do with a bank."""

    def __init__(self, payers: list[Payer]) -> None:
        self.payers = payers
        self._last = [(0, time.monotonic())] * BANKS
        self._pauses = [0.0] * BANKS

    @property
    def paid(self) -> int:
        return payments(self.payers)

    def paid_by(self, place: int) -> int:
        """What was paid from or to the bank at *place*."""
        return sum(len(payer.paid) for payer in self.payers if place in (payer.here, payer.there))

    async def watch(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await asyncio.sleep(0.05)
            now = time.monotonic()
            for place, (paid, since) in enumerate(self._last):
                self._pauses[place] = max(self._pauses[place], now - since)
                if self.paid_by(place) > paid:
                    self._last[place] = (self.paid_by(place), now)

    def pause(self, place: int) -> float:
        found, self._pauses[place] = self._pauses[place], 0.0
        return found

    def told(self) -> str:
        again, refused = (sum(getattr(payer, what) for payer in self.payers) for what in ("asked_again", "refused"))
        slowest = max(payer.slowest for payer in self.payers)
        return f"{self.paid} paid, {refused} refused, {again} times asked again, slowest outcome {slowest:.1f} s"


@asynccontextmanager
async def people_at_the_banks() -> AsyncIterator[People]:
    async with AsyncExitStack() as stack:
        banks = [
            await stack.enter_async_context(
                BankClient(code(k), f"http://127.0.0.1:{8000 + k}", operator_password(k), name(k))
            )
            for k in range(1, BANKS + 1)
        ]
        yield await People([cast("RealBank", Addressed(client)) for client in banks]).settle_in(
            MONEY, "correct-horse-battery"
        )  # as the client's example has it, which was there before


@asynccontextmanager
async def load(people: People) -> AsyncIterator[Load]:
    """Everybody pays inside the block; behind it everything that they were told is so, and the books are right."""
    paying = Load([Payer(people, n % BANKS, (n + 1 + n // BANKS % 2) % BANKS, f"payer-{n}") for n in range(PAYERS)])
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for payer in paying.payers:
            group.create_task(payer.pay_until(stop))
        group.create_task(paying.watch(stop))
        try:
            yield paying
        finally:
            stop.set()
    await people.quiet()
    await all_there(people, paying.payers)
    await expected_balances(people, paying.payers)
    await people.check_books()


async def test_replicas_and_whole_banks_are_killed_under_load_and_nothing_is_lost(stage: None) -> None:
    begun = time.monotonic()
    print()
    compose("up", "--detach", "--wait")
    say(begun, f"three banks of two replicas are up and healthy; PostgreSQL {server_version()}, {balancer_version()}")
    guarded()
    assert compose("run", "--rm", "client").startswith("completed 99990001.")
    audited(begun, "the client's transfer, by the addresses")

    async with people_at_the_banks() as people:
        async with load(people) as paying:
            say(begun, f"twelve people pay: {ENOUGH / await go_on(paying.payers, ENOUGH):.0f} a second")
            await a_replica_is_killed(people, paying, begun)
            await a_replica_freezes(people, paying, begun)
            await a_bank_is_killed(people, paying, begun)
            await a_database_is_killed(people, paying, begun)
            await replicas_are_made_anew_one_at_a_time(paying, begun)
        say(begun, paying.told())
        audited(begun, "every transfer that was acknowledged is there, every balance is right to the centavo")
        kept = await balances(people)

        compose("--profile", "*", "down")
        refused = containers.try_compose(
            BANKS, "up", "--detach", "--wait", **{**ON_POSTGRES, "COMPOSE_FILE": "compose/compose.yaml"}
        )
        assert refused.returncode != 0
        assert "keeps the kind of database that it began with" in said_by("distribank-test-postgres-network-init-1")
        compose("up", "--detach", "--wait", "--remove-orphans")
        assert await balances(people) == kept
        audited(begun, "down, refused on SQLite, and up: every balance was kept")


async def a_replica_is_killed(people: People, paying: Load, begun: float) -> None:
    paying.pause(0)
    docker("kill", "bank-001a")
    took = await settled(people)
    await go_on([payer for payer in paying.payers if 0 in (payer.here, payer.there)], ENOUGH)
    say(
        begun,
        f"bank-001a was killed: what was in doubt was settled within {took:.1f} s; its bank went on, at most "
        f"{paying.pause(0):.1f} s without a payment",
    )
    docker("start", "bank-001a")
    await healthy("bank-001a")


async def a_replica_freezes(people: People, paying: Load, begun: float) -> None:
    """One that wakes up behind its lease has been replaced: it ends, and the engine starts it again."""
    paying.pause(1)
    before = restarts("bank-002a")
    ends = ends_of("bank-002a")
    docker("pause", "bank-002a")
    took = await settled(people)
    await asyncio.sleep(max(0.0, 8 - took))
    docker("unpause", "bank-002a")

    async def started_again() -> bool:
        return restarts("bank-002a") == before + 1

    await until(started_again, "it ends by itself and is started again", BACK_S)
    ends.terminate()
    assert ends.communicate(timeout=10)[0].split() == [str(EXIT_DURABILITY_LOST)]
    await healthy("bank-002a")
    assert "another replica has taken over" in said_by("bank-002a")
    say(
        begun,
        f"bank-002a was frozen for 8 s: settled within {took:.1f} s, at most {paying.pause(1):.1f} s without a payment;"
        " it woke up, ended with status 70, was started again and is healthy",
    )


async def a_bank_is_killed(people: People, paying: Load, begun: float) -> None:
    others = [payer for payer in paying.payers if BANKS - 1 not in (payer.here, payer.there)]
    docker("kill", "bank-003a", "bank-003b")
    gone_for = await go_on(others, ENOUGH)
    docker("start", "bank-003a", "bank-003b")
    came_back = time.monotonic()
    await healthy("bank-003a", "bank-003b")
    up = time.monotonic() - came_back
    took = await settled(people)
    say(
        begun,
        f"both replicas of bank-003 were killed: the other two went on, {ENOUGH} in {gone_for:.1f} s; started then, "
        f"healthy after {up:.1f} s, what was in doubt then was settled within {took:.1f} s",
    )


async def a_database_is_killed(people: People, paying: Load, begun: float) -> None:
    docker("kill", "db-001")
    gone_for = await go_on([payer for payer in paying.payers if 0 not in (payer.here, payer.there)], ENOUGH)
    docker("start", "db-001")
    started = time.monotonic()
    here = [payer for payer in paying.payers if payer.here == 0]
    await go_on(here, 1)
    back = time.monotonic() - started
    await healthy("db-001", "bank-001a", "bank-001b")
    took = await settled(people)
    say(
        begun,
        f"db-001 was killed for {gone_for:.1f} s: its bank paid again {back:.1f} s after the start; settled within"
        f" {took:.1f} s",
    )


async def replicas_are_made_anew_one_at_a_time(paying: Load, begun: float) -> None:
    before, again = paying.paid_by(0), sum(payer.asked_again for payer in paying.payers)
    paying.pause(0)
    for replica in ("bank-001a", "bank-001b"):
        made = docker("inspect", "--format", "{{.Created}}", replica)
        await asyncio.to_thread(
            compose, "up", "--detach", "--no-deps", "--force-recreate", "--wait", "--wait-timeout", "60", replica
        )
        assert docker("inspect", "--format", "{{.Created}}", replica) != made
    assert paying.paid_by(0) > before
    asked = sum(payer.asked_again for payer in paying.payers) - again
    say(
        begun,
        f"bank-001a, then bank-001b, were made anew: {paying.paid_by(0) - before} were paid meanwhile,"
        f" {asked} times somebody had to ask again, at most {paying.pause(0):.1f} s without a payment",
    )


async def balances(people: People) -> list[tuple[int, int]]:
    return [await session.balances(account) for session, account in zip(people.sessions, people.accounts, strict=True)]


async def settled(people: People) -> float:
    """How long whatever is in doubt anywhere now stays so, in seconds; at most what was promised."""
    begun = time.monotonic()

    async def listed(bank: RealBank) -> set[str]:
        while True:
            try:
                return {str(doubt["transfer_id"]) for doubt in await bank.client.in_doubt()}
            except Breakage:  # a replica that is gone: the other one is asked
                assert time.monotonic() - begun < BACK_S
                await asyncio.sleep(0.1)

    left = [(bank, await listed(bank)) for bank in people.banks]

    async def none_is_left() -> bool:
        for bank, doubts in left:
            doubts &= await listed(bank)
        return not any(doubts for _, doubts in left)

    await until(none_is_left, "what was in doubt has its outcome", IN_DOUBT_AT_MOST_S)
    return time.monotonic() - begun


async def healthy(*names: str) -> None:
    async def all_are() -> bool:
        said = docker("inspect", "--format", "{{.State.Status}} {{.State.Health.Status}}", *names)
        return all(line == "running healthy" for line in said.splitlines())

    await until(all_are, f"{', '.join(names)} are healthy", BACK_S)


def restarts(container: str) -> int:
    return int(docker("inspect", "--format", "{{.RestartCount}}", container))


def ends_of(container: str) -> subprocess.Popen[str]:
    """A process that prints the status of each end of a container."""
    chosen = [
        "--filter",
        f"container={container}",
        "--filter",
        "event=die",
        "--format",
        "{{.Actor.Attributes.exitCode}}",
    ]
    return subprocess.Popen(["docker", "events", *chosen], stdout=subprocess.PIPE, text=True)


def operator_password(number: int) -> str:
    env_file = f"/data/{code(number)}/bank.env"
    return docker("exec", f"{name(number)}a", "sed", "-n", "s/^DISTRIBANK_OPERATOR_PASSWORD=//p", env_file)


def audited(begun: float, what: str) -> None:
    """All five checks hold over the three banks, by the command in a container."""
    said = docker("exec", "bank-001a", "distribank", "audit")
    assert said.endswith("Everything was checked, and holds."), said
    for number in range(1, BANKS + 1):
        assert docker("exec", f"{name(number)}b", "distribank", "in-doubt", "list") == "nothing is in doubt"
    say(begun, f"{what}; distribank audit: everything was checked, and holds")


def server_version() -> str:
    return docker("exec", "db-001", "postgres", "--version").split()[2]


def balancer_version() -> str:
    return " ".join(docker("exec", "bank-001", "haproxy", "-v").split()[:3])


def guarded() -> None:
    """What the compose file promises of containers is so inside them, and passwords are where they are said to be."""
    for container in ("db-001", "bank-001", "bank-001a", "bank-001b"):
        status = docker("exec", container, "cat", "/proc/1/status")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["Uid"].split() == ["10001"] * 4, container
        assert (fields["CapEff"], fields["CapBnd"], fields["NoNewPrivs"]) == ("0" * 16, "0" * 16, "1"), container
        docker("exec", container, "sh", "-c", "! touch /x 2>/dev/null")
    password = docker("exec", "db-001", "cat", "/database/password")
    assert password in docker("exec", "bank-001a", "cat", "/data/99990001/bank.env")
    assert password != docker("exec", "db-002", "cat", "/database/password")
    for container in ("db-001", "bank-001", "bank-001a"):
        assert password not in docker("inspect", container)
    assert docker("exec", "db-001", "stat", "-c", "%a %u", "/database/password") == "600 10001"
    asked = "SELECT current_setting('fsync'), current_setting('data_checksums')"
    assert docker("exec", "db-001", "psql", "-h", "/var/run/postgresql", "-U", "bank", "-Atc", asked) == "on|on"
    assert (
        json.loads(docker("inspect", "--format", "{{json .NetworkSettings.Ports}}", "db-001")).get("5432/tcp") is None
    )
    docker("exec", "bank-001", "bash", "-c", "! (: < /dev/tcp/db-001/5432) 2>/dev/null")  # it does not even know it
