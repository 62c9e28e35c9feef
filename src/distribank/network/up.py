"""``distribank up``: run the banks of a data directory and show them, in a live table or, elsewhere, line by line.

It alone starts banks again that have ended (``breaking`` asks it to), and it stops all of them when it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Final

import httpx
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from distribank.breakages import Breakage
from distribank.network.breaking import UP_LOCK
from distribank.network.figures import Figures, follow
from distribank.network.layout import DEFAULT_BASE_PORT, LocalBank, init, load
from distribank.network.pasting import bank_command, data_option, own_command
from distribank.network.people import password_given, seed
from distribank.network.pids import is_frozen, locked
from distribank.network.processes import BankProcess, free_base_port, start_all, stop_all
from distribank.network.terminal import cancel_on_signals, console, waiting

LOOK_SECONDS: Final = 0.5
"""How often ``up`` looks at its banks."""
STYLES: Final = {"ready": "green", "starting": "yellow", "not ready": "yellow", "frozen": "cyan"}
NARROW: Final = 100
"""Columns of a terminal below which the table does without frames, and shows addresses without ``/docs``."""
ENDED: Final = "ended"
"""How the state begins of a bank that nobody runs."""


def up(
    data_dir: Path, banks: int, base_port: int | None, vote_deadline: float | None = None, people: bool = False
) -> int:
    """Run every bank of *data_dir*, made if need be, until SIGINT or SIGTERM; the exit status. Data are kept.

    *vote_deadline*, in seconds, goes before what the banks' settings say. With *people*, there are some (``people``).
    """
    env = {} if vote_deadline is None else {"DISTRIBANK_VOTE_DEADLINE": str(vote_deadline)}
    return asyncio.run(_up(console(), data_dir, banks, base_port, env, people))


def make_network(console: Console, data_dir: Path, banks: int, base_port: int | None) -> list[LocalBank]:
    """The banks of *data_dir*. New ones whose ports are taken get others, and the console says so."""
    existing = load(data_dir) if data_dir.exists() else []
    if existing:
        found = init(data_dir, max(banks, len(existing)), base_port)
        if len(found) > banks:
            console.print(f"{data_dir} holds {len(found)} banks: running all of them")
        return found
    wanted = base_port or DEFAULT_BASE_PORT
    base = free_base_port(banks, wanted)
    if base != wanted:
        console.print(f"ports {wanted} to {wanted + banks - 1} are not all free: using {base} to {base + banks - 1}")
    return init(data_dir, banks, base)


async def _up(
    console: Console, data_dir: Path, banks: int, base_port: int | None, env: dict[str, str], people: bool
) -> int:
    cancel_on_signals()
    processes = [BankProcess(bank, env) for bank in make_network(console, data_dir, banks, base_port)]
    with locked(data_dir / UP_LOCK, f"another  distribank up  runs on {data_dir}: stop it there first, with Ctrl-C"):
        try:
            for process in processes:
                process.bank.start_file.unlink(missing_ok=True)
            with waiting(console, "starting one bank" if len(processes) == 1 else f"starting {len(processes)} banks"):
                await start_all(processes)
            if people:
                await _bring_people(console, data_dir)
            console.print(_what_next(data_dir, processes, people), markup=False)
            await _watch(console, processes)
        except asyncio.CancelledError:
            console.print(f"stopping; the banks' data are in {data_dir}")
        finally:
            await stop_all(processes)
    return 0


async def _bring_people(console: Console, data_dir: Path) -> None:
    """Seed the network; if that cannot be, say why: the banks run on."""

    def say(text: str) -> None:
        console.print(text, markup=False)

    try:
        await seed(data_dir, say, password=password_given(dict(os.environ)))
    except Breakage as breakage:
        say(f"There are no people, or not all of them: {breakage}")


async def _watch(console: Console, processes: list[BankProcess]) -> None:
    """Show the banks until cancelled: a live table in a terminal; elsewhere a line at each change."""
    seen: list[str] = [""] * len(processes)
    figures = [Figures() for _process in processes]
    async with httpx.AsyncClient(trust_env=False, timeout=LOOK_SECONDS) as probe, asyncio.TaskGroup() as following:
        for process, kept in zip(processes, figures, strict=True):
            following.create_task(follow(process.bank, kept))
        with Live(console=console, auto_refresh=False) if console.is_terminal else nullcontext() as live:
            while True:
                for process in processes:
                    _start_if_asked(console, process)
                states = list(await asyncio.gather(*(_state(probe, process) for process in processes)))
                if live is not None:
                    shown = _table(processes, states, figures, narrow=console.width < NARROW)
                    live.update(Group(shown, _help(processes, states)), refresh=True)
                else:
                    _print_changes(console, processes, seen, states)
                seen = states
                await asyncio.sleep(LOOK_SECONDS)


def _start_if_asked(console: Console, process: BankProcess) -> None:
    """Start a bank that ended, once somebody asks for it (``distribank start``), who waits until it is ready."""
    if process.pid is not None or not process.bank.start_file.exists():
        return
    try:
        process.start()
    except Breakage as breakage:
        console.print(str(breakage), markup=False)
    process.bank.start_file.unlink(missing_ok=True)


async def _state(probe: httpx.AsyncClient, process: BankProcess) -> str:
    """One bank as it answers now; one that ended here may have been started again elsewhere."""
    if process.pid is not None and is_frozen(process.pid):
        return "frozen"
    try:
        answer = await probe.get(f"{process.bank.url}/readyz")
    except httpx.TimeoutException:
        return "no answer"
    except httpx.HTTPError:
        return "starting" if process.pid else f"{ENDED} ({_how_it_ended(process.exit_status)})"
    if answer.status_code != 200:
        return "not ready"
    return "ready" if process.pid else "ready, started elsewhere"


def _how_it_ended(status: int | None) -> str:
    """An exit status in words: minus a number is that signal's."""
    if status is not None and status < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-status).name
    return f"exit status {status}"


def _again(process: BankProcess) -> str:
    """What starts a bank again that has ended, and what tells why it did."""
    bank = process.bank
    command = bank_command("start", bank.code, bank.directory.parent)
    return f"Start {bank.name} again, in another terminal:  {command}\n(its last words: {bank.log_file})"


def _table(processes: list[BankProcess], states: list[str], figures: list[Figures], *, narrow: bool = False) -> Table:
    """The table; where room is scarce, names and states are broken, and never what is to be copied."""
    title = f"DistriBank · {time.strftime('%H:%M:%S')}{' · in a browser: ADDRESS/docs' if narrow else ''}"
    table = Table(title=title, box=box.SIMPLE_HEAD if narrow else box.ROUNDED)
    table.pad_edge, table.padding = not narrow, (0, 1, 0, 0) if narrow else (0, 1)
    table.add_column("bank", no_wrap=True)
    table.add_column("name", min_width=len("Guabiroba"))
    table.add_column("state", min_width=len("(SIGKILL)"))
    table.add_column("pid", no_wrap=True)
    table.add_column("address", no_wrap=True)
    table.add_column("per s" if narrow else "transfers/s", justify="right")
    table.add_column("in\ndoubt" if narrow else "in doubt", justify="right")
    for process, state, known in zip(processes, states, figures, strict=True):
        bank = process.bank
        shown = Text(state, style=STYLES.get(state, "red"))
        address = bank.url if narrow else f"{bank.url}/docs"
        table.add_row(bank.code, bank.name, shown, str(process.pid or "–"), address, *known.shown())
    return table


def _help(processes: list[BankProcess], states: list[str]) -> Text:
    """The exact next command for every bank that has ended, to be copied whole; empty while all run."""
    ended = (_again(process) for process, state in zip(processes, states, strict=True) if state.startswith(ENDED))
    return Text("\n".join(ended), overflow="fold", no_wrap=False)


def _print_changes(console: Console, processes: list[BankProcess], seen: list[str], states: list[str]) -> None:
    for process, before, state in zip(processes, seen, states, strict=True):
        if state != before:
            pid = f"pid {process.pid}" if process.pid else ""
            console.print(
                f"{process.bank.code}  {process.bank.name:<12}  {state:<10} {pid:<12} {process.bank.url}/docs"
            )
            if state.startswith(ENDED):
                console.print(_again(process), markup=False)


def _what_next(data_dir: Path, processes: list[BankProcess], people: bool) -> str:
    """The exact next command, and how to end."""
    bank = processes[0].bank
    person = '{"name": "Maria da Silva", "cpf": "529.982.247-25", "password": "correct-horse-battery"}'
    command = f"curl -s {bank.url}/v1/holders -H 'Content-Type: application/json' -d '{person}'"
    secrets = f"The operator's password of each bank is in {data_dir}/<bank>/bank.env. Ctrl-C stops all banks."
    if people:
        return f"{secrets}\n"
    said = [f"Register a first holder, in another terminal:\n\n  {command}"]
    if len(processes) > 1:
        bring = own_command("people", *data_option(data_dir))
        said.append(f"or have people with accounts and money, and a transfer to paste:\n\n  {bring}")
    return "\n\n".join([*said, f"{secrets}\n"])
