"""Three real banks: one is backed up under load, killed, and restored on another port; nothing is posted twice, and
what nobody but people can know is named to the centavo until they have settled it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import sqlite3
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distribank.breakages import Breakage
from distribank.core.money import format_amount
from distribank.network.client import centavos
from distribank.network.layout import find
from distribank.network.processes import free_base_port
from tests.processes import CHEAP, SLOW_MACHINE_S, People, RealBank, network_of, until

MONEY = 50_000_00
BATCH = 300


async def distribank(*arguments: str, status: int = 0) -> str:
    """What the command says on stdout; it ends with *status*."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "distribank",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await process.communicate()
    assert process.returncode == status, (arguments, out.decode(), error.decode())
    return out.decode()


@dataclass
class Load:
    """Everybody pays everybody, at all banks, until it is told to stop; what was answered committed is kept."""

    people: People
    chance: random.Random = field(default_factory=lambda: random.Random(6))  # noqa: S311 - repeatable, not secret
    going: bool = True
    committed: list[dict[str, Any]] = field(default_factory=list)

    async def pay(self, at: int) -> None:
        """One transfer, ordered at a bank, between accounts of two or three banks."""
        sources = self.chance.sample(range(3), self.chance.choice((1, 2)))
        target = self.chance.choice([place for place in range(3) if place not in sources])
        amounts = [self.chance.randint(1, 500) for _ in sources]
        accounts = self.people.accounts
        debits = [(accounts[place], amount) for place, amount in zip(sources, amounts, strict=True)]
        answer = await self.people.sessions[at].transfer(debits, [(accounts[target], sum(amounts))])
        if answer.status == 201:
            self.committed.append(answer.body)

    async def run(self, at: int) -> None:
        while self.going:
            await self.pay(at)


def database_of(bank: RealBank) -> Path:
    return bank.bank.directory / "bank.db"


def asked(path: Path, sentence: str) -> list[tuple[Any, ...]]:
    """Read a database beside its bank."""
    reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return reader.execute(sentence).fetchall()
    finally:
        reader.close()


def move(data: Path, bank: RealBank, port: int) -> RealBank:
    """The bank's machine is lost: its settings and the network file name another port."""
    env, network = bank.bank.env_file, data / "network.json"
    env.write_text(env.read_text().replace(f"DISTRIBANK_PORT={bank.bank.port}", f"DISTRIBANK_PORT={port}"))
    network.write_text(network.read_text().replace(bank.bank.url, f"http://127.0.0.1:{port}"))
    return RealBank(find(data, bank.code), CHEAP, [])


async def test_a_backup_taken_under_load_is_restored_on_another_port_and_everything_is_accounted_for(
    tmp_path: Path,
) -> None:
    data, file = tmp_path / "network", tmp_path / "copies" / "b.backup"
    file.parent.mkdir()
    async with network_of(data, 3) as banks:
        people = await People(banks).settle_in(MONEY)
        load, b = Load(people), banks[1]
        async with asyncio.TaskGroup() as group:
            paying = [group.create_task(load.run(at)) for at in (0, 1, 2, 1)]
            await until(lambda: _at_least(load, 20), "the load is running", SLOW_MACHINE_S)
            said = json.loads(
                await distribank("backup", "--env-file", str(b.bank.env_file), "--to", str(file), "--json")
            )
            before = len(load.committed)
            assert (said["bank"], said["file"], said["findings"]) == (b.code, str(file), [])
            assert sum(map(centavos, said["sums"].values())) == 0
            assert said["restore"].endswith(f"restore --env-file {b.bank.env_file} --from {file}")
            assert file.stat().st_mode & 0o777 == 0o600
            await until(lambda: _at_least(load, before + 60), "it goes on behind the backup", SLOW_MACHINE_S)
            load.going = False
            await asyncio.wait(paying)
        load.committed += await a_batch(people)
        await people.quiet()
        await people.check_books()
        at_the_end = [await session.balances(account) for session, account in _by_account(people)]

        # What it has only begun, or prepared, goes the ordinary way: the others are asked for its outcome.
        in_backup = {row[0] for row in asked(file, "SELECT id FROM transfer")}
        behind = [each for each in load.committed if each["transfer_id"] not in in_backup]
        own = {each["transfer_id"]: each for each in behind if each["coordinator"] == b.code}
        peers = {each["transfer_id"] for each in behind if each["coordinator"] != b.code and _touches(each, b.code)}
        assert len(own) >= 10
        assert len(peers) >= BATCH

        b.kill()
        moved = move(data, b, free_base_port(1))
        for peer in (banks[0], banks[2]):
            await peer.stop()
            peer.start()
        refused = await distribank("restore", "--env-file", str(b.bank.env_file), "--from", str(data), status=1)
        assert refused == ""
        done = json.loads(
            await distribank("restore", "--env-file", str(b.bank.env_file), "--from", str(file), "--json")
        )
        assert asked(Path(done["set_aside"]), "SELECT count(*) FROM transfer") != [(0,)]
        assert done["incarnation"] != said["incarnation"]

        banks[1] = people.banks[1] = moved
        session = people.sessions[1]
        people.sessions[1] = type(session)(moved.client, session._headers["Authorization"].removeprefix("Bearer "))
        async with moved.client:
            try:
                cut_short = await killed_while_it_is_resupplied(moved)
                print(f"killed while it was re-supplied, with so many posted: {cut_short} of {len(peers)}")
                moved.start()
                await moved.wait_ready()
                await everything_is_accounted_for(people, moved, data, own, peers, at_the_end)
            finally:
                print(moved.last_words(20))
                await moved.stop()


async def _at_least(load: Load, count: int) -> bool:
    return len(load.committed) >= count


def _by_account(people: People) -> list[tuple[Any, Any]]:
    return list(zip(people.sessions, people.accounts, strict=True))


def _touches(transfer: dict[str, Any], bank: str) -> bool:
    return any(leg["bank"] == bank for leg in (*transfer["debits"], *transfer["credits"]))


async def a_batch(people: People) -> list[dict[str, Any]]:
    """A pays B so often that posting it all anew takes more than a moment."""
    mine, theirs = people.accounts[:2]
    transfers = [{"debits": [mine.leg(1 + n)], "credits": [theirs.leg(1 + n)]} for n in range(BATCH)]
    order = {"transfers": transfers, "mode": "concurrent"}
    answer = await people.sessions[0].post("/v1/transfer-batches", order, prefer="wait=30")
    body = answer.expect(201)
    results = [item["transfer"] for item in body["items"]] if "items" in body else body["results"]
    return [result for result in results if result["status"] in ("committed", "completed")]


async def killed_while_it_is_resupplied(bank: RealBank) -> list[int]:
    """Kill it twice, each time as soon as something more has been posted anew; how many were, each time."""
    counts = [0]
    for _ in range(2):
        bank.start()

        async def more() -> bool:
            try:
                ((count,),) = asked(database_of(bank), "SELECT count(*) FROM supplied")
            except sqlite3.OperationalError:
                return False
            if count > counts[-1] or await _is_ready(bank):
                counts.append(count)
                return True
            return False

        begun = asyncio.get_running_loop().time()
        while not await more():
            assert bank.pid is not None, bank.last_words(20)
            assert asyncio.get_running_loop().time() - begun < SLOW_MACHINE_S
            await asyncio.sleep(0.001)
        bank.kill()
    return counts[1:]


async def _is_ready(bank: RealBank) -> bool:
    try:
        return (await bank.client.call("GET", "/readyz")).status == 200
    except Breakage:
        return False


async def everything_is_accounted_for(
    people: People,
    bank: RealBank,
    data: Path,
    own: dict[str, dict[str, Any]],
    peers: set[str],
    at_the_end: Sequence[tuple[int, int]],
) -> None:
    # What others had decided: all of it (and no leg twice: the table takes none), at everyone else's commit timestamp.
    assert {row[0] for row in asked(database_of(bank), "SELECT operation FROM entry")} >= peers
    assert {row[0] for row in asked(database_of(bank), "SELECT transaction_id FROM supplied")} == peers
    for peer in (people.banks[0], people.banks[2]):
        stamps = dict(asked(database_of(peer), "SELECT id, commit_at FROM transfer WHERE commit_at IS NOT NULL"))
        for operation, stamp in asked(database_of(bank), "SELECT operation, stamp FROM entry"):
            assert operation not in peers or stamps.get(operation, stamp) == stamp
    await until(people.is_quiet, "nothing is in doubt anywhere", SLOW_MACHINE_S)

    # What it had decided itself: listed, and exactly what the audit finds.
    listed = json.loads(await distribank("restoration", "--data-dir", str(data), "--bank", bank.code, "--json"))
    (found,) = listed["items"]
    items = {item["transfer_id"]: item for item in found["items"] if item["outcome"] == "committed"}
    assert items.keys() == own.keys()
    assert found["resupplied"] == len(peers)
    assert {peer["status"] for peer in found["peers"]} == {"told"}
    flows: Counter[str] = Counter()
    for transfer, item in items.items():
        for part in item["participants"]:
            assert part["state"] == "committed"
            assert centavos(part["flow"]) == flow_of(own[transfer], part["bank"])
            flows[part["bank"]] += centavos(part["flow"])
    audit = json.loads(await distribank("audit", "--data-dir", str(data), "--json", status=1))
    assert not audit["ok"]
    assert {each["code"] for each in audit["findings"]} <= {"positions_differ", "money_differs"}
    pairs = {frozenset((each["bank"], each["peer"])) for each in audit["findings"] if "peer" in each}
    assert pairs == {frozenset((bank.code, peer)) for peer, flow in flows.items() if flow}
    for each in audit["positions"]:
        difference = centavos(each["owed"]) - centavos(each["owes"])
        others = {each["bank"], each["peer"]} - {bank.code}
        assert difference == (flows[others.pop()] if len(others) == 1 else 0), (each, flows)

    # Settled: by the receipts of those who had ordered it, the first one by the command.
    first, *others = sorted(items, key=lambda transfer: own[transfer]["decided_at"])
    settled = json.loads(await distribank(*command_to_settle(data, bank, own[first]), "--json", "--yes"))
    assert settled["settled"]["reason"] == "her receipt"
    operator = await bank.client.operator()
    for transfer in others:
        order = {"reason": "her receipt", "legs": own_legs(own[transfer], bank.code)}
        body = (await operator.post(f"/v1/operator/restoration/{transfer}/settle", order)).expect(200)
        assert body["settled"]["suspense"] == "0.00", body
    again = (await operator.post(f"/v1/operator/restoration/{first}/settle", {"reason": "again"})).expect(200)
    assert again["settled"] == settled["settled"]
    await people.quiet()
    await people.check_books()
    assert [await session.balances(account) for session, account in _by_account(people)] == list(at_the_end)
    assert "settled" in await distribank("restoration", "--data-dir", str(data))
    told = await distribank("trace", first, "--data-dir", str(data))
    assert "its operator settled it as committed" in told
    assert "because: her receipt" in told
    assert "Everything was checked, and holds." in await distribank("audit", "--data-dir", str(data))


def flow_of(transfer: dict[str, Any], bank: str) -> int:
    """What the accounts of *bank* gained by it, in centavos."""
    sides = ((1, transfer["credits"]), (-1, transfer["debits"]))
    return sum(sign * centavos(leg["amount"]) for sign, legs in sides for leg in legs if leg["bank"] == bank)


def own_legs(transfer: dict[str, Any], bank: str) -> list[dict[str, str]]:
    """The legs at *bank*, as its operator settles them."""
    return [
        {"account": leg["account"], "direction": direction, "amount": leg["amount"]}
        for direction, legs in (("debit", transfer["debits"]), ("credit", transfer["credits"]))
        for leg in legs
        if leg["bank"] == bank
    ]


def command_to_settle(data: Path, bank: RealBank, transfer: dict[str, Any]) -> list[str]:
    named = [(f"--{leg['direction']}", f"{leg['account']}={leg['amount']}") for leg in own_legs(transfer, bank.code)]
    flat = [word for option in named for word in option]
    where = ["--data-dir", str(data), "--bank", bank.code]
    return ["restoration", "settle", transfer["transfer_id"][-12:], "--reason", "her receipt", *flat, *where]


PAGE = Path(__file__).parent.parent / "docs" / "operations.md"


async def pasted(directory: Path, block: str) -> str:
    """What a block of the page says, pasted into a bash where the command is known."""
    program = directory / "bin" / "distribank"
    if not program.exists():
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m distribank "$@"\n')
        program.chmod(0o755)
    process = await asyncio.create_subprocess_exec(
        *("bash", "-ec", block),
        cwd=directory,
        env={**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await process.communicate()
    assert process.returncode == 0, (block, out.decode(), error.decode())
    return out.decode()


async def test_the_page_for_operators_keeps_its_word(tmp_path: Path) -> None:
    take, put_back, see, settle = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    async with network_of(tmp_path / "data", 2) as banks:
        people = await People(banks).settle_in(100_00)
        a, b = banks
        assert people.accounts[1].account in settle
        assert "read again and whole" in await pasted(tmp_path, take)
        paid = (await people.sessions[1].pay(people.accounts[1], people.accounts[0], 3_00)).expect(201)
        await people.quiet()
        b.kill()
        restored = await pasted(tmp_path, put_back)
        assert "the database before it is now" in restored
        await b.restart()
        seen = await pasted(tmp_path, see)
        assert paid["transfer_id"] in seen
        assert "the operator of this bank settles it" in seen
        assert f"positions_differ {a.code} {b.code}" in seen
        assert "money_differs" in seen
        assert "settled at" in await pasted(tmp_path, settle.replace(" ID ", f" {paid['transfer_id']} "))
        await people.quiet()
        await people.check_books()
        assert (await people.sessions[1].balances(people.accounts[1]))[0] == 97_00


async def test_a_bank_that_waits_says_for_whom_and_goes_on_without_them_when_told_to(tmp_path: Path) -> None:
    data, file = tmp_path / "network", tmp_path / "b.backup"
    async with network_of(data, 3) as banks:
        people = await People(banks).settle_in(100_00)
        a, b, c = banks
        told = await distribank("backup", "--env-file", str(b.bank.env_file), "--to", str(file))
        assert f"customers {format_amount(100_00):>29}" in told
        (await people.sessions[2].pay(people.accounts[2], people.accounts[1], 7_00)).expect(201)
        running = await distribank("restore", "--env-file", str(b.bank.env_file), "--from", str(file), status=1)
        assert running == "", "a running bank is not replaced"
        await b.stop()
        await c.stop()
        await distribank("restore", "--env-file", str(b.bank.env_file), "--from", str(file))
        b.start()

        async def waits() -> bool:
            try:
                answer = await b.client.call("GET", "/readyz")
            except Breakage:
                return False
            return answer.status == 503 and c.code in answer.body["detail"] and a.code not in answer.body["detail"]

        await until(waits, "it waits for one bank", SLOW_MACHINE_S)
        held = await b.client.call("GET", "/v1/network", headers={"Accept-Language": "pt-BR"})
        assert (held.status, c.code in held.body["detail"]) == (503, True)
        assert held.body["detail"].startswith("este banco foi restaurado")
        await b.stop()
        command = ["restore", "--env-file", str(b.bank.env_file), "--from", str(file), "--without", c.code]
        done = json.loads(await distribank(*command, "--json"))
        assert done["without"] == [c.code]
        await b.restart()
        assert (await people.sessions[1].balances(people.accounts[1]))[0] == 100_00
        where = ["--reason", "x", "--data-dir", str(data), "--yes"]
        assert await distribank("restoration", "settle", "nothing", *where, status=1) == ""
        assert await distribank("restoration", "settle", "nothing", "--debit", "5.00", *where, status=1) == ""
        told = await distribank("restoration", "--data-dir", str(data))
        assert f"{c.code} without" in told
        assert "nothing that this bank coordinated was lost" in told
        wrong = ["restore", "--env-file", str(b.bank.env_file), "--from", str(file), "--without", "99990009"]
        assert await distribank(*wrong, status=1) == ""
        seen = (await (await b.client.operator()).get("/v1/operator/restoration")).expect(200)
        assert {peer["bank"]: peer["status"] for peer in seen["peers"]} == {a.code: "told", c.code: "without"}
        await c.restart()

        async def arrived() -> bool:
            return (await people.sessions[1].balances(people.accounts[1]))[0] == 107_00

        await until(arrived, "the bank that was not waited for has told", SLOW_MACHINE_S)
        await people.quiet()
        await people.check_books()
