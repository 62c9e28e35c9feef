"""Somebody who guesses passwords on many connections at once, from a process of their own: ``port clients seconds``.

What a guess costs here is as little as can be, so that the bank's own time is what runs out. Prints a JSON object: how
many guesses were answered with each status.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections import Counter

HEAD = "POST /v1/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: "
LENGTH = re.compile(rb"content-length: (\d+)\r\n", re.IGNORECASE)


async def guess_on(port: int, client: int, ends: float, answered: Counter[int]) -> None:
    """One connection's guesses, one behind the other."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    number = 0
    while time.monotonic() < ends:
        number += 1
        form = f"username=someone+{client}+{number}&password=a+guess"
        writer.write(f"{HEAD}{len(form)}\r\n\r\n{form}".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        assert length is not None, head
        await reader.readexactly(int(length[1]))
        answered[int(head[9:12])] += 1
    writer.close()


async def guess_all(port: int, clients: int, seconds: float) -> dict[int, int]:
    """How many guesses were answered with each status."""
    answered: Counter[int] = Counter()
    ends = time.monotonic() + seconds
    await asyncio.gather(*(guess_on(port, client, ends, answered) for client in range(clients)))
    return dict(answered)


if __name__ == "__main__":
    port, clients, seconds = sys.argv[1:]
    print(json.dumps(asyncio.run(guess_all(int(port), int(clients), float(seconds)))))
