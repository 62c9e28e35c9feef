"""What two banks' sockets meet while packets from A to B are dropped, and once they are not: printed as JSON.

Run as ``python -m tests.cut_packets``, because it leaves its machine's network for good. ``requests``: what has arrived
at B's proxy from A, and at A's from B. ``answers``: what has arrived back at A, and at B. ``late``: what arrives at B's
proxy at last from a connection that A has closed meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import ExitStack

from distribank.torture.packets import HERE, Wires, enter

PROXIES = {"A": 9001, "B": 9002}
QUIET_SECONDS = 0.7
"""More than it takes to send a lost packet again, once or twice."""
MENDED_SECONDS = 10.0


def connect(wires: Wires, own: ExitStack, bank: str, peer: str, listening: socket.socket) -> list[socket.socket]:
    """A connection from *bank* to *peer*'s proxy: its end, and the proxy's."""
    with wires.room(bank):
        asking = own.enter_context(socket.create_connection((HERE, PROXIES[peer]), MENDED_SECONDS))
    answering, _address = listening.accept()
    own.enter_context(answering)
    for end in (asking, answering):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return [asking, answering]


def heard(ends: list[socket.socket], within: float) -> list[str]:
    """What each of *ends* has got, once all were given that long."""
    got = []
    for end in ends:
        end.settimeout(within)
        try:
            got.append(end.recv(100).decode())
        except TimeoutError:
            got.append("")
    return got


def look(wires: Wires) -> dict[str, object]:
    with ExitStack() as own:
        listening = {bank: own.enter_context(socket.create_server((HERE, port))) for bank, port in PROXIES.items()}
        a, a_at_b = connect(wires, own, "A", "B", listening["B"])
        b, b_at_a = connect(wires, own, "B", "A", listening["A"])
        closed, closed_at_b = connect(wires, own, "A", "B", listening["B"])

        asyncio.run(wires.cut([("A", "B")]))
        a.sendall(b"from A")
        b.sendall(b"from B")
        closed.sendall(b"given up")
        closed.close()
        cut = {"requests": heard([a_at_b, b_at_a], QUIET_SECONDS)}
        b_at_a.sendall(b"A's answer")
        a_at_b.sendall(b"B's answer")
        cut["answers"] = heard([a, b], QUIET_SECONDS)
        try:
            with wires.room("A"):
                socket.create_connection((HERE, PROXIES["B"]), QUIET_SECONDS).close()
            connected = True
        except TimeoutError:
            connected = False
        dropped = wires.dropped()

        asyncio.run(wires.mend([("A", "B")]))
        mended = {
            "requests": heard([a_at_b], MENDED_SECONDS),
            "answers": heard([b], MENDED_SECONDS),
            "late": heard([closed_at_b], MENDED_SECONDS),
        }
        connect(wires, own, "A", "B", listening["B"])
        return {"cut": cut, "connected": connected, "dropped": dropped, "mended": mended}


if __name__ == "__main__":
    missing = enter()
    if missing is not None:
        print(json.dumps({"missing": missing}))
    else:
        with Wires(PROXIES) as wires:
            print(json.dumps(look(wires)))
