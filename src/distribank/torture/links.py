"""The network between the banks, as proxies that may lose, delay, reorder and repeat what passes.

Each bank has one proxy, at the address that the banks' network file gives for it, so that every signature is over the
address that it was always over; the bank itself listens elsewhere. What arrives is read as whole HTTP requests, and who
sent one is told by the key that signed it (``keyid`` in ``Signature-Input``): so each ordered pair of banks is a
direction of its own, which may be cut while the other one works. A request from A to B travels in the direction (A, B),
its answer in (B, A). No root, no kernel and nothing of a bank's is touched.

It is a network of messages, not of packets: what is lost is a whole request or a whole answer, as when a connection
hangs or breaks; ``packets`` loses those. What is late arrives on a connection of its own, whatever its sender has done
since, and so overtakes and is overtaken. Clients do not pass here.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

MAX_HEAD: Final = 1 << 16
MAX_BODY: Final = 1 << 25
LATE_SECONDS: Final = (2.5, 6.0)
"""How late a late request is: its sender has given it up after two seconds."""
REPEAT_SECONDS: Final = (0.0, 3.0)
"""How long behind a request its repetition arrives."""
_SENDER: Final = re.compile(rb'keyid="([0-9A-Z]{8}):')
_LENGTH: Final = re.compile(rb"^content-length: *([0-9]+) *\r$", re.IGNORECASE | re.MULTILINE)
_STATUS: Final = re.compile(rb"HTTP/1\.1 ([0-9]{3})")

Direction = tuple[str, str]
"""From whom to whom, by code."""
Address = tuple[str, int]
"""A host and a port."""


@dataclass(frozen=True, slots=True)
class Weather:
    """What befalls whatever travels in one direction. *delay* is seconds at most, the others are probabilities."""

    lost: float = 0.0
    """It is lost, and nothing says so: whoever waits, waits until their own time-out."""
    broken: float = 0.0
    """The connection breaks, before a request has arrived or behind it."""
    delay: float = 0.0
    late: float = 0.0
    """A request arrives after its sender has given it up."""
    repeated: float = 0.0
    """A request arrives a second time, on a connection of its own."""


SILENT: Final = Weather(lost=1.0)
BROKEN: Final = Weather(broken=1.0)


class Links:
    """All directions between the banks. An async context manager: the proxies listen inside it."""

    def __init__(self, places: Mapping[str, tuple[Address, Address]], chance: random.Random) -> None:
        """*places*: by bank, where its proxy listens, and where the bank itself does."""
        self.met: Counter[str] = Counter()
        """What befell how many messages, and how repetitions were answered."""
        self._places = places
        self._chance = chance
        self._weather: dict[Direction, list[Weather]] = {}
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        for bank, (proxy, _own) in self._places.items():
            self._servers.append(await asyncio.start_server(self._accept(bank), *proxy, limit=MAX_HEAD))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        cancelled = isinstance(error, asyncio.CancelledError)
        await self._group.__aexit__(*((kind, error, trace) if cancelled else (None, None, None)))

    def worsen(self, directions: Iterable[Direction], weather: Weather) -> None:
        """From now on *weather* is in *directions*, with whatever is there already."""
        for direction in directions:
            self._weather.setdefault(direction, []).append(weather)

    def mend(self, directions: Iterable[Direction], weather: Weather) -> None:
        """Take back what ``worsen`` did."""
        for direction in directions:
            self._weather[direction].remove(weather)

    # What passes --------------------------------------------------------------------------------------------------

    def _accept(self, receiver: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._spawn(self._serve(receiver, reader, writer))

        return connected

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, receiver: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection's requests, one behind the other, as long as nothing breaks."""
        upstream = _Upstream(self._places[receiver][1])
        try:
            while (request := await _read(reader)) is not None:
                answer = await self._carry(receiver, request, upstream, reader)
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
        except OSError:
            self.met["sender or receiver gone"] += 1
        finally:
            upstream.close()
            writer.close()

    async def _carry(
        self, receiver: str, request: bytes, upstream: _Upstream, reader: asyncio.StreamReader
    ) -> bytes | None:
        """The answer to *request*; ``None`` if the connection is to break."""
        found = _SENDER.search(request)
        sender = found[1].decode() if found else ""
        there, back = (sender, receiver), (receiver, sender)
        self.met["requests"] += 1
        if self._happens(there, "late"):
            self._spawn(self._deliver_again(there, request, LATE_SECONDS, "late, answered"))
            await _never(reader)
            return None
        if not await self._pass(there, reader):
            return None
        if self._happens(there, "repeated"):
            self._spawn(self._deliver_again(there, request, REPEAT_SECONDS, "repeated, answered"))
        answer = await upstream.exchange(request)
        if answer is None:
            self.met["not answered"] += 1
            return None
        return answer if await self._pass(back, reader) else None

    async def _pass(self, direction: Direction, reader: asyncio.StreamReader) -> bool:
        """Whether a message gets through in *direction*, after its delay; what is lost keeps its connection hanging."""
        delay = max((weather.delay for weather in self._in(direction)), default=0.0) * self._chance.random()
        if delay:
            self.met["delayed"] += 1
            await asyncio.sleep(delay)
        if self._happens(direction, "broken"):
            return False
        if self._happens(direction, "lost"):
            await _never(reader)
            return False
        return True

    async def _deliver_again(self, direction: Direction, request: bytes, wait: tuple[float, float], what: str) -> None:
        """Deliver *request* once more, or late, on a connection of its own; the answer goes nowhere."""
        await asyncio.sleep(self._chance.uniform(*wait))
        if any(weather.lost == 1 or weather.broken == 1 for weather in self._in(direction)):
            return
        upstream = _Upstream(self._places[direction[1]][1])
        try:
            answer = await upstream.exchange(request)
        except OSError:
            answer = None
        finally:
            upstream.close()
        status = _STATUS.match(answer or b"")
        self.met[f"{what} {status[1].decode() if status else 'nothing'}"] += 1

    def _in(self, direction: Direction) -> list[Weather]:
        return self._weather.get(direction, [])

    def _happens(self, direction: Direction, what: str) -> bool:
        """Whether *what* befalls the next message in *direction*; counted."""
        if any(self._chance.random() < getattr(weather, what) for weather in self._in(direction)):
            self.met[what] += 1
            return True
        return False


class _Upstream:
    """One connection to a bank, made when it is needed."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def exchange(self, request: bytes) -> bytes | None:
        """The bank's answer; ``None`` if it closes instead. ``OSError`` if it cannot be reached."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address, limit=MAX_HEAD)
        reader, writer = self._streams
        writer.write(request)
        await writer.drain()
        return await _read(reader)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


async def _read(reader: asyncio.StreamReader) -> bytes | None:
    """One whole request or answer, as it came; ``None`` once there is none, only a part, or one beyond all bounds."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        found = _LENGTH.search(head)
        length = int(found[1]) if found else 0
        return head + await reader.readexactly(length) if length <= MAX_BODY else None
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return None


async def _never(reader: asyncio.StreamReader) -> None:
    """Say nothing until the other side closes."""
    with contextlib.suppress(OSError):
        await reader.read(1)
