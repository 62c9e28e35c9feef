"""What one transfer is made of, each piece measured by itself: a flush, a request between banks, a signature.

``python -m distribank.benchmarks.parts`` measures them from a process of its own, on the event loop that banks are
served on, against two banks that run and rest: ``Asked`` as JSON on standard input, medians by name on standard output.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Final

import uvloop

from distribank.breakages import Breakage
from distribank.config import Settings
from distribank.core.clock import stamp_at
from distribank.core.holders import Counter
from distribank.core.protocol import Snapshot
from distribank.network.layout import LocalBank
from distribank.peers.client import HttpPeers
from distribank.peers.roster import Roster, load_private_key, own_keyid
from distribank.peers.signatures import Signer, Verifier
from distribank.service import SystemClock
from distribank.store import open_store, put

FLUSH: Final = "one flush, ms"
APPEND: Final = "4 KiB appended and synced, ms"
REQUEST: Final = "one request between banks, ms"
SIGNATURES: Final = "signatures of one request and its answer, CPU µs"
TIMES: Final = 100
BODY: Final = 8_192
"""Bytes of a request and of its answer where signatures are measured: a batch of some twenty messages."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The settings of the bank that asks, the code of the one that answers, and a directory on the banks' disk."""

    env_file: str
    peer: str
    directory: str


async def measured(banks: Sequence[LocalBank], directory: Path) -> dict[str, float]:
    """The median of each piece, between the first two of *banks*."""
    asked = Asked(str(banks[0].env_file.resolve()), banks[1].code, str(directory))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "distribank.benchmarks.parts"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate(json.dumps(asdict(asked)).encode())
    if process.returncode:
        raise Breakage(f"what a transfer is made of could not be measured: status {process.returncode}")
    found: dict[str, float] = json.loads(said)
    return found


async def _all(asked: Asked) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=asked.directory) as scratch:
        flush, append = await _flush(Path(scratch)), _append(Path(scratch))
    settings = Settings.load(Path(asked.env_file))
    roster, clock = Roster.load(settings.network_file), SystemClock()
    key = load_private_key(settings.private_key_file)
    signer = Signer(
        own_keyid(roster, settings.bank_code, key, settings.private_key_file), key, clock, random.SystemRandom()
    )
    request = await _request(asked.peer, roster, signer, clock)
    return {FLUSH: flush, APPEND: append, REQUEST: request, SIGNATURES: _signatures(roster, signer, clock)}


async def _flush(scratch: Path) -> float:
    """A durable write of one row through the shipped store, milliseconds."""
    store = open_store(f"sqlite:///{scratch}/bank.db", bank="99990001", marker=scratch / "marker", now_ms=0)
    values = iter(range(10 * TIMES))

    async def one() -> None:
        await put(store, [Counter("flush", next(values))])

    try:
        return await _timed(one)
    finally:
        await store.close()


def _append(scratch: Path) -> float:
    """A page appended to a file and flushed, milliseconds: what the disk itself takes."""
    page, taken = os.urandom(4096), []
    with (scratch / "pages").open("wb", buffering=0) as file:
        for _ in range(TIMES):
            began = time.perf_counter()
            file.write(page)
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - began)
    return median(taken) * 1000


async def _request(peer: str, roster: Roster, signer: Signer, clock: SystemClock) -> float:
    """A signed request for which the other bank writes nothing, until its signed answer is checked, milliseconds."""
    peers = HttpPeers(
        roster,
        signer,
        Verifier(roster.keys, clock),
        clock=clock,
        chance=random.SystemRandom(),
        clock_now=lambda: stamp_at(clock.wall_ms()),
        on_clock=lambda _bank, _stamp: None,
    )

    async def one() -> None:
        await peers.ask(peer, Snapshot(), asyncio.get_running_loop().time() + 5)

    async with peers:
        return await _timed(one)


def _signatures(roster: Roster, signer: Signer, clock: SystemClock) -> float:
    """CPU of both signatures, made and checked, microseconds."""
    verifier, taken, body = Verifier(roster.keys, clock), [], os.urandom(BODY)
    url = roster.own(signer.bank).url + "/interbank/v1/prepare"
    for _ in range(TIMES):
        began = time.process_time()
        signed = signer.sign_request("POST", url, body)
        verifier.verify_request("POST", url, _raw(signed.headers), body)
        answered = signer.sign_response(200, body, signed.nonce)
        verifier.verify_response(200, _raw(answered), body, bank=signer.bank, nonce=signed.nonce)
        taken.append(time.process_time() - began)
    return median(taken) * 1e6


def _raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


async def _timed(one: Callable[[], Awaitable[None]]) -> float:
    """The median time of *one*, milliseconds, once it is warm."""
    taken = []
    for _ in range(TIMES + TIMES // 5):
        began = time.perf_counter()
        await one()
        taken.append(time.perf_counter() - began)
    return median(taken[TIMES // 5 :]) * 1000


def main() -> None:
    asked = Asked(**json.load(sys.stdin))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        json.dump(runner.run(_all(asked)), sys.stdout)


if __name__ == "__main__":
    main()
