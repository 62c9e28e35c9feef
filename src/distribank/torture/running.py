"""One run, from empty banks to the verdict."""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from distribank.breakages import Breakage, Misconfigured
from distribank.network.client import AccountRef, client_of
from distribank.network.layout import HOST, LocalBank, init
from distribank.network.processes import BankProcess, free_base_port, stop_all
from distribank.network.terminal import cancel_on_signals, console, waiting
from distribank.torture import clocks, history, packets, people, report
from distribank.torture.checker import CALM_SECONDS, check
from distribank.torture.clients import CLIENTS, READERS, Clients
from distribank.torture.history import History
from distribank.torture.links import Address, Links
from distribank.torture.nemesis import READY_SECONDS, Nemesis, Scene
from distribank.torture.packets import RoomProcess, Wires
from distribank.torture.watching import watch

INTERRUPTED: Final = 130
NETWORK_FILE: Final = "network-through-links.json"
"""The network file that the banks read: every address in it is a proxy's."""
GIVE_UP_SECONDS: Final = 60.0
"""How long clients go on asking once all is healed."""
LOOK_SECONDS: Final = 0.1
LATE_PREPARES: Final = 5
"""How often all is read at the end, if each time a late prepare has just placed a hold."""

Program = Callable[[LocalBank], list[str]]


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be run. *proxies_alone* is why no packets are dropped, ``None`` in a process that has entered a
    network of its own (``packets``). *program* runs in the banks' place, in tests of the test itself.
    """

    minutes: float
    banks: int = 5
    seed: int = field(default_factory=lambda: random.SystemRandom().randrange(1_000_000))
    data_dir: Path | None = None
    base_port: int | None = None
    proxies_alone: str | None = "no network namespaces were asked for"
    program: Program | None = None


def run(order: Order, *, as_json: bool = False) -> int:
    """Run it, check it, report it; 0 only if nothing is wrong. Everything stays in the data directory."""
    screen = console(stderr=as_json)
    directory = _directory(order.data_dir)
    try:
        asyncio.run(_run(screen, order, directory))
    except asyncio.CancelledError:
        screen.print(f"\nstopped; what there is of it is in {directory}", markup=False)
        return INTERRUPTED
    except Breakage as breakage:
        if not (directory / history.FILE).exists():
            raise
        screen.print(f"The run broke off: {breakage}", markup=False)
    with waiting(screen, "checking the history"):
        verdict = check(history.read(directory / history.FILE))
        summary = report.write(directory, verdict)
    screen.print(report.told(verdict, summary, directory), markup=False)
    if as_json:
        print(json.dumps(summary, indent=2, ensure_ascii=False))
    return 0 if verdict.valid else 1


def _directory(wanted: Path | None) -> Path:
    if wanted is None:
        return Path(tempfile.mkdtemp(prefix="distribank-torture-"))
    if wanted.exists() and (not wanted.is_dir() or any(wanted.iterdir())):
        raise Misconfigured(f"{wanted} is not an empty directory: the history of a run begins with new banks")
    wanted.mkdir(parents=True, exist_ok=True)
    return wanted


async def _run(screen: Console, order: Order, directory: Path) -> None:
    cancel_on_signals()
    base = free_base_port(2 * order.banks, order.base_port)
    banks = init(directory, order.banks, base)
    proxies = {bank.code: bank.port + order.banks for bank in banks}
    wires = Wires(proxies) if order.proxies_alone is None else None
    if wires is None:
        screen.print(f"Proxies alone, and no packets dropped: {order.proxies_alone}", markup=False)
    else:
        banks = [replace(bank, host=wires.addresses[bank.code]) for bank in banks]
    here = packets.HERE if wires else HOST
    places = {bank.code: ((here, proxies[bank.code]), (bank.host, bank.port)) for bank in banks}
    network = _through_links(directory, places)
    skewing = clocks.library()
    if skewing is None:
        screen.print(clocks.MISSING)

    def process_of(bank: LocalBank) -> BankProcess:
        env = {"DISTRIBANK_NETWORK_FILE": str(network), **(clocks.environment(bank, skewing) if skewing else {})}
        program = order.program(bank) if order.program else ()
        return RoomProcess(wires, bank, env, program) if wires else BankProcess(bank, env, program)

    processes = [process_of(bank) for bank in banks]
    chance = random.Random(f"{order.seed} links")  # noqa: S311
    try:
        async with AsyncExitStack() as stack:
            if wires is not None:
                stack.enter_context(wires)
            links = await stack.enter_async_context(Links(places, chance))
            clients = [await stack.enter_async_context(client_of(bank)) for bank in banks]
            with waiting(screen, f"starting {order.banks} banks, and opening accounts at them"):
                for process in processes:
                    process.start()
                await asyncio.gather(*(process.wait_ready(READY_SECONDS) for process in processes))
                everybody = await people.gather(clients)
            with History(directory / history.FILE) as written:
                scene = Scene(processes, links, written, skewable=skewing is not None, wires=wires)
                try:
                    await _torture(screen, order, Clients(everybody, written, order.seed), scene)
                except ExceptionGroup as failed:
                    raise failed.exceptions[0] from None  # one is enough to say; the others fell with it
    finally:
        await stop_all(processes)


async def _torture(screen: Console, order: Order, clients: Clients, scene: Scene) -> None:
    """Everything that is written into the history."""
    history, seconds = scene.history, order.minutes * 60

    def say(words: str) -> None:
        screen.print(f"  {history.now():6.1f} s  {words}", markup=False)

    nemesis = Nemesis(scene, random.Random(f"{order.seed} nemesis"), say)  # noqa: S311
    history.add("run", "info", "setup", _setup(order, clients.people, scene))
    screen.print(
        f"{order.banks} banks, {CLIENTS} clients at each, {READERS} readers, seed {order.seed}, "
        f"{order.minutes:g} minutes; the network is tortured:",
        markup=False,
    )
    async with asyncio.TaskGroup() as group:
        looking_after = group.create_task(nemesis.look_after())
        watching = group.create_task(watch(screen, clients.counts, history.now, lambda: nemesis.now, seconds))
        paying = [
            group.create_task(clients.pay(bank, number))
            for bank in clients.people.banks
            for number in range(1, CLIENTS + 1)
        ]
        for bank in clients.people.banks:
            group.create_task(clients.look(bank))
        for number in range(1, READERS + 1):
            group.create_task(clients.read(number))
        await nemesis.rage(seconds)
        clients.stopping.set()
        history.add("run", "info", "healed", None)
        say("all is healed; nothing new is begun")
        await asyncio.wait(paying, timeout=GIVE_UP_SECONDS)
        clients.over.set()
        say("every client knows what became of what it asked for, or has given up")
        statements = await _settled(screen, clients, history, say)
        watching.cancel()
        looking_after.cancel()
    dropped = {"packets dropped": scene.wires.dropped()} if scene.wires else {}
    history.add("run", "info", "links", {**dict(sorted(scene.links.met.items())), **dropped})
    history.add("run", "info", "asked again in all", dict(clients.counts.retries))
    for account, statement in statements:
        history.add("run", "info", "statement", statement, bank=account.bank)
    with waiting(screen, "auditing the network"):
        begun, whole = history.now(), False
        while not whole and history.now() - begun < CALM_SECONDS:  # to this bank another may be unreachable yet
            whole = await clients.audit("final", clients.people.banks[0])
            await asyncio.sleep(LOOK_SECONDS)


async def _settled(
    screen: Console, clients: Clients, history: History, say: Callable[[str], None]
) -> list[tuple[AccountRef, dict[str, Any]]]:
    """Every statement, once none shows anything held, or as it stands behind the last of ``LATE_PREPARES``.

    A prepare whose packets were dropped is sent again by the sender's kernel, though its sender gave it up long since:
    as long after the healing as the fault lasted. It then holds money until that bank has inquired, which is right.
    """
    for late in range(1, LATE_PREPARES + 1):
        await _calm(clients, history, say)
        with waiting(screen, "reading every statement"):
            statements = [
                (account, await clients.statement(person, account)) for person, account in clients.people.all_accounts()
            ]
        if late == LATE_PREPARES or not any(statement["held"] for _account, statement in statements):
            break
        say("a prepare that was given up has arrived late; once more")
    return statements


async def _calm(clients: Clients, history: History, say: Callable[[str], None]) -> None:
    """Wait until no bank has anything in doubt or held, for a little longer than that may take."""
    begun = history.now()
    last: list[str] = []
    while (left := await _left(clients)) and history.now() - begun < 2 * CALM_SECONDS:
        last = left
        await asyncio.sleep(LOOK_SECONDS)
    took = history.now() - begun
    history.add("run", "info", "calm", {"seconds": round(took, 3), "left": left, "last": last})
    say(f"nothing is held or in doubt, {took:.1f} s later" if not left else f"still held or in doubt: {left}")


async def _left(clients: Clients) -> list[str]:
    """What is still in doubt or held, in words."""
    left: list[str] = []
    for bank in clients.people.banks:
        try:
            left += [f"{item['transfer_id']} in doubt at {bank.code}" for item in await bank.in_doubt()]
            holds = (await bank.books())["holds"]
        except Breakage as breakage:
            left.append(str(breakage))
        else:
            left += [f"{holds} holds at {bank.code}"] if holds else []
    return left


def _setup(order: Order, everybody: people.People, scene: Scene) -> dict[str, Any]:
    """What the checker has to know of the beginning, and the report of the run."""
    return {
        "seed": order.seed,
        "minutes": order.minutes,
        "banks": everybody.codes,
        "accounts": {
            f"{account.bank}/{account.account}": people.share(person) for person, account in everybody.all_accounts()
        },
        "clients": CLIENTS,
        "clocks": scene.skewable,
        "proxies_alone": order.proxies_alone,
    }


def _through_links(directory: Path, places: Mapping[str, tuple[Address, Address]]) -> Path:
    """A network file in which each bank's address is its proxy's; ``network.json`` stays as it is, for afterwards."""
    document = json.loads((directory / "network.json").read_bytes())
    for entry in document["banks"]:
        (host, port), _own = places[entry["code"]]
        entry["url"] = f"http://{host}:{port}"
    path = (directory / NETWORK_FILE).resolve()
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
