"""Everything that somebody between two banks can do to a signed request or answer, made from recorded ones.

``requests`` and ``answers`` give each alteration of one exchange: every bit of every signed byte turned, bytes left
out, bodies cut short, parts exchanged for those of other exchanges. ``try_requests`` and ``try_answers`` put them to
the real routes and the real client; what comes back names every one that was accepted.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import httpx

from distribank.breakages import Breakage
from distribank.peers import wire
from distribank.peers.client import HttpPeers
from distribank.peers.signatures import Signer, Verifier
from tests.hostile.examples import Scene, settled
from tests.hostile.town import Exchange, Headers, Reply, Town, ask

SIGNED: Final = (b"content-digest", b"signature-input", b"signature")
OTHER_BYTES: Final = (0x00, 0x20, 0xFF)


@dataclass(frozen=True)
class Request:
    """A request as it arrives; *what* says in words what was done to it."""

    what: str
    method: str
    path: str
    headers: Headers
    body: bytes


def altered(value: bytes) -> Iterator[tuple[str, bytes]]:
    """Every one-bit change of *value*, each byte made another one, left out, or doubled; cut short; made longer."""
    for place, byte in enumerate(value):
        before, after = value[:place], value[place + 1 :]
        for other in [*(byte ^ 1 << bit for bit in range(8)), *OTHER_BYTES]:
            if other != byte:
                yield f"byte {place} {byte:02x} to {other:02x}", before + bytes([other]) + after
        yield f"byte {place} left out", before + after
        if value[place : place + 1] != value[place - 1 : place]:
            yield f"byte {place} doubled", before + bytes([byte, byte]) + after
    for tail in (b" ", b"\x00", b"\n", b",", value):
        yield f"longer by {tail[:3]!r}", value + tail
    yield "nothing", b""


def requests(one: Exchange, others: Sequence[Exchange]) -> Iterator[Request]:
    """Every alteration of the request of *one*; *others* are where foreign parts come from."""
    good = Request("", "POST", one.path, one.headers, one.body)
    for name, value in one.headers:
        if name.lower() not in SIGNED:
            continue
        for what, changed in altered(value):
            if changed.strip() != value:
                yield replace(good, what=f"{name!r}: {what}", headers=_with(one.headers, name, changed))
        for what, changed in altered(name):
            if changed.lower() != name.lower():
                headers = [(changed if key == name else key, held) for key, held in one.headers]
                yield replace(good, what=f"name {name!r}: {what}", headers=headers)
        yield replace(good, what=f"{name!r} twice", headers=[*one.headers, (name, value)])
    for what, changed in altered(one.body):
        yield replace(good, what=f"body: {what}", body=changed)
    for what, changed in altered(one.path.encode()):
        yield replace(good, what=f"path: {what}", path=changed.decode("latin-1"))
    yield replace(good, what="path: a query", path=f"{one.path}?x=1")
    for method in ("GET", "PUT", "DELETE", "PATCH", "post", "POST ", "HEAD", "OPTIONS"):
        yield replace(good, what=f"method {method}", method=method)
    for other in others:
        yield from _mixed(good, other)


def _mixed(good: Request, other: Exchange) -> Iterator[Request]:
    """*good* with parts of *other*, where those differ."""
    if other.path != good.path:
        yield replace(good, what=f"sent to {other.kind}", path=other.path)
    if other.body != good.body:
        yield replace(good, what=f"the body of a {other.kind}", body=other.body)
    theirs = dict(other.headers)
    for name, value in good.headers:
        if name in SIGNED and theirs[name] != value:
            yield replace(good, what=f"{name!r} of a {other.kind}", headers=_with(good.headers, name, theirs[name]))
            for part in value.split(b";"):
                swap = next((their for their in theirs[name].split(b";") if their[:5] == part[:5]), part)
                if swap != part:
                    headers = _with(good.headers, name, value.replace(part, swap))
                    yield replace(good, what=f"{part[:7]!r} of a {other.kind}", headers=headers)


def _with(headers: Headers, name: bytes, value: bytes) -> Headers:
    return [(key, value if key == name else held) for key, held in headers]


def answers(one: Exchange, others: Sequence[Exchange]) -> Iterator[tuple[str, Reply]]:
    """Every alteration of the answer of *one*."""
    reply = one.reply
    for status in (*range(100, 600, 7), 201, 202, 204, 206, 226, 299, 301, 400, 401, 422, 500, 503):
        if status != reply.status:
            yield f"status {status}", replace(reply, status=status)
    for name, value in reply.headers:
        if name.lower() in SIGNED:
            for what, changed in altered(value):
                if changed.strip() != value:
                    yield f"{name!r}: {what}", replace(reply, headers=_with(reply.headers, name, changed))
            yield f"{name!r} twice", replace(reply, headers=[*reply.headers, (name, value)])
            without = [(key, held) for key, held in reply.headers if key != name]
            yield f"without {name!r}", replace(reply, headers=without)
    for what, changed in altered(reply.body):
        yield f"body: {what}", replace(reply, body=changed)
    yield "compressed", replace(reply, headers=[*reply.headers, (b"content-encoding", b"gzip")])
    for other in others:
        if other.reply != reply:
            yield f"the answer to a {other.kind} to {other.to}", other.reply
            yield f"the body to a {other.kind} to {other.to}", replace(reply, body=other.reply.body)
            yield f"the headers to a {other.kind} to {other.to}", replace(reply, headers=other.reply.headers)


def forged_answers(town: Town, one: Exchange) -> Iterator[tuple[str, Reply]]:
    """Answers that are well signed, by the wrong bank, or over what is not the answer: a rogue bank's work."""
    nonce = nonce_of(one)
    for code in town.keys:
        signer = town.signer(code)
        if code != one.to:
            yield f"signed by {code}", _signed(signer, one.reply.body, nonce)
        to = one.reply.body.replace(b'"to":"%b"' % one.sender.encode(), b'"to":"%b"' % code.encode())
        if code != one.sender:
            yield f"meant for {code}", _signed(town.signer(one.to), to, nonce)
    for other in (f"{int(nonce, 16) ^ 1:032x}", "0" * 32, "f" * 32):
        yield "for another request", _signed(town.signer(one.to), one.reply.body, other)


def _signed(signer: Signer, body: bytes, nonce: str) -> Reply:
    headers = signer.sign_response(200, body, nonce)
    return Reply(200, [(name.encode(), value.encode()) for name, value in headers.items()], body)


def nonce_of(one: Exchange) -> str:
    """The nonce under which the request of *one* was signed."""
    signature_input = dict(one.headers)[b"signature-input"].decode()
    return signature_input.partition('nonce="')[2][:32]


def one_of_each(scene: Scene) -> list[Exchange]:
    """The largest exchange of each kind that brought a message, and a probe."""
    found: dict[str, Exchange] = {}
    for one in sorted(scene.town.exchanges, key=lambda one: len(one.body) + len(one.reply.body)):
        if b'"messages":[]' not in one.body:
            found[one.kind] = one
    probe = next(one for one in scene.town.exchanges if b'"messages":[]' in one.body)
    assert set(found) == set(wire.KINDS), f"no exchange of the kinds {set(wire.KINDS) - set(found)} was recorded"
    return [*(found[kind] for kind in wire.KINDS), probe]


async def quiet(scene: Scene, *, forgetful: bool = True) -> None:
    """Let every doubt be settled, then cut all lines; *forgetful*: and start every bank anew, which has then seen no
    nonce."""
    town = scene.town
    town.lost = lambda _to, _kind: False
    async with asyncio.timeout(20):
        while doubts := [(code, doubt) for code in town.keys for doubt in await _doubts(town, code)]:
            for code, doubt in doubts:
                path = f"/v1/operator/in-doubt/{doubt['transaction']}/inquire"
                await town.call(code, "POST", path, None, "operator")
            await asyncio.sleep(0.01)
    town.lost = lambda _to, _kind: True
    if forgetful:
        for code in town.keys:
            await town.restart(code)
    await town.settle()


async def _doubts(town: Town, code: str) -> Any:
    return (await town.call(code, "GET", "/v1/operator/in-doubt", None, "operator")).json()["items"]


@dataclass
class Tally:
    """How many alterations were tried, and in words those that were accepted."""

    tried: int
    accepted: list[str]


def _some(of: Iterator[Any], most: int | None, seed: int) -> list[Any]:
    """All of them, or *most*, drawn by *seed*."""
    everything = list(of)
    if most is None or most >= len(everything):
        return everything
    return random.Random(seed).sample(everything, most)  # noqa: S311 - repeatable


async def try_requests(scene: Scene, most: int | None = None, seed: int = 1) -> Tally:
    """Put alterations of each recorded kind of request to its bank, *most* of each; all of them without that."""
    await quiet(scene)
    tally, each = Tally(0, []), one_of_each(scene)
    for one in each:
        app = scene.town.houses[one.to].app
        for request in _some(requests(one, each), most, seed):
            reply = await ask(app, request.method, request.path, request.headers, request.body)
            tally.tried += 1
            if not 400 <= reply.status < 500:
                tally.accepted.append(f"{one.kind}, {request.what}: {reply.status}")
    for one in each:
        reply = await ask(scene.town.houses[one.to].app, "POST", one.path, one.headers, one.body)
        assert reply.status == 200 or tally.accepted, f"the {one.kind} that nobody had altered was refused: {reply}"
    return tally


async def try_answers(scene: Scene, most: int | None = None, seed: int = 1) -> Tally:
    """Put alterations of each recorded kind of answer to the client of the bank that had asked."""
    await quiet(scene)
    tally, each = Tally(0, []), one_of_each(scene)
    for one in each:
        asker = Asker(scene.town, one)
        forged = list(forged_answers(scene.town, one))
        for what, reply in [*_some(answers(one, each), most, seed), *forged]:
            tally.tried += 1
            if await asker.takes(reply):
                tally.accepted.append(f"answer to {one.kind}, {what}")
        assert await asker.takes(one.reply), f"the answer to a {one.kind} that nobody had altered was refused"
    return tally


class _SameAgain(random.Random):
    """Draws one number for ever: the nonce of a recorded request."""

    number = 0

    def getrandbits(self, _bits: int, /) -> int:
        return self.number


class Asker:
    """The real client of the bank that sent *one*, sending it again under the same nonce, to whoever answers."""

    def __init__(self, town: Town, one: Exchange) -> None:
        self._one = one
        chance = _SameAgain()
        chance.number = int(nonce_of(one), 16)
        self._reply = one.reply
        self._peers = HttpPeers(
            town.roster,
            Signer(f"{one.sender}:1", town.keys[one.sender], town.clock, chance),
            Verifier(town.roster.keys, town.clock),
            clock=town.clock,
            chance=chance,
            clock_now=lambda: 1,
            on_clock=lambda _bank, _stamp: None,
            transport=httpx.MockTransport(self._answer),
        )

    async def takes(self, reply: Reply) -> bool:
        """Whether *reply* counts as this request's answer."""
        self._reply = reply
        count = len(wire.decode_batch(self._one.kind, self._one.body).messages)
        try:
            await self._peers._send(self._peers._peers[self._one.to], self._one.kind, self._one.body, count, 2.0)
        except Breakage:
            return False
        return True

    async def _answer(self, _request: httpx.Request) -> httpx.Response:
        return httpx.Response(self._reply.status, headers=self._reply.headers, content=self._reply.body)


async def try_all(most: int | None = None, seed: int = 1) -> tuple[Tally, Tally]:
    """Both, in a town of its own, and nothing has moved by it."""
    async with settled() as scene:
        asked = await try_requests(scene, most, seed)
        before = scene.town.money()
        answered = await try_answers(scene, most, seed)
        await scene.town.settle()
        assert scene.town.money() == before, "something has moved"
    return asked, answered
