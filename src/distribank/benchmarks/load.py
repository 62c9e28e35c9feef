"""The load generator: a process of its own, in which each client sends its next request as soon as it has its answer.

A client is a connection that stays open. What it sends is made ahead but for the idempotency key and the accounts,
which are drawn anew for each request; answers go through httptools' parser, and nothing else of an HTTP library is
between, for it shares the machine's cores with what it measures. Its own CPU is part of what it tells.

``python -m distribank.benchmarks.load`` reads a plan from standard input and writes what it saw to standard output,
both JSON: the fields of ``Plan`` and ``Seen``. Statuses are counted over the whole run, from the first request to the
last answer; everything else over the window, which begins behind the warm-up.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import httptools
import uvloop

from distribank.core.documents import account_number

LAST_ANSWERS_S: Final = 30.0
"""How long a client waits for the answer that is under way when the window ends."""
COMMITTED: Final = (b'"status":"completed"', b'"status":"committed"')
"""What an answer says of each transfer that is decided: a batch's says it once for each, in whichever words."""
SAMPLES: Final = 3
"""Answers other than 201 that are shown."""
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Client:
    """One connection: where to, with whose *token*, which of the plan's templates it sends, and for each account that
    the template leaves open, in turn, from which serials (start, stop, step) it is drawn.
    """

    port: int
    token: str
    template: int
    pools: Sequence[tuple[int, int, int]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be sent. *templates* are bodies with ``%s`` where an account's number goes; *transfers* is how many
    transfers one of them orders; *pids* are the processes whose CPU is read. Seconds.
    """

    path: str
    templates: Sequence[str]
    clients: Sequence[Client]
    warm_up: float
    seconds: float
    transfers: int = 1
    pids: Sequence[int] = ()


@dataclass(slots=True)
class Seen:
    """What came of it: *committed* transfers over the whole run; in the window, committed *transfers* over *seconds*,
    each request's *latencies* (µs), CPU seconds by pid in *cpu*, the generator's own, and those of the whole machine.
    """

    statuses: dict[int, int] = field(default_factory=dict)
    committed: int = 0
    transfers: int = 0
    seconds: float = 0.0
    latencies: list[int] = field(default_factory=list)
    cpu: dict[int, float] = field(default_factory=dict)
    own_cpu: float = 0.0
    all_cpu: float = 0.0
    samples: list[str] = field(default_factory=list)


class Run:
    """All clients of one plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.stopping = False
        self.measuring = False
        self.seen = Seen()
        self.statuses: Counter[int] = Counter()
        self.name = os.urandom(6).hex()
        self._pools: dict[tuple[int, int, int], list[bytes]] = {}

    async def drive(self) -> Seen:
        loop, plan = asyncio.get_running_loop(), self.plan
        connections = [Connection(self, number, client) for number, client in enumerate(plan.clients)]
        for connection in connections:
            await loop.create_connection(lambda made=connection: made, "127.0.0.1", connection.client.port)  # type: ignore[misc]
        gc.collect()
        gc.disable()  # a pause here would be told as a bank's
        await asyncio.sleep(plan.warm_up)
        before, own, whole, began = cpu_of(plan.pids), time.process_time(), busy_cpu(), time.perf_counter()
        self.measuring = True
        await asyncio.sleep(plan.seconds)
        self.measuring = False
        self.seen.seconds = time.perf_counter() - began
        self.seen.own_cpu, self.seen.all_cpu = time.process_time() - own, busy_cpu() - whole
        self.seen.cpu = {pid: used - before[pid] for pid, used in cpu_of(plan.pids).items()}
        self.stopping = True
        await asyncio.wait([connection.over for connection in connections], timeout=LAST_ANSWERS_S)
        unanswered = sum(not connection.over.done() for connection in connections)
        if unanswered:
            self.fail(f"{unanswered} requests were not answered within {LAST_ANSWERS_S:.0f} s")
        self.seen.statuses = dict(sorted(self.statuses.items()))
        return self.seen

    def pool(self, serials: tuple[int, int, int]) -> list[bytes]:
        """The account numbers of these serials."""
        if serials not in self._pools:
            self._pools[serials] = [account_number(serial).encode() for serial in range(*serials)]
        return self._pools[serials]

    def fail(self, why: str) -> None:
        """Something other than the answer that was wanted: counted as status 0 if it is no answer at all."""
        if len(self.seen.samples) < SAMPLES:
            self.seen.samples.append(why[:200])


class Connection(asyncio.Protocol):
    """One client: it is connected, sends, is answered, sends again."""

    def __init__(self, run: Run, number: int, client: Client) -> None:
        self.client = client
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._run = run
        self._head, self._body = _template(run.plan, client)
        pools = [run.pool((start, stop, step)) for start, stop, step in client.pools]
        self._draws = [pools[slot % len(pools)] for slot in range(self._body.count(b"%s"))]
        self._key = f"{run.name}-{number}-".encode()
        self._count = 0
        self._sent = 0.0
        self._answer: list[bytes] = []
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not say that it is one
        self._send()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._answer.append(body)

    def on_message_complete(self) -> None:
        """Called by the parser at an answer's end."""
        now, run, status = time.perf_counter(), self._run, self._parser.get_status_code()
        run.statuses[status] += 1
        body = self._answer[0] if len(self._answer) == 1 else b"".join(self._answer)
        self._answer.clear()
        done = sum(map(body.count, COMMITTED)) if status == 201 else 0
        run.seen.committed += done
        if run.measuring:
            run.seen.transfers += done
            run.seen.latencies.append(int((now - self._sent) * 1e6))
        if done != run.plan.transfers:
            run.fail(f"{status} {body.decode(errors='replace')}")
        if not self._parser.should_keep_alive():
            self.connection_lost(None)
        elif run.stopping:
            self._end()
        else:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self._run.statuses[0] += 1
            self._run.fail(f"the connection was closed: {exc}")
            self._end()

    def _send(self) -> None:
        assert self._transport is not None
        self._count += 1
        chance = random.random
        accounts = tuple([pool[int(chance() * len(pool))] for pool in self._draws])
        self._sent = time.perf_counter()
        self._transport.write(b"%s%s%d\r\n\r\n%s" % (self._head, self._key, self._count, self._body % accounts))

    def _end(self) -> None:
        if not self.over.done():
            self.over.set_result(None)
        if self._transport is not None:
            self._transport.close()


def _template(plan: Plan, client: Client) -> tuple[bytes, bytes]:
    """The request up to the idempotency key, and its body with the accounts left open."""
    body = plan.templates[client.template].encode()
    length = len(body % ((b"00000001-9",) * body.count(b"%s")))
    head = (
        f"POST {plan.path} HTTP/1.1\r\nHost: 127.0.0.1:{client.port}\r\nAuthorization: Bearer {client.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\nPrefer: wait=30\r\nIdempotency-Key: "
    )
    return head.encode(), body


def cpu_of(pids: Sequence[int]) -> dict[int, float]:
    """CPU seconds that each process has used so far, by the system's own count; none where it does not tell."""
    used = {}
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        used[pid] = (int(fields[11]) + int(fields[12])) / TICKS_PER_S
    return used


def busy_cpu() -> float:
    """CPU seconds that this machine has been at work, whoever for; 0 where the system does not tell."""
    try:
        user, nice, system, _idle, _wait, *interrupts = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return 0.0
    return sum(map(int, (user, nice, system, *interrupts[:3]))) / TICKS_PER_S


def plan_of(document: dict[str, Any]) -> Plan:
    """A plan from its JSON."""
    return Plan(**{**document, "clients": [Client(**client) for client in document["clients"]]})


def main() -> None:
    plan = plan_of(json.load(sys.stdin))

    async def drive() -> Seen:
        return await Run(plan).drive()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        json.dump(asdict(runner.run(drive())), sys.stdout)


if __name__ == "__main__":
    main()
