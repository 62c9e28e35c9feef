"""The demo: the whole story on four real bank processes, over real HTTP, every claim of it checked.

It starts the banks, tells ``story``, stops them, and says how many claims held. It knows the banks by the public
contract alone (``network.client``); the only thing done to them from outside is what may happen to any process:
SIGSTOP, SIGCONT, SIGKILL.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from rich.markup import escape

from distribank.breakages import Breakage, Misconfigured
from distribank.demo.claims import Claims
from distribank.demo.crash import VOTE_DEADLINE_SECONDS
from distribank.demo.stage import Stage
from distribank.demo.story import tell
from distribank.network.client import client_of
from distribank.network.processes import BankProcess, start_all, stop_all
from distribank.network.terminal import cancel_on_signals, console, waiting
from distribank.network.up import make_network

BANKS: Final = 4
INTERRUPTED: Final = 130


def run(data_dir: Path | None, base_port: int | None, as_json: bool) -> int:
    """Tell the story; 0 only if every claim held. The banks' data are deleted behind a success in a directory of our
    own, and kept in *data_dir*, which must be new: the story counts all the money that there is.
    """
    if data_dir is not None and data_dir.exists():
        if not data_dir.is_dir():
            raise Misconfigured(f"{data_dir} is not a directory: the demo wants a new one, or none")
        if any(data_dir.iterdir()):
            raise Misconfigured(f"{data_dir} is not empty: the demo wants a new directory, or none")
    directory = data_dir or Path(tempfile.mkdtemp(prefix="distribank-demo-"))
    claims = Claims(console(stderr=as_json))
    begun = time.monotonic()
    try:
        asyncio.run(_run(claims, directory, base_port))
    except asyncio.CancelledError:
        claims.console.print("\nstopped")
        _tidy(claims, directory, keep=data_dir is not None)
        return INTERRUPTED
    except BaseException:  # the banks could not be set up, or nobody reads on
        if data_dir is None:
            shutil.rmtree(directory, ignore_errors=True)
        raise
    seconds = time.monotonic() - begun
    _conclude(claims, seconds)
    _tidy(claims, directory, keep=data_dir is not None or not claims.all_held)
    if as_json:
        report = {"ok": claims.all_held, "seconds": round(seconds, 3), "claims": claims.as_json()}
        print(json.dumps(report, indent=2, ensure_ascii=False))
    return 0 if claims.all_held else 1


async def _run(claims: Claims, directory: Path, base_port: int | None) -> None:
    cancel_on_signals()
    claims.chapter("Four banks, four processes, and nothing between them but HTTP")
    banks = make_network(claims.console, directory, BANKS, base_port)
    processes = [BankProcess(bank, {"DISTRIBANK_VOTE_DEADLINE": str(VOTE_DEADLINE_SECONDS)}) for bank in banks]
    try:
        with waiting(claims.console, "starting four banks"):
            ready = await start_all(processes)
        for process, seconds in zip(processes, ready, strict=True):
            bank = process.bank
            claims.say(f"{bank.code}  {bank.name:<10} pid {process.pid}, ready after {seconds:.1f} s  {bank.url}/docs")
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(client_of(bank)) for bank in banks]
            await tell(Stage(claims, processes, clients))
    except Breakage as breakage:
        claims.check(False, "the story goes on to its end", breakage)
    finally:
        await stop_all(processes)
    statuses = [process.exit_status for process in processes]
    claims.chapter("The banks are told to stop")
    figure = ", ".join(f"exit status {status}" for status in statuses)
    claims.check(statuses == [0] * BANKS, "every bank ended in order", figure)


def _conclude(claims: Claims, seconds: float) -> None:
    held = sum(claim.held for claim in claims.made)
    claims.console.print(f"\n[bold]{held} of {len(claims.made)} claims held[/bold], in {seconds:.1f} s")
    for claim in claims.made:
        if not claim.held:
            claims.console.print(f"  [bold red]✗[/bold red] {escape(f'{claim.chapter}: {claim.claim}')}")


def _tidy(claims: Claims, directory: Path, keep: bool) -> None:
    """Delete the banks' data, or say where they and the logs are."""
    if keep:
        claims.console.print(f"The banks' data and logs are in {directory} (DIR/<bank>/bank.log)", markup=False)
    else:
        shutil.rmtree(directory, ignore_errors=True)
