"""One bank as a process: the edges are chosen here, put together, started and stopped in order.

Start: settings, roster and key are checked; the store is opened (a second process is refused); the port is bound and
liveness served; the log is read; only then is the bank ready. Stop: new work is refused, what runs is given a moment
to come to its own end, everything queued is made durable. A store that cannot promise durability ends the process
at once: what the log holds decides at the next start.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import httpx
from fastapi import FastAPI
from prometheus_client import ProcessCollector

from distribank import logs
from distribank.api.app import create_app
from distribank.api.interbank import Interbank, Receiver
from distribank.api.server import run as run_loop
from distribank.api.server import serve
from distribank.bank import Bank
from distribank.bank.metrics import Metrics
from distribank.breakages import DurabilityLost, Misconfigured
from distribank.config import Settings
from distribank.core.clock import CLOCK_BOUND_MS
from distribank.core.protocol import MAX_VOTE_BY_AHEAD_MS
from distribank.peers.client import HttpPeers
from distribank.peers.roster import Roster, load_private_key, own_keyid
from distribank.peers.signatures import WINDOW_S, Signer, Verifier
from distribank.ports import Chance, Clock, Peers, Store
from distribank.recovery import DAY_MS, Recovery
from distribank.store import open_store

if TYPE_CHECKING:
    from distribank.tracing import Tracing

log = logging.getLogger("distribank")

DRAIN_SECONDS: Final = 3.0
"""How long what runs may take to come to its own end when the bank stops."""
EXIT_DURABILITY_LOST: Final = 70

COLLECTOR_THRESHOLDS: Final = (50_000, 50, 100)
"""How rarely the collector of cycles looks (``gc.set_threshold``). A transfer leaves none behind, and the rows that are
remembered made the default of 700 cost a quarter of every transfer's time."""


class SystemClock:
    """The wall clock of this machine."""

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class Wrapping:
    """What stands between a bank and the world in tests; nothing otherwise.

    *store* and *peers* look at every write and every send. The others are a simulation's: *monotonic* gives seconds
    that never jump, *transport* carries what is said to other banks.
    """

    store: Callable[[Store], Store] = lambda store: store
    peers: Callable[[Peers], Peers] = lambda peers: peers
    clock: Clock = field(default_factory=SystemClock)
    chance: Chance = field(default_factory=random.SystemRandom)
    monotonic: Callable[[], float] = time.monotonic
    transport: httpx.AsyncBaseTransport | None = None


class Service:
    """One bank, put together and not yet running. ``open`` makes one."""

    @classmethod
    async def open(cls, settings: Settings, wrapping: Wrapping) -> Service:
        """The bank of these *settings*, its store opened. Raises ``Breakage`` for whatever it must not start with."""
        _check_retention(settings)
        Roster.load(settings.network_file)
        metrics = Metrics()
        store = await _open_store(settings, wrapping.clock.wall_ms(), wrapping.chance, metrics)
        try:
            return cls(settings, wrapping, store, metrics)
        except BaseException:
            await store.close()
            raise

    def __init__(self, settings: Settings, wrapping: Wrapping, store: Store, metrics: Metrics) -> None:
        self.settings = settings
        self.monotonic = wrapping.monotonic
        self.clock = clock = wrapping.clock
        chance = wrapping.chance
        self.roster = roster = Roster.load(settings.network_file)
        key = load_private_key(settings.private_key_file)
        signer = Signer(own_keyid(roster, settings.bank_code, key, settings.private_key_file), key, clock, chance)
        verifier = Verifier(roster.keys, clock)
        self.store = wrapping.store(store)
        self.peers = HttpPeers(
            roster,
            signer,
            verifier,
            clock=clock,
            chance=chance,
            clock_now=lambda: self.bank.clock_now(),
            on_clock=lambda _bank, stamp: self.bank.rhythm.hear(stamp),
            transport=wrapping.transport,
        )
        peers = wrapping.peers(self.peers)
        self.traces = traces = _traces(settings)
        if traces is not None:
            peers = traces.peers(peers, lambda transaction: self.bank.coordinating.drives(transaction))
        self.bank = Bank(
            settings.bank_code,
            settings.bank_name,
            self.store,
            peers,
            clock,
            chance,
            metrics=metrics,
            traces=traces,
            vote_deadline=settings.vote_deadline,
            position_cap=settings.position_limit_centavos,
        )
        receiver: Receiver = self.bank if traces is None else traces.receiver(self.bank)
        self.interbank = Interbank(
            settings.bank_code,
            roster,
            signer,
            verifier,
            lambda: receiver if self.bank.ready else None,
            self.peers.heard_from,
            lambda: self.bank if self.bank.restoring.can_tell else None,
        )
        self.recovery = Recovery(self.bank, retention_days=settings.retention_days)

    def app(self) -> FastAPI:
        """The bank's HTTP application; its lifespan is the bank's."""
        return create_app(
            self.settings,
            self.bank,
            clock=self.clock,
            inquire_now=self.recovery.inquire_now,
            interbank=self.interbank.router().routes,
            lifespan=lambda _app: self.running(),
            monotonic=self.monotonic,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The bank at work: recovery reads the log, then the bank is ready until this is left."""
        try:
            async with self.peers, self.bank, asyncio.TaskGroup() as group:
                recovering = group.create_task(self._recover())
                try:
                    yield
                finally:
                    await self.bank.stop(DRAIN_SECONDS)
                    recovering.cancel()
        finally:
            await self.store.close()
            if self.traces is not None:
                self.traces.stop()

    async def _recover(self) -> None:
        began = time.perf_counter()
        unfinished = await self.recovery.start()
        log.info(
            "%s is ready: unfinished transactions in the log: %d, read in %.0f ms",
            self.bank.code,
            unfinished,
            (time.perf_counter() - began) * 1000,
        )
        await self.recovery.run()


def run(settings: Settings, wrapping: Wrapping | None = None) -> int:
    """Serve one bank until SIGTERM or SIGINT; the exit status. Raises ``Breakage`` if it must not start."""
    logs.begin(settings)
    return run_loop(_serve(settings, wrapping or Wrapping()))


async def _serve(settings: Settings, wrapping: Wrapping) -> int:
    service = await Service.open(settings, wrapping)
    ProcessCollector(registry=service.bank.metrics.registry)  # since when it runs, its memory and CPU
    log.info("%s (%s) listens on %s port %d", settings.bank_code, settings.bank_name, settings.host, settings.port)
    known_as = urlsplit(service.roster.own(settings.bank_code).url)
    if known_as.scheme == "http" and known_as.port not in (settings.port, None):
        log.warning(
            "the network file sends other banks to port %d; if nothing forwards it here, they will not reach this bank",
            known_as.port,
        )
    app = service.app()
    gc.freeze()  # what has been imported and built stays: the collector need not look at it again
    gc.set_threshold(*COLLECTOR_THRESHOLDS)
    return await serve(app, settings.host, settings.port)


async def _open_store(settings: Settings, now_ms: int, chance: Chance, metrics: Metrics) -> Store:
    """The bank's database. The marker that tells a lost database from a new bank's stands beside its private key."""
    return await open_store(
        settings.database_url,
        bank=settings.bank_code,
        marker=settings.marker_file,
        now_ms=now_ms,
        chance=chance,
        on_broken=_die,
        on_flush=metrics.flushed,
    )


def _traces(settings: Settings) -> Tracing | None:
    """What tells traces, loaded only where it is wanted: a bank needs none of it."""
    if not settings.otlp_endpoint:
        return None
    try:
        from distribank.tracing import Tracing

        return Tracing(settings.bank_code, settings.otlp_endpoint)
    except ModuleNotFoundError as missing:
        raise Misconfigured(
            f"DISTRIBANK_OTLP_ENDPOINT is set, and {missing.name} is not installed: pip install 'distribank[otel]'"
        ) from None


def _die(lost: DurabilityLost) -> None:
    """Durability is lost: nothing that was queued may be answered, retried or undone. The next start reads the log."""
    log.critical("this bank stops at once, because it cannot write: %s. Mend the disk and start it again", lost)
    logging.shutdown()
    os._exit(EXIT_DURABILITY_LOST)


def _check_retention(settings: Settings) -> None:
    """What is forgotten must be older than any message that can still arrive about it."""
    retention_ms = settings.retention_days * DAY_MS
    needed = WINDOW_S * 1000 + MAX_VOTE_BY_AHEAD_MS + CLOCK_BOUND_MS
    if retention_ms <= needed:
        raise Misconfigured(f"DISTRIBANK_RETENTION_DAYS must be longer than {needed / DAY_MS:.2f} days")
