"""Whole banks in one process, as they ship, in virtual time: what is sent to and fro is ours to spoil.

Each bank is ``service.Service``: its settings, its roster and key, its SQLite database, its application behind
``Boundary``, its routes for other banks, its signing client, its recovery. Only what a simulation must own is ours:
the clock, chance, and the transport under httpx. There are no threads: work that the service gives to one (the COMMIT,
a recount, argon2) is done here, whole, at a drawn moment, and its result is known a little later.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from asyncio import Future
from collections import Counter
from collections.abc import Callable, Coroutine
from contextvars import Context
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI

from distribank.config import Settings
from distribank.service import Service, Wrapping
from distribank.simulation.loop import PROCESS, Process, SimulatedLoop
from distribank.store.sqlite import SqliteStore
from tests.counter_hall import settings_for

R = TypeVar("R")

START_MS = 1_800_000_000_000
PEER_CONNECT_S = 1.0
DRAIN_S = 5.0
"""How long a bank that is told to stop waits for the requests under way, as its server does."""
SIGNED = (b"content-digest", b"signature-input", b"signature")


class StackLoop(SimulatedLoop):
    """Threads' work is done on the loop itself; *hesitate* says how long it waits before and behind it, in seconds."""

    def __init__(self, chance: Random) -> None:
        super().__init__(chance)
        self.hesitate: Callable[[], float] = lambda: 0.0
        self.processes: WeakKeyDictionary[asyncio.Task[Any], Process] = WeakKeyDictionary()

    def create_task(self, coro: Any, *, context: Context | None = None, **options: Any) -> asyncio.Task[Any]:
        task = super().create_task(coro, context=context, **options)
        process = PROCESS.get() if context is None else context.get(PROCESS)
        if process is not None:
            self.processes[task] = process
        return task

    def run_in_executor(self, _executor: Any, work: Callable[..., Any], *args: Any) -> Future[Any]:  # type: ignore[override]
        future: Future[Any] = self.create_future()

        def act() -> None:
            try:
                settle, value = future.set_result, work(*args)
            except Exception as error:
                settle, value = future.set_exception, error
            self.call_later(self.hesitate(), lambda: None if future.done() else settle(value))

        self.call_later(self.hesitate(), act)
        return future


def run_stack(main: Callable[[StackLoop], Coroutine[Any, Any, R]], chance: Random) -> R:
    """Run *main* in virtual time to its end, in the order that *chance* draws."""
    loop = StackLoop(chance)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main(loop))


def lay_out(directory: Path, count: int, **changes: Any) -> dict[str, Settings]:
    """Files for *count* banks, the same ones every time, and their settings."""
    banks, settings = [], {}
    for code in [f"{99990001 + place}" for place in range(count)]:
        key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(code.encode()).digest())
        raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        public = f"1:{base64.b64encode(raw).decode()}"
        banks.append({"code": code, "name": f"Bank {code}", "url": f"http://{code}.test", "public_keys": [public]})
        home = directory / code
        home.mkdir()
        (home / "data").mkdir()
        (home / "key.pem").touch(0o600)
        (home / "key.pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        settings[code] = settings_for(
            code,
            network_file=directory / "network.json",
            private_key_file=home / "key.pem",
            database_url=f"sqlite:///{home / 'data' / 'bank.db'}",
            **changes,
        )
    (directory / "network.json").write_text(json.dumps({"banks": banks}))
    return settings


@dataclass
class SkewedClock:
    """The loop's time as a wall clock, *wrong* by so many milliseconds."""

    loop: SimulatedLoop
    wrong: int

    def wall_ms(self) -> int:
        return START_MS + round(self.loop.time() * 1000) + self.wrong


@dataclass(frozen=True)
class Letter:
    """One HTTP request on its way; *sender* is a bank, or "client"."""

    sender: str
    target: str
    method: str
    url: str
    headers: list[tuple[bytes, bytes]]
    body: bytes

    @property
    def words(self) -> str:
        return f"{self.sender} → {self.target} {self.method} {httpx.URL(self.url).raw_path.decode()}"


@dataclass(eq=False)
class Life:
    """One bank from its start to its end. *app* is there while its port is open."""

    process: Process
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    service: Service | None = None
    app: FastAPI | None = None
    serving: dict[asyncio.Task[None], Future[httpx.Response]] = field(default_factory=dict)


@dataclass(frozen=True)
class Fate:
    """What becomes of one request and of its answer. Delays are in seconds; *flip* (0…1) is where a bit flips."""

    delay: float = 0.0
    back: float = 0.0
    lost: bool = False
    answer_lost: bool = False
    unavailable: bool = False
    cut: float | None = None
    twice: float | None = None
    flip: float | None = None
    flip_answer: float | None = None


FAIR = Fate()


class Stack:
    """The banks and what is between them. *weather* says what becomes of a letter; *cut* has the ways that are shut."""

    def __init__(self, loop: StackLoop, settings: dict[str, Settings], seed: int, skew: dict[str, int]) -> None:
        self.loop = loop
        self.settings = settings
        self.seed = seed
        self.clocks = {code: SkewedClock(loop, skew.get(code, 0)) for code in settings}
        self.lives: dict[str, Life] = {}
        self.starts: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.lines: list[str] = []
        self.digest = hashlib.sha256()
        self.cut: set[tuple[str, str]] = set()
        self.weather: Callable[[Letter], Fate] = lambda _letter: FAIR
        self.sent: list[Letter] = []
        loop.set_exception_handler(self._on_exception)

    def note(self, text: str, *content: bytes) -> None:
        """One line of the transcript; *content* counts towards its digest alone."""
        line = f"{self.loop.time():9.4f}  {text}"
        self.lines.append(line)
        self.digest.update(line.encode())
        for part in content:
            self.digest.update(part)

    def _on_exception(self, _loop: Any, context: dict[str, Any]) -> None:
        """Nobody looked at a failure: what the dead leave behind is no matter, everything else is a bug."""
        task, error = context.get("task") or context.get("future"), context.get("exception")
        process = self.loop.processes.get(task) if isinstance(task, asyncio.Task) else None
        if error is not None and (process is None or process.alive):
            self.loop.fail(error)

    # Banks --------------------------------------------------------------------------------------------------------

    async def start(self, code: str) -> None:
        """Start a bank and return when it is ready, or dead."""
        life = self.lives[code] = Life(Process(code))
        self.starts[code] += 1
        self.note(f"{code} starts")
        self.loop.create_task(self._live(code, life), context=life.process.context())
        while not (life.ended.is_set() or (life.service is not None and life.service.bank.ready)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async def _live(self, code: str, life: Life) -> None:
        chance = Random(f"{self.seed} {code} {self.starts[code]}")  # noqa: S311 - repeatable, not secret
        wrapping = Wrapping(
            clock=self.clocks[code], chance=chance, monotonic=self.loop.time, transport=Wire(self, code)
        )
        life.service = service = await Service.open(self.settings[code], wrapping)
        app = service.app()
        async with app.router.lifespan_context(app):
            life.app = app
            await life.stop.wait()
            app.state.edge.stopping.set()
            life.app = None
            if life.serving:
                await asyncio.wait(list(life.serving), timeout=DRAIN_S)
            for task in life.serving:
                task.cancel()
        life.ended.set()
        self.note(f"{code} has stopped")

    def kill(self, code: str) -> None:
        """The process dies: what was not committed is gone, connections break, nobody says goodbye."""
        life = self.lives[code]
        if life.ended.is_set():
            return
        self.note(f"{code} dies")
        life.ended.set()
        life.app = None
        self.loop.kill(life.process)
        if life.service is not None:
            _drop(life.service.store)
        for answer in life.serving.values():
            if not answer.done():
                answer.set_exception(httpx.ReadError("connection reset"))

    async def stop(self, code: str) -> None:
        """The process is told to end, and does."""
        life = self.lives[code]
        life.stop.set()
        await life.ended.wait()

    def is_up(self, code: str) -> bool:
        return not self.lives[code].ended.is_set()

    # What is between them -----------------------------------------------------------------------------------------

    async def carry(self, letter: Letter) -> httpx.Response:
        """The answer to *letter*, if it finds its way; raises as httpx does. The network goes on if nobody waits."""
        answer: Future[httpx.Response] = self.loop.create_future()
        self.loop.create_task(self._carry(letter, self.weather(letter), answer), context=Context())
        return await answer

    async def _carry(self, letter: Letter, fate: Fate, answer: Future[httpx.Response]) -> None:
        try:
            response = await self._there_and_back(letter, fate)
        except httpx.HTTPError as error:
            self.note(f"{letter.words}: {type(error).__name__}: {error}")
            if not answer.done():
                answer.set_exception(error)
                answer.exception()
            return
        if response is not None and not answer.done():
            answer.set_result(response)
        elif response is not None:
            self.seen["an answer that nobody waited for any more"] += 1

    async def _there_and_back(self, letter: Letter, fate: Fate) -> httpx.Response | None:
        """``None``: silence."""
        await asyncio.sleep(fate.delay)
        if (letter.sender, letter.target) in self.cut:
            self.seen["partitioned"] += 1
            await asyncio.sleep(PEER_CONNECT_S)
            raise httpx.ConnectTimeout("partitioned")
        if fate.lost:
            self.seen["request lost"] += 1
            self.note(f"{letter.words}: lost")
            return None
        if fate.unavailable:
            self.seen["503 from something in between"] += 1
            return httpx.Response(503, headers={"retry-after": "1"}, content=b"<html>upstream is not there</html>")
        if letter.sender != "client":
            self.sent.append(letter)
        if fate.flip is not None:
            return await self._tampered(letter, fate.flip)
        if fate.twice is not None:
            self.seen["sent twice"] += 1
            self.loop.create_task(self._again(letter, fate.twice), context=Context())
        response = await self.arrive(letter)
        await asyncio.sleep(fate.back)
        return self._spoiled(letter, response, fate)

    def _spoiled(self, letter: Letter, response: httpx.Response, fate: Fate) -> httpx.Response | None:
        """What arrives of the answer."""
        if (letter.target, letter.sender) in self.cut:
            self.seen["partitioned one way: it arrived, the answer did not"] += 1
            return None
        if fate.answer_lost:
            self.seen["answer lost"] += 1
            self.note(f"{letter.words}: answer lost")
            return None
        if fate.cut is not None:
            self.seen["answer cut in the middle"] += 1
            if fate.cut < 0.5 or letter.sender == "client":  # whose httpx knows what the length should have been
                raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")
            half = response.content[: int(len(response.content) * (fate.cut - 0.5))]
            return httpx.Response(response.status_code, headers=response.headers.raw, content=half)
        if fate.flip_answer is not None and response.status_code == 200:
            self.seen["answer flipped"] += 1
            headers, body = _flipped(response.headers.raw, response.content, fate.flip_answer)
            return httpx.Response(200, headers=headers, content=body)
        return response

    async def _tampered(self, letter: Letter, where: float) -> httpx.Response:
        """A byte is flipped on the way: no bank may take it for what it was signed as."""
        headers, body = _flipped(letter.headers, letter.body, where)
        response = await self.arrive(Letter(letter.sender, letter.target, letter.method, letter.url, headers, body))
        self.seen["flipped request refused"] += 1
        assert response.status_code != 200, f"a flipped request was taken: {letter} became {headers} {body!r}"
        return response

    async def _again(self, letter: Letter, delay: float) -> None:
        await asyncio.sleep(delay)
        await self.replay(letter)

    async def replay(self, letter: Letter) -> None:
        """Something that was once sent arrives (again); nobody waits for the answer."""
        try:
            response = await self.arrive(letter)
        except httpx.HTTPError:
            return
        if letter.sender != "client":
            self.seen[f"replay of a signed request: {response.status_code}"] += 1

    async def arrive(self, letter: Letter) -> httpx.Response:
        """*letter* at its bank's port; the answer as it leaves there."""
        life = self.lives.get(letter.target)
        if life is None or life.app is None:
            raise httpx.ConnectError("connection refused")
        answer: Future[httpx.Response] = self.loop.create_future()
        task = self.loop.create_task(self._serve(life.app, letter, answer), context=life.process.context())
        life.serving[task] = answer
        task.add_done_callback(lambda done: life.serving.pop(done, None))
        response = await answer
        real = letter.url.endswith(("/v1/token", "/v1/network"))  # real chance is in tokens, real time in round trips
        self.note(f"{letter.words}: {response.status_code}", b"" if real else letter.body + response.content)
        if response.status_code >= 500 and response.status_code != 503:
            raise AssertionError(f"{letter} was answered {response.status_code}: {response.text}")
        return response

    async def _serve(self, app: FastAPI, letter: Letter, answer: Future[httpx.Response]) -> None:
        transport = httpx.ASGITransport(app, client=("10.0.0.1", 40_000))
        request = httpx.Request(letter.method, letter.url, headers=letter.headers, content=letter.body)
        try:
            response = await transport.handle_async_request(request)
            await response.aread()
        except asyncio.CancelledError:
            if not answer.done():
                answer.set_exception(httpx.ReadError("connection closed"))
            raise
        if not answer.done():
            answer.set_result(response)


class Wire(httpx.AsyncBaseTransport):
    """What a bank's or a client's httpx sends through."""

    def __init__(self, stack: Stack, sender: str) -> None:
        self._stack = stack
        self._sender = sender

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        letter = Letter(
            self._sender,
            request.url.host.partition(".")[0],
            request.method,
            str(request.url),
            list(request.headers.raw),
            await request.aread(),
        )
        return await self._stack.carry(letter)


def _flipped(headers: list[tuple[bytes, bytes]], body: bytes, where: float) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """One bit of one byte of the body or of what signs it, *where* (0…1) says which."""
    parts = [value if name.lower() in SIGNED else b"" for name, value in headers] + [body]
    at = int(where * 8 * sum(map(len, parts)))
    place, bit = divmod(at, 8)
    for number, part in enumerate(parts):
        if place < len(part):
            changed = bytearray(part)
            changed[place] ^= 1 << bit
            parts[number] = bytes(changed)
            break
        place -= len(part)
    kept = [(name, parts[number] if name.lower() in SIGNED else value) for number, (name, value) in enumerate(headers)]
    return kept, parts[-1]


def _drop(store: Any) -> None:
    """What a killed process leaves of its database: files, and nobody who holds them."""
    assert isinstance(store, SqliteStore)
    if store._closed:
        return
    store._on_broken = None
    store._break(RuntimeError("the process died"))
    store._closed = True
    store._let_go()
